"""The options of HealthCheck: which answers count, what is asked, and what is shown of it."""

import logging
import re
from typing import Any

import pytest
import trio

from tests.asking import ANYBODY, arm, start
from tests.servers import Talk, saying, server
from tests.simulated import in_simulated_time
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    TLS,
    ConfigError,
    DaemonLifecycle,
    DaemonStateUnknownError,
    HealthCheck,
    LifecycleConfig,
    ReadyError,
    ReadyTimeoutError,
)
from trio_lifecycle.abc import Answer, ArmedReady
from trio_lifecycle.ready._options import secrets_in
from trio_lifecycle.testing import REFUSES, SimulatedDaemon, check_ready_mode

URL = f"http://127.0.0.1:{FREE_PORT}/"


def body(text: bytes) -> Talk:
    return saying(b"HTTP/1.1 200 X\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))


async def asked(talk: Talk, **options: Any) -> tuple[bool, ArmedReady]:
    """Whether a server of anybody's is up for a mode with these options, and the mode."""
    async with server(talk) as address:
        armed = await arm(HealthCheck(f"http://{address}/", **options))
        return await armed.ask(ANYBODY) is not None, armed


# --- statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statuses", [401, range(400, 402), (range(200, 300), 401), {200, 401}, [401]]
)
@in_simulated_time
async def test_only_the_statuses_that_are_given_count(statuses: Any) -> None:
    simulated = SimulatedDaemon(health=[(0, 403), (1, 401)])
    mode = HealthCheck(URL, statuses=statuses)
    async with simulated.lifecycle(ready_mode=mode).running() as daemon:
        assert 1 <= daemon.ready_after_s < 1.1


@in_simulated_time
async def test_a_fatal_status_ends_the_wait_at_once_and_wins_over_a_good_one() -> None:
    simulated = SimulatedDaemon(health=[(0, REFUSES), (1, 503), (2, 500)], writes=b"broken\n")
    mode = HealthCheck(URL, statuses=range(200, 600), fatal_statuses=[500, range(503, 504)])
    with pytest.raises(ReadyError, match=r"can't become ready: .* answered 503") as caught:
        async with simulated.lifecycle(ready_mode=mode).running():
            pass
    assert "broken\n" == caught.value.output_tail
    assert trio.current_time() < 1.2


@in_simulated_time
async def test_a_fatal_status_from_a_stranger_says_nothing_of_the_daemon() -> None:
    simulated = SimulatedDaemon(health=[(0, 500)], is_foreign=True)
    mode = HealthCheck(URL, fatal_statuses=500)
    with pytest.raises(ReadyTimeoutError, match="answered 500"):
        async with simulated.lifecycle(ready_mode=mode, ready_timeout=3).running():
            pass


@in_simulated_time
async def test_one_that_runs_already_is_not_given_up_for_a_fatal_status() -> None:
    simulated = SimulatedDaemon(health=[(0, 500)])
    simulated.start()
    mode = HealthCheck(f"http://127.0.0.1:{simulated.port}/", fatal_statuses=500)
    with pytest.raises(DaemonStateUnknownError, match="answered 500"):
        async with simulated.lifecycle(ready_mode=mode, free_port=False).running():
            pass


