"""Spawning through the reaper."""

import os
from contextlib import ExitStack
from typing import Final

from trio_lifecycle._errors import GuaranteeError, SpawnError
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle.abc import SpawnRequest
from trio_lifecycle.spawner._cgroup import Cgroup, CgroupUnavailable, find_parent
from trio_lifecycle.spawner._child_environment import environment
from trio_lifecycle.spawner._detour import Detour, Gate, find_detour, take_detour
from trio_lifecycle.spawner._guarded_process import GuardedProcess
from trio_lifecycle.spawner._reaper_link import ReaperLink
from trio_lifecycle.spawner._reaper_program import ReaperStartError
from trio_lifecycle.spawner._reapers import reaper
from trio_lifecycle.spawner._refusals import refusal
from trio_lifecycle.spawner._ward import ReaperGoneError, SpawnRefusedError

_UNWATCHED: Final = "its end could not be watched for"


async def spawn_guarded(
    request: SpawnRequest,
    owner: str,
    output: FileOutput | PipedOutput,
    stdout: int,
    *,
    contained: bool,
) -> GuardedProcess:
    """Have the reaper spawn a daemon.

    Args:
        request: What to start.
        owner: The mark of this program.
        output: Takes what it writes.
        stdout: The descriptor that it writes to.
        contained: True when it is to be in a control group of its own.

    Raises:
        GuaranteeError: There can be no reaper or no control group here.
        SpawnError: The system refused.
    """
    link = await _find_reaper(request, "contained" if contained else "guarded")
    cgroup = _make_cgroup(request) if contained else None
    try:
        procs_file = None if cgroup is None else cgroup.procs_file
        detour = find_detour(request, owner, procs_file)
        with ExitStack() as stack:
            if detour is not None:
                stack.callback(detour.close)
            process = await _spawn(request, owner, output, stdout, link, cgroup, detour)
            if detour is not None and request.gated:
                detour.let_go()
                process.stand_at(Gate(detour, request))
                stack.pop_all()
            elif detour is not None:
                await take_detour(detour, process, request, output)
            return process
    except BaseException:
        if cgroup is not None:
            cgroup.kill()
            cgroup.remove()
        raise


async def _find_reaper(request: SpawnRequest, guarantee: Guarantee) -> ReaperLink:
    try:
        return await reaper()
    except ReaperStartError as error:
        raise GuaranteeError(request.name, guarantee, str(error)) from error
    except OSError as error:
        raise refusal(request, error.errno or 0, "its reaper could not be started") from error


def _make_cgroup(request: SpawnRequest) -> Cgroup:
    try:
        return Cgroup.make(find_parent(), request.instance_id)
    except CgroupUnavailable as error:
        raise GuaranteeError(request.name, "contained", error.reason) from error
    except OSError as error:
        raise refusal(request, error.errno or 0, "its control group can't be made") from error


async def _spawn(
    request: SpawnRequest,
    owner: str,
    output: FileOutput | PipedOutput,
    stdout: int,
    link: ReaperLink,
    cgroup: Cgroup | None,
    detour: Detour | None,
) -> GuardedProcess:
    directory = request.working_dir
    program, argv = request.program, [request.program, *request.args]
    wanted = {1: stdout, 2: stdout, **request.descriptors}
    if detour is not None:
        program, argv = detour.program, detour.argv
        wanted[0] = detour.stdin
    descriptors = sorted({*wanted.values()})
    order = (
        os.fsencode(program),
        [*map(os.fsencode, argv)],
        environment(request, {} if detour is None else detour.env, owner),
        None if directory is None else os.fsencode(directory),
        tuple((rung.signum, rung.seconds) for rung in request.ladder.rungs),
        request.instance_id.encode(),
        None if cgroup is None else str(cgroup.path),
        {number: descriptors.index(fd) for number, fd in wanted.items()},
    )
    try:
        # As it is at this moment, also when it was removed or renamed.
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise refusal(request, error.errno or 0, "this program's own directory") from error
    try:
        pid, pidfd = await link.spawn(order, [here, *descriptors])
    except SpawnRefusedError as error:
        raise _refusal(request, error) from error
    except OSError as error:
        raise refusal(request, error.errno or 0, "the reaper can't be asked") from error
    except ReaperGoneError as error:
        problem = f"the reaper was lost meanwhile: {error}"
        raise SpawnError(request.name, problem, None, retryable=True) from error
    finally:
        os.close(here)
    try:
        process = GuardedProcess(link, pid, pidfd, request.instance_id, output, cgroup)
    except OSError as error:
        link.discard(pid)
        os.close(pidfd)
        raise refusal(request, error.errno or 0, _UNWATCHED) from error
    process.note_passed(request.descriptors.values())
    return process


def _refusal(request: SpawnRequest, error: SpawnRefusedError) -> SpawnError:
    if error.stage == "watch":
        return refusal(request, error.errno, _UNWATCHED)
    if error.stage == "directory" and request.working_dir is None:
        return refusal(request, error.errno, "this program's own directory can't be entered")
    return refusal(request, error.errno)
