"""The verbs on real programs: up for a block, for a nursery, for nobody; and gone afterwards."""

import signal
import sys
import urllib.request
from pathlib import Path

import pytest
import trio

from tests.support import (
    PATIENCE_S,
    Heard,
    die,
    lives,
    python_daemon,
    shell_daemon,
    wait_until_gone,
)
from trio_lifecycle import (
    FREE_PORT,
    DaemonDiedError,
    DaemonHandle,
    DaemonLifecycle,
    DiedBeforeReadyError,
    Event,
    HealthCheck,
    LifecycleConfig,
    Output,
    ReadyTimeoutError,
    StopLadder,
)

URL = f"http://127.0.0.1:{FREE_PORT}/"

PYTHONS_SERVER = DaemonLifecycle(
    LifecycleConfig(
        sys.executable,
        args=["-m", "http.server", "--bind", "127.0.0.1", FREE_PORT],
        name="http.server",
        ready_mode=HealthCheck(URL),
    )
)

UVICORN_APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"from uvicorn"})
"""


def fetch(url: str | None) -> bytes:
    """What a client gets, once and without patience."""
    assert url is not None
    with urllib.request.urlopen(url, timeout=5) as response:
        content: bytes = response.read()
    return content


# --- up, and gone ---------------------------------------------------------------------------------


async def test_a_block_has_pythons_http_server_up_and_it_is_gone_afterwards() -> None:
    async with PYTHONS_SERVER.running() as daemon:
        assert "spawned" == daemon.origin
        assert f"http://127.0.0.1:{daemon.port}/" == daemon.url
        assert b"Directory listing" in await trio.to_thread.run_sync(fetch, daemon.url)
        assert 0 < daemon.ready_after_s < 30
    assert not lives(daemon.pid or 0)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_block_has_uvicorn_up_and_its_workers_are_gone_afterwards(
    tmp_path: Path, workers: str
) -> None:
    (tmp_path / "served.py").write_text(UVICORN_APP)
    args = ["-m", "uvicorn", "--app-dir", str(tmp_path), "--port", FREE_PORT, "served:app"]
    config = LifecycleConfig(
        sys.executable,
        args=[*args, "--workers", workers],
        name="uvicorn",
        ready_mode=HealthCheck(URL),
    )
    async with DaemonLifecycle(config).running() as daemon:
        assert b"from uvicorn" == await trio.to_thread.run_sync(fetch, daemon.url)
    assert not lives(daemon.pid or 0)


async def test_a_nursery_owns_a_daemon_until_it_is_cancelled() -> None:
    async with trio.open_nursery() as nursery:
        daemon: DaemonHandle = await nursery.start(PYTHONS_SERVER.run)
        assert await trio.to_thread.run_sync(fetch, daemon.url)
        nursery.cancel_scope.cancel()
    assert not lives(daemon.pid or 0)


async def test_two_blocks_of_one_lifecycle_have_a_daemon_each() -> None:
    async with PYTHONS_SERVER.running() as one, PYTHONS_SERVER.running() as other:
        assert one.port != other.port
        assert one.pid != other.pid


async def test_what_it_writes_before_it_listens_never_makes_it_wait() -> None:
    code = """
import sys, http.server
for number in range(10_000):
    sys.stdout.write("x" * 1000 + f"{number:6}\\n")
sys.stdout.flush()
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""
    config = python_daemon(code, FREE_PORT, ready_mode=HealthCheck(URL))
    async with DaemonLifecycle(config).running() as daemon:
        assert "  9999\n" in daemon.output_tail
        assert len(daemon.output_tail) <= 65_536


async def test_a_grandchild_that_a_shell_leaves_behind_goes_with_the_block() -> None:
    heard = Heard()
    script = (
        f"{sys.executable} -m http.server --bind 127.0.0.1 $PORT & echo server $!; exec sleep 99"
    )
    config = shell_daemon(
        script, env={"PORT": str(FREE_PORT)}, ready_mode=HealthCheck(URL), output=Output(to=heard)
    )
    async with DaemonLifecycle(config).running():
        server = await heard.pid("server")
        assert lives(server)
    assert not lives(server)


async def test_a_daemon_that_ignores_sigterm_is_gone_after_the_ladder() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(1000)"
    heard = Heard()
    ladder = StopLadder((signal.SIGTERM, 0.2))
    config = python_daemon(code, stop_ladder=ladder, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("up")
    assert -9 == (await daemon.stop()).status


# --- not up ---------------------------------------------------------------------------------------


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("ending", "words", "status"),
    [
        ("exit 3", "exited with status 3", 3),
        ("kill -SEGV $$", "was killed by SIGSEGV", -signal.SIGSEGV),
    ],
)
async def test_a_program_that_ends_at_once_is_reported_at_once(
    ending: str, words: str, status: int
) -> None:
    config = shell_daemon(
        f"echo the reason why >&2; {ending}", ready_mode=HealthCheck(URL), ready_timeout=300
    )
    config = LifecycleConfig(
        config.binary_name,
        args=[*config.args, "sh", FREE_PORT],
        name="hasty",
        ready_mode=config.ready_mode,
        ready_timeout=300,
    )
    began = trio.current_time()
    with pytest.raises(DiedBeforeReadyError) as caught:
        async with DaemonLifecycle(config).running():
            pass
    assert trio.current_time() - began < 1
    assert status == caught.value.exit_status
    assert "the reason why\n" == caught.value.output_tail
    assert f"hasty {words}" in str(caught.value)
    assert "the reason why" in str(caught.value)


