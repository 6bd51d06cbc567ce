"""The registry of this user, shared by all who name none."""

import os
from pathlib import Path
from weakref import WeakValueDictionary

from trio_lifecycle._state_dir import registry_path
from trio_lifecycle.registry._sqlite import SQLiteRegistry

# One connection for each file, closed with the last lifecycle that uses it.
_open: WeakValueDictionary[Path, SQLiteRegistry] = WeakValueDictionary()


def default_registry() -> SQLiteRegistry:
    """Give the registry in this user's state directory, as it is set at this moment."""
    path = registry_path(os.environ)
    registry = _open.get(path)
    if registry is None:
        registry = _open[path] = SQLiteRegistry(path)
    return registry
