"""The tests of trio_lifecycle."""
