"""Two machines with a network between them that can be cut: three network namespaces.

What one sends the other goes through a router, which can be told to drop all of it: neither sees
that a cable is out, or that a connection is closed.
"""

import ctypes
import os
import signal
import subprocess
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.plugins.needs import find_program
from tests.sshd import Server, running_sshd, start_again
from tests.support import PATIENCE_S, permitted
from trio_lifecycle._ssh._bridge import _trio_asyncio
from trio_lifecycle._ssh._login import require_asyncssh

HERE, THERE = "10.77.1.2", "10.77.2.2"

_HOST = "ip link set lo up && ip addr add {0}.2/24 dev eth0 && ip link set eth0 up \
&& ip route add default via {0}.1"
_ROUTER = "ip addr add 10.77.1.1/24 dev here && ip addr add 10.77.2.1/24 dev there \
&& ip link set here up && ip link set there up"
# Neither answers nor forwards when it is told 0.
_ROUTE = "while read way; do echo $way 2>/dev/null >/proc/sys/net/ipv4/ip_forward; echo $?; done"


@dataclass(frozen=True)
class Machine:
    """A network namespace, and what runs in it; it lasts as long as the descriptor."""

    namespace: int

    @property
    def within(self) -> tuple[str, ...]:
        """What stands before a command that is to run on it."""
        return "nsenter", f"--net=/proc/{os.getpid()}/fd/{self.namespace}"

    def run(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a script on it."""
        command = [*self.within, "sh", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

    def enter(self) -> None:
        """Have this thread, and all that it starts from now on, be on it: setns(2)."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(self.namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def processes(self) -> dict[int, str]:
        """All that live on it: number -> command line."""
        inode, found = os.fstat(self.namespace).st_ino, {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and (entry / "ns/net").stat().st_ino == inode:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    found[int(entry.name)] = b" ".join(words).decode().strip()
            except OSError:
                continue
        return found

    def count(self, words: str) -> int:
        """Say how many there are with this command line."""
        return list(self.processes().values()).count(words)

    def kill(self) -> None:
        """End all that runs on it, as when its power fails."""
        while found := self.processes():
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


_CLONE_NEWNET = 0x40000000


class Network:
    """This machine, the other one, and the router between them.

    Attributes:
        here: Where the test runs.
        there: Where its SSH server runs.
        server: That server.
    """

    def __init__(
        self, here: Machine, there: Machine, router: Machine, control: "subprocess.Popen[str]"
    ) -> None:
        self.here = here
        self.there = there
        self._router = router
        self._control = control
        self.server: Server

    def cut(self) -> None:
        """Drop all packets from now on."""
        self._tell("0")

    def mend(self) -> None:
        """Let them through again."""
        self._tell("1")

    def delay(self, milliseconds: int) -> None:
        """Have each packet take so long in either direction, where the kernel can do that."""
        self._queue(f"netem delay {milliseconds}ms")

    def throttle(self, rate: str) -> None:
        """Let no more through than this, as ``tc`` says it."""
        self._queue(f"tbf rate {rate} burst 4kb latency 300ms")

    def start_server_again(self) -> None:
        """Start it with the keys and the port that it had."""
        start_again(self.server, self.there.within)

    def _queue(self, queue: str) -> None:
        for device in ("here", "there"):
            done = self._router.run(f"tc qdisc replace dev {device} root {queue}")
            if done.returncode:
                pytest.skip(f"needs a kernel with that queue: {queue}: {done.stderr.strip()}")

    def _tell(self, word: str) -> None:
        assert self._control.stdin is not None
        assert self._control.stdout is not None
        self._control.stdin.write(f"{word}\n")
        self._control.stdin.flush()
        if "0\n" != self._control.stdout.readline():
            pytest.skip("needs a network namespace that may forward packets")


@pytest.fixture
def network() -> Iterator[Network]:
    """Two machines, of which the other one runs an SSH server."""
    if not permitted("unshare", "--net", "true"):
        pytest.skip("needs the right to make network namespaces")
    # Each test runs in a fork of this program, and need not import these again.
    require_asyncssh()
    _trio_asyncio()
    with ExitStack() as stack:
        made = stack.enter_context(_network())
        made.mend()
        options = {"ListenAddress": THERE}
        made.server = stack.enter_context(
            running_sshd(host=THERE, within=made.there.within, **options)
        )
        yield made


@contextmanager
def _network() -> Iterator[Network]:
    with ExitStack() as stack:
        here, there, router = (stack.enter_context(_namespace(script)) for script in _SCRIPTS)
        _link(here, there, router)
        machines = [stack.enter_context(_machine(process)) for process in (here, there, router)]
        # From here on, the descriptors hold the two.
        for process in (here, there):
            _end(process)
        _set_up(*machines)
        try:
            yield Network(machines[0], machines[1], machines[2], router)
        finally:
            machines[1].kill()


_SCRIPTS = ("cat", "cat", _ROUTE)


@contextmanager
def _namespace(script: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", f"echo made; {script}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert "made\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


@contextmanager
def _machine(process: "subprocess.Popen[str]") -> Iterator[Machine]:
    descriptor = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY)
    try:
        yield Machine(descriptor)
    finally:
        os.close(descriptor)


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(PATIENCE_S)


def _link(
    here: "subprocess.Popen[str]", there: "subprocess.Popen[str]", router: "subprocess.Popen[str]"
) -> None:
    for name, host in (("here", here), ("there", there)):
        ends = f"{name} netns {router.pid} type veth peer name eth0 netns {host.pid}"
        command = [find_program("ip") or "ip", "link", "add", *ends.split()]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs pairs of virtual network devices: {done.stderr.strip()}")


def _set_up(here: Machine, there: Machine, router: Machine) -> None:
    scripts = {here: _HOST.format("10.77.1"), there: _HOST.format("10.77.2"), router: _ROUTER}
    for machine, script in scripts.items():
        done = machine.run(script)
        assert 0 == done.returncode, done.stderr


# --- tests that run there -------------------------------------------------------------------------


def on_a_machine(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on the machine ``here`` of its network.

    It runs in a fork: the threads that Trio keeps would take the namespace on to other tests.
    """

    @wraps(test)
    def run(network: Network, **options: Any) -> None:
        async def call() -> None:
            with trio.fail_after(PATIENCE_S):
                await test(network=network, **options)

        def enter_and_call() -> None:
            network.here.enter()
            trio.run(call)

        _run_in_a_fork(enter_and_call)

    return run


def _run_in_a_fork(work: Callable[[], None]) -> None:
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(readable)
            work()
        except pytest.skip.Exception as skipped:
            os.write(writable, f"{_SKIPPED}{skipped}".encode())
        except BaseException:  # noqa: ASYNC103 - the other process raises it
            os.write(writable, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable, encoding="utf-8") as pipe:  # noqa: PTH123  # it is a descriptor
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if said.startswith(_SKIPPED):
        pytest.skip(said.removeprefix(_SKIPPED))
    if said or status:
        pytest.fail(said or f"the fork of this test has ended with {status}", pytrace=False)


_SKIPPED = "skipped: "
