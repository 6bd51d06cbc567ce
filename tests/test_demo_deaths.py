"""The demo's programs killed, and its user's Ctrl-C: what is left is found again, or gone."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tests.cli import is_alive
from tests.demo import (
    System,
    await_death,
    await_event,
    await_true,
    client,
    ended,
    events,
    hive,
    is_up,
    post,
    told_so_far,
    unmeasured,
)

HIVE = "rbee-hive@localhost"
WORKER = "llm-worker-rbee@cats"
WORKERS = [WORKER, "llm-worker-rbee@dogs"]
TEXT = "the cat sat on the mat " * 200
ASK = ("infer", "the cat", "--model", "cats", "--words", "1")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """The four programs, none of which runs yet; in the end they are stopped."""
    with System(tmp_path) as system:
        (system.models / "cats.txt").write_text(TEXT)
        yield system


def hive_of(system: System) -> dict[str, Any]:
    """Say what the queen knows of her hive."""
    with client(system.url) as asker:
        (found,) = asker.get("/health").json()["hives"]
    assert isinstance(found, dict)
    return found


# Twenty processes that need not all be started, and so ask at the same instant.
TWENTY = """
import os, sys
from trio_lifecycle.demo.keeper import main
def ask(model):
    sys.argv[sys.argv.index("cats")] = model
    status = main()
    sys.stdout.flush()
    os._exit(status)
asking = [os.fork() or ask(model) for _ in range(10) for model in ("cats", "dogs")]
print({os.waitpid(pid, 0)[1] for pid in asking})
"""


def queens_of(system: System) -> list[int]:
    """Look for processes that are queens of this system."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes()
            if b"/queen-rbee" in words and os.fsencode(system.models) in words:
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_twenty_keepers_at_once_have_one_of_each_and_a_new_queen_takes_them_over(
    system: System,
) -> None:
    system.environment = unmeasured(system.environment)
    (system.models / "dogs.txt").write_text(TEXT)
    asked = ended(system.start(*ASK, command=[sys.executable, "-c", TWENTY]))
    assert (0, "", 20) == (asked.returncode, asked.stderr, asked.stdout.count("the cat sat"))
    assert asked.stdout.endswith("{0}\n")
    assert [*WORKERS, HIVE] == told_so_far(system.url, "spawned")
    assert [system.queen_pid] == queens_of(system)
    before, queen = hive_of(system), system.queen_pid
    os.kill(queen, signal.SIGKILL)
    await_death(queen)
    assert is_alive(before["pid"])
    asked_again = system.keeper(*ASK)
    assert (0, "") == (asked_again.returncode, asked_again.stderr)
    assert queen != system.queen_pid
    assert before["pid"] == hive_of(system)["pid"]
    # Her own hub is as young as she is; the hive's remembers.
    assert WORKERS == told_so_far(system.url, "spawned")
    assert HIVE in told_so_far(system.url, "adopted")
    for pid in (system.queen_pid, before["pid"]):
        os.kill(pid, signal.SIGKILL)
        await_death(pid)
    stopped = system.keeper("stop")
    assert (0, "", "") == (stopped.returncode, stopped.stdout, stopped.stderr)


def test_when_a_hive_is_killed_its_workers_go_and_the_next_request_has_a_new_one(
    system: System,
) -> None:
    system.keeper(*ASK)
    before = hive_of(system)["pid"]
    worker = await_event(system.url, "spawned", WORKER)["pid"]
    with events(system.url) as told:
        os.kill(before, signal.SIGKILL)
        await_death(worker, within_s=2.0)
        noted = (each["state"] for each in told if each["event"] == "hive_noted")
        assert ["online", "unknown", "offline"] == [next(noted) for _ in range(3)]
    assert ["offline", None] == [hive_of(system)[key] for key in ("state", "pid")]
    forgotten = system.keeper("hives", "--forget", "localhost")
    assert (0, "", "") == (forgotten.returncode, forgotten.stdout, forgotten.stderr)
    asked = system.keeper(*ASK)
    assert (0, "the cat sat\n", "") == (asked.returncode, asked.stdout, asked.stderr)
    assert before != hive_of(system)["pid"]
    assert "online" == hive_of(system)["state"]


def test_whoever_is_answered_when_the_hive_is_killed_is_told_so(system: System) -> None:
    asking = system.start(*ASK[:-1], "2000")
    assert asking.stdout is not None
    assert "the cat" == asking.stdout.read(7)
    os.kill(hive_of(system)["pid"], signal.SIGKILL)
    asked = ended(asking)
    said = f"rbee-keeper: {HIVE} has ended while it answered; ask again to have it started anew\n"
    assert (1, said) == (asked.returncode, asked.stderr)
    stopped = system.keeper("stop")
    assert (0, "", "") == (stopped.returncode, stopped.stdout, stopped.stderr)


def test_a_hive_that_hangs_is_unknown_until_it_answers_again(
    system: System,
) -> None:
    system.keeper(*ASK)
    with events(system.url) as told:
        noted = (each["state"] for each in told if each["event"] == "hive_noted")
        assert "online" == next(noted)
        os.kill(pid := hive_of(system)["pid"], signal.SIGSTOP)
        try:
            assert "unknown" == next(noted)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "online" == next(noted)
    assert pid == hive_of(system)["pid"]
    # A queen that has stopped her hives goes, too, also when a keeper that was interrupted can't
    # stop her any more.
    queen = system.queen_pid
    with client(system.url) as asker:
        (told,) = asker.post("/stop").json()["hives"]
        refused = asker.post("/hives", json={"host": "localhost"}).json()["error"]["message"]
    assert "the queen is being stopped; ask again, and get a new one" == refused
    await_death(queen)
    assert ("localhost", pid, False) == (told["host"], told["pid"], is_alive(pid))
    system.is_stopped = True


