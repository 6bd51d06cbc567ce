"""Two records of one daemon."""

from trio_lifecycle._errors import ConfigError
from trio_lifecycle.abc import DaemonRecord


def check_same_name(old: DaemonRecord, new: DaemonRecord) -> None:
    """Refuse to replace the record of one daemon by that of another.

    Raises:
        ConfigError: They have different names.
    """
    if old.name != new.name:
        raise ConfigError("new", f"is of {new.name!r}, and can't stand in the place of {old.name}")
