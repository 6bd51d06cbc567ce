"""Several hives of one queen, and what a hive starts that is none of the demo's own programs."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.cli import is_alive
from tests.demo import await_death, client, events, hive, post, service
from tests.support import free_port
from trio_lifecycle import SpawnError, open_daemon_nursery
from trio_lifecycle.demo._asking import Asker
from trio_lifecycle.demo._hive_registry import HiveRecord, HiveRegistry
from trio_lifecycle.demo._hub import Hub
from trio_lifecycle.demo._serving import RefusedError, Request
from trio_lifecycle.demo.hive import Hive
from trio_lifecycle.demo.queen import Queen
from trio_lifecycle.demo.queen_lifecycle import HiveLifecycles

TEXT = "the cat sat on the mat " * 50

# All her hives are here, whatever machine they are on; while the file "silent" is there, that
# machine is out of reach.
QUEEN = """
import sys
from pathlib import Path
from trio_lifecycle import SpawnError
from trio_lifecycle.demo import queen, queen_lifecycle
def spawner(host):
    if Path("silent").exists():
        raise SpawnError("rbee-hive", f"{host} does not answer")
queen_lifecycle.spawner = spawner
sys.exit(queen.main())
"""


@contextmanager
def queen(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a queen by herself; give her and her URL."""
    words = ["--database", str(folder / "queen.sqlite"), "--models", str(folder)]
    with service("env", "-C", str(folder), sys.executable, "-c", QUEEN, *words) as alone:
        yield alone


def hives_of(url: str) -> dict[str, tuple[str, int | None]]:
    """Say how each hive is, and which process it is."""
    with client(url) as asker:
        hives = asker.get("/health").json()["hives"]
    return {each["host"]: (each["state"], each["pid"]) for each in hives}


def ask(url: str, model: str) -> set[str]:
    """Have the model of a name continue a text; give the machines whose hives have it up."""
    body = {"model": model, "prompt": "the cat", "max_tokens": 1}
    assert {"choices": [{"text": " sat"}]} == post(url, "/v1/completions", **body).json()
    with client(url) as asker:
        hives = [each for each in asker.get("/health").json()["hives"] if each["url"]]
        workers = {each["host"]: asker.get(each["url"]).json()["workers"] for each in hives}
    return {host for host, found in workers.items() for each in found if each["model"] == model}


def refusing(url: str, model: str) -> str:
    """Ask for a model that can't be loaded; give the machine that says so."""
    answer = post(url, "/v1/completions", model=model)
    assert 503 == answer.status_code
    host, _, _ = str(answer.json()["error"]["message"]).partition(":")
    return host