def test_a_hive_that_is_being_started_is_stopped_too(system: System) -> None:
    assert 1 == system.keeper("hives", "--add", "a b").returncode
    url, answers = system.url, list[Any]()
    asking = system.start(*ASK)
    pid = await_event(url, "spawned", HIVE)["pid"]
    os.kill(pid, signal.SIGSTOP)
    stopping = threading.Thread(target=lambda: answers.append(post(url, "/stop").json()))
    stopping.start()
    os.kill(pid, signal.SIGCONT)
    stopping.join()
    assert [pid] == [hive["pid"] for hive in answers[0]["hives"]]
    assert not is_alive(pid)
    # Its request was under way to a hive that was ending.
    asked = ended(asking)
    assert 1 == asked.returncode
    assert "ask again to have " in asked.stderr
    assert 1 == asked.stderr.count("\n")
    system.is_stopped = True


# Before anything is started; while a worker is; in the middle of the answer. The others are tried
# with the whole demo.
MOMENTS = ("at once", "worker", "answer")


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_after_ctrl_c_at_any_moment_all_can_be_stopped(system: System, moment: str) -> None:
    """That nothing is left is what is looked at after each test."""
    asking = system.start(*ASK[:-1], "2000")
    _await_moment(system, moment, asking)
    asking.send_signal(signal.SIGINT)
    asked = ended(asking)
    assert asked.returncode in {130, -signal.SIGINT}
    if moment != "at once":
        assert "" == asked.stderr
    stopped = system.keeper("stop")
    told = "rbee-keeper: nothing runs\n" if moment == "at once" else ""
    assert (0, told) == (stopped.returncode, stopped.stderr)
    assert 3 == system.keeper("status").returncode


def _await_moment(system: System, moment: str, asking: "subprocess.Popen[str]") -> None:
    if moment == "answer":
        assert asking.stdout is not None
        asking.stdout.read(1)
    elif moment == "worker":
        await_true(lambda: system.is_recorded and is_up(system.url))
        await_event(system.url, "spawned", WORKER)


# --- a hive by itself ---


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "cats.txt").write_text(TEXT)
    return tmp_path


def test_an_idle_worker_ends_but_no_request_is_cut_short(models: Path) -> None:
    with hive(models, "--idle", "0.3") as (_, url):
        # It takes a second, three times as long as a worker may be idle.
        body = {"model": "cats", "prompt": "the", "max_tokens": 50, "stream": True}
        answer = post(url, "/v1/completions", **body)
        assert answer.text.endswith("data: [DONE]\n\n")
        with events(url) as told:
            kinds = (event["event"] for event in told)
            until_ready = list(takewhile(lambda kind: kind != "ready", kinds))
            until_gone = list(takewhile(lambda kind: kind != "stopped", kinds))
            assert ("spawned", ["stopping"]) == (until_ready[-1], until_gone)
            assert post(url, "/load", model="cats").is_success
            assert "spawned" in takewhile(lambda kind: kind != "ready", kinds)


def test_a_hive_that_is_stopped_ends_its_workers_first_and_tells_of_it(models: Path) -> None:
    with hive(models) as (process, url):
        pid = post(url, "/load", model="cats").json()["pid"]
        with events(url) as told:
            process.send_signal(signal.SIGTERM)
            kinds = [event["event"] for event in told]
        assert "stopped" == kinds[-1]
        assert not is_alive(pid)
        assert 0 == process.wait()
        assert process.stderr is not None
        assert "" == process.stderr.read()


# --- a queen who was killed, or can't remember ---


@pytest.mark.slow
def test_a_hive_that_was_being_started_when_the_queen_was_killed_is_looked_for(
    system: System,
) -> None:
    asking = system.start(*ASK)
    await_true(lambda: system.is_recorded and is_up(system.url))
    pid = await_event(system.url, "spawned", HIVE)["pid"]
    os.kill(pid, signal.SIGSTOP)
    os.kill(system.queen_pid, signal.SIGKILL)
    os.kill(pid, signal.SIGCONT)
    asked = ended(asking)
    said = "rbee-keeper: queen-rbee has ended while it answered; ask again to have it started anew"
    assert (1, "", f"{said}\n") == (asked.returncode, asked.stdout, asked.stderr)
    stopped = system.keeper("stop")
    gone = "rbee-hive on localhost is gone, with its workers\n"
    assert (0, gone, "") == (stopped.returncode, stopped.stdout, stopped.stderr)
    assert not is_alive(pid)


@pytest.mark.slow
def test_a_queen_who_can_not_remember_goes_on_and_says_so(system: System, tmp_path: Path) -> None:
    system.keeper(*ASK)
    before = hive_of(system)["pid"]
    (tmp_path / "state/rbee/queen.sqlite").write_bytes(b"no database" * 100)
    with client(system.url) as asker:
        await_true(lambda: asker.get("/health").json()["problem"] is not None)
    asked = system.keeper("status")
    told = (
        "  [^\n]*/queen.sqlite, where hives are remembered, can't be used: file is not a database"
    )
    assert re.match(f"queen-rbee .*\n{told}\n  rbee-hive on localhost: online", asked.stdout)
    (stopped,) = post(system.url, "/stop").json()["hives"]
    assert ("localhost", before, False) == (stopped["host"], stopped["pid"], is_alive(before))
    system.is_stopped = True
