"""The demo's parts, one by one: what models there are, what is told to whom, what is remembered."""

import json
import time
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import free_port
from trio_lifecycle import (
    BinaryNotFoundError,
    ConfigError,
    DaemonHandle,
    DiedBeforeReadyError,
    PreflightError,
)
from trio_lifecycle.demo import _doors, _hub, _listening, keeper, worker
from trio_lifecycle.demo._asking import Asker, AskingError, lines_of, words_in
from trio_lifecycle.demo._hive_registry import HiveRegistry, HiveRegistryError
from trio_lifecycle.demo._hives import Hive, choose
from trio_lifecycle.demo._hub import Hub
from trio_lifecycle.demo._language import WordModel, words_of
from trio_lifecycle.demo._models import ModelError, find_model, model_names
from trio_lifecycle.demo._options import count, seconds
from trio_lifecycle.demo._passing import pass_on
from trio_lifecycle.demo._programs import state_folder
from trio_lifecycle.demo._sentences import sentence_of
from trio_lifecycle.demo._serving import (
    JSONResponse,
    RefusedError,
    Request,
    Response,
    Route,
    Stream,
    json_of,
    serving,
)
from trio_lifecycle.demo._workers import Worker
from trio_lifecycle.demo.hive_lifecycle import checks, llama_server
from trio_lifecycle.demo.worker import LoadError, load

# --- models ---


def test_a_model_is_a_text_weights_a_card_or_built_in(tmp_path: Path) -> None:
    (tmp_path / "tale.txt").write_text("once " * 1_000_000)
    (tmp_path / "big.gguf").write_bytes(bytes(2**20))
    (tmp_path / "card.toml").write_text('file = "tale.txt"\nmemory_mib = 512\nvram_gib = 2')
    assert ["big", "card", "hashing", "pydoc", "tale"] == model_names(tmp_path)
    tale, card = find_model("tale", tmp_path), find_model("card", tmp_path)
    assert str(tmp_path / "tale.txt") == tale.source == card.source
    assert 0.2 < tale.memory_gib < 0.4
    assert (0.5, 2.0) == (card.memory_gib, card.vram_gib)
    assert "pydoc" == find_model("pydoc", tmp_path).source
    assert ["hashing", "pydoc"] == model_names(None)


def test_weights_are_served_by_llama_cpp(tmp_path: Path) -> None:
    """Another configuration: the checks and the way of starting it are the same."""
    (tmp_path / "big.gguf").write_bytes(bytes(2**20))
    model = find_model("big", tmp_path)
    assert model.is_gguf
    config = llama_server(model, lambda _event: None).config
    assert ["-m", "llama_cpp.server", "--model", model.source] == list(config.args[:4])
    assert "llama_cpp@big" == config.name


def test_a_card_says_whether_a_gpu_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "on_gpu.toml").write_text('file = "x"\nvram_gib = 2')
    (tmp_path / "on_cpu.toml").write_text('file = "x"')
    kinds = [
        [type(check).__name__ for check in checks(find_model(name, tmp_path))]
        for name in ("on_gpu", "on_cpu", "pydoc")
    ]
    assert [["FreeVRAM", "FileExists"], ["FreeMemory", "FileExists"], ["FreeMemory"]] == kinds


@pytest.mark.parametrize("value", ["-1", "true", '"1"', "[]"])
def test_a_card_with_an_odd_number_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "odd.toml").write_text(f"memory_mib = {value}")
    with pytest.raises(ModelError, match=r"odd\.toml: memory_mib must be a number of 0 or more"):
        find_model("odd", tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../tale", "/etc/passwd", "a/b", "tale.txt"])
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "tale.txt").write_text("once")
    with pytest.raises(ModelError, match="there is no model"):
        find_model(name, tmp_path)


