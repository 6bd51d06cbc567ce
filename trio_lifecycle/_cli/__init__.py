"""The command line: a daemon for the length of a shell command, or until Ctrl-C."""
