"""Spawning on another machine: by the guard there, or by a launcher."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle._destination import Output
from trio_lifecycle._errors import DaemonStateUnknownError, GuaranteeError, SpawnError
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._output import FedOutput
from trio_lifecycle._records import Identity
from trio_lifecycle._ssh._guard_link import GuardLink
from trio_lifecycle._ssh._launching import Launched, launch
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._order import Order
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.abc import Process, SpawnRequest
from trio_lifecycle.spawner._forwarded_pipe import ForwardedPipe
from trio_lifecycle.spawner._launched_process import LaunchedProcess
from trio_lifecycle.spawner._refusals import RETRYABLE
from trio_lifecycle.spawner._remote_log import RemoteLog
from trio_lifecycle.spawner._ward_process import WardProcess

_NO_LINUX: Final = "has no /proc with what tells one process from another: it is no Linux"


async def spawn(
    machine: Machine, request: SpawnRequest, nursery: trio.Nursery, wanted: Guarantee | None
) -> Process:
    """Start a daemon; see ``Spawner.spawn``.

    Args:
        machine: Where.
        request: What.
        nursery: Where tasks that serve it may run.
        wanted: What must be promised for one that has an owner; None is the most there is.
    """
    facts = await machine.facts()
    if not facts.boot_id:
        problem = f"{machine.host} {_NO_LINUX}"
        raise GuaranteeError(request.name, wanted or "detached", problem)
    guard = None
    if not request.detached and wanted != "scoped":
        guard = await machine.guard(request.name)
    if guard is not None:
        return await _spawn_guarded(machine, guard, request, nursery)
    if wanted == "guarded" and not request.detached:
        problem = (
            f"{machine.host} has no python3 of at least 3.7 that works, which the guard there needs"
        )
        raise GuaranteeError(request.name, "guarded", problem)
    return await _launch(machine, request, nursery)


# --- by the guard ---------------------------------------------------------------------------------


async def _spawn_guarded(
    machine: Machine, guard: GuardLink, request: SpawnRequest, nursery: trio.Nursery
) -> Process:
    output = _open_output(request, held=True)
    with ExitStack() as stack:
        stack.callback(output.close)
        pipes = {
            number: stack.enter_context(ForwardedPipe(request, number, fd))
            for number, fd in request.descriptors.items()
        }
        try:
            ward = await guard.spawn(
                request, output, {number: pipe.feed for number, pipe in pipes.items()}
            )
        except LostError as error:
            problem = (
                f"the connection to {machine.host} was lost while it was being started ({error}); "
                "the guard there ends it"
            )
            raise DaemonStateUnknownError(request.name, problem) from error
        # No checkpoint from here on: a cancellation would lose the process.
        opened = stack.pop_all()
    identity = Identity(
        machine.own_name, ward.boot_id, ward.pid, ward.start_time, ward.pid_namespace
    )
    instance_id = request.instance_id
    nursery.start_soon(output.run, name=f"output of {request.name}")
    return WardProcess(machine, request.name, identity, ward, instance_id, output, opened)


# --- by a launcher --------------------------------------------------------------------------------


async def _launch(machine: Machine, request: SpawnRequest, nursery: trio.Nursery) -> Process:
    order = _order(machine, request, await machine.silence_limit_s())
    if request.detached:
        # One that stays holds its session only until it is ready, so it is worth while to wait for
        # others; the ready timeout is the limit.
        session = await machine.open_session(math.inf)
    else:
        session = await machine.open_kept_session()
    try:
        launched = await launch(session, order)
    except (LostError, OSError) as error:
        raise machine.failure("starting a daemon (nothing of it has run)", error) from error
    try:
        return await _take_over(machine, request, nursery, launched)
    except BaseException:
        # It stands at its gate, and ends there.
        launched.close()
        raise


async def _take_over(
    machine: Machine, request: SpawnRequest, nursery: trio.Nursery, launched: Launched
) -> Process:
    # Nothing of it has run, so what is in the file is of an earlier one.
    log = RemoteLog(machine, launched.log_file, launched.log_size)
    identity = Identity(
        machine.own_name,
        launched.boot_id,
        launched.pid,
        launched.start_time,
        launched.pid_namespace,
    )
    process = LaunchedProcess(
        machine,
        request.name,
        identity,
        request.instance_id,
        _open_output(request, held=False),
        launched,
        log,
        detached=request.detached,
    )
    if not request.gated:
        await process.open_gate()
    nursery.start_soon(process.serve, name=f"launcher of {request.name}")
    return process


def _open_output(request: SpawnRequest, *, held: bool) -> FedOutput:
    # What stays writes a file there; nobody but its handle wants that here.
    wanted = Output(request.output.tail_bytes) if request.detached else request.output
    try:
        return FedOutput(request.name, wanted, request.secrets, held=held)
    except OSError as error:
        problem = f"its output can't be set up: {error}"
        raise SpawnError(request.name, problem, error.errno, error.errno in RETRYABLE) from error


def _order(machine: Machine, request: SpawnRequest, limit_s: float) -> Order:
    for name in ("user", "group"):
        if getattr(request, name) is not None:
            raise SpawnError(
                request.name,
                f"{name}: on {machine.host} it runs as who logs in; use SSHSpawner(..., user=...)",
            )
    if request.descriptors:
        raise SpawnError(
            request.name,
            f"it can be passed no pipe on {machine.host}: only the guard, which needs python3 "
            "there and an owner here, can do that; use another ready mode",
        )
    to = request.output.to
    return Order(
        name=request.name,
        program=request.program,
        args=request.args,
        env=request.env,
        working_dir=None if request.working_dir is None else str(request.working_dir),
        log=str(to) if isinstance(to, Path) and request.detached else None,
        limits=request.limits,
        umask=request.umask,
        pid_variable=request.pid_variable,
        owned=not request.detached,
        # In whole seconds, and a shell takes one to notice.
        heartbeat_limit_s=max(2, math.ceil(limit_s)),
        ladder=request.ladder,
    )
