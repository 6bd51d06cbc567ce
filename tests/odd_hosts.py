"""Machines that are not as the good case has them, behind a real OpenSSH server."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import join, quote
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.plugins._processes import MARKER
from tests.sshd import Server, running_sshd
from trio_lifecycle import (
    DaemonLifecycle,
    LifecycleConfig,
    LogLine,
    Output,
    SQLiteRegistry,
    SSHSpawner,
)

# What a login has of its server, whatever else it has.
_OF_THE_SERVER = ("SSH_CLIENT", "SSH_CONNECTION", MARKER)

USUAL_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

# Whether a test may make a view of its own of the file system.
MOUNTABLE = (
    os.getuid() == 0
    and not subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        check=False,
        capture_output=True,
    ).returncode
)

# Its own shell is not the login's, which may be told to say more.
UP = LifecycleConfig(
    "/bin/sh",
    args=["-c", "echo up; exec /bin/sleep 1000"],
    name="script",
    ready_mode=LogLine("up"),
)


class OddHost:
    """A login that is made anew for each test; the server stays."""

    def __init__(self, server: Server, script: Path, home: Path) -> None:
        self.server = server
        self.home = home
        self._script = script
        self.become()

    def become(
        self,
        shell: str = "bash",
        *,
        before: str = "",
        within: tuple[str, ...] = (),
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        """Be a login whose shell is this one.

        Args:
            shell: It is started as an SSH server starts it.
            before: What the server does before, in sh.
            within: What the shell is started by.
            environment: What differs in the environment; None is not there.
        """
        usual = {"HOME": str(self.home), "PATH": USUAL_PATH, "USER": self.server.user}
        values = {**usual, "SHELL": shell, **(environment or {})}
        words = [f"{name}={value}" for name, value in values.items() if value is not None]
        started = join(["env", "-i", *words, *within, shell, "-c"])
        ssh = " ".join(f'{name}="${name}"' for name in _OF_THE_SERVER)
        started = started.replace("env -i", f"env -i {ssh}", 1)
        self._script.write_text(f'{before}\nexec {started} "$SSH_ORIGINAL_COMMAND"\n')

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file in the home directory."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def spawner(self, **changes: Any) -> SSHSpawner:
        """The spawner of it."""
        return self.server.spawner(**changes)


@pytest.fixture(scope="module")
def odd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """An sshd for all tests of a module, which does what a script says instead of logging in."""
    script = tmp_path_factory.mktemp("odd") / "login"
    script.touch()
    with running_sshd(ForceCommand=f"/bin/sh {quote(str(script))}") as server:
        yield server, script


@pytest.fixture
def odd_host(odd_server: tuple[Server, Path], tmp_path: Path) -> OddHost:
    """A login with a home directory of its own, and bash as its shell."""
    home = tmp_path / "home"
    home.mkdir()
    return OddHost(*odd_server, home)


@contextmanager
def file_systems(*mounts: str) -> Iterator[tuple[str, ...]]:
    """A view of the file system with some mounts; what is started with these words, has it."""
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-ec", "; ".join([*mounts, "echo; exec cat"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert b"\n" == holder.stdout.readline()
            # /proc may be covered there.
            with Path(f"/proc/{holder.pid}/ns/mnt").open() as namespace:
                here = f"/proc/{os.getpid()}/fd/{namespace.fileno()}"
                yield "nsenter", f"--mount={here}"
        finally:
            holder.stdin.close()


def usual_pythons() -> set[str]:
    """The files that are found as python3 where nothing is said of a PATH."""
    places = (Path(place, "python3") for place in USUAL_PATH.split(":"))
    return {str(place.resolve()) for place in places if place.exists()}


async def run_owned(spawner: SSHSpawner, expected: str, **changes: Any) -> None:
    """Start and stop a daemon that has an owner."""
    async with DaemonLifecycle(evolve(UP, **changes), spawner=spawner).running() as daemon:
        assert (expected, "up\n") == (daemon.guarantee, daemon.output_tail)
        assert "running" == await daemon.check()
        assert "SIGTERM" == (await daemon.stop()).rung
        assert "gone" == await daemon.check()


async def run_detached(spawner: SSHSpawner, here: Path, log: Path | None = None) -> None:
    """Start a daemon that stays, find it and stop it."""
    config = evolve(UP, detach=True, output=Output(to=log) if log else Output())
    with closing(SQLiteRegistry(here / "registry.sqlite")) as registry:
        lifecycle = DaemonLifecycle(config, spawner=spawner, registry=registry)
        daemon = await lifecycle.ensure_running()
        assert ("detached", "up\n") == (daemon.guarantee, daemon.output_tail)
        found = await DaemonLifecycle(config, spawner=spawner, registry=registry).ensure_running()
        assert ("adopted", daemon.pid) == (found.origin, daemon.pid)
        assert "SIGTERM" == (await found.stop()).rung
        assert "gone" == await daemon.check()


async def run_all(host: OddHost, here: Path) -> None:
    """Start and stop a daemon in each of the three ways, at once."""
    async with trio.open_nursery() as nursery:
        for guarantee in ("guarded", "scoped"):
            nursery.start_soon(run_owned, host.spawner(guarantee=guarantee), guarantee)
        nursery.start_soon(run_detached, host.spawner(), here)
