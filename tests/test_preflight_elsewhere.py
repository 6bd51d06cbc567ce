"""Checks made where the daemon will run: the same verdict there as here, in every shell."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.asking_elsewhere import ElsewhereProber, ElsewhereSpawner
from tests.processes import Start, say, start
from tests.stepping import DAEMON
from tests.support import free_port, python_daemon
from trio_lifecycle import (
    BinaryNotFoundError,
    DaemonLifecycle,
    DiskSpace,
    Event,
    Executable,
    FileExists,
    FreeMemory,
    FreePort,
    FreeVRAM,
    Manual,
    NotRecovered,
    PreflightError,
    Reachable,
)
from trio_lifecycle._checks import check_all
from trio_lifecycle._errors import SpawnError
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh_errors import SSHConnectError
from trio_lifecycle.abc import Command, Ran
from trio_lifecycle.preflight._failure import CheckFailed

__all__ = ["start"]  # a fixture

HOST = os.uname().nodename
GIB = 2**30

SHELLS = [
    pytest.param(["dash"], marks=pytest.mark.needs("dash"), id="dash"),
    pytest.param(["bash"], marks=pytest.mark.needs("bash"), id="bash"),
    pytest.param(["busybox", "sh"], marks=pytest.mark.needs("busybox"), id="busybox"),
]
each_shell = pytest.mark.parametrize("shell", SHELLS)


def prober_of(shell: list[str], directory: Path) -> ElsewhereProber:
    """A prober by this shell; by busybox with the tools of busybox and no others before them."""
    program = shutil.which(shell[0])
    assert program is not None
    if shell[0] != "busybox":
        return ElsewhereProber(program)
    tools = directory / "tools"
    tools.mkdir()
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    for tool in listed.stdout.split():
        (tools / tool).symlink_to(program)
    return ElsewhereProber(program, "sh", path=tools)


async def said_by(check: Callable[[], Awaitable[object]]) -> str | None:
    """What a check says that fails; None when it passes."""
    try:
        await check()
    except CheckFailed as failure:
        return str(failure)
    return None


# --- the same as here -----------------------------------------------------------------------------


def files(directory: Path) -> list[FileExists]:
    """Checks of a file in every state."""
    (directory / "model").write_bytes(b"x" * 1500)
    (directory / "link").symlink_to("model")
    (directory / "circle").symlink_to("circle")
    (directory / "to nothing").symlink_to("/nowhere/model")
    os.mkfifo(directory / "pipe")
    odd = directory / "a 'b\" $(id) `id` *\\ -n é"
    odd.touch()
    paths = [directory, directory / "pipe", directory / "circle", directory / "to nothing"]
    paths += [directory / "link", odd, directory / "missing", directory / "model" / "a" / "b"]
    paths += [Path("/nowhere/at/all"), Path("relative"), Path("relative/file"), Path("-n")]
    checks = [FileExists(path) for path in paths]
    return [*checks, *(FileExists(directory / "model", min_bytes=size) for size in (1500, 1501))]


@each_shell
async def test_a_file_gets_the_verdict_that_it_gets_here(shell: list[str], tmp_path: Path) -> None:
    prober = prober_of(shell, tmp_path)
    verdicts = set()
    for check in files(tmp_path):
        here = await said_by(check)
        assert await said_by(check.at(prober)) == (here and f"on {HOST}: {here}")
        verdicts.add(here and re.sub(r"/\S*|[0-9]+", "", here))
    # Eight different sentences, and what passes.
    assert 9 <= len(verdicts)


@each_shell
async def test_disk_and_memory_have_the_figures_that_they_have_here(
    shell: list[str], tmp_path: Path
) -> None:
    prober = prober_of(shell, tmp_path)
    for check in (DiskSpace(tmp_path / "a b" / "c", gib=1e9), FreeMemory(gib=1e9)):
        here, there = await said_by(check), await said_by(check.at(prober))
        assert here is not None
        assert there is not None
        figure = re.compile(r"[0-9,.]+(?= GiB (?:free|of memory))")
        assert f"on {HOST}: {figure.sub('', here)}" == figure.sub("", there)
        free_here, free_there = (figure.findall(said)[0].replace(",", "") for said in (here, there))
        assert float(free_here) == pytest.approx(float(free_there), rel=0.1, abs=0.5)
    await DiskSpace(tmp_path / "later", gib=1 / GIB).at(prober)()
    await FreeMemory(gib=1 / 1024).at(prober)()


@each_shell
async def test_a_port_gets_the_verdict_that_it_gets_here(
    shell: list[str], tmp_path: Path, start: Start
) -> None:
    prober = prober_of(shell, tmp_path)
    free = free_port()
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.2', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    server = start(code)
    (taken,) = map(int, say(server))
    for check in (
        *(FreePort(taken, host) for host in ("127.0.0.2", "127.0.0.1", "0.0.0.0")),
        *(FreePort(free, host) for host in ("localhost", "0.0.0.0", "192.0.2.77", "2001:db8::1")),
    ):
        here = await said_by(check)
        assert await said_by(check.at(prober)) == (here and f"on {HOST}: {here}")
    assert f"in use by process {server.pid} (" in str(await said_by(FreePort(taken, "0.0.0.0")))


async def test_a_program_is_looked_for_by_the_prober_in_the_search_path_too(tmp_path: Path) -> None:
    prober = ElsewhereProber()
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    check = Executable("tool", [tmp_path])
    with pytest.raises(BinaryNotFoundError) as here:
        await check()
    with pytest.raises(BinaryNotFoundError) as there:
        await check.at(prober)()
    assert str(here.value) == str(there.value)
    program.chmod(0o755)
    await check.at(prober)()


async def test_what_is_reachable_is_asked_by_the_prober() -> None:
    prober = ElsewhereProber()
    with socket.create_server(("127.0.0.1", 0)) as server:
        await Reachable(f"tcp://127.0.0.1:{server.getsockname()[1]}").at(prober)()
    closed = free_port()
    for scheme in ("tcp", "http"):
        url = f"{scheme}://127.0.0.1:{closed}"
        assert (
            f"where the daemon will run: {url} refused the connection: "
            "start what should be there, or mend the URL"
        ) == await said_by(Reachable(url).at(prober))


# --- rights ---------------------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run commands as another user")
async def test_what_the_user_there_may_not_is_told(tmp_path: Path) -> None:
    prober = ElsewhereProber(as_daemon=True)
    closed, forbidden = Path("/root/model"), f"may not be read by user {DAEMON.pw_uid}"
    said = str(await said_by(FileExists(closed).at(prober)))
    assert (
        f"on {HOST}: {closed} may not be read by user {DAEMON.pw_uid}: mend the rights of it"
        in said
    )
    secret = tmp_path / "secret"
    said = str(await said_by(DiskSpace(closed, gib=1).at(prober)))
    assert f"on {HOST}: how much is free at {closed} can't be told: Permission denied" == said
    secret.touch(mode=0o600)
    for place in (tmp_path, *tmp_path.parents[:3]):
        if place != Path("/tmp"):
            place.chmod(0o755)
    assert forbidden in str(await said_by(FileExists(secret).at(prober)))


def lowest_port_for_all() -> int:
    """The first port that needs no capability."""
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run commands as another user")
async def test_a_port_that_the_user_there_may_not_have_is_told() -> None:
    if lowest_port_for_all() <= 997:
        pytest.skip("everybody may have every port here")
    said = await said_by(FreePort(997).at(ElsewhereProber(as_daemon=True)))
    assert f"on {HOST}: port 997 of 127.0.0.1 may not be had by this user" in str(said)
    assert await said_by(FreePort(997).at(ElsewhereProber())) is None


# --- control groups -------------------------------------------------------------------------------


@each_shell
def test_control_groups_are_read_up_to_the_top_that_is_seen(
    shell: list[str], tmp_path: Path
) -> None:
    top = tmp_path / "the top"
    below = top / "a" / "b"
    below.mkdir(parents=True)
    for place, most, high in ((below, "max", 7), (top / "a", "max", "max"), (top, 9, "max")):
        (place / "memory.max").write_text(f"{most}\n")
        (place / "memory.high").write_text(f"{high}\n")
        (place / "memory.current").write_text("3\n")
    (below / "memory.stat").write_text("anon 5\nactive_file 7\ninactive_file 2\n")
    asked = f"group=/seen/a/b; groups_at /seen '{top}'; groups_at /other '{top}'"
    command = [*shell, "-c", read_script(), "sh", "eval", asked]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = [f"=host {HOST}", f"=group max 7 3 2 {below}", f"=group 9 max 3 0 {top}", "=end"]
    assert expected == ran.stdout.splitlines()


def read_script() -> str:
    """What is run there."""
    from trio_lifecycle.preflight import _elsewhere

    return Path(_elsewhere.__file__).with_name("elsewhere.sh").read_text()


# --- GPUs -----------------------------------------------------------------------------------------

TWO = """\
0, GPU-a, NVIDIA H100 80GB HBM3, 2048, 81920
1, GPU-b, NVIDIA H100 80GB HBM3, 40960, 81920
"""


def nvidia_smi(directory: Path, output: str, status: int = 0) -> Path:
    """A program of that name; it takes the question that the real one takes, and no other."""
    program = directory / "nvidia-smi"
    asked = "--query-gpu=index,uuid,name,memory.free,memory.total --format=csv,noheader,nounits"
    (directory / "output").write_text(output)
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "{asked}" ] || exit 2\ncat {directory}/output\nexit {status}\n'
    )
    program.chmod(0o755)
    return directory


async def test_gpus_are_asked_by_nvidia_smi(tmp_path: Path) -> None:
    prober = ElsewhereProber(path=nvidia_smi(tmp_path, TWO))
    for device in (None, 1, "GPU-b"):
        await FreeVRAM(40, device).at(prober)()
    assert (
        f"on {HOST}: 41.00 GiB of GPU memory are needed, and "
        "GPU 0 (NVIDIA H100 80GB HBM3) has 2.00 GiB of 80.00 GiB; "
        "GPU 1 (NVIDIA H100 80GB HBM3) has 40.00 GiB of 80.00 GiB free: "
        "end what uses it (nvidia-smi lists that), or take a smaller model"
    ) == await said_by(FreeVRAM(41).at(prober))


async def test_gpu_memory_that_comes_back_late_is_asked_about_there(tmp_path: Path) -> None:
    prober = ElsewhereProber(path=nvidia_smi(tmp_path, TWO))
    ((check, recovered),) = await check_all(
        "daemon", [FreeVRAM(40, 1, wait_for_recovery=5)], prober
    )
    assert 5 == check.wait_for_recovery
    nvidia_smi(tmp_path, "1, GPU-b, NVIDIA H100, 40448, 81920\n")  # 0.5 GiB less
    await recovered()
    nvidia_smi(tmp_path, "1, GPU-b, NVIDIA H100, 40447, 81920\n")
    assert "39.50 GiB of GPU memory are needed" in str(await said_by(recovered))


async def test_a_machine_without_nvidia_smi_has_no_gpu(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is one here")
    said = await said_by(FreeVRAM(1).at(ElsewhereProber()))
    assert f"on {HOST}: no GPU: the NVIDIA driver is not installed here" in str(said)


async def test_the_limit_of_a_check_holds_there(tmp_path: Path) -> None:
    prober = ElsewhereProber(path=nvidia_smi(tmp_path, ""))
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 1000\n")
    with pytest.raises(PreflightError) as caught:
        await check_all("daemon", [FreeVRAM(1, check_timeout=0.2)], prober)
    (failure,) = caught.value.failures
    assert failure.startswith("FreeVRAM(gib=1.0, check_timeout=0.2) took longer than its")


# --- what could not be asked ----------------------------------------------------------------------


class Failing(ElsewhereProber):
    """A prober that can't run anything.

    Args:
        how: What comes of it.
    """

    def __init__(self, how: Exception | Ran) -> None:
        super().__init__()
        self.how = how

    async def run(self, command: Command) -> Ran:
        await trio.lowlevel.checkpoint()
        if isinstance(self.how, Exception):
            raise self.how
        return self.how

    async def find_binary(self, name: str, search_path: tuple[Path, ...] = ()) -> str:
        return str(await self.run(Command(name="any", program="/any")))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (
            SSHConnectError("gpu-2", "me", 22, "opening a session", "it was closed"),
            "me@gpu-2: opening a session failed: it was closed",
        ),
        (LostError("the connection to gpu-2 is lost"), "the connection to gpu-2 is lost"),
        (SpawnError("daemon", "there is no /bin/sh"), "there is no /bin/sh"),
        (Ran(None, problem="could not be run this time"), "could not be run this time"),
        (Ran(-9, b"=host gpu-2\n=kind file\n"), "/bin/sh ended with -9 and without an answer"),
    ],
)
async def test_a_check_that_could_not_be_asked_says_so(how: Exception | Ran, why: str) -> None:
    said = await said_by(FileExists("/model").at(Failing(how)))
    expected = f"whether /model is there could not be asked where the daemon will run: {why}"
    assert expected == said
    if isinstance(how, LostError):
        said = await said_by(Executable("tool").at(Failing(how)))
        assert "whether tool is there could not be asked where the daemon will run: " in str(said)


# --- with a daemon --------------------------------------------------------------------------------


async def test_a_start_has_its_checks_made_where_the_daemon_will_run() -> None:
    ran_here = []

    async def plain() -> None:
        ran_here.append(True)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        lifecycle = DaemonLifecycle(
            python_daemon("pass", ready_mode=Manual()),
            spawner=ElsewhereSpawner(),
            preflight=[FreePort(port), plain],
        )
        with pytest.raises(PreflightError) as caught:
            await lifecycle.run()
    (failure,) = caught.value.failures
    assert failure.startswith(f"on {HOST}: port {port} of 127.0.0.1 is in use by process ")
    assert [True] == ran_here


async def test_a_port_that_comes_back_late_is_waited_for_there() -> None:
    port = free_port()
    notes: list[Event] = []
    lifecycle = DaemonLifecycle(
        python_daemon("import time; time.sleep(1000)", ready_mode=Manual()),
        spawner=ElsewhereSpawner(),
        preflight=[FreePort(port, wait_for_recovery=0.3)],
        observer=notes.append,
    )
    async with lifecycle.running():
        server = socket.create_server(("127.0.0.1", port))
    server.close()
    (note,) = (note for note in notes if isinstance(note, NotRecovered))
    assert note.problem.startswith(f"on {HOST}: port {port} of 127.0.0.1 is in use by process ")
