"""Observers: what to do with the events of a daemon."""
