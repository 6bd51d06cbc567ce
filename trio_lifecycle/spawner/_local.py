"""Daemons on this machine."""

import functools
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import trio

from trio_lifecycle._binary import find_binary
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._guarantee import OWNED, Guarantee
from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle._ports import reserve_port
from trio_lifecycle._posix_spawn import spawn
from trio_lifecycle._proc import ephemeral_ports
from trio_lifecycle._strays import owner_mark
from trio_lifecycle.abc import (
    DaemonRecord,
    Prober,
    Process,
    ReservedPort,
    Spawner,
    SpawnRequest,
)
from trio_lifecycle.spawner._child_environment import environment
from trio_lifecycle.spawner._detour import Gate, find_detour, take_detour
from trio_lifecycle.spawner._finding import find_process, find_strays
from trio_lifecycle.spawner._guarded import spawn_guarded
from trio_lifecycle.spawner._local_prober import LocalProber
from trio_lifecycle.spawner._local_process import LocalProcess
from trio_lifecycle.spawner._portable_process import PortableProcess, is_portable_only
from trio_lifecycle.spawner._refusals import refusal
from trio_lifecycle.spawner._streams import open_null, open_streams


class LocalSpawner(Spawner):
    """Starts daemons on this machine, each in a session of its own.

    Args:
        guarantee: What is promised for the end of a daemon that has an owner; ``handle.guarantee``
            says it, too.

            ``"guarded"``, the default: when this program ends, by whatever means, SIGKILL included,
            no process that the daemon has started remains, however it has forked away. A helper of
            two small processes, the reaper, sees to that; it is started with the first daemon.

            ``"contained"``: the same, and the daemon is in a control group of its own (cgroup v2),
            which is killed as one. It needs a hierarchy that this program may write to.

            ``"scoped"``: no helper; the only one where there is no Linux. The daemon's process
            group goes with its owner, after an exception, a cancellation, Ctrl-C; not when this
            program is killed by SIGKILL, and a process that has left the group, by ``setsid`` or as
            a job of an interactive shell, is not followed.

            What is asked for and can't be had is a GuaranteeError at the start; no less is given.

    Raises:
        ConfigError: There is no such guarantee.
    """

    def __init__(self, guarantee: Guarantee = "guarded") -> None:
        if guarantee == "detached":
            raise ConfigError(
                "guarantee",
                "a daemon is detached by detach=True in its configuration and a bare "
                "ensure_running(), not by its spawner",
            )
        if guarantee not in OWNED:
            known = ", ".join(map(repr, OWNED))
            raise ConfigError("guarantee", f"must be one of {known}, not {guarantee!r}")
        self.guarantee: Guarantee = guarantee

    def __repr__(self) -> str:
        return f"LocalSpawner(guarantee={self.guarantee!r})"

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        """Start by posix_spawn(3): in the reaper, or in the calling thread."""
        with open_streams(request) as (output, stdout):
            if self.guarantee == "scoped" or request.detached:
                process = await self._spawn_here(request, output, stdout)
            else:
                contained = self.guarantee == "contained"
                process = await spawn_guarded(
                    request, _mark(request), output, stdout, contained=contained
                )
        if not request.detached:
            nursery.start_soon(output.run, name=f"output of {request.name}")
        return process

    async def _spawn_here(
        self,
        request: SpawnRequest,
        output: FileOutput | PipedOutput,
        stdout: int,
    ) -> Process:
        # A detached daemon has no owner, whatever this program itself is owned by.
        owner = None if request.detached else _mark(request)
        detour = find_detour(request, owner)
        if detour is None:
            with open_null(request) as null:
                streams = (null, stdout, stdout)
                way = request.program, request.args
                process = await _start(request, output, owner, *way, {}, streams)
        else:
            with ExitStack() as stack:
                stack.callback(detour.close)
                streams = (detour.stdin, stdout, stdout)
                way = detour.program, tuple(detour.argv[1:])
                process = await _start(request, output, owner, *way, detour.env, streams)
                if request.gated:
                    detour.let_go()
                    process.stand_at(Gate(detour, request))
                    stack.pop_all()
                else:
                    await take_detour(detour, process, request, output)
        if request.detached:
            # Nobody may ever ask after it again, and an ended child stays a zombie until its parent
            # looks.
            trio.lowlevel.spawn_system_task(process.reap_at_end, name=f"reap {request.name}")
        return process

    async def find_process(self, record: DaemonRecord) -> Process | None:
        """Look among the processes of this machine."""
        return find_process(record)

    async def find_strays(self, process: Process, instance_id: str) -> Process | None:
        """Look for all that were started with the id of the instance in their environment."""
        return find_strays(process, instance_id)

    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        """Look on this machine."""
        return find_binary(name, search_path)

    async def reserve_port(self) -> ReservedPort:
        """Choose outside the range that the kernel takes ports from by itself."""
        return reserve_port(ephemeral=ephemeral_ports())

    def open_prober(self) -> Prober:
        """Ask from this machine."""
        return LocalProber(self)


async def _start(
    request: SpawnRequest,
    output: FileOutput | PipedOutput,
    owner: str | None,
    program: str,
    args: tuple[str, ...],
    user_env: Mapping[str, str | None],
    streams: tuple[int, int, int],
) -> LocalProcess | PortableProcess:
    directory = request.working_dir
    encoded = environment(request, user_env, owner)
    env = {os.fsdecode(key): os.fsdecode(value) for key, value in encoded.items()}
    if is_portable_only():
        return await PortableProcess.start(request, program, args, env, streams, output)
    try:
        pid = spawn(
            program,
            [program, *args],
            env,
            None if directory is None else str(directory),
            streams,
            request.descriptors,
        )
    except OSError as error:
        raise refusal(request, error.errno or 0) from error
    try:
        process = LocalProcess.of_child(
            pid, request.instance_id, output, "detached" if request.detached else "scoped"
        )
    except OSError as error:
        raise refusal(request, error.errno or 0, "its end could not be watched for") from error
    process.note_passed(request.descriptors.values())
    return process


def _mark(request: SpawnRequest) -> str:
    try:
        return _mark_of(os.getpid())
    except OSError as error:
        raise refusal(request, error.errno or 0, "what this program is can't be read") from error


@functools.lru_cache(maxsize=1)
def _mark_of(pid: int) -> str:
    # A fork of this program has another number, and is another owner.
    return owner_mark()
