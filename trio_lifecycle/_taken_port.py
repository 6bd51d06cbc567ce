"""What programs say when the port that they were given is another's."""

import re
from typing import Final

from trio_lifecycle._errors import DiedBeforeReadyError, ForeignDaemonError, LifecycleError

# bind(2) refused with EADDRINUSE (98 on Linux, 48 on macOS), as libraries and people write it.
_SAYINGS: Final = re.compile(
    r"address (is )?already in use|EADDRINUSE|port .{0,40}already in use|\[Errno (98|48)\]",
    re.IGNORECASE,
)


def says_port_is_taken(output: str) -> bool:
    """Say whether this is the output of a program that could not have its port."""
    return _SAYINGS.search(output) is not None


def tells_of_taken_port(error: LifecycleError) -> bool:
    """Say whether a start has failed for want of its port: another answers there, or has it."""
    if isinstance(error, DiedBeforeReadyError):
        return says_port_is_taken(error.output_tail)
    return isinstance(error, ForeignDaemonError)
