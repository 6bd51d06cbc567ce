"""Spawners: the places where a daemon can run."""