# --- the body -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        'status": "up',
        "ü",
        re.compile(r'"status":\s+"up"'),
        re.compile(rb"\xc3\xbc\Z"),
        lambda answer: answer.headers["content-length"] == str(len(answer.body)),
    ],
    ids=["text", "letter", "pattern", "bytes", "callable"],
)
async def test_a_body_that_is_as_it_should_be_is_up_and_another_is_not(wanted: Any) -> None:
    is_up, _ = await asked(body('{"status": "up"} ü'.encode()), body=wanted)
    assert is_up
    other = saying(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nno\xff")
    is_up, armed = await asked(other, body=lambda a: False if callable(wanted) else wanted)
    assert is_up != callable(wanted)
    if not callable(wanted):
        is_up, armed = await asked(other, body=wanted)
    assert not is_up
    assert armed.last_seen.endswith("answered 200, with another body")


async def test_only_the_body_of_a_good_status_is_looked_at() -> None:
    is_up, armed = await asked(saying(b"HTTP/1.1 503 X\r\n\r\nup"), body="up")
    assert not is_up
    assert armed.last_seen.endswith("answered 503")


@pytest.mark.fault(24)
async def test_a_callable_that_raises_is_a_no_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(answer: Answer) -> bool:
        raise KeyError(answer.status)

    async with server(body(b"up")) as address:
        armed = await arm(HealthCheck(f"http://{address}/", body=fails))
        with caplog.at_level(logging.WARNING, "trio_lifecycle"):
            for _ in range(3):
                assert await armed.ask(ANYBODY) is None
    assert ["body failed at an answer, which counts as a no: KeyError(200)"] == caplog.messages


@pytest.mark.fault(24)
@pytest.mark.parametrize("error", [TypeError, NameError, UnboundLocalError])
@in_simulated_time
async def test_a_mistake_in_a_callable_ends_the_start_and_leaves_nothing(
    error: type[Exception],
) -> None:
    def mistaken(answer: Answer) -> bool:
        raise error("a mistake")

    simulated = SimulatedDaemon(ready_after=1)
    with pytest.raises(error, match="a mistake"):
        async with simulated.lifecycle(ready_mode=HealthCheck(URL, body=mistaken)).running():
            pass
    assert (1, 0) == (simulated.spawned, simulated.alive)


@in_simulated_time
async def test_an_async_function_cant_look_at_a_body() -> None:
    async def later(answer: Answer) -> bool:
        return True

    with pytest.raises(ConfigError, match=r"^body: must say it at once"):
        async with SimulatedDaemon().lifecycle(ready_mode=HealthCheck(URL, body=later)).running():
            pass


async def test_a_body_counts_before_the_spawn_too_and_is_shown_to_expect() -> None:
    seen: list[bytes] = []

    def expect(answer: Answer) -> bool:
        seen.append(answer.body)
        return True

    prober = start().prober
    async with server(body(b"up")) as address:
        url = f"http://{address}/"
        for wanted, is_up in (("up", True), ("down", False)):
            sighting = await HealthCheck(url, body=wanted, expect=expect).find_running(prober)
            assert sighting is not None
            assert is_up == (sighting.report is not None)
            assert (True if is_up else None) is sighting.accepted
    assert [b"up"] == seen


# --- how often ------------------------------------------------------------------------------------


@pytest.mark.fault(18)
@in_simulated_time
async def test_successes_must_come_in_a_row_an_interval_apart() -> None:
    simulated = SimulatedDaemon(health=[(0, 503), (1, 200), (1.9, 503), (2.2, 200)])
    mode = HealthCheck(URL, interval=1, success_threshold=3)
    assert 2 == mode.shortest_wait_s
    async with simulated.lifecycle(ready_mode=mode).running() as daemon:
        assert 4.2 <= daemon.ready_after_s < 4.4
        assert "running" == await daemon.check()


def test_a_time_out_must_leave_time_for_all_successes() -> None:
    mode = HealthCheck(URL, interval=1, success_threshold=3)
    with pytest.raises(ConfigError, match=r"^ready_timeout: 2\.0 s is too short"):
        LifecycleConfig("x", ready_mode=mode, ready_timeout=2)


# --- what is shown, and what counts as a change ---------------------------------------------------

SECRET = {"Authorization": "Bearer abc", "X-Api-Key": "def", "Accept": "text/plain", "Cookie": ""}


@pytest.mark.fault(96)
async def test_no_value_of_a_header_is_shown_and_the_secret_ones_are_blotted_out() -> None:
    mode = HealthCheck("http://127.0.0.1:9/", headers=SECRET)
    shown = "headers={'authorization': ..., 'x-api-key': ..., 'accept': ..., 'cookie': ...})"
    assert repr(mode).endswith(shown)
    armed = await arm(mode)
    assert ("Bearer abc", "def", "abc") == armed.secrets
    assert () == secrets_in((("accept", "text/plain"),))
    with pytest.raises(ConfigError) as caught:
        HealthCheck(URL, headers={"X-Token": "sécret"})
    assert "cret" not in str(caught.value)


def test_its_options_are_shown_where_they_are_not_as_usual() -> None:
    mode = HealthCheck(
        "https://d/",
        method="head",
        statuses=(range(200, 300), 401),
        fatal_statuses=500,
        tls=TLS(verify=False),
        unix_socket=f"/{FREE_PORT}",
        success_threshold=2,
        expect=bool,
    )
    assert (
        "HealthCheck('https://d/', interval=0.1, probe_timeout=1.0, expect=bool, method='HEAD', "
        "statuses={200-299, 401}, fatal_statuses={500}, tls=TLS(verify=False, ca_file=None, "
        "certificate=None, key=None), unix_socket='/{FREE_PORT}', success_threshold=2)"
    ) == repr(mode)
    assert "body=re.compile('a')" in repr(HealthCheck(URL, body=re.compile("a")))


def test_only_where_it_is_asked_makes_another_daemon() -> None:
    def fingerprint(**options: Any) -> str:
        return LifecycleConfig("x", ready_mode=HealthCheck(URL, **options)).fingerprint

    options = {"method": "HEAD", "headers": SECRET, "statuses": 401, "fatal_statuses": 500}
    assert fingerprint() == fingerprint(**options)
    assert fingerprint() != fingerprint(unix_socket="/x")


def test_statuses_that_are_all_fatal_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^fatal_statuses: holds all statuses"):
        HealthCheck(URL, statuses=204, fatal_statuses=range(200, 300))


@in_simulated_time
async def test_it_keeps_the_contract_with_all_its_options() -> None:
    await check_ready_mode(HealthCheck(URL, headers=SECRET, body="up", success_threshold=2))
    await check_ready_mode(HealthCheck(URL, unix_socket=f"/{FREE_PORT}", statuses=range(200, 999)))


@pytest.mark.fault(91)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "GE T"),
        ("method", ""),
        ("method", None),
        ("method", "connect"),
        ("headers", "a: b"),
        ("headers", ["a"]),
        ("headers", {"a b": "c"}),
        ("headers", {"": "c"}),
        ("headers", {1: "c"}),
        ("headers", {"Content-Length": "1"}),
        ("headers", {"a": "b", "A": "b"}),
        ("headers", {"a": "b\r\nc: d"}),
        ("headers", {"a": " b"}),
        ("headers", {"a": FREE_PORT}),
        ("headers", {"a": 1}),
        ("statuses", ()),
        ("statuses", 199),
        ("statuses", 1000),
        ("statuses", "200"),
        ("statuses", True),
        ("statuses", [range(100, 300)]),
        ("statuses", [200.0]),
        ("fatal_statuses", -1),
        ("fatal_statuses", None),
        ("body", ""),
        ("body", b"up"),
        ("body", 1),
        ("tls", {"verify": False}),
        ("tls", TLS()),
        ("unix_socket", ""),
        ("unix_socket", CALLBACK_URL),
        ("success_threshold", 0),
        ("success_threshold", True),
        ("success_threshold", 1.5),
    ],
)
def test_what_cant_be_meant_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}[:\[]"):
        HealthCheck(URL, **{field: value})


def test_the_answer_to_head_has_no_body_to_look_at() -> None:
    with pytest.raises(ConfigError, match=r"^body: can't be looked at"):
        HealthCheck(URL, method="HEAD", body="up")


async def test_a_file_for_tls_is_looked_at_before_the_spawn() -> None:
    mode = HealthCheck(f"https://127.0.0.1:{FREE_PORT}/", tls=TLS(ca_file="/none"))
    events: list[object] = []
    config = LifecycleConfig("sleep", args=["1000"], ready_mode=mode)
    with pytest.raises(ConfigError, match=r"^tls\.ca_file: /none can't be read"):
        async with DaemonLifecycle(config, observer=events.append).running():
            pass
    assert "Spawned" not in {type(event).__name__ for event in events}
