"""Asking another machine what a check wants to know: one command for each look."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from attrs import frozen

from trio_lifecycle._errors import BinaryNotFoundError, ConfigError, LifecycleError, SpawnError
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.abc import Command, Preflight, Prober
from trio_lifecycle.preflight._failure import CheckFailed

_SHELL: Final = "/bin/sh"

# The last line of a whole answer.
_END: Final = "end"


@frozen
class Told:
    """What the script has answered.

    Attributes:
        lines: The lines, as pairs of a word and what follows it.
        host: The machine's name; empty where it was not told.
    """

    lines: tuple[tuple[str, str], ...]
    host: str = ""

    def every(self, word: str) -> list[str]:
        """Give what follows this word, of each line that begins with it."""
        return [rest for first, rest in self.lines if first == word]

    def get(self, word: str) -> str | None:
        """Give what follows this word where it stands first; None where it does not stand."""
        return next(iter(self.every(word)), None)


def parse(output: bytes) -> Told | None:
    """Read the end of what the script wrote; None where it was not run to its end."""
    # Names of files are bytes; what is no text comes out of messages as it went in.
    lines = tuple(_words_of(os.fsdecode(output)))
    if (_END, "") not in lines[-1:]:
        return None
    told = Told(lines)
    return Told(lines, told.get("host") or "")


def _words_of(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        if line.startswith("="):
            word, _, rest = line[1:].partition(" ")
            yield word, rest


@frozen(repr=False)
class Elsewhere:
    """A check as it is made on the machine of a prober.

    Attributes:
        check: The check, as it was written.
        prober: Who asks.
        look: The function of ``elsewhere.sh``, and its arguments.
        about: What is asked, as the beginning of a sentence.
        judge: Raises a CheckFailed where all is not well, or can't be told.
        wait_for_recovery: As the check has it; 0 for one that waits for nothing.
        until: Gives what to ask after the stop, by what there is before the spawn. Defaults to
            None: the check itself.
    """

    check: object
    prober: Prober
    look: tuple[str, ...]
    about: str
    judge: Callable[[Told], None]
    wait_for_recovery: float = 0.0
    until: Callable[[Told], Preflight] | None = None

    def __repr__(self) -> str:
        return repr(self.check)

    async def __call__(self) -> None:
        """Ask, and judge.

        Raises:
            CheckFailed: It is not well, or could not be asked.
        """
        told = await self._ask()
        with said_of(told.host):
            self.judge(told)

    async def recovery(self) -> Preflight:
        """Give what to ask after the stop."""
        if self.until is None:
            return self
        told = await self._ask()
        with said_of(told.host):
            return self.until(told)

    async def _ask(self) -> Told:
        args = ("-c", _script(), "sh", *self.look)
        with asked_by(self.prober, self.about):
            ran = await self.prober.run(Command(name="preflight", program=_SHELL, args=args))
        told = None if ran.status is None else parse(ran.output)
        if told is None:
            problem = ran.problem or f"{_SHELL} ended with {ran.status} and without an answer"
            raise _unasked(self.about, problem)
        return told


@contextmanager
def said_of(host: str) -> Iterator[None]:
    """Put the name of the machine before what a check says; empty where it is not known."""
    try:
        yield
    except CheckFailed as failure:
        where = f"on {host}" if host else "where the daemon will run"
        raise CheckFailed(f"{where}: {failure}") from None


@contextmanager
def asked_by(prober: Prober, about: str) -> Iterator[None]:
    """Say of what could not be asked that it was not, and why: it is neither well nor not."""
    try:
        yield
    except BinaryNotFoundError:
        raise  # An answer.
    except ConfigError:
        raise _unasked(about, f"{type(prober).__name__} can't ask for that") from None
    except SpawnError as error:
        raise _unasked(about, error.problem) from None
    except (LifecycleError, LostError, OSError) as error:
        raise _unasked(about, str(error).removesuffix(".")) from None


def _unasked(about: str, problem: str) -> CheckFailed:
    return CheckFailed(f"{about} could not be asked where the daemon will run: {problem}")


@cache
def _script() -> str:
    return Path(__file__).with_name("elsewhere.sh").read_text(encoding="ascii")
