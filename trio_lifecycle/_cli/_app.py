"""The app: what a shell can say to it, and what it answers to what it does not understand."""

import io
import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
from rich.console import Console

from trio_lifecycle._cli import _commands
from trio_lifecycle._cli._codes import WRONG_USE
from trio_lifecycle._cli._plan import ENSURE_USAGE, USAGE
from trio_lifecycle._cli._speech import STDERR, STDIN, STDOUT, answer, say
from trio_lifecycle._cli._stop import USAGE as STOP_USAGE
from trio_lifecycle._cli._timeline import USAGE as TIMELINE_USAGE
from trio_lifecycle._version import __version__

# How much of two words must be the same for one to be a slip of the other: "heath" and "health"
# have 0.91, "cmd" and "cwd" 0.67.
_ALIKE: Final = 0.75

# Of those that take a program with arguments of its own.
_USAGES: Final = {"run": USAGE, "ensure": ENSURE_USAGE}

app: Final = App(
    name="trio-lifecycle",
    help="Start a daemon, know when it is ready, and be sure that it is gone.",
    version=f"trio-lifecycle {__version__}",
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=False),
)
app.command(_commands.run, usage=f"Usage: {USAGE}")
app.command(_commands.ensure, usage=f"Usage: {ENSURE_USAGE}")
app.command(_commands.status, usage="Usage: trio-lifecycle status [OPTIONS] [NAME...]")
app.command(_commands.logs, usage="Usage: trio-lifecycle logs [OPTIONS] NAME")
app.command(_commands.wait, usage="Usage: trio-lifecycle wait [OPTIONS] NAME")
app.command(_commands.stop, usage=f"Usage: {STOP_USAGE}")
app.command(_commands.reap, usage="Usage: trio-lifecycle reap [OPTIONS]")
app.command(_commands.timeline, usage=f"Usage: {TIMELINE_USAGE}")
app.command(_commands.demo, usage="Usage: trio-lifecycle demo [OPTIONS]")


def run_app(words: Sequence[str]) -> int:
    """Do what these words ask for.

    Returns:
        The exit status.
    """
    open_missing_streams()
    # What --help and --version say; written by us, so that what can't be written is told.
    said = io.StringIO()
    try:
        status = app(
            list(words),
            console=Console(file=said, force_terminal=os.isatty(STDOUT)),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        command = _command_of(words)
        text = _sentence_of(error, words, command)
        say(f"{text}\nMore with: {' '.join(['trio-lifecycle', *command])} --help")
        return WRONG_USE
    return status if isinstance(status, int) else answer(said.getvalue())


def _command_of(words: Sequence[str]) -> list[str]:
    return [word for word in words[:1] if word in COMMANDS]


def _sentence_of(error: CycloptsError, words: Sequence[str], command: list[str]) -> str:
    if not isinstance(error, UnknownOptionError):
        return str(error)
    # What stands behind "=" may be secret.
    option = (error.token.keyword or error.token.value).partition("=")[0]
    sentence = f"Unknown option: {option}."
    ours = [name.lstrip("-") for argument in error.argument_collection for name in argument.names]
    if close := get_close_matches(option.lstrip("-"), ours, n=1, cutoff=_ALIKE):
        sentence += f" Did you mean --{close[0]}?"
    usage = _USAGES.get(command[0]) if command else None
    if usage is not None and "--" not in words:
        sentence += f"\nWhat belongs to the program goes behind --: {usage}"
    return sentence


def open_missing_streams() -> None:
    """Open /dev/null for standard streams that are closed; our next file would become one.

    Standard output only to be read, so that what is written there fails, and is not lost unseen.
    """
    for fd, mode in ((STDIN, os.O_RDWR), (STDOUT, os.O_RDONLY), (STDERR, os.O_RDWR)):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free: open(2).
            os.set_inheritable(os.open(os.devnull, mode), True)


COMMANDS: Final = ("run", "ensure", "status", "logs", "wait", "stop", "reap", "timeline", "demo")
