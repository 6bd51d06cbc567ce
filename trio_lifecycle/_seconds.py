"""Time limits, as users write them."""

import sys

from trio_lifecycle._errors import ConfigError


def check_seconds(name: str, value: object) -> float:
    """Return a time limit as a float.

    Raises:
        ConfigError: It is no positive, finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(name, f"must be a number of seconds, not {value!r}")
    # A comparison, not math.isfinite: that can't take an integer beyond what a float can hold.
    if not 0 < value <= sys.float_info.max:
        raise ConfigError(name, f"must be more than 0 seconds and finite, not {value!r}")
    return float(value)
