"""Finding things on another machine: processes by records and by addresses, programs, files."""

import shlex
from pathlib import Path
from typing import Final

from trio_lifecycle._destination import Output
from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._output import FedOutput
from trio_lifecycle._records import Identity
from trio_lifecycle._ssh import _remote_binary, _remote_files, _remote_processes
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_binary import RemoteBinary
from trio_lifecycle._ssh._remote_processes import Told, Tree
from trio_lifecycle._ssh._remote_sockets import listening_at
from trio_lifecycle._ssh_errors import SSHConnectError
from trio_lifecycle.abc import DaemonRecord, FileMark, Process
from trio_lifecycle.spawner._seen_process import SeenProcess
from trio_lifecycle.spawner._unseen_process import UnseenProcess

# Of a command line that is shown.
_LONGEST_COMMAND: Final = 200


async def find_process(machine: Machine, record: DaemonRecord) -> Process | None:
    """Give the process that a record is about, or what it has left; None when all is gone.

    Raises:
        DaemonStateUnknownError: Whether it lives can't be told from here.
    """
    told: Told = record.pid, record.start_time

    async def look(line: Line) -> Tree | None:
        if not _is_of_this_boot(machine, line, record):
            return None
        return await _remote_processes.tree_of(line, told)

    try:
        tree = await machine.look(look)
    except SSHConnectError as error:
        raise DaemonStateUnknownError(record.name, str(error)) from error
    if tree is None or not tree.members:
        return None
    process = SeenProcess(
        machine,
        record.name,
        Identity(record.host, record.boot_id, *told, record.pid_namespace),
        record.instance_id,
        FedOutput(record.name, Output()),
        record.log_file,
        tree,
    )
    await process.read_tail()
    return process


def _is_of_this_boot(machine: Machine, line: Line, record: DaemonRecord) -> bool:
    facts = line.facts
    if record.boot_id != facts.boot_id:
        if record.host != facts.host:
            problem = (
                f"it is recorded as running on machine {record.host}, and {machine.host} is "
                f"{facts.host}"
            )
            raise DaemonStateUnknownError(record.name, problem)
        return False
    namespaces = {record.pid_namespace, facts.pid_namespace}
    if len(namespaces) > 1 and 0 not in namespaces:
        problem = f"it was started in another pid namespace of {machine.host}, such as a container"
        raise DaemonStateUnknownError(record.name, problem)
    return True


async def find_strays(machine: Machine, process: Process, instance_id: str) -> Process | None:
    """Give all living processes there that bear the id of an instance."""
    identity = process.identity
    if identity is None:
        return None

    async def look(line: Line) -> Tree | None:
        marked = await _remote_processes.strays(line, instance_id)
        told = identity.pid, identity.start_time
        return await _remote_processes.tree_of(line, told, marked) if marked else None

    try:
        tree = await machine.look(look)
    except SSHConnectError:
        return None
    if tree is None or not tree.members:
        return None
    output = FedOutput("", Output())
    return SeenProcess(machine, "strays", identity, instance_id, output, None, tree)


async def find_binary(machine: Machine, name: str, search_path: tuple[Path, ...]) -> str:
    """Give the absolute path of a program there.

    Raises:
        RemoteBinaryNotFoundError: It is not there, or what is there can't be started.
        SSHConnectError: The machine can't be reached.
    """

    async def look(line: Line) -> RemoteBinary:
        places = map(str, search_path)
        return await _remote_binary.find_binary(line, machine.host, name, places)

    found = await machine.look(look)
    machine.resolved[found.path] = found.resolved
    return found.path


async def find_file(machine: Machine, path: str) -> FileMark | None:
    """Look at a file there; None when there is none.

    Raises:
        OSError: It can't be looked at.
        SSHConnectError: The machine can't be reached.
    """

    async def look(line: Line) -> FileMark | None:
        return await _remote_files.find_file(line, path)

    return await machine.look(look)


async def owner_of(machine: Machine, host: str, port: int) -> Process:
    """Give the process that listens at an address there; one without pid where it can't be told.

    Raises:
        SSHConnectError: The machine can't be reached.
    """

    async def look(line: Line) -> SeenProcess | None:
        return await _owner(machine, line, host, port)

    return await machine.look(look) or UnseenProcess()


async def _owner(machine: Machine, line: Line, host: str, port: int) -> SeenProcess | None:
    holder = (await listening_at(line, host, port)).main
    # The first process of a machine, or of a container, is nobody's daemon: it can't be stopped.
    if holder is None or holder.pid == 1:
        return None
    told: Told = holder.pid, holder.start_time
    tree = await _remote_processes.tree_of(line, told)
    program = await _remote_processes.program_of(line, told)
    if not tree.has(told) or program is None:
        return None
    facts = line.facts
    identity = Identity(facts.host, facts.boot_id, *told, facts.pid_namespace)
    output = FedOutput("", Output())
    process = SeenProcess(machine, "the daemon", identity, "", output, None, tree)
    process.note_program(program)
    return process


async def describe_owner(machine: Machine, host: str, port: int) -> str:
    """Say who listens at an address there."""

    async def look(line: Line) -> str | None:
        holder = (await listening_at(line, host, port)).main
        if holder is None:
            return None
        program = await _remote_processes.program_of(line, (holder.pid, holder.start_time))
        shown = "" if program is None else f" ({shlex.join(program.args)[:_LONGEST_COMMAND]})"
        return f"process {holder.pid}{shown} of {machine.host}"

    try:
        found = await machine.look(look)
    except SSHConnectError as error:
        return f"a process that can't be seen ({error})"
    return found or f"a process of {machine.host} that can't be seen"
