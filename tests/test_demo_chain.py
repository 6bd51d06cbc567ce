"""The demo's four programs at work: one system for all tests, asked for many things."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.demo import (
    System,
    at_once,
    await_event,
    await_true,
    client,
    ended,
    post,
    told_so_far,
)
from trio_lifecycle.demo import keeper

Said = tuple[int, str, str]
Say = Callable[..., Said]

TEXT = "the cat sat on the mat " * 200
WORKER = "llm-worker-rbee@{}".format


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """All four programs, with their models, after the first request."""
    with System(tmp_path_factory.mktemp("demo")) as system:
        for name in ("cats", "killed", "twice"):
            (system.models / f"{name}.txt").write_text(TEXT)
        spoilt = bytearray(TEXT.encode())
        spoilt[len(spoilt) * 85 // 100] = 0xFF
        (system.models / "spoilt.txt").write_bytes(spoilt)
        (system.models / "empty.txt").write_text(" \n")
        (system.models / "weights.gguf").write_bytes(b"no weights")
        (system.models / "missing.toml").write_text('file = "nowhere.txt"')
        (system.models / "vast.toml").write_text('file = "cats.txt"\nmemory_mib = 1e9')
        (system.models / "odd.toml").write_text('file = "cats.txt"\nvram_gib = "much"')
        (system.models / "torn.toml").write_text("file = ")
        (system.models / "boundless.toml").write_text('file = "cats.txt"\nmemory_mib = inf')
        (system.models / "aimless.toml").write_text("")
        (system.models / "misspelt.toml").write_text('path = "cats.txt"')
        first = system.keeper("infer", "The cat sat", "--model", "cats", "--words", "3")
        assert (0, "The cat sat on the mat\n", "") == (first.returncode, first.stdout, first.stderr)
        yield system


@pytest.fixture
def say(system: System, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """Say words to a keeper in this process; one of its own needs half a second."""

    def say(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", system.words(*words))
        status = keeper.main()
        return status, *capfd.readouterr()

    monkeypatch.setenv("XDG_STATE_HOME", system.environment["XDG_STATE_HOME"])
    return say


def test_the_first_request_starts_one_after_the_other(system: System) -> None:
    """Also: who looks right after a request sees the worker that it has needed."""
    status = system.status()
    (hive,) = status["hives"]
    (worker,) = [each for each in hive["workers"] if each["model"] == "cats"]
    assert ["online", "up"] == [hive["state"], worker["state"]]
    assert 0 < worker["ready_after_s"] < 30
    assert all(each["memory_mib"] > 10 for each in (status, hive, worker))
    assert 3 == len({status["pid"], hive["pid"], worker["pid"]})


def test_the_events_say_who_has_started_whom(system: System) -> None:
    hive = await_event(system.url, "ready", "rbee-hive@localhost")
    worker = await_event(system.url, "ready", WORKER("cats"))
    assert ["queen-rbee", "rbee-hive@localhost"] == [hive["by"], worker["by"]]
    with client(worker["url"]) as asker:
        assert worker["pid"] == asker.get("/health").json()["pid"]
    workers = system.status()["hives"][0]["workers"]
    assert worker["instance_id"] in [each["instance_id"] for each in workers]


def test_a_keeper_shows_what_runs(say: Say) -> None:
    status, out, err = say("status")
    assert (0, "") == (status, err)
    lines = [line.split(",")[0].split("  process")[0].strip() for line in out.splitlines()]
    assert ["queen-rbee", "rbee-hive on localhost: online"] == lines[:2]
    assert f"{WORKER('cats')}: up" in lines
    status, out, err = say("hives")
    assert (0, "") == (status, err)
    assert out.startswith("localhost: online, process ")
    assert "online" == json.loads(say("hives", "--json")[1])["state"]


def test_a_keeper_gets_vectors(system: System, say: Say) -> None:
    asker = keeper.Keeper(Path("unused"))

    async def ask() -> tuple[list[float], list[float]]:
        return await asker.embed("a text"), await asker.embed("a text")

    one, same = trio.run(ask)
    assert one == same


def test_the_fifth_program_makes_vectors(system: System) -> None:
    answer = post(system.url, "/v1/embeddings", model="hashing", input=["a b", "a b", "c"])
    one, same, other = (each["embedding"] for each in answer.json()["data"])
    assert one == same != other
    assert "embedding-worker-rbee@hashing" in told_so_far(system.url, "ready")


def test_a_text_may_come_as_a_whole(system: System) -> None:
    body = {"model": "cats", "prompt": "the cat sat", "max_tokens": 4, "seed": 1}
    answer = post(system.url, "/v1/completions", **body)
    assert {"choices": [{"text": " on the mat the"}]} == answer.json()


def test_half_a_character_is_a_text_like_any_other(system: System, say: Say) -> None:
    """JSON can say it, and so can a command line that is not UTF-8."""
    body = '{"model": "cats", "prompt": "\\ud800 on", "max_tokens": 1}'
    with client(system.url) as asker:
        answer = asker.post("/v1/completions", content=body)
    assert {"choices": [{"text": " the"}]} == answer.json()
    words = (os.fsdecode(b"\xff on"), "--model", "cats", "--words", "1")
    assert (0, "\\udcff on the\n", "") == say("infer", *words)


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        ("spoilt", "spoilt.txt is no text in UTF-8 (byte 3,910, 80 % loaded)"),
        ("empty", "empty.txt has no words"),
        ("missing", "nowhere.txt is missing"),
        ("weights", "can't be loaded: it needs llama.cpp; get it there with: "),
        ("vast", "memory"),
        ("odd", "odd.toml: vram_gib must be a number of 0 or more, not 'much'"),
        ("torn", "torn.toml: Invalid value"),
        ("boundless", "boundless.toml: memory_mib must be a number of 0 or more, not inf"),
        ("aimless", "aimless.toml: file must say where the model is"),
        ("misspelt", "misspelt.toml: path is no field; there are file,"),
        ("none", "there is no model 'none'; there are aimless, boundless, cats,"),
        ("../models/cats", "there is no model '../models/cats'"),
    ],
)
def test_who_asks_for_a_model_that_cant_be_loaded_hears_why(
    say: Say, model: str, cause: str
) -> None:
    status, out, err = say("infer", "A text", "--model", model)
    assert (1, "") == (status, out)
    assert err.startswith("rbee-keeper: localhost: ")
    assert cause in err
    assert 1 == err.count("\n")


def test_who_waits_for_a_worker_that_dies_at_80_percent_hears_of_it_at_once(
    system: System, say: Say
) -> None:
    shutil.copy(system.models / "spoilt.txt", system.models / "late.txt")
    _, _, err = say("infer", "A text", "--model", "late")
    told_at = time.time()
    assert "80 % loaded" in err
    assert told_at - await_event(system.url, "died", WORKER("late"))["time"] < 1.0


def test_who_waits_for_a_worker_that_is_killed_hears_of_it_at_once(system: System) -> None:
    asking = system.start("infer", "A text", "--model", "killed")
    pid = await_event(system.url, "spawned", WORKER("killed"))["pid"]
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    asked = ended(asking)
    assert time.monotonic() - killed_at < 1.0
    assert (1, "") == (asked.returncode, asked.stdout)
    what = "rbee-keeper: localhost: the model 'killed' can't be loaded: "
    assert asked.stderr.startswith(f"{what}{WORKER('killed')} was killed by SIGKILL after ")
    assert 1 == asked.stderr.count("\n")


def test_who_hears_a_worker_die_in_mid_stream_is_told_so_and_may_ask_again(system: System) -> None:
    asking = system.start("infer", "the cat", "--model", "cats", "--words", "2000")
    assert asking.stdout is not None
    assert "the cat" == asking.stdout.read(7)
    before = _pid_of(system, "cats")
    os.kill(before, signal.SIGKILL)
    killed_at = time.monotonic()
    asked = ended(asking)
    assert time.monotonic() - killed_at < 1.0
    assert 1 == asked.returncode
    said = "was killed by SIGKILL; ask again to have it loaded anew\n"
    assert f"rbee-keeper: localhost: {WORKER('cats')} {said}" == asked.stderr
    assert await_event(system.url, "died", WORKER("cats"))["status"] == -signal.SIGKILL
    assert post(system.url, "/v1/completions", model="cats", prompt="").is_success
    assert before != _pid_of(system, "cats")


def _pid_of(system: System, model: str) -> int:
    """Ask the hive; the queen asks it once a second."""
    with client(system.url) as asker:
        (hive,) = asker.get("/health").json()["hives"]
        workers = asker.get(hive["url"]).json()["workers"]
    (pid,) = [each["pid"] for each in workers if each["model"] == model]
    assert isinstance(pid, int)
    return pid


def test_two_who_ask_for_a_model_at_once_have_it_loaded_once(system: System) -> None:
    answers: list[int] = []

    def ask() -> None:
        body = {"model": "twice", "prompt": "the", "max_tokens": 1}
        answers.append(post(system.url, "/v1/completions", **body).status_code)

    at_once(ask, ask, ask)
    assert [200] * 3 == answers
    assert 1 == told_so_far(system.url, "spawned").count(WORKER("twice"))


MODEL = {"model": "cats"}
VECTORS = "embedding-worker-rbee@hashing"


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/v1/completions", b"{", 400, "the request is no JSON: "),
        ("/v1/completions", b"\xff", 400, "the request is no JSON: "),
        ("/v1/completions", b"[" * 100_000, 400, "the request is no JSON: "),
        ("/v1/completions", b"[1]", 400, "the request must be a JSON object"),
        ("/v1/completions", b"", 400, "model must be the name of a model"),
        ("/v1/completions", b" " * 1_000_001, 413, "the request is longer than 1,000,000 bytes"),
        ("/v1/completions", {"model": 7}, 400, "model must be the name of a model"),
        ("/v1/completions", {"model": "x"}, 404, "localhost: there is no model 'x'"),
        ("/v1/completions", MODEL | {"prompt": 7}, 400, "prompt must be a text, and max_tokens"),
        ("/v1/completions", MODEL | {"max_tokens": 0}, 400, "prompt must be a text, and"),
        ("/v1/completions", MODEL | {"max_tokens": True}, 400, "prompt must be a text, and"),
        ("/v1/completions", MODEL | {"max_tokens": "9"}, 400, "prompt must be a text, and"),
        ("/v1/completions", {"model": "hashing"}, 404, f"localhost: {VECTORS} can't do that: POST"),
        ("/v1/embeddings", {"model": "hashing"}, 400, "input must be a text, or a list of texts"),
        ("/v1/embeddings", {"model": "hashing", "input": [7]}, 400, "input must be a text, or"),
        ("/events?after=x", None, 400, "after must be how many events were heard before"),
        ("/hives", {"host": ""}, 400, "host must be the name of a machine"),
        ("/hives", {"host": 7}, 400, "host must be the name of a machine"),
        ("/forget", {"host": "gpu-9"}, 404, "no hive on gpu-9 is remembered"),
        ("/forget", {"host": "localhost"}, 400, "the hive on localhost is online: only one that"),
        ("/hives", {"host": "a b"}, 503, "there is no hive on a b: host: must be a machine"),
        ("/health", {}, 405, "POST /health is not served here: Method Not Allowed"),
        ("/nothing", {}, 404, "POST /nothing is not served here: Not Found"),
    ],
)
def test_an_odd_request_is_answered_by_a_sentence(
    system: System, path: str, body: Any, status: int, sentence: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with client(system.url) as asker:
        answer = asker.request("GET" if body is None else "POST", path, content=content)
        hives = asker.get("/health").json()["hives"]
    assert status == answer.status_code
    assert answer.json()["error"]["message"].startswith(sentence)
    assert ["localhost"] == [hive["host"] for hive in hives]


def test_a_keeper_says_what_was_wrong_with_the_request(say: Say) -> None:
    why = "POST /v1/completions is not served here: Not Found"
    sentence = f"localhost: {VECTORS} can't do that: {why}"
    words = ("infer", "A text", "--model", "hashing")
    assert (1, "", f"rbee-keeper: {sentence}\n") == say(*words)
    status, out, err = say("hives", "--add", "a b")
    assert (1, "") == (status, out)
    assert err.startswith("rbee-keeper: there is no hive on a b: ")


def test_a_keeper_that_nobody_reads_ends_quietly(system: System) -> None:
    asking = system.start("infer", "the cat", "--model", "cats", "--words", "2000")
    assert asking.stdout is not None
    assert "the" == asking.stdout.read(3)
    asking.stdout.close()
    assert asking.stderr is not None
    assert "" == asking.stderr.read()
    assert 141 == asking.wait()
    asking.stderr.close()


def test_a_queen_that_does_not_run_is_said_to(
    monkeypatch: pytest.MonkeyPatch, say: Say, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert (3, "", "rbee-keeper: no queen runs\n") == say("status")
    assert (3, "", "rbee-keeper: no queen runs\n") == say("hives")
    assert (0, "", "rbee-keeper: nothing runs\n") == say("stop")
    assert not (tmp_path / "rbee").exists()


def test_a_model_whose_name_no_daemon_can_have_is_refused_in_a_sentence(
    system: System, say: Say
) -> None:
    long = "n" * 220
    (system.models / f"{long}.txt").write_text(TEXT)
    status, out, err = say("infer", "A text", "--model", long)
    (system.models / f"{long}.txt").unlink()
    what = f"rbee-keeper: localhost: the model '{long}' can't be loaded: name: is longer than "
    assert (1, "", True) == (status, out, err.startswith(what))


def test_who_waits_for_a_whole_answer_hears_at_once_that_the_worker_has_died(
    system: System,
) -> None:
    """The hive says so; the queen need not wait for the end of the hive."""
    assert post(system.url, "/v1/completions", model="cats", prompt="").is_success
    os.kill(pid := _pid_of(system, "cats"), signal.SIGSTOP)
    answers: list[tuple[float, int]] = []

    def ask() -> None:
        status = post(system.url, "/v1/completions", model="cats", prompt="the").status_code
        answers.append((time.monotonic(), status))

    asking = threading.Thread(target=ask)
    asking.start()
    await_true(lambda: 1 == _requests_of(system, "cats"))
    killed_at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    asking.join()
    ((answered_at, status),) = answers
    assert 502 == status
    assert answered_at - killed_at < 0.9


def _requests_of(system: System, model: str) -> int:
    with client(system.url) as asker:
        (hive,) = asker.get("/health").json()["hives"]
        workers = asker.get(hive["url"]).json()["workers"]
    return sum(each["requests"] for each in workers if each["model"] == model)


def test_a_queen_that_hangs_is_not_waited_for_without_end(
    system: System, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_ANSWER_S", 0.1)
    os.kill(pid := system.queen_pid, signal.SIGSTOP)
    try:
        said = say("status")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (1, "", f"rbee-keeper: queen-rbee, process {pid}, gave no answer within 0.1 s\n") == said


def test_a_queen_who_can_not_read_what_is_remembered_says_why_and_is_none(
    monkeypatch: pytest.MonkeyPatch, say: Say, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    database = tmp_path / "rbee/queen.sqlite"
    database.parent.mkdir()
    database.write_bytes(b"no database" * 100)
    why = f"{database}, where hives are remembered, can't be used: file is not a database\n"
    assert (125, "", f"rbee-keeper: there is no queen to ask: {why}") == say("infer", "A text")
    assert (1, "", f"rbee-keeper: {why}") == say("stop")
