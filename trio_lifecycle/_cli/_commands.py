"""The commands: their words, and what the help says of each."""

from typing import Annotated

import trio
from cyclopts import Parameter

from trio_lifecycle._cli._demo import Wanted as WantedDemo
from trio_lifecycle._cli._demo import run_demo
from trio_lifecycle._cli._ensure import Ensure
from trio_lifecycle._cli._forget import Forget
from trio_lifecycle._cli._logs import Logs
from trio_lifecycle._cli._logs import Wanted as WantedLog
from trio_lifecycle._cli._machine_options import HERE, MachineOptions
from trio_lifecycle._cli._options import (
    ALREADY,
    DAEMON,
    SEARCH,
    SHOWN,
    STOP,
    USE,
    Cwd,
    DaemonLines,
    DaemonName,
    Env,
    EventLines,
    Listen,
    ListenUnix,
    Name,
    Program,
    Registry,
    SecretEnv,
    StopTimeout,
    User,
    Verbose,
    option,
)
from trio_lifecycle._cli._plan import ENSURE_USAGE, Plan
from trio_lifecycle._cli._ready_options import NOTHING_SAID, ReadyOptions
from trio_lifecycle._cli._reap import Reap
from trio_lifecycle._cli._run import Run
from trio_lifecycle._cli._status import Status
from trio_lifecycle._cli._stop import Stop
from trio_lifecycle._cli._stop import Wanted as WantedStop
from trio_lifecycle._cli._timeline import Timeline
from trio_lifecycle._cli._wait import Wait


def run(
    *program: Program,
    ready: ReadyOptions = NOTHING_SAID,
    machine: MachineOptions = HERE,
    name: Name = None,
    env: Env = None,
    secret_env: SecretEnv = None,
    cwd: Cwd = None,
    listen: Listen = None,
    listen_unix: ListenUnix = None,
    stop_timeout: StopTimeout = None,
    user: User = None,
    guarantee: Annotated[
        str | None,
        option(
            DAEMON,
            "What is promised for its end: guarded (nothing is left, also after kill -9), "
            "contained (in a control group, too) or scoped (no helper process). It is guarded.",
            value="LEVEL",
        ),
    ] = None,
    then: Annotated[
        str | None,
        option(
            USE,
            "A command for /bin/sh, run once it is ready. It finds TRIO_LIFECYCLE_URL, _PORT and "
            "_PID. When it has ended the daemon is stopped. The command's exit status is ours.",
            value="COMMAND",
        ),
    ] = None,
    timestamps: Annotated[
        bool, option(SHOWN, "Show each line of its output with the time at which it came.")
    ] = False,
    prefix: Annotated[
        str | None,
        option(
            SHOWN,
            "What stands before each line of its output, instead of its name.",
            value="TEXT",
        ),
    ] = None,
    json: EventLines = False,
    quiet: Annotated[
        bool, option(SHOWN, "Show errors only, none of the daemon's output.", "-q")
    ] = False,
    verbose: Verbose = False,
) -> int:
    """Start a program, wait until it is ready, and stop it with all that it has started.

    It runs until Ctrl-C, or until the command of --then has ended.
    What it prints goes to standard error, each line after its name.
    """
    plan = Plan(
        command=program,
        name=name,
        ready=ready,
        machine=machine,
        stop_timeout=stop_timeout,
        env=tuple(env or ()),
        secret_env=tuple(secret_env or ()),
        cwd=cwd,
        listen=tuple(listen or ()),
        listen_unix=tuple(listen_unix or ()),
        user=user,
        guarantee=guarantee,
        then=then,
        timestamps=timestamps,
        prefix=prefix,
        json=json,
        quiet=quiet,
        verbose=verbose,
    )
    return trio.run(Run(plan))


def ensure(
    *program: Program,
    ready: ReadyOptions = NOTHING_SAID,
    machine: MachineOptions = HERE,
    name: Name = None,
    env: Env = None,
    secret_env: SecretEnv = None,
    cwd: Cwd = None,
    listen: Listen = None,
    listen_unix: ListenUnix = None,
    stop_timeout: StopTimeout = None,
    user: User = None,
    on_change: Annotated[
        str | None,
        option(
            ALREADY,
            "What is done when it runs with other options or arguments: keep (it is used as it "
            "is), restart (it is stopped, whoever uses it) or error. It is keep.",
            value="WHAT",
        ),
    ] = None,
    claim_timeout: Annotated[
        str | None,
        option(
            ALREADY,
            "Seconds to wait for another program that is starting or stopping it: 10 more than "
            "those of --timeout.",
            value="S",
        ),
    ] = None,
    json: EventLines = False,
    quiet: Annotated[
        bool, option(SHOWN, "Show errors only, and the line that says where it is.", "-q")
    ] = False,
    verbose: Verbose = False,
    registry: Registry = None,
) -> int:
    """Have a program running: start it and leave it so, or find that it runs already.

    Standard output says where it is, with its process, and whether it was
    spawned or adopted. However many ask at once, one is started.
    What it prints goes to a log file; trio-lifecycle logs shows it.
    """
    plan = Plan(
        command=program,
        usage=ENSURE_USAGE,
        name=name,
        ready=ready,
        machine=machine,
        stop_timeout=stop_timeout,
        env=tuple(env or ()),
        secret_env=tuple(secret_env or ()),
        cwd=cwd,
        listen=tuple(listen or ()),
        listen_unix=tuple(listen_unix or ()),
        user=user,
        on_change=on_change,
        claim_timeout=claim_timeout,
        json=json,
        quiet=quiet,
        verbose=verbose,
        registry=registry,
    )
    return trio.run(Ensure(plan))


