"""Ready by callback: what is reported, who may call, and where it listens."""

import os
import subprocess
import sys
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.callbacks import FakeProcess, Waiting, arm, read_answer, waiting
from tests.support import python_daemon
from trio_lifecycle import DaemonLifecycle, _proc
from trio_lifecycle._errors import ConfigError, ReadyError
from trio_lifecycle._markers import CALLBACK_URL
from trio_lifecycle._receiver import CallbackReceiver, Peer
from trio_lifecycle.abc import Report
from trio_lifecycle.ready import _way_here
from trio_lifecycle.ready._callback import Callback

# --- what is reported -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "port", "report"),
    [
        ({"url": "http://10.0.0.5:81/v1", "port": 82}, 9, ("http://10.0.0.5:81/v1", 82)),
        ({"url": "http://10.0.0.5:81/v1"}, 9, ("http://10.0.0.5:81/v1", 81)),
        ({"url": "https://10.0.0.5/v1"}, None, ("https://10.0.0.5/v1", 443)),
        ({"port": 82}, 9, ("http://127.0.0.1:82", 82)),
        ({"model": "tiny"}, 9, ("http://127.0.0.1:9", 9)),
        ({"url": None, "port": None}, None, (None, None)),
        (None, None, (None, None)),
    ],
)
async def test_the_daemon_says_where_it_is(
    said: Any, port: int | None, report: tuple[str, int]
) -> None:
    async with waiting(port=port) as it:
        assert 200 == await it.post(said)
        await it.ready.wait()
        assert Report(*report, said or {}) == it.report


@pytest.mark.fault(85)
async def test_every_other_key_is_free_and_stands_in_the_report() -> None:
    said = {"pid": 17, "instance_id": "7f", "worker_id": "w-1", "model": {"name": "tiny"}}
    async with waiting() as it:
        assert 200 == await it.post(said)
        await it.ready.wait()
        assert it.report is not None
        assert said == it.report.facts


async def test_the_url_is_handed_to_the_daemon_and_its_token_is_a_secret() -> None:
    armed = await arm()
    (variable,) = armed.env.items()
    assert ("TRIO_LIFECYCLE_CALLBACK_URL", armed.values[CALLBACK_URL]) == variable
    assert variable[1].endswith(f"/ready/{armed.secrets[0]}")
    assert frozenset({CALLBACK_URL}) == Callback().markers
    await armed.disarm()


@pytest.mark.fault(83)
async def test_a_callback_before_the_wait_is_not_lost() -> None:
    armed = await arm()
    it = Waiting(armed)
    async with await it.connect() as stream:
        await stream.send_all(it.request(b'{"port": 1}'))
        report = await armed.wait(FakeProcess())
        assert 200 == (await read_answer(stream))[0]
    assert 1 == report.port
    await armed.disarm()


@pytest.mark.fault(83)
async def test_a_callback_to_a_mounted_receiver_waits_for_the_spawn() -> None:
    receiver = CallbackReceiver("http://127.0.0.1:8000/x")
    armed = await arm(Callback(receiver))
    (token,) = armed.secrets
    statuses: list[int] = []

    async def call() -> None:
        reply = await receiver.handle("POST", token, b'{"pid": 17}', None)
        reply.sent()
        statuses.append(reply.status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert [] == statuses
        assert {"pid": 17} == (await armed.wait(FakeProcess(17))).facts
    assert [200] == statuses
    await armed.disarm()


@pytest.mark.fault(82)
async def test_a_callback_that_waits_for_a_spawn_which_fails_is_too_late() -> None:
    receiver = CallbackReceiver("http://127.0.0.1:8000/x")
    armed = await arm(Callback(receiver))
    statuses: list[int] = []

    async def call() -> None:
        statuses.append((await receiver.handle("POST", armed.secrets[0], b"", None)).status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await armed.disarm()
    assert [410] == statuses


@pytest.mark.fault(82)
async def test_after_the_end_a_mounted_receiver_says_too_late_and_the_own_server_is_gone() -> None:
    receiver = CallbackReceiver("http://127.0.0.1:8000/x")
    mounted, own = await arm(Callback(receiver)), await arm()
    it = Waiting(own)
    for armed in (mounted, own):
        with trio.move_on_after(0):
            await armed.wait(FakeProcess())
        await armed.disarm()
        await armed.disarm()
        assert await armed.ask(FakeProcess()) is None
    assert 410 == (await receiver.handle("POST", mounted.secrets[0], b"", None)).status
    with pytest.raises(OSError, match="connect"):
        await it.connect()


async def test_a_callback_that_was_not_seen_before_the_deadline_is_found_at_the_deadline() -> None:
    armed = await arm()
    it = Waiting(armed)
    async with await it.connect() as stream:
        await stream.send_all(it.request(b'{"port": 1}'))
        with trio.move_on_after(0):
            await armed.wait(FakeProcess())
        report = await armed.ask(FakeProcess())
    assert report is not None
    assert 1 == report.port
    await armed.disarm()
    # Who looks for the daemon again later asks again.
    assert report == await armed.ask(FakeProcess())


async def test_at_the_deadline_nothing_may_have_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    armed = await arm()
    assert await armed.ask(FakeProcess()) is None
    assert "no callback came" == armed.last_seen
    await armed.disarm()


async def test_a_daemon_that_reported_sees_its_answer_although_the_wait_is_over() -> None:
    for _ in range(50):
        async with waiting() as it:
            assert 200 == await it.post()


# --- who may call -----------------------------------------------------------------------------


@pytest.mark.fault(85)
@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"pid": 18}, "process 18 does not belong to the daemon"),
        ({"instance_id": "7e"}, "instance_id '7e' is not this spawn's"),
        ({"instance_id": "7e", "pid": 17}, "instance_id '7e' is not this spawn's"),
        ({"instance_id": ""}, "instance_id '' is not this spawn's"),
    ],
)
async def test_a_callback_of_another_process_is_refused(said: Any, problem: str) -> None:
    async with waiting() as it:
        assert 403 == await it.post(said)
        assert f"the last callback was refused: 403, {problem} (1 refused)" == it.armed.last_seen
        await it.assert_still_works()


