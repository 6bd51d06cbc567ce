"""How a process ended, and what it wrote last, for people."""

import signal
from typing import Final

# As many lines as fit under a sentence on one terminal screen; `output_tail` of an error has the
# rest.
_TAIL_LINES: Final = 20

# What a daemon said, in a message: as much as tells one line from another.
_LONGEST_QUOTE_CHARS: Final = 200


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


def quote_output(output_tail: str) -> str:
    """Indent the last lines of a daemon's output under a heading."""
    lines = output_tail.rstrip().splitlines()[-_TAIL_LINES:]
    if not lines:
        return "\nIt wrote nothing."
    return "\nIts last output:\n" + "\n".join(f"  | {line}" for line in lines)


def first_sentence(message: str) -> str:
    """Give the first line of a message, and with it what it says in a list below."""
    first, *rest = message.split("\n")
    items = [line.strip() for line in rest if line.startswith("  ")]
    return f"{first} {'; '.join(items)}" if first.endswith(":") else first


def quote(text: str) -> str:
    """Write what a daemon said for people: control characters to be seen, the end of much cut off.

    At most 200 characters of it are shown.
    """
    shown = text[:_LONGEST_QUOTE_CHARS]
    return f"'{visible(shown)}'" + ("..." if len(text) > len(shown) else "")


def visible(text: str) -> str:
    """Write what a daemon said so that nothing of it moves a terminal's cursor or ends a line."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
