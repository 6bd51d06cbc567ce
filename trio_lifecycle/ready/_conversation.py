"""What a daemon says by sd_notify(3): its messages, and what they make of it. Nothing is sent here.

What a message means is as in sd_notify(3) and systemd.service(5).
"""

import errno
import os
from math import inf
from typing import Any, Final

from attrs import frozen

from trio_lifecycle._secrets import Secrets
from trio_lifecycle._status import quote
from trio_lifecycle.abc import Progress

# As much as systemd takes: PIPE_BUF, pipe(7).
LONGEST_MESSAGE_BYTES: Final = 4096

# The highest number that the kernel uses for an error (MAX_ERRNO).
_HIGHEST_ERRNO: Final = 4095

# What a number of 64 bits can hold; all of its bits set mean "infinity".
_INFINITY: Final = 2**64 - 1


@frozen
class Message:
    """One message: lines such as ``READY=1``. What nobody knows is ignored.

    Attributes:
        lines: The lines.
    """

    lines: tuple[str, ...]

    @classmethod
    def read(cls, datagram: bytes) -> "Message":
        """Read a message.

        Raises:
            ValueError: It is none; says why, as a part of a sentence.
        """
        # systemd takes one at the end, and none within.
        text = datagram.removesuffix(b"\0")
        if b"\0" in text:
            raise ValueError("it holds a NUL")
        return cls(tuple(text.decode(errors="backslashreplace").split("\n")))

    def says(self, line: str) -> bool:
        """Say whether this line is in it."""
        return line in self.lines

    def value(self, name: str) -> str | None:
        """Give what a variable is set to, for the first time; None where it is not."""
        values = (line.partition("=")[2] for line in self.lines if line.startswith(f"{name}="))
        return next(values, None)

    def number(self, name: str) -> int | None:
        """Give it as a number; None also where it is none."""
        text = self.value(name) or ""
        if len(text) > len(str(_INFINITY)) or not (text.isascii() and text.isdecimal()):
            return None
        return int(text)


class Conversation:
    """What a daemon has said so far.

    Args:
        watchdog_s: Seconds within which it is to show again that it is alive; None where it need
            not.
        secrets: What is not to be shown.

    Attributes:
        is_ready: Whether it has said that it is.
        main_pid: Which process it says is its main one.
    """

    def __init__(self, watchdog_s: float | None, secrets: Secrets | None = None) -> None:
        self.is_ready = False
        self.main_pid: int | None = None
        self._watchdog_s = watchdog_s
        self._secrets = secrets or Secrets()
        self._alive_at = 0.0
        self._trouble = ""
        self._is_reloading = False
        self._is_stopping = False
        self._status = ""
        self._errno = 0
        self._has_spoken = False

    @property
    def is_up(self) -> bool:
        """Whether it has said that it is ready, and nothing to the contrary since."""
        return self.is_ready and not self._is_stopping and not self._trouble

    @property
    def facts(self) -> dict[str, Any]:
        """What it said of itself, for a report."""
        said = {"status": self._status or None, "mainpid": self.main_pid}
        return {key: value for key, value in said.items() if value is not None}

    @property
    def summary(self) -> str:
        """What it said last, as a part of a sentence."""
        if not self._has_spoken:
            return "it has sent nothing by sd_notify"
        parts = [] if self.is_ready else ["it has not sent READY=1"]
        parts += ["it says that it is stopping"] if self._is_stopping else []
        parts += [f"its watchdog: {self._trouble}"] if self._trouble else []
        status = quote(self._secrets.blot_out(self._status))
        parts += [f"its last status was {status}"] if self._status else []
        parts += [f"it reported {_name(self._errno)}"] if self._errno else []
        return "; ".join(parts) or "it has sent READY=1"

    # --- what it says ---

    def take(self, message: Message, now: float) -> list[Progress]:
        """Take a message, and give what there is to be told of it."""
        self._has_spoken = True
        return [
            *self._take_state(message, now),
            *self._take_words(message),
            *self._take_watchdog(message, now),
        ]

    def _take_state(self, message: Message, now: float) -> list[Progress]:
        # In one message the first of these wins.
        if message.says("STOPPING=1"):
            self._is_stopping = True
            return [Progress("stopping")]
        if message.says("READY=1"):
            return self._take_readiness(now)
        if message.says("RELOADING=1"):
            self._is_reloading = True
            return [Progress("reloading")]
        return []

    def _take_readiness(self, now: float) -> list[Progress]:
        has_reloaded = self.is_ready and self._is_reloading
        if not self.is_up:
            self._alive_at, self._trouble = now, ""
        self.is_ready, self._is_reloading, self._is_stopping = True, False, False
        return [Progress("ready", "it has reloaded")] if has_reloaded else []

    def _take_words(self, message: Message) -> list[Progress]:
        told = []
        status = message.value("STATUS")
        if status is not None:
            self._status = status
            told.append(Progress("status", status))
        number = message.number("ERRNO")
        if number is not None and number <= _HIGHEST_ERRNO:
            self._errno = number
            told += [Progress("errno", _name(number))] if number else []
        micros = message.number("EXTEND_TIMEOUT_USEC")
        if micros:
            told.append(Progress("extend", f"{micros / 1e6:g} s more", micros / 1e6))
        return told

    # --- the watchdog: sd_watchdog_enabled(3) ---

    def _take_watchdog(self, message: Message, now: float) -> list[Progress]:
        micros = message.number("WATCHDOG_USEC")
        if micros is not None and self._watchdog_s is not None:
            self._watchdog_s = inf if micros in (0, _INFINITY) else micros / 1e6
            self._alive_at = now
        if message.says("WATCHDOG=trigger"):
            return self._fail("it says that it has failed")
        if not message.says("WATCHDOG=1"):
            return []
        self._alive_at = now
        if self._trouble:
            self._trouble = ""
            return [Progress("watchdog", "alive again")]
        # Once it is ready this goes without saying.
        return [] if self.is_ready else [Progress("watchdog")]

    def _fail(self, trouble: str) -> list[Progress]:
        self._trouble = trouble
        return [Progress("watchdog", trouble)]

    @property
    def due(self) -> float:
        """When it will have been silent for too long; infinity where it may be silent."""
        if self._watchdog_s is None or not self.is_up:
            return inf
        return self._alive_at + self._watchdog_s

    def mind_no_watchdog(self) -> None:
        """Let it be silent from now on, for it can be heard no longer."""
        self._watchdog_s = None

    def look(self, now: float) -> list[Progress]:
        """Look whether it has been silent for too long."""
        return self._fail(f"no sign of life for {self._watchdog_s:g} s") if now >= self.due else []


def _name(number: int) -> str:
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"
