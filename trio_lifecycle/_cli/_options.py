"""The options that several commands have: what they are called, and what the help says of them."""

from typing import Annotated, Final

from cyclopts import Group, Parameter

READY: Final = Group.create_ordered("When it is ready: all that is said of it")
DAEMON: Final = Group.create_ordered("The daemon")
MACHINE: Final = Group.create_ordered("On which machine: this one, without --host")
ALREADY: Final = Group.create_ordered("When it runs already, or is being started")
USE: Final = Group.create_ordered("What it is for")
SEARCH: Final = Group.create_ordered("What is killed")
STOP: Final = Group.create_ordered("What is stopped")
SHOWN: Final = Group.create_ordered("What is shown")
PLACE: Final = Group.create_ordered("Where daemons are remembered")


def option(
    group: Group,
    text: str,
    *short: str,
    value: str | None = None,
    name: str | None = None,
    several: bool = False,
) -> Parameter:
    """Describe an option.

    Args:
        group: What it is listed under.
        text: What the help says.
        *short: Other names for it.
        value: What it takes, in a word.
        name: What it is called, if not like its parameter.
        several: Whether it takes all words up to the next option.
    """
    return Parameter(
        name=name,
        group=group,
        help=text,
        alias=short or None,
        metavar=value,
        consume_multiple=several,
    )


# --- what is started ------------------------------------------------------------------------------

Program = Annotated[
    str,
    Parameter(
        help="The program and its arguments. In these, in --env and in what says when it is ready "
        "{port} is a free port and {callback_url} the URL to call."
    ),
]
Name = Annotated[
    str | None, option(DAEMON, "What it is called; the last part of PROGRAM.", value="N")
]
Env = Annotated[
    list[str] | None,
    option(DAEMON, "A variable added to its environment. May be repeated.", value="K=V"),
]
SecretEnv = Annotated[
    list[str] | None,
    option(
        DAEMON,
        "A variable of this environment, by its name, that the daemon gets and whose value is "
        "shown as *** wherever it would be shown. May be repeated.",
        value="NAME",
    ),
]
Cwd = Annotated[str | None, option(DAEMON, "The directory in which it runs.", value="DIR")]
Listen = Annotated[
    list[str] | None,
    option(
        DAEMON,
        "A socket that is opened before the program is started, and passed to it as systemd does: "
        "descriptor 3, 4, ... {port} is a free port, the same everywhere. May be repeated.",
        value="[HOST:]PORT",
    ),
]
ListenUnix = Annotated[
    list[str] | None,
    option(DAEMON, "The same with the file of a UNIX socket, behind those.", value="PATH"),
]
StopTimeout = Annotated[
    str | None,
    option(DAEMON, "Seconds from SIGTERM to SIGKILL when it is stopped: 10.", value="S"),
]
User = Annotated[str | None, option(DAEMON, "Whom it runs as; only root may choose.", value="USER")]

# --- what is shown --------------------------------------------------------------------------------

EventLines = Annotated[
    bool, option(SHOWN, "Print events on standard output, one JSON object a line.")
]
DaemonLines = Annotated[bool, option(SHOWN, "Print one JSON object for each daemon, a line each.")]
Verbose = Annotated[bool, option(SHOWN, "Show small steps, too.", "-v")]

# --- which daemon ---------------------------------------------------------------------------------

Registry = Annotated[
    str | None,
    option(PLACE, "The registry in this file instead of this user's.", value="PATH"),
]
DaemonName = Annotated[str, Parameter(help="What the daemon is called.")]
