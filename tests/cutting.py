"""What goes wrong between two machines: a wire that is cut or falls silent, and what is left there.

Everything that is started over the server of a test bears a mark in its environment, which sshd
gives it; so nothing escapes that is left on the "other" machine.
"""

import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, field

from tests.sshd import Server, running_sshd
from tests.support import PATIENCE_S
from trio_lifecycle import (
    DaemonHandle,
    DaemonLifecycle,
    LifecycleConfig,
    LogLine,
    SQLiteRegistry,
    SSHSpawner,
    StopLadder,
)
from trio_lifecycle._proc import all_stats, is_descendant, read_stat

MARK = "SSH_FAULT_AT"

# Keeps a test short where it needs one that is noticed to be silent: 0.6 s.
QUICK: Mapping[str, Any] = {"keepalive_interval": 0.3, "keepalive_count": 2}

# Says when it runs, and has a child that leaves its session and its parent.
FAMILY = "(setsid sleep 1000 &); echo up; exec sleep 1000"

# One that stays: its child is of its session. Its first argument after this is its name.
STAYS = "sleep 1000 & echo up; wait"

SHORT = StopLadder((signal.SIGTERM, 0.5))


@define
class There:
    """The "other" machine of a module's tests.

    Attributes:
        server: Its sshd.
        mark: What all that is started there bears.
        directory: Where its user keeps things.
    """

    server: Server
    mark: str
    directory: Path

    def spawner(self, wire: "Wire | None" = None, **changes: Any) -> SSHSpawner:
        """The spawner of it, through a wire if there is one."""
        if wire is not None:
            changes["port"] = wire.port
        return self.server.spawner(**changes)

    def living(self, text: str = "") -> list[int]:
        """All that runs there, or what has a text in its arguments."""
        return [pid for pid in _marked(self.mark) if text in command(pid)]

    def connections(self) -> list[int]:
        """The processes of sshd that serve connections."""
        pids = [pid for pid in all_stats() if is_descendant(pid, self.server.pid)]
        sshds = [pid for pid in pids if command(pid).startswith("sshd")]
        return [pid for pid in sshds if pid != self.server.pid]

    def sleepers(self) -> list[int]:
        """The daemons of FAMILY, and their children."""
        return [pid for pid in self.living() if command(pid) == "sleep 1000"]

    def named(self, name: str) -> set[int]:
        """The main processes of those that stay and have this name; not while at their gate."""
        shown = f"sh -c {STAYS} {name}"
        return {pid for pid in self.living() if command(pid).removeprefix("/usr/bin/") == shown}

    def files(self) -> list[str]:
        """What is kept there for one start only: private directories."""
        places = [self.directory / "state" / "trio-lifecycle", self.directory]
        return [str(path) for place in places for path in place.glob("trio-????????*")]

    @staticmethod
    def kill(*pids: int, signum: int = signal.SIGKILL) -> None:
        """Send a signal to each; one may have ended of another's death meanwhile."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    async def wait_until(self, is_so: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Look again and again."""
        with trio.fail_after(seconds):
            while not is_so():  # noqa: ASYNC110  # another machine tells of no event
                await trio.sleep(0.01)


def staying(name: str, **changes: Any) -> LifecycleConfig:
    """One that stays."""
    usual: dict[str, Any] = {"ready_mode": LogLine("up"), "stop_ladder": SHORT, "detach": True}
    return LifecycleConfig("sh", args=["-c", STAYS, name], name=name, **{**usual, **changes})


def family(name: str = "family", **changes: Any) -> LifecycleConfig:
    """One that has an owner, and a child that tries to escape."""
    usual: dict[str, Any] = {
        "args": ["-c", FAMILY],
        "ready_mode": LogLine("up"),
        "stop_ladder": SHORT,
    }
    return LifecycleConfig("sh", name=name, **{**usual, **changes})


