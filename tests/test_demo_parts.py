"""The demo's parts, one by one: what is told to whom, what is remembered, and how one gets in."""

import json
import time
from argparse import ArgumentTypeError
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import free_port
from trio_lifecycle import (
    BinaryNotFoundError,
    ConfigError,
    DiedBeforeReadyError,
    PreflightError,
)
from trio_lifecycle.demo import _doors, _hub, _listening, keeper
from trio_lifecycle.demo._asking import Asker
from trio_lifecycle.demo._hive_registry import HiveRegistry, HiveRegistryError
from trio_lifecycle.demo._hives import Hive, choose
from trio_lifecycle.demo._hub import Hub
from trio_lifecycle.demo._options import count, seconds
from trio_lifecycle.demo._programs import state_folder
from trio_lifecycle.demo._sentences import sentence_of
from trio_lifecycle.demo._serving import (
    Request,
    Response,
    Route,
    serving,
)
from trio_lifecycle.demo._workers import Worker

# --- sentences ---


def test_a_program_that_gives_up_says_why_in_its_last_line() -> None:
    error = DiedBeforeReadyError("x", 1, 0.5, "loading: 10 %\nno such thing\n")
    assert "no worker: no such thing" == sentence_of(error, "no worker")


def test_of_a_program_that_was_killed_its_last_words_are_told() -> None:
    error = DiedBeforeReadyError("x", -9, 0.5, "loading: 10 %\n")
    told = "x was killed by SIGKILL after 0.50 s, before it was ready."
    assert f'no worker: {told} Its last words: "loading: 10 %"' == sentence_of(error, "no worker")


def test_what_failed_before_the_start_is_told() -> None:
    error = PreflightError("x", ("too small", "too late"))
    assert "no worker: too small; too late" == sentence_of(error, "no worker")


# --- events ---


async def test_who_listens_late_hears_all_in_order() -> None:
    hub, heard = Hub("queen-rbee"), []
    hub.pass_on({"n": 1})
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            heard.extend([json.loads(line)["n"] async for line in hub.listen()])

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        hub.pass_on({"n": 2})
        hub.close()
    assert [1, 2] == heard
    assert [1, 2] == [json.loads(line)["n"] async for line in hub.listen()]
    assert [2] == [json.loads(line)["n"] async for line in hub.listen(after=1)]
    assert [] == [line async for line in hub.listen(after=3)]


async def test_who_comes_again_misses_none_though_the_first_are_not_kept_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_hub, "_MOST_KEPT", 3)
    hub = Hub("queen-rbee")
    for number in range(1, 6):
        hub.pass_on({"n": number})
    hub.close()
    for after, expected in {1: [3, 4, 5], 3: [4, 5], 4: [5], 5: []}.items():
        assert expected == [json.loads(line)["n"] async for line in hub.listen(after)]


async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "_MOST_KEPT", 2)
    hub = Hub("queen-rbee")
    lines = hub.listen()
    hub.pass_on({"n": 0})
    first = await anext(lines)
    for number in range(1, 9):
        hub.pass_on({"n": number})
    rest = [line async for line in lines]
    assert [0, 1, 2, 3, 4] == [json.loads(line)["n"] for line in [first, *rest]]


# --- workers ---


async def test_a_worker_is_idle_when_nobody_has_needed_it_for_long(
    autojump_clock: MockClock,
) -> None:
    worker = Worker("pydoc", "llm-worker-rbee@pydoc")
    await trio.sleep(9)
    assert not worker.is_idle(10)
    async with worker.used(), worker.used():
        await trio.sleep(99)
        assert not worker.is_idle(10)
    await trio.sleep(9)
    assert not worker.is_idle(10)
    await trio.sleep(1)
    assert worker.is_idle(10)


async def test_who_needs_a_worker_waits_until_it_was_ended(autojump_clock: MockClock) -> None:
    worker = Worker("pydoc", "llm-worker-rbee@pydoc")
    begun = trio.current_time()

    async def need() -> None:
        async with worker.used():
            assert 5 == trio.current_time() - begun

    async with trio.open_nursery() as nursery, worker.turn:
        nursery.start_soon(need)
        await trio.sleep(5)
        assert 0 == worker.uses


# --- what the queen remembers ---


async def test_a_hive_that_was_online_stays_remembered(tmp_path: Path) -> None:
    path = tmp_path / "below" / "queen.sqlite"
    registry = HiveRegistry(path)
    assert [] == await registry.hives()
    before = time.time()
    await registry.note("gpu-2", "online")
    await registry.note("gpu-2", "unknown")
    await registry.note("gpu-1", "offline")
    one, two = await HiveRegistry(path).hives()
    assert ("gpu-1", "offline", 0.0) == (one.host, one.state, one.heard_at)
    assert ("gpu-2", "unknown") == (two.host, two.state)
    assert before <= two.heard_at <= time.time()


async def test_what_is_noted_last_stays(tmp_path: Path) -> None:
    registry = HiveRegistry(tmp_path / "queen.sqlite")
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(registry.note, "gpu-1", "online")
            nursery.start_soon(registry.note, "gpu-1", "unknown")
            await wait_all_tasks_blocked()
        await registry.note("gpu-1", "offline")
    assert ["offline"] == [hive.state for hive in await registry.hives()]