@pytest.mark.slow
def test_a_model_stays_on_its_machine_and_a_new_one_goes_where_there_are_fewest(
    tmp_path: Path,
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(TEXT)
    (tmp_path / "vast.toml").write_text('file = "one.txt"\nmemory_mib = 1e9')
    with queen(tmp_path) as (process, url):
        for host in ("here", "there"):
            assert post(url, "/hives", host=host).is_success
        (first,), (second,) = ask(url, "one"), ask(url, "two")
        assert {"here", "there"} == {first, second}
        assert {first} == ask(url, "one")
        # Where one machine has no room, another may have.
        assert {"here", "there"} == {refusing(url, "vast"), refusing(url, "vast")}
        pid = hives_of(url)[first][1]
        assert pid is not None
        with events(url) as told:
            os.kill(pid, signal.SIGKILL)
            assert any(event.get("state") == "offline" for event in told)
        assert ("offline", None) == hives_of(url)[first]
        assert {second} == ask(url, "one")
        expect_found_late(process, url, tmp_path, second)


def expect_found_late(process: "subprocess.Popen[str]", url: str, folder: Path, host: str) -> None:
    """A queen that comes back finds a hive also when its machine was out of reach for a while."""
    pid = hives_of(url)[host][1]
    assert pid is not None
    process.kill()
    await_death(process.pid)
    (folder / "silent").touch()
    with queen(folder) as (_, url):
        assert ("unknown", None) == hives_of(url)[host]
        with events(url) as told:
            (folder / "silent").unlink()
            assert any(event.get("state") == "online" for event in told)
        assert ("online", pid) == hives_of(url)[host]
        assert post(url, "/stop").is_success
        assert not is_alive(pid)


# --- llama.cpp ---

# What its server is, as far as a hive knows: started as this module, it answers when it is up.
STAND_IN = """
import argparse, http.server, json
parser = argparse.ArgumentParser()
parser.add_argument("--model")
parser.add_argument("--port", type=int)
options = parser.parse_args()
class Answer(http.server.BaseHTTPRequestHandler):
    def answer(self, kind, text):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        self.answer("application/json", json.dumps({"data": [{"id": options.model}]}))
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        event = {"choices": [{"text": f" {asked['model']}"}]}
        self.answer("text/event-stream", f"data: {json.dumps(event)}\\n\\ndata: [DONE]\\n\\n")
http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Answer).serve_forever()
"""


def answer_of(folder: Path, environment: Mapping[str, str]) -> str:
    """Have a hive ask the model "weights", and give its answer."""
    body = {"model": "weights", "prompt": "The cat", "max_tokens": 4, "stream": True}
    with hive(folder, environment=environment) as (_, url):
        answer = post(url, "/v1/completions", **body)
        assert answer.is_success, answer.text
        with events(url) as told:
            ready = next(event for event in told if event["event"] == "ready")
        assert "llama_cpp@weights" == ready["name"]
    return answer.text


def test_weights_are_served_by_another_program_with_nothing_else_changed(tmp_path: Path) -> None:
    package = tmp_path / "llama_cpp/server"
    package.mkdir(parents=True)
    # Packages, so that one that is installed is not taken instead.
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    text = answer_of(tmp_path, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert 'data: {"choices": [{"text": " weights"}]}\n\ndata: [DONE]\n\n' == text


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None or "TRIO_LIFECYCLE_GGUF" not in os.environ,
    reason="needs llama_cpp with its server, and TRIO_LIFECYCLE_GGUF, the path of a model for it",
)
def test_weights_are_served_by_llama_cpp(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").symlink_to(os.environ["TRIO_LIFECYCLE_GGUF"])
    text = answer_of(tmp_path, os.environ)
    assert '"text"' in text
    assert text.endswith("data: [DONE]\n\n")


# --- what is remembered of a hive ---


def test_a_hive_that_was_noted_but_never_started_is_looked_for_once(tmp_path: Path) -> None:
    """Its queen was killed between the two; who was offline is not even looked for."""
    registry = HiveRegistry(tmp_path / "queen.sqlite")
    trio.run(registry.note, "noted", "unknown")
    trio.run(registry.note, "long gone", "offline")
    (tmp_path / "silent").touch()
    with queen(tmp_path) as (_, url), client(url) as asker:
        (told,) = asker.post("/stop").json()["hives"]
        assert told["error"].startswith("the hive on noted can't be stopped: ")
    (tmp_path / "silent").unlink()
    with queen(tmp_path) as (_, url):
        assert [] == post(url, "/stop").json()["hives"]
    states = {hive.host: hive.state for hive in trio.run(registry.hives)}
    assert {"noted": "offline", "long gone": "offline"} == states


class _Slow:
    """Looks for a hive that is gone, and starts it anew, until it is told to be done."""

    def __init__(self) -> None:
        self.looked, self.starts = trio.Event(), trio.Event()

    async def find(self, _host: str) -> None:
        await self.looked.wait()

    def of(self, _host: str) -> "_Slow":
        return self

    async def ensure_running(self) -> None:
        self.starts.set()
        await trio.sleep_forever()


async def test_a_hive_that_is_being_started_is_not_remembered_as_gone(tmp_path: Path) -> None:
    """If the queen is killed before it is up, the next one is to look for it."""
    registry, slow = HiveRegistry(tmp_path / "queen.sqlite"), _Slow()
    async with Asker() as asker, trio.open_nursery() as tasks:
        queen = Queen(cast("HiveLifecycles", slow), registry, asker, Hub("queen-rbee"), tasks)
        queen.take_up([HiveRecord("gpu-2", "online")])
        tasks.start_soon(queen._ensure, "gpu-2")
        await slow.starts.wait()
        slow.looked.set()
        await wait_all_tasks_blocked()
        assert ["unknown"] == [hive.state for hive in await registry.hives()]
        tasks.cancel_scope.cancel()


async def test_weights_without_llama_cpp_are_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    async with Asker() as asker, open_daemon_nursery() as daemons:
        alone = Hive("gpu-2", tmp_path, 1.0, daemons, asker, Hub("rbee-hive@gpu-2"))
        with pytest.raises(RefusedError, match=r"needs llama\.cpp; get it there with: .* -m pip"):
            async with alone._worker_of("weights"):
                pass


# --- many requests for a machine that can't be reached at first ---


class Unsteady:
    """Lifecycles whose first start fails when it may go on, and the others are slow."""

    def __init__(self, url: str) -> None:
        self.handle = SimpleNamespace(instance_id="one", url=url, pid=1, check=self.check)
        self.go_on = trio.Event()
        self.tries = 0

    def of(self, _host: str) -> "Unsteady":
        return self

    async def check(self) -> str:
        await trio.lowlevel.checkpoint()
        return "running"

    async def ensure_running(self) -> SimpleNamespace:
        self.tries += 1
        if self.tries == 1:
            await self.go_on.wait()
            raise SpawnError("rbee-hive", "there does not answer")
        await trio.sleep(0.1)
        return self.handle


class Counting(Asker):
    """Counts how often it was to listen."""

    listened = 0

    def stream(self, method: str, url: str, body: dict[str, Any] | None = None) -> Any:
        self.listened += 1
        return super().stream(method, url, body)


async def test_a_hive_that_failed_at_first_is_listened_to_once_whoever_asks(tmp_path: Path) -> None:
    unsteady: Any = Unsteady(f"http://127.0.0.1:{free_port()}/health")
    registry, hub, failed = HiveRegistry(tmp_path / "queen.sqlite"), Hub("queen-rbee"), trio.Event()

    async def body() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b'{"host": "there"}'}

    async def ask() -> None:
        try:
            await queen_of_all.add_hive(Request({"type": "http"}, body))
        except RefusedError:
            failed.set()

    async with Counting() as asker, trio.open_nursery() as tasks:
        queen_of_all = Queen(unsteady, registry, asker, hub, tasks)
        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            asking.start_soon(ask)
            await wait_all_tasks_blocked(0.05)
            unsteady.go_on.set()
            await failed.wait()
            asking.start_soon(ask)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert (1, 3) == (asker.listened, unsteady.tries)