async def test_a_pid_is_believed_where_the_tree_cant_be_told() -> None:
    async with waiting(process=FakeProcess(tells=False)) as it:
        assert 200 == await it.post({"pid": 18})


@pytest.mark.fault(80)
async def test_a_wrong_token_is_counted_and_changes_nothing() -> None:
    async with waiting() as it:
        for target in (b"/ready/wrong", b"/", b"*", it.target + b"x", it.target[:-1]):
            assert 404 == await it.post(target=target)
        last_seen = "the last callback was refused: 404, the token is not known (5 refused)"
        assert last_seen == it.armed.last_seen
        await it.assert_still_works()


@pytest.mark.fault(81)
async def test_a_replay_is_refused_and_there_is_one_report() -> None:
    async with waiting() as it:
        twice = [await it.connect() for _ in range(2)]
        for number, stream in enumerate(twice):
            await stream.send_all(it.request(b'{"n": %d}' % number))
        await it.ready.wait()
        statuses = [(await read_answer(stream))[0] for stream in twice]
        assert 1 == statuses.count(200)
        assert it.report is not None
        assert statuses.index(200) == it.report.facts["n"]
        for stream in twice:
            await stream.aclose()


async def test_a_query_and_a_proxys_form_of_the_target_are_understood() -> None:
    for decorate in (b"%b?worker=1", b"http://elsewhere%b", b"//any%b"):
        async with waiting() as it:
            assert 200 == await it.post(target=decorate % it.target)


IN_ARGUMENTS: dict[str, Any] = {"in_arguments": frozenset({CALLBACK_URL})}


@pytest.mark.fault(87)
async def test_with_the_url_in_the_arguments_the_same_user_may_call() -> None:
    async with waiting(**IN_ARGUMENTS) as it:
        assert 200 == await it.post()


OTHER_USER = 65_534
BASH_POST = """
exec 3<>/dev/tcp/127.0.0.1/$0
printf 'POST %s HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n' "$1" >&3
read -r _ status _ <&3
exit $((status - 200))
"""


async def post_as_other_user(it: Waiting) -> int:
    command = ["/bin/bash", "-c", BASH_POST, str(it.address[1]), it.target.decode()]
    done = await trio.run_process(command, check=False, cwd="/", user=OTHER_USER, group=OTHER_USER)
    return 200 + done.returncode


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can call as another user")


@needs_root
@pytest.mark.needs("bash")
@pytest.mark.fault(87)
async def test_with_the_url_in_the_arguments_another_user_may_not_call() -> None:
    async with waiting(**IN_ARGUMENTS) as it:
        assert 403 == await post_as_other_user(it)
        assert f"whoever calls is user {OTHER_USER}" in it.armed.last_seen
        await it.assert_still_works()


@needs_root
@pytest.mark.needs("bash")
async def test_with_the_url_in_the_environment_only_who_has_it_may_call() -> None:
    async with waiting() as it:
        assert 200 == await post_as_other_user(it)


