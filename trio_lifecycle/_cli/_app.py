"""The app: which words a shell can say, and what the help says of them."""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Final

import trio
from cyclopts import App, CycloptsError, Group, Parameter, UnknownOptionError

from trio_lifecycle._cli._codes import WRONG_USE
from trio_lifecycle._cli._plan import USAGE, Plan
from trio_lifecycle._cli._reap import Reap
from trio_lifecycle._cli._run import Run
from trio_lifecycle._version import __version__

_READY: Final = Group.create_ordered("When it is ready: one of the first three")
_DAEMON: Final = Group.create_ordered("The daemon")
_USE: Final = Group.create_ordered("What it is for, and what is shown")
_SEARCH: Final = Group.create_ordered("What is killed, and what is shown")

# How much of two words must be the same for one to be a slip of the other: "heath" and "health"
# have 0.91, "cmd" and "cwd" 0.67.
_ALIKE: Final = 0.75

app: Final = App(
    name="trio-lifecycle",
    help="Start a daemon, know when it is ready, and be sure that it is gone.",
    version=f"trio-lifecycle {__version__}",
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=False),
)


def run_app(words: Sequence[str]) -> int:
    """Do what these words ask for.

    Returns:
        The exit status.
    """
    open_missing_streams()
    try:
        status = app(
            list(words), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        text = _sentence_of(error, words)
        command = "reap" if words[:1] == ["reap"] else "run"
        print(
            f"trio-lifecycle: {text}\nMore with: trio-lifecycle {command} --help", file=sys.stderr
        )
        return WRONG_USE
    return status if isinstance(status, int) else 0


def _sentence_of(error: CycloptsError, words: Sequence[str]) -> str:
    if not isinstance(error, UnknownOptionError):
        return str(error)
    # What stands behind "=" may be secret.
    option = (error.token.keyword or error.token.value).partition("=")[0]
    sentence = f"Unknown option: {option}."
    ours = [name.lstrip("-") for argument in error.argument_collection for name in argument.names]
    if close := get_close_matches(option.lstrip("-"), ours, n=1, cutoff=_ALIKE):
        sentence += f" Did you mean --{close[0]}?"
    if "run" in words and "--" not in words:
        sentence += f"\nWhat belongs to the program goes behind --: {USAGE}"
    return sentence


def open_missing_streams() -> None:
    """Open /dev/null for standard streams that are closed; our next file would become one."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _option(group: Group, text: str, *short: str, value: str | None = None) -> Parameter:
    return Parameter(
        group=group, help=text, alias=short or None, metavar=value, consume_multiple=False
    )


@app.command(usage=f"Usage: {USAGE}")
def run(
    *program: Annotated[
        str,
        Parameter(
            help="The program and its arguments. In these, in --health and in --env {port} is a "
            "free port and {callback_url} the URL to call."
        ),
    ],
    health: Annotated[
        str | None,
        _option(_READY, "When a GET of this URL succeeds: http://127.0.0.1:{port}/", value="URL"),
    ] = None,
    callback: Annotated[
        bool, _option(_READY, "When it posts to the URL in TRIO_LIFECYCLE_CALLBACK_URL.")
    ] = False,
    manual: Annotated[
        bool, _option(_READY, "As soon as it was started; so it is without any of these.")
    ] = False,
    timeout: Annotated[
        str | None,
        _option(
            _READY, "Seconds in which it must be ready: 30, or 300 with --callback.", value="S"
        ),
    ] = None,
    name: Annotated[
        str | None, _option(_DAEMON, "What it is called; the last part of PROGRAM.", value="N")
    ] = None,
    env: Annotated[
        list[str] | None,
        _option(_DAEMON, "A variable added to its environment. May be repeated.", value="K=V"),
    ] = None,
    cwd: Annotated[
        str | None, _option(_DAEMON, "The directory in which it runs.", value="DIR")
    ] = None,
    stop_timeout: Annotated[
        str | None,
        _option(_DAEMON, "Seconds from SIGTERM to SIGKILL when it is stopped: 10.", value="S"),
    ] = None,
    user: Annotated[
        str | None, _option(_DAEMON, "Whom it runs as; only root may choose.", value="USER")
    ] = None,
    guarantee: Annotated[
        str | None,
        _option(
            _DAEMON,
            "What is promised for its end: guarded (nothing is left, also after kill -9), "
            "contained (in a control group, too) or scoped (no helper process). It is guarded.",
            value="LEVEL",
        ),
    ] = None,
    then: Annotated[
        str | None,
        _option(
            _USE,
            "A command for /bin/sh, run once it is ready. It finds TRIO_LIFECYCLE_URL, _PORT and "
            "_PID. When it has ended the daemon is stopped. The command's exit status is ours.",
            value="COMMAND",
        ),
    ] = None,
    json: Annotated[
        bool, _option(_USE, "Print events on standard output, one JSON object a line.")
    ] = False,
    quiet: Annotated[
        bool, _option(_USE, "Show errors only, none of the daemon's output.", "-q")
    ] = False,
    verbose: Annotated[bool, _option(_USE, "Show small steps, too.", "-v")] = False,
) -> int:
    """Start a program, wait until it is ready, and stop it with all that it has started.

    It runs until Ctrl-C, or until the command of --then has ended.
    What it prints goes to standard error, each line after its name.
    """
    plan = Plan(
        command=program,
        name=name,
        health=health,
        callback=callback,
        manual=manual,
        timeout=timeout,
        stop_timeout=stop_timeout,
        env=tuple(env or ()),
        cwd=cwd,
        user=user,
        guarantee=guarantee,
        then=then,
        json=json,
        quiet=quiet,
        verbose=verbose,
    )
    return trio.run(Run(plan))


@app.command(usage="Usage: trio-lifecycle reap [OPTIONS]")
def reap(
    *,
    instance: Annotated[
        list[str] | None,
        _option(
            _SEARCH,
            "Only what belongs to this instance: its id, or the beginning of it. May be repeated.",
            value="ID",
        ),
    ] = None,
    yes: Annotated[bool, _option(_SEARCH, "Kill without asking.", "-y")] = False,
    grace: Annotated[
        str | None, _option(_SEARCH, "Seconds from SIGTERM to SIGKILL: 10.", value="S")
    ] = None,
    json: Annotated[
        bool,
        _option(_SEARCH, "Print one JSON object for each process, a line each, and ask nothing."),
    ] = False,
) -> int:
    """Show what was left of daemons whose owner is dead, and kill it.

    On a terminal it asks first. Elsewhere it only shows what there is, unless --yes is given.
    A program that is still running keeps its daemons; so do daemons that were left running on
    purpose.
    """
    return Reap(instances=tuple(instance or ()), yes=yes, grace=grace, json=json)()
