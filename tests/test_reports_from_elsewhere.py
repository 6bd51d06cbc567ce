"""Daemons on another machine: their calls are led here, their messages come by an inbox there."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from tests.callbacks import FakeProcess, Waiting, waiting
from tests.elsewhere import THERE, Elsewhere
from tests.support import PATIENCE_S, Heard, python_daemon
from trio_lifecycle import (
    ConfigError,
    DaemonLifecycle,
    LocalSpawner,
    Notify,
    Output,
    ReadyError,
)
from trio_lifecycle._markers import CALLBACK_URL
from trio_lifecycle._receiver import CallbackReceiver
from trio_lifecycle.abc import Caller, Prober, Report
from trio_lifecycle.ready._callback import ArmedCallback, Callback
from trio_lifecycle.testing._prober import SimulatedProber

STRANGER = 4242


class FarProcess(FakeProcess):
    """A process of the other machine."""

    @property
    def pid(self) -> int:
        return THERE


def descriptors() -> set[str]:
    """What is open here."""
    return {path.name for path in Path("/dev/fd").iterdir()}


@pytest.fixture
def there() -> Elsewhere:
    return Elsewhere()


# --- callbacks --------------------------------------------------------------------------------


async def test_a_callback_comes_on_the_way_back_and_is_answered_on_it(there: Elsewhere) -> None:
    async with waiting(prober=there) as it:
        (way,) = there.ways
        assert (way.host, way.port) == it.address
        assert it.armed._server is not None
        assert way.port != it.armed._server._listener.getsockname()[1]
        assert 200 == await it.post({"port": 4321})
        await it.ready.wait()
        # Its own loopback address: whoever hands it on knows whose.
        assert Report("http://127.0.0.1:4321", 4321, {"port": 4321}) == it.report
    assert 1 == way.left


CALL = """
import os, socket, sys
where = os.environ["TRIO_LIFECYCLE_CALLBACK_URL"].removeprefix("http://")
authority, _, token = where.partition("/")
host, _, port = authority.partition(":")
caller = socket.create_connection((host, int(port)))
body = b'{"pid": %d}' % os.getpid()
line = f"POST /{token} HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
caller.sendall(line.encode() + body)
print(caller.recv(100).split(b" ")[1].decode(), flush=True)
sys.stdin.close()
os.read(os.pipe()[0], 1)
"""


async def test_a_real_daemon_is_ready_by_a_call_on_the_way_back_and_hears_the_answer(
    there: Elsewhere,
) -> None:
    class Spawner(LocalSpawner):
        def open_prober(self) -> Prober:
            return there

    heard = Heard()
    config = python_daemon(CALL, ready_mode=Callback(), output=Output(to=heard))
    async with DaemonLifecycle(config, spawner=Spawner()).running() as daemon:
        assert {"pid": daemon.pid} == daemon.report
        assert "00" == await heard.line("2")
    assert [1] == [way.left for way in there.ways]


async def test_a_callback_that_comes_before_the_wait_is_not_lost(there: Elsewhere) -> None:
    armed = await Callback().arm(there.start())
    it = Waiting(armed)
    async with await it.connect() as stream:
        await stream.send_all(it.request(b'{"port": 1}'))
        with trio.fail_after(PATIENCE_S):
            report = await armed.wait(FarProcess())
    assert 1 == report.port
    await armed.disarm()


@pytest.mark.fault(87)
@pytest.mark.parametrize(
    ("who", "status"),
    [
        (Caller(STRANGER, None, is_same_user=True), 200),
        (Caller(STRANGER, THERE, is_same_user=False), 200),
        (Caller(STRANGER, THERE + 1, is_same_user=False), 403),
        (Caller(STRANGER, None, is_same_user=False), 403),
        # The connection that arrives here is this program's own, and that counts for nothing.
        (None, 403),
    ],
)
async def test_with_the_url_in_the_arguments_who_calls_is_asked_of_the_way_back(
    there: Elsewhere, who: Caller | None, status: int
) -> None:
    in_arguments = frozenset({CALLBACK_URL})
    process = FarProcess(THERE)
    async with waiting(process=process, prober=there, in_arguments=in_arguments) as it:
        there.ways[0].who = who
        assert status == await it.post()


@pytest.mark.fault(87)
async def test_who_calls_over_a_network_cant_be_told(there: Elsewhere) -> None:
    receiver = CallbackReceiver("http://192.0.2.1:8000/x")
    start = there.start(in_arguments=frozenset({CALLBACK_URL}))
    armed = await Callback(receiver).arm(start)
    assert [] == there.ways
    assert armed.env["TRIO_LIFECYCLE_CALLBACK_URL"].startswith("http://192.0.2.1:8000/x/")
    with trio.move_on_after(0):
        await armed.wait(FarProcess())
    reply = await receiver.handle("POST", armed.secrets[0], b"", None)
    assert 403 == reply.status
    await armed.disarm()


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://localhost:8000/x", "http://127.0.0.1:{port}/x"),
        ("http://127.0.0.1/x", "http://127.0.0.1:{port}/x"),
        ("https://localhost:8000", "https://localhost:{port}"),
    ],
)
async def test_a_mounted_receiver_on_loopback_is_led_to(
    there: Elsewhere, base_url: str, url: str
) -> None:
    armed = await Callback(CallbackReceiver(base_url)).arm(there.start())
    (way,) = there.ways
    assert ("127.0.0.1", urlsplit(base_url).port or 80) == way._to
    expected = f"{url.format(port=way.port)}/{armed.secrets[0]}"
    assert expected == armed.env["TRIO_LIFECYCLE_CALLBACK_URL"] == armed.values[CALLBACK_URL]
    await armed.disarm()
    await armed.disarm()
    assert 1 == way.left


@pytest.mark.parametrize("text", ["Connection reset by peer", "no more ports"])
async def test_without_a_way_back_the_start_fails_and_nothing_listens(
    there: Elsewhere, text: str
) -> None:
    there.refusal = lambda: OSError(104, text) if "reset" in text else OSError(text)
    before = descriptors()
    with pytest.raises(ReadyError, match=f"nothing leads from its machine to here: {text}"):
        await Callback().arm(there.start())
    assert before == descriptors()


async def test_an_arming_that_is_cancelled_on_the_way_leaves_nothing(there: Elsewhere) -> None:
    before = descriptors()
    armed: ArmedCallback | None = None
    with trio.move_on_after(0):
        armed = await Callback().arm(there.start())
    assert armed is None
    assert before == descriptors()


async def test_what_was_armed_in_one_scope_is_disarmed_in_another(there: Elsewhere) -> None:
    with trio.fail_after(PATIENCE_S):
        armed = await Callback().arm(there.start())
    with trio.move_on_after(0) as over:
        await armed.disarm()
    assert over.cancel_called
    assert 1 == there.ways[0].left
    with pytest.raises(OSError, match="connect"):
        await Waiting(armed).connect()


async def test_a_prober_elsewhere_that_leads_nothing_back_refuses_the_modes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prober = SimulatedProber([], lambda _: FarProcess(), lambda _: None)
    monkeypatch.setattr(SimulatedProber, "is_here", False)
    start = Elsewhere().start(prober=prober)
    before = descriptors()
    with pytest.raises(ConfigError, match="SimulatedProber can't lead calls back"):
        await Callback().arm(start)
    with pytest.raises(ConfigError, match="SimulatedProber can't hear notifications"):
        await Notify().arm(start)
    assert before == descriptors()


# --- notifications ----------------------------------------------------------------------------


async def test_a_message_is_judged_by_what_is_said_where_it_was_sent(there: Elsewhere) -> None:
    armed = await Notify(path="/run/there").arm(there.start(user=STRANGER, port=81))
    (box,) = there.inboxes
    assert {"NOTIFY_SOCKET": "/run/there/notify"} == armed.env
    box.post(f"READY=1\nMAINPID={THERE}", THERE, STRANGER)
    with trio.fail_after(PATIENCE_S):
        report = await armed.wait(FarProcess(THERE))
    assert Report(None, 81, {"mainpid": THERE}) == report
    await armed.disarm()
    assert box.is_closed
    await armed.follow(FarProcess())


@pytest.mark.parametrize(
    ("sender", "users", "refusal"),
    [
        (THERE + 1, set(), f"process {THERE + 1} had ended before it could be looked at"),
        # This very process lives, but on this machine.
        (os.getpid(), set(), f"process {os.getpid()} had ended before it could be looked at"),
        (THERE + 1, {0}, f"process {THERE + 1} does not belong to the daemon"),
        (THERE, {0}, f"process {THERE} does not run as user {STRANGER}"),
        (THERE, {STRANGER}, None),
    ],
    ids=["gone", "of this machine", "not the daemon's", "another user's", "good"],
)
async def test_a_message_of_somebody_else_there_is_refused(
    there: Elsewhere, sender: int, users: set[int], refusal: str | None
) -> None:
    armed = await Notify().arm(there.start())
    (box,) = there.inboxes
    box.users[sender] = frozenset(users)
    box.post("READY=1", sender, STRANGER)
    report = await armed.ask(FarProcess(THERE))
    assert (refusal is None) == (report is not None)
    assert refusal is None or refusal in armed.last_seen
    await armed.disarm()


async def test_a_sender_that_is_gone_is_believed_by_what_it_descended_from(
    there: Elsewhere,
) -> None:
    armed = await Notify().arm(there.start())
    (box,) = there.inboxes
    box.post("STATUS=loading", THERE + 7, ancestors=(THERE + 6, 1))
    box.post("READY=1", THERE + 8, ancestors=(THERE + 6, THERE, 1))
    with trio.fail_after(PATIENCE_S):
        report = await armed.wait(FarProcess(THERE))
    # What a stranger said is not the daemon's word.
    assert Report() == report
    await armed.disarm()


async def test_an_inbox_that_cant_be_made_there_is_an_error(there: Elsewhere) -> None:
    there.refusal = lambda: OSError("the connection is lost")
    with pytest.raises(ReadyError, match=r"can't be made in /run/there: the connection is lost"):
        await Notify(path=Path("/run/there")).arm(there.start())
