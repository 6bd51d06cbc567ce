"""Daemon nurseries: many daemons with one owner, each there once, the first up the last down."""

from trio_lifecycle._nursery._daemons import DaemonNursery, open_daemon_nursery

__all__ = ["DaemonNursery", "open_daemon_nursery"]
