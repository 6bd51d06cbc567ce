"""What an exit status means, in words."""

import signal


def signal_name(number: int) -> str:
    """Name a signal as a person would look it up: ``SIGKILL``; real-time ones as ``signal 40``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def describe_status(status: int | None) -> str:
    """Say how a process ended.

    Args:
        status: As ``subprocess`` counts: 0 or more is the exit status, below 0 the signal's number
            negated, None is an end that only the process's parent could have explained.
    """
    if status is None:
        return "ended with a status that only its parent knows"
    if status < 0:
        return f"was killed by {signal_name(-status)}"
    return f"exited with status {status}"