def command(pid: int) -> str:
    """The arguments of a process, or nothing."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}\0".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (path / "environ").read_bytes():
                stat = read_stat(int(path.name))
                if stat is not None and not stat.dead:
                    yield stat.pid
        except OSError:
            continue


@contextmanager
def machine_there(directory: Path, **options: str | int) -> Iterator[There]:
    """Run an sshd that marks all that it starts; the options are lines of its configuration."""
    mark = uuid.uuid4().hex
    directory.chmod(0o755)
    settings = f"{MARK}={mark} XDG_STATE_HOME={directory}/state TMPDIR={directory}"
    with running_sshd(None, SetEnv=settings, **options) as server:
        yield There(server, mark, directory)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    """One for all tests of a module."""
    with machine_there(tmp_path_factory.mktemp("there")) as there:
        yield there


@pytest.fixture
def there(machine: There) -> Iterator[There]:
    """The machine; nothing may be left on it when the test's Trio run is over."""
    yield machine
    trio.run(expect_nothing_left, machine)


async def expect_nothing_left(there: There) -> None:
    """Fail unless all is gone; what is left is ended."""
    with trio.move_on_after(8):
        await there.wait_until(lambda: not there.living() and not there.files())
        return
    left, files = {pid: command(pid) for pid in there.living()}, there.files()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    for path in files:
        shutil.rmtree(path)
    pytest.fail(f"left there: {left} {files}")


async def lose(lifecycle: DaemonLifecycle, strike: Callable[[DaemonHandle], object]) -> None:
    """Own a daemon until a stroke ends the block."""
    async with lifecycle.running() as daemon:
        strike(daemon)
        await trio.sleep_forever()


async def expect_what_is_recorded(
    there: There, registry: SQLiteRegistry, config: LifecycleConfig
) -> None:
    """Fail unless who runs is recorded, and who ensures it then has one only, and can end it.

    One that was not known to be ready may be ended for it: whether it is, nobody can ask it.
    """
    lifecycle = DaemonLifecycle(config, spawner=there.spawner(), registry=registry)
    records = {record.pid: record.state for record in await registry.daemons()}
    await there.wait_until(lambda: there.named(config.name) <= records.keys(), 10)
    ready = {pid for pid in there.named(config.name) if records[pid] == "ready"}
    with trio.fail_after(30):
        daemon = await lifecycle.ensure_running()
    assert {daemon.pid} == there.named(config.name)
    assert ready <= {daemon.pid}
    await daemon.stop()
    assert [] == await registry.daemons()
    assert set() == there.named(config.name)


@define
class Wire:
    """Carries connections to a server, until it is cut or falls silent.

    Attributes:
        port: Where it listens.
        sent: How many pieces it has carried there.
        cut_after: After how many it is cut by itself, once.
    """

    port: int
    sent: int = 0
    cut_after: int | None = None
    is_cut: bool = False
    _to: int = 0
    _goes_on: trio.Event = field(factory=trio.Event)
    _scopes: set[trio.CancelScope] = field(factory=set)

    def cut(self) -> None:
        """Close all that it carries; who connects anew is carried."""
        self.is_cut = True
        for scope in self._scopes:
            scope.cancel()

    def fall_silent(self) -> None:
        """Carry nothing any more, and close nothing."""
        self._goes_on = trio.Event()

    def go_on(self) -> None:
        """Carry again."""
        self._goes_on.set()

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                far = await trio.open_tcp_stream("127.0.0.1", self._to)
                async with near, far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, near, far, True)
                    nursery.start_soon(self._pump, far, near, False)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._scopes.discard(scope)

    async def _pump(
        self, source: trio.SocketStream, target: trio.SocketStream, counted: bool
    ) -> None:
        async for data in source:
            await self._goes_on.wait()
            if counted:
                self.sent += 1
                if self.cut_after is not None and self.sent >= self.cut_after and not self.is_cut:
                    self.cut()
            await target.send_all(data)
        raise trio.BrokenResourceError


@asynccontextmanager
async def wire_to(there: There, cut_after: int | None = None) -> AsyncIterator[Wire]:
    """Open one."""
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        wire = Wire(listener.socket.getsockname()[1], cut_after=cut_after, to=there.server.port)
        wire.go_on()
        # It listens already, so who connects before that is served waits.
        nursery.start_soon(trio.serve_listeners, wire.carry, [listener])  # noqa: ASYNC113
        yield wire
        nursery.cancel_scope.cancel()
