"""The app: which words a shell can say, and what the help says of them."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import trio
from cyclopts import App, CycloptsError, Group, Parameter

from trio_lifecycle._cli._codes import WRONG_USE
from trio_lifecycle._cli._plan import USAGE, Plan
from trio_lifecycle._cli._run import Run
from trio_lifecycle._version import __version__

_READY: Final = Group.create_ordered("When it is ready: one of the first three")
_DAEMON: Final = Group.create_ordered("The daemon")
_USE: Final = Group.create_ordered("What it is for, and what is shown")

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
        print(f"trio-lifecycle: {error}\nMore with: trio-lifecycle run --help", file=sys.stderr)
        return WRONG_USE
    return status if isinstance(status, int) else 0


def open_missing_streams() -> None:
    """Open /dev/null for standard streams that are closed; our next file would become one."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _option(group: Group, text: str, *short: str) -> Parameter:
    return Parameter(group=group, help=text, alias=short or None)


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
        str | None, _option(_READY, "When a GET of this URL succeeds: http://127.0.0.1:{port}/")
    ] = None,
    callback: Annotated[
        bool, _option(_READY, "When it posts to the URL in TRIO_LIFECYCLE_CALLBACK_URL.")
    ] = False,
    manual: Annotated[
        bool, _option(_READY, "As soon as it was started; so it is without any of these.")
    ] = False,
    timeout: Annotated[
        float | None,
        _option(_READY, "Seconds in which it must be ready: 30, or 300 with --callback."),
    ] = None,
    name: Annotated[
        str | None, _option(_DAEMON, "What it is called; the last part of PROGRAM.")
    ] = None,
    env: Annotated[
        list[str] | None,
        _option(_DAEMON, "KEY=VALUE: a variable added to its environment. May be repeated."),
    ] = None,
    cwd: Annotated[str | None, _option(_DAEMON, "The directory in which it runs.")] = None,
    stop_timeout: Annotated[
        float | None, _option(_DAEMON, "Seconds from SIGTERM to SIGKILL when it is stopped: 10.")
    ] = None,
    then: Annotated[
        str | None,
        _option(
            _USE,
            "A command for /bin/sh, run once it is ready. It finds TRIO_LIFECYCLE_URL, _PORT and "
            "_PID. After it the daemon is stopped, and its exit status is ours.",
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
    """Start a program, wait until it is ready, and stop it with all that it started.

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
        then=then,
        json=json,
        quiet=quiet,
        verbose=verbose,
    )
    return trio.run(Run(plan))