# --- loading ---


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_text_may_be_cut_anywhere(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Words, and characters of several bytes, stand across the parts in which it is loaded."""
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(f"{text} €".encode())
    at_once = WordModel()
    at_once.learn(words_of(f"{text} €"))
    for prompt in ("", text):
        assert [*at_once.go_on(prompt, 9, 1)] == [*load(str(path)).go_on(prompt, 9, 1)]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"a " * 100 + b"\xff" + b"a " * 100, "is no text in UTF-8 .byte 200, 50 % loaded."),
        (b"\xff" * 10, "is no text in UTF-8 .byte 0, 0 % loaded."),
        (b"a " * 99 + b"\xe2\x82", "is no text in UTF-8 .byte 198, 90 % loaded."),
        (b"a " * 15 + b"\xe2\x82" + b" a" * 20, "is no text in UTF-8 .byte 30, "),
        (b" \n ", "has no words"),
        (None, "can't be read: No such file or directory"),
    ],
)
def test_what_is_no_text_is_said_to_be_none(
    tmp_path: Path, raw: bytes | None, sentence: str
) -> None:
    path = tmp_path / "text"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(LoadError, match=sentence):
        load(str(path))


def test_a_worker_without_the_memory_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(_source: str) -> Any:
        raise MemoryError

    monkeypatch.setattr("sys.argv", ["x", "--model", "vast", "--port", "1"])
    assert 1 == worker.run_worker("llm-worker-rbee", None, prepare)
    assert "vast takes more memory than there is\n" == capsys.readouterr().err


def test_python_s_own_help_is_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = load("pydoc")
    assert len(model) > 10_000
    assert "loading pydoc: 100 %" == capsys.readouterr().out.splitlines()[-1]


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


# --- answers ---


async def _bits(*bits: bytes) -> AsyncIterator[bytes]:
    for bit in bits:
        yield bit


@given(text=st.text("a€\n"), data=st.data())
async def test_lines_are_the_same_however_they_are_cut(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    lines = [line async for line in lines_of(_bits(*pieces))]
    assert text.removesuffix("\n").split("\n") == (lines or [""])


WORD = b'data: {"choices": [{"text": " hi"}]}\n\n'


async def _said(*bits: bytes) -> tuple[str, str]:
    words: list[str] = []
    try:
        async for word in words_in(_bits(*bits)):
            words.append(word)  # noqa: PERF401 - what came before an error counts
    except AskingError as error:
        return "".join(words), str(error)
    return "".join(words), ""


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (WORD + WORD + b"data: [DONE]\n\n", (" hi hi", "")),
        (b": a comment\nevent: x\n" + WORD + b"data:[DONE]", (" hi", "")),
        (WORD, (" hi", "the answer broke off before its end")),
        (b"", ("", "the answer broke off before its end")),
        (WORD + b'data: {"error": {"message": "worn out"}}\n\n', (" hi", "worn out")),
        (b"data: {\n\n", ("", "the answer has a part that is no completion: {")),
        (b"data: 7\n\n", ("", "the answer has a part that is no completion: 7")),
        (b"data: {}\n\n", ("", "the answer has a part that is no completion: {}")),
        (
            b'data: {"error": 1}\n',
            ("", 'the answer has a part that is no completion: {"error": 1}'),
        ),
    ],
)
async def test_words_are_read_out_of_events(raw: bytes, said: tuple[str, str]) -> None:
    assert said == await _said(raw)
    assert said == await _said(*(raw[at : at + 1] for at in range(len(raw))))


def _answers(status: str, body: bytes, length: int | None = None) -> bytes:
    """Put an HTTP answer together; with another length, it breaks off."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


async def _asked(answer: bytes, ask: Callable[[Asker, str], Awaitable[object]]) -> object:
    """Have something asked of a service that gives this answer, whatever it is asked."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.send_eof()
        async for _ in stream:
            pass  # Closed with something unread, it would be reset.

    outcome: object = None
    async with trio.open_nursery() as nursery, Asker() as asker:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        try:
            outcome = await ask(asker, f"http://127.0.0.1:{port}/x")
        except (AskingError, RefusedError) as error:
            outcome = error  # Raised here, it would be one of a group.
        nursery.cancel_scope.cancel()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@pytest.mark.parametrize(
    ("answer", "sentence", "status"),
    [
        (_answers("200 OK", b"hi"), "/x gave no JSON$", 502),
        (_answers("200 OK", b"[1]"), "/x gave no JSON object$", 502),
        (_answers("418 Teapot", b"hi"), "/x answered with status 418$", 418),
        (_answers("418 Teapot", b'{"error": 1}'), "/x answered with status 418$", 418),
        (_answers("404 No", b'{"error": {"message": "not here"}}'), "^not here$", 404),
        (_answers("200 OK", b"{", 9), "/x can't be asked: peer closed connection", 502),
        (b"", "/x can't be asked: Server disconnected", 502),
    ],
)
async def test_an_answer_that_is_none_becomes_a_sentence(
    answer: bytes, sentence: str, status: int
) -> None:
    with pytest.raises(AskingError, match=sentence) as caught:
        await _asked(answer, lambda asker, url: asker.get(url))
    assert status == caught.value.status


async def _passed(answer: bytes, *, stream: bool) -> bytes:
    """Pass an answer on, from a daemon of which nothing but its URL counts here."""

    async def why(_handle: DaemonHandle, _error: AskingError) -> str:
        return "it has died"

    async def pass_it(asker: Asker, url: str) -> bytes:
        held = nullcontext(cast("DaemonHandle", SimpleNamespace(url=url)))
        passed = await pass_on(asker, held, "/x", {"stream": stream}, why)
        if not isinstance(passed, Stream):
            return bytes(passed.body)
        async with passed._held, aclosing(passed._bits) as bits:
            return b"".join([bit async for bit in bits])

    passed = await _asked(answer, pass_it)
    assert isinstance(passed, bytes)
    return passed


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
async def test_a_stream_is_passed_on_as_it_is(end: bytes) -> None:
    body = WORD + b"data: [DONE]" + end
    assert body == await _passed(_answers("200 OK", body), stream=True)


async def test_a_stream_that_breaks_off_ends_with_the_cause() -> None:
    """What is left of an event goes; whoever reads lines meets none that is torn."""
    passed = await _passed(_answers("200 OK", WORD + WORD[:9], 999), stream=True)
    assert (" hi", "it has died") == await _said(passed)


async def test_a_whole_answer_that_breaks_off_is_refused() -> None:
    assert b"{}" == await _passed(_answers("200 OK", b"{}"), stream=False)
    with pytest.raises(RefusedError, match="it has died"):
        await _passed(_answers("200 OK", b"{", 9), stream=False)


async def test_a_stream_that_never_begins_is_refused() -> None:
    with pytest.raises(RefusedError, match="it has died") as caught:
        await _passed(_answers("503 Service Unavailable", b"{}"), stream=True)
    assert 503 == caught.value.status


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


# --- options ---


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "", "x"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a number of seconds above 0"):
        seconds(text)
    assert 0.5 == seconds("0.5")


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


# --- odd cards ---


@pytest.mark.parametrize(
    "text",
    [
        f"memory_mib = {'9' * 400}",
        f"memory_mib = 0x{'f' * 9000}",
        f"file = {'[' * 100_000}",
        f'file = "{"x" * 300}"',
    ],
)
def test_a_card_may_be_odd_in_many_ways(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(ModelError, match=r"the model 'odd' can't be used: .*/odd\.toml: "):
        find_model("odd", tmp_path)


def test_a_name_that_no_file_can_have_is_that_of_no_model(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b", "\ud800"):
        with pytest.raises(ModelError, match="there is no model"):
            find_model(name, tmp_path)


# --- requests ---


async def test_who_goes_before_the_request_is_through_is_no_failure_of_the_service() -> None:
    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    with pytest.raises(RefusedError, match="the request broke off"):
        await json_of(Request({"type": "http"}, receive))


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


async def test_a_service_is_told_that_no_connection_is_kept() -> None:
    """Else it may keep one for seconds that is closed, and a burst takes all its descriptors."""
    told: list[str] = []

    async def answer(request: Request) -> JSONResponse:  # noqa: ASYNC124
        told.append(request.headers["Connection"])
        return JSONResponse({})

    port = free_port()
    async with Asker() as asker, serving(port, Route("/", answer)):
        await asker.get(f"http://127.0.0.1:{port}/")
    assert ["close"] == told


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
