"""An SSH server in a thread of the tests, for machines where no sshd is installed."""

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.plugins.needs import find_program
from tests.sshd import Server, running_sshd


class _Policy(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return True

    def unix_connection_requested(self, dest_path: str) -> bool:
        return True


async def _run(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    """Run a command as sshd does, by a shell."""
    child = subprocess.Popen(  # noqa: ASYNC220 - a shell starts at once
        ["sh", "-c", process.command or "exec sh"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    with child:
        feeding = asyncio.ensure_future(_feed(process.stdin, child.stdin))
        ended = asyncio.gather(
            _drain(child.stdout, process.stdout),
            _drain(child.stderr, process.stderr),
            asyncio.to_thread(child.wait),
        )
        closed: asyncio.Future[None] = asyncio.ensure_future(process.channel.wait_closed())
        both: set[asyncio.Future[Any]] = {ended, closed}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            # What it has left would go on under sshd; here it is in the way.
            os.killpg(child.pid, signal.SIGKILL)
        status = (await ended)[2]
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        closed.cancel()
    if status < 0:
        process.exit_with_signal("KILL")
    else:
        process.exit(status)
    await process.wait_closed()


async def _feed(reader: Any, pipe: Any) -> None:
    try:
        while data := await reader.read(65536):
            await asyncio.to_thread(pipe.write, data)
    except (OSError, asyncssh.Error):
        return
    finally:
        pipe.close()


async def _drain(pipe: Any, writer: Any) -> None:
    while data := await asyncio.to_thread(pipe.read, 65536):
        try:
            writer.write(data)
            await writer.drain()
        except (OSError, asyncssh.Error):
            continue


@contextmanager
def running_server() -> Iterator[Server]:
    """Run an asyncssh server."""
    with tempfile.TemporaryDirectory(prefix="ssh-server-") as name:
        directory = Path(name)
        host_key = asyncssh.generate_private_key("ssh-ed25519")
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(directory / "key")
        key.write_public_key(directory / "authorized_keys")
        with _thread(host_key, directory) as port:
            public = host_key.export_public_key().decode()
            yield Server(port, public, directory / "key", "somebody", directory, 0)


@contextmanager
def _thread(host_key: Any, directory: Path) -> Iterator[int]:
    listening = threading.Event()
    ports: list[int] = []
    stops: list[Any] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_pool())
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=_Policy,
            server_host_keys=[host_key],
            authorized_client_keys=str(directory / "authorized_keys"),
            process_factory=_run,
            sftp_factory=True,
            encoding=None,
            gss_host=None,
        )
        ports.append(server.get_port())
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        listening.set()
        await stop.wait()
        server.close()
        await server.wait_closed()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=_in_own_loop, args=(serve(),))
    thread.start()
    try:
        assert listening.wait(20)
        yield ports[0]
    finally:
        stops[0]()
        thread.join()


def _pool() -> ThreadPoolExecutor:
    """Threads that wait for commands, three for each; all there before a test begins."""
    pool = ThreadPoolExecutor(_THREADS)
    everybody = threading.Barrier(_THREADS + 1)
    for _ in range(_THREADS):
        pool.submit(everybody.wait)
    everybody.wait()
    return pool


_THREADS = 64


def _in_own_loop(serve: Coroutine[Any, Any, None]) -> None:
    # Not asyncio.run(): trio-asyncio has its own idea of what that does.
    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(serve)
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


@pytest.fixture(scope="module")
def ssh_server() -> Iterator[Server]:
    """The server in the tests' own process, for all tests of a module."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A real sshd for all tests of a module; where none is installed, the one in the process."""
    found = find_program("sshd") is not None and find_program("ssh-keygen") is not None
    with running_sshd() if found else running_server() as one:
        yield one