def status(
    *name: Annotated[str, Parameter(help="What daemons are called; all, if none is named.")],
    machine: MachineOptions = HERE,
    json: DaemonLines = False,
    registry: Registry = None,
) -> int:
    """Show which daemons were left running, and whether they still run.

    The exit status is 0 when all of them run, 3 when one does not, and 4
    when that can't be told.
    """
    return Status(names=name, json=json, registry=registry, machine=machine)()


def logs(
    name: DaemonName,
    /,
    *,
    machine: MachineOptions = HERE,
    follow: Annotated[
        bool, option(SHOWN, "Go on with what it writes, until it has ended.", "-f")
    ] = False,
    lines: Annotated[
        str | None,
        option(SHOWN, "How many lines to begin with, or all: 20.", "-n", value="N"),
    ] = None,
    registry: Registry = None,
) -> int:
    """Show the end of what a daemon has written, also of one that has ended."""
    wanted = WantedLog(name=name, follow=follow, lines=lines, registry=registry, machine=machine)
    return trio.run(Logs(wanted))


def wait(name: DaemonName, /, *, machine: MachineOptions = HERE, registry: Registry = None) -> int:
    """Wait until a daemon has ended; one that is not running has."""
    return trio.run(Wait(name=name, registry=registry, machine=machine))


def stop(
    *name: Annotated[str, Parameter(help="What the daemons are called.")],
    machine: MachineOptions = HERE,
    every: Annotated[bool, option(STOP, "All that are recorded.", name="--all")] = False,
    forget: Annotated[
        bool,
        option(
            STOP,
            "Stop nobody, but remove the records of these: of one that is gone where that can't "
            "be seen from here, as after a container was made anew.",
        ),
    ] = False,
    stop_timeout: Annotated[
        str | None,
        option(
            STOP,
            "Seconds from SIGTERM to SIGKILL; what it was started with, if this is not given.",
            value="S",
        ),
    ] = None,
    json: DaemonLines = False,
    quiet: Annotated[bool, option(SHOWN, "Show errors only.", "-q")] = False,
    registry: Registry = None,
) -> int:
    """Stop daemons that were left running, all at once, and see that they are gone.

    One that is not running is gone, too.
    """
    wanted = WantedStop(
        names=name,
        every=every,
        forget=forget,
        machine=machine,
        stop_timeout=stop_timeout,
        json=json,
        quiet=quiet,
        registry=registry,
    )
    return trio.run(Forget(wanted) if forget else Stop(wanted))


def reap(
    *,
    instance: Annotated[
        list[str] | None,
        option(
            SEARCH,
            "Only what belongs to this instance: its id, or the beginning of it. May be repeated.",
            value="ID",
        ),
    ] = None,
    yes: Annotated[bool, option(SEARCH, "Kill without asking.", "-y")] = False,
    grace: Annotated[
        str | None, option(SEARCH, "Seconds from SIGTERM to SIGKILL: 10.", value="S")
    ] = None,
    json: Annotated[
        bool,
        option(SHOWN, "Print one JSON object for each process, a line each, and ask nothing."),
    ] = False,
) -> int:
    """Show what was left of daemons whose owner is dead, and kill it.

    On a terminal it asks first. Elsewhere it only shows what there is, unless
    --yes is given. A program that is still running keeps its daemons; so do
    daemons that were left running on purpose. Only this machine is looked at:
    on others a guard ends what has lost its owner.
    """
    return Reap(instances=tuple(instance or ()), yes=yes, grace=grace, json=json)()


def timeline(
    events: Annotated[
        str | None,
        Parameter(help="A file with what run or ensure have written with --json."),
    ] = None,
    /,
    *,
    output: Annotated[
        str | None,
        option(SHOWN, "The page: an HTML file; without it, standard output.", "-o", value="PAGE"),
    ] = None,
) -> int:
    """Draw what daemons were about, from when to when: a page for a browser.

    It needs no network and no other file. What --json has written of several
    runs may stand in one file. Without a file, standard input is read.
    """
    return Timeline(source=events, page=output)()


def demo(
    *,
    hosts: Annotated[
        list[str] | None,
        option(
            USE,
            "Machines that get a hive, too, over SSH: one or several. May be repeated.",
            value="HOST",
            several=True,
        ),
    ] = None,
    keep: Annotated[bool, option(USE, "Leave all of it running.")] = False,
    json: EventLines = False,
    timeline: Annotated[
        str | None,
        option(SHOWN, "Draw a page of what happened, as timeline does.", value="PAGE"),
    ] = None,
) -> int:
    """Have four programs start each other, continue a text, and stop all.

    rbee-keeper starts queen-rbee, that rbee-hive, and that a worker for each
    model. A queen that runs already is used, and left running with all that
    it has. Needs the extra demo.
    """
    wanted = WantedDemo(hosts=tuple(hosts or ()), keep=keep, json=json, timeline=timeline)
    return run_demo(wanted)
