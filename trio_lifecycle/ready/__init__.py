"""Ready modes: the ways in which a daemon says, or shows, that it is up."""
