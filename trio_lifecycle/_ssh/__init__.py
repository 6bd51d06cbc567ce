"""Other machines, reached over SSH: connections, and what runs there for us."""