@pytest.mark.fault(87)
@pytest.mark.parametrize(("tree", "status"), [([os.getpid()], 200), ([], 403)])
async def test_with_the_url_in_the_arguments_a_daemon_that_changed_its_user_may_call(
    tree: list[int], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _proc.connection_uid

    def connection_uid(*ends: tuple[str, int]) -> tuple[int, int] | None:
        found = real(*ends)
        return found and (OTHER_USER, found[1])

    monkeypatch.setattr(_way_here, "connection_uid", connection_uid)
    async with waiting(process=FakeProcess(*tree), **IN_ARGUMENTS) as it:
        assert status == await it.post()


@pytest.mark.fault(87)
@pytest.mark.parametrize("peer", [None, Peer(("192.0.2.1", 4000), ("127.0.0.1", 8000))])
async def test_with_the_url_in_the_arguments_an_unknown_caller_is_refused(
    peer: Peer | None,
) -> None:
    receiver = CallbackReceiver("http://127.0.0.1:8000/x")
    async with waiting(Callback(receiver), **IN_ARGUMENTS) as it:
        reply = await receiver.handle("POST", it.url, b"{}", peer)
        assert 403 == reply.status
        assert "TRIO_LIFECYCLE_CALLBACK_URL" in reply.problem


# --- where it listens -------------------------------------------------------------------------


@pytest.mark.fault(86)
@pytest.mark.parametrize(
    ("host", "listens_at", "begins"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:"),
        ("localhost", "127.0.0.1", "http://127.0.0.1:"),
        ("127.0.0.7", "127.0.0.7", "http://127.0.0.7:"),
        ("0.0.0.0", "0.0.0.0", "http://127.0.0.1:"),
        ("::1", "::1", "http://[::1]:"),
        ("::", "::", "http://[::1]:"),
    ],
)
async def test_it_listens_where_it_is_told_on_a_port_of_its_own(
    host: str, listens_at: str, begins: str
) -> None:
    try:
        armed = await arm(Callback(host=host))
    except ReadyError:
        assert ":" in host
        pytest.skip("no IPv6 here")
    async with trio.open_nursery() as nursery:
        it = Waiting(armed)
        nursery.start_soon(it.serve, FakeProcess())
        assert armed._server is not None
        assert listens_at == armed._server._listener.getsockname()[0]
        assert it.url.startswith(begins)
        await it.assert_still_works()
    await armed.disarm()


@pytest.mark.fault(86)
async def test_by_default_no_other_machine_can_knock() -> None:
    assert "127.0.0.1" == Callback().host
    armed = [await arm() for _ in range(20)]
    assert 20 == len({one.env["TRIO_LIFECYCLE_CALLBACK_URL"] for one in armed})
    for one in armed:
        await one.disarm()


async def test_an_address_of_another_machine_cant_be_listened_at() -> None:
    with pytest.raises(ReadyError, match=r"listening at 192\.0\.2\.1 .* Cannot assign"):
        await arm(Callback(host="192.0.2.1"))


@pytest.mark.parametrize("host", ["", "worker", "127.0.0.1:80", "fe80::1%eth0", None, 5, b"::"])
def test_a_host_that_is_no_address_is_refused(host: Any) -> None:
    with pytest.raises(ConfigError, match="host"):
        Callback(host=host)


def test_a_receiver_that_is_none_or_has_a_host_besides_is_refused() -> None:
    with pytest.raises(ConfigError, match="receiver"):
        Callback(cast(CallbackReceiver, "http://10.0.0.5/"))
    with pytest.raises(ConfigError, match="host"):
        Callback(CallbackReceiver("http://10.0.0.5/"), host="0.0.0.0")


def test_callbacks_compare_and_print_by_their_value() -> None:
    receiver = CallbackReceiver("http://10.0.0.5/x")
    assert Callback() == Callback(host="localhost")
    assert Callback(receiver) == Callback(receiver)
    assert Callback(receiver) != Callback()
    assert "Callback(receiver=None, host='127.0.0.1')" == repr(Callback())


# --- with a real daemon -----------------------------------------------------------------------

WORKER = """
import json, os, sys, time, urllib.request
url = sys.argv[1] if len(sys.argv) > 1 else os.environ["TRIO_LIFECYCLE_CALLBACK_URL"]
said = {"pid": os.getpid(), "instance_id": os.environ["TRIO_LIFECYCLE_INSTANCE"], "model": "tiny"}
with urllib.request.urlopen(url, json.dumps(said).encode()) as answer:
    assert json.load(answer) == {"ready": True}
time.sleep(1000)
"""


@pytest.mark.fault(85, 87)
@pytest.mark.parametrize("args", [(), (CALLBACK_URL,)], ids=["environment", "argument"])
async def test_a_real_daemon_reports(args: tuple[str, ...]) -> None:
    config = python_daemon(WORKER, *args, ready_mode=Callback())
    async with DaemonLifecycle(config).running() as daemon:
        assert "tiny" == daemon.report["model"]


def test_importing_the_mode_does_not_import_h11() -> None:
    code = "import sys, trio_lifecycle.ready._callback; sys.exit('h11' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


async def test_an_answer_is_not_cut_off_within_a_secret() -> None:
    async with waiting(secrets=("hunter2-and-more",)) as it:
        for length in range(150, 200, 5):
            assert 403 == await it.post({"instance_id": "x" * length + "hunter2-and-more"})
            assert "hunt" not in it.armed.last_seen
        await it.assert_still_works()