@pytest.mark.fault(16)
async def test_a_program_that_is_never_ready_is_reported_at_the_deadline_and_gone() -> None:
    heard = Heard()
    config = shell_daemon(
        "sleep 1000 & echo grandchild $!; wait",
        ready_mode=HealthCheck(URL),
        ready_timeout=0.5,
        output=Output(to=heard),
    )
    events: list[Event] = []
    began = trio.current_time()
    with pytest.raises(ReadyTimeoutError) as caught:
        async with DaemonLifecycle(config, observer=events.append).running():
            pass
    assert 0.5 <= caught.value.waited_s < 1.5
    assert trio.current_time() - began < 5
    assert not lives(await heard.pid("grandchild"))
    assert "refused the connection" in str(caught.value)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.05, 0.2])
async def test_a_start_that_is_cancelled_leaves_nothing(seconds: float) -> None:
    events: list[Event] = []
    config = shell_daemon("sleep 1000 & wait", ready_mode=HealthCheck(URL))
    with trio.move_on_after(seconds) as scope:
        async with DaemonLifecycle(config, observer=events.append).running():
            pass
    assert scope.cancelled_caught
    pids = [event.as_dict()["pid"] for event in events if event.kind == "spawned"]
    assert [] == [pid for pid in pids if lives(pid)]


# --- death, and what the block raises -------------------------------------------------------------


@pytest.mark.fault(30)
async def test_its_death_cancels_the_block_and_is_raised() -> None:
    left = []

    async def body(daemon: DaemonHandle) -> None:
        began = trio.current_time()
        try:
            await die(daemon)
        finally:
            left.append(trio.current_time() - began)

    with pytest.raises(DaemonDiedError) as caught:
        async with PYTHONS_SERVER.running() as daemon:
            await body(daemon)
    assert -9 == caught.value.exit_status
    assert "was killed by SIGKILL" in str(caught.value)
    assert left[0] < 1


@pytest.mark.fault(30)
async def test_its_death_comes_out_of_the_nursery_that_owns_it() -> None:
    with pytest.RaisesGroup(DaemonDiedError):
        async with trio.open_nursery() as nursery:
            await die(await nursery.start(PYTHONS_SERVER.run))


async def test_what_the_block_raises_leaves_as_the_same_object() -> None:
    error = KeyError("a key")
    with pytest.raises(KeyError) as caught:
        async with PYTHONS_SERVER.running() as daemon:
            raise error
    assert error is caught.value
    assert not lives(daemon.pid or 0)


async def test_a_group_from_a_nursery_in_the_block_leaves_as_the_same_object() -> None:
    async def fail(error: Exception) -> None:
        raise error

    groups: list[BaseException] = []
    with pytest.RaisesGroup(KeyError, ValueError) as caught:
        async with PYTHONS_SERVER.running():
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fail, KeyError())
                    nursery.start_soon(fail, ValueError())
            except BaseExceptionGroup as group:
                groups.append(group)
                raise
    assert groups == [caught.value]


async def test_the_block_leaves_before_the_daemon_is_asked_to() -> None:
    seen: list[str] = []

    def note(event: Event) -> None:
        seen.append(event.kind)

    lifecycle = DaemonLifecycle(PYTHONS_SERVER.config, observer=note)
    with trio.move_on_after(PATIENCE_S) as scope:
        async with lifecycle.running() as daemon:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                with trio.CancelScope(shield=True):
                    assert await trio.to_thread.run_sync(fetch, daemon.url)
                    seen.append("the block has left")
    assert ["ready", "the block has left", "stopping", "stopped"] == seen[-4:]


async def test_a_daemon_that_is_stopped_in_the_block_leaves_the_block_alone() -> None:
    async with PYTHONS_SERVER.running() as daemon:
        report = await daemon.stop()
        assert report.rung == "SIGTERM"
        await wait_until_gone(daemon.pid or 0)
        await trio.lowlevel.checkpoint()
    assert report == await daemon.stop()


async def test_the_lines_of_a_daemon_end_with_it() -> None:
    code = (
        "import signal, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "print('up', flush=True)\n"
        "signal.sigwait({signal.SIGUSR1})\n"
        "for n in range(3): print(n, flush=True)\n"
        "time.sleep(1000)"
    )
    heard, lines = Heard(), []
    config = python_daemon(code, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("up")
        coming = daemon.lines()
        await daemon.send_signal(signal.SIGUSR1)
        async for line in coming:
            lines.append(line)
            if len(lines) == 3:
                await daemon.terminate()
    assert ["0", "1", "2"] == lines