async def test_a_hive_is_forgotten_where_that_was_none(tmp_path: Path) -> None:
    registry = HiveRegistry(tmp_path / "queen.sqlite")
    await registry.note("gqu-2", "unknown")
    await registry.forget("gqu-2")
    await registry.forget("gqu-2")
    assert [] == await registry.hives()


@pytest.mark.parametrize("raw", [b"no database" * 100, None])
async def test_a_database_that_can_not_be_used_is_told_by_its_name(
    tmp_path: Path, raw: bytes | None
) -> None:
    path = tmp_path / "queen.sqlite"
    path.mkdir() if raw is None else path.write_bytes(raw)
    registry = HiveRegistry(path)
    for work in (registry.hives(), registry.note("gpu-2", "online"), registry.forget("gpu-2")):
        with pytest.raises(HiveRegistryError, match=r"queen\.sqlite, where hives are remembered, "):
            await work


# --- options ---


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "", "x"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a number of seconds above 0"):
        seconds(text)
    assert 0.5 == seconds("0.5")


# --- where a request goes ---


def _hive(host: str, *loaded: str, models: tuple[str, ...] = ("one", "two")) -> Hive:
    workers = [{"model": name, "state": "up"} for name in loaded]
    return Hive(host, "online", facts={"workers": workers, "models": models})


def test_a_model_is_loaded_where_it_can_be_and_there_where_the_fewest_are() -> None:
    here, there = _hive("here", models=()), _hive("there", "one", "two")
    assert "there" == choose("one", [here, there], {})
    assert "here" == choose("three", [here, there], {})
    assert "here" == choose("two", [_hive("here", "one"), _hive("there", "one", "three")], {})
    assert "localhost" == choose("one", [], {})
    # What was just asked of it counts before it says so itself.
    assert "b" == choose("two", [_hive("a"), _hive("b")], {"one": "a"})


def test_where_a_model_was_refused_is_asked_last() -> None:
    """It may have no room there."""
    here, there = _hive("here"), _hive("there", "two")
    assert "here" == choose("one", [here, there], {})
    here.refused.add("one")
    assert "there" == choose("one", [here, there], {})
    there.refused.add("one")
    assert "here" == choose("one", [here, there], {})


def test_a_choice_stays_unless_its_hive_is_out_of_reach_and_another_is_not() -> None:
    here, there = _hive("here"), _hive("there", "one")
    assert "here" == choose("one", [here, there], {"one": "here"})
    here.state = "unknown"
    assert "there" == choose("one", [here, there], {"one": "here"})
    there.state = "unknown"
    assert "here" == choose("one", [here, there], {"one": "here"})


# --- the ways in ---


def test_ctrl_c_while_a_program_is_imported_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_name: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert 130 == _doors.keeper()


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "\u0663", "9" * 5000])
def test_a_number_of_words_that_is_none_is_refused(text: str) -> None:
    assert 40 == count("40")
    with pytest.raises(ArgumentTypeError, match="must be a number of 1 or more, not "):
        count(text)


# --- odd places to be started from ---


def test_of_a_program_that_is_there_and_cannot_be_started_it_is_told_why() -> None:
    error = BinaryNotFoundError("x", ("/bin/x",), ("/bin/x needs the interpreter /bin/y",))
    assert "no worker: /bin/x needs the interpreter /bin/y" == sentence_of(error, "no worker")


@pytest.mark.parametrize("option", ["--database", "--models"])
def test_a_folder_that_is_gone_is_told_of_where_a_path_needs_it(
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    monkeypatch.setattr("sys.argv", ["rbee-keeper", option, "x", "status"])
    assert 125 == keeper.main()
    said = f"rbee-keeper: there is no queen to ask: {option}: x is relative, and the current"
    assert capsys.readouterr().err.startswith(said)


def test_who_has_no_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", Path)
    with pytest.raises(ConfigError, match="no home directory; set XDG_STATE_HOME"):
        state_folder()


async def test_a_queen_who_was_cut_off_as_too_slow_listens_again_and_misses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_listening, "_AGAIN_S", 0.01)
    hub, told, asked = Hub("queen-rbee"), trio.Event(), list[int]()

    async def events(request: Request) -> Response:  # noqa: ASYNC124
        after = int(request.query_params["after"])
        asked.append(after)
        if after == 3:
            hub.close()
        return Response("".join(f'{{"n": {n}}}\n' for n in range(after, min(after + 2, 3))))

    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    hive = Hive("gpu-2", handle=cast("Any", SimpleNamespace(instance_id="x", url=url)))
    async with (
        Asker() as asker,
        serving(port, Route("/events", events)),
        trio.open_nursery() as tasks,
    ):
        tasks.start_soon(_listening.listen, hive, "x", told, asker, hub)
        heard = [json.loads(line)["n"] async for line in hub.listen()]
        assert told.is_set()
        tasks.cancel_scope.cancel()
    assert ([0, 1, 2], [0, 2, 3]) == (heard, asked)
