"""Ready by a line of the output: which line, what it says, and how it is heard."""

import logging
import os
import pickle
import re
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import in_simulated_time
from tests.support import PATIENCE_S, Heard, python_daemon, shell_daemon
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    LocalSpawner,
    LogLine,
    Output,
    ReadyError,
    ReadyTimeoutError,
)
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._output._growing import FileHearing
from trio_lifecycle._output._lines import LINES_KEPT_FOR_A_READER, Lines
from trio_lifecycle._status import quote
from trio_lifecycle.abc import Prober, Process, Report, Start
from trio_lifecycle.ready._log_line import LONGEST_SEARCHED_CHARS, ArmedLogLine
from trio_lifecycle.testing import SimulatedDaemon, run_simulated

# --- what may be looked for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        (LogLine("ready"), "LogLine(pattern='ready', fatal=None)"),
        (
            LogLine(f"port {FREE_PORT}$", fatal="fail"),
            "LogLine(pattern='port {FREE_PORT}$', fatal='fail')",
        ),
        (
            LogLine(re.compile(f"x{FREE_PORT}", re.IGNORECASE)),
            "LogLine(pattern=re.compile('x{FREE_PORT}', re.IGNORECASE|re.UNICODE), fatal=None)",
        ),
    ],
)
def test_it_is_a_value_that_prints_what_was_written(mode: LogLine, shown: str) -> None:
    assert shown == repr(mode)
    copy = pickle.loads(pickle.dumps(mode))
    assert (mode, hash(mode)) == (copy, hash(copy))
    assert mode != LogLine("other")


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("a(b", r"'a\(b' is no regular expression: missing \).* at position 1"),
        (f"{FREE_PORT}(b", r"'{FREE_PORT}\(b' is no .* at position 11"),
        (f"{FREE_PORT}{CALLBACK_URL}", "can hold no other marker than FREE_PORT"),
        ("a\0", "contains a NUL"),
        ("a{99999999999}", "is no regular expression"),
        (b"a", "must be a pattern of text"),
        (re.compile(b"a"), "must be a pattern of text"),
        (5, "must be a pattern of text"),
    ],
)
@pytest.mark.parametrize("field", ["pattern", "fatal"])
def test_what_is_no_pattern_is_refused_with_the_place(
    field: str, pattern: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}: .*{problem}"):
        LogLine(**{"pattern": "a", field: pattern})


def test_none_is_no_pattern() -> None:
    with pytest.raises(ConfigError, match="pattern"):
        LogLine(cast("str", None))


def test_the_patterns_are_its_texts() -> None:
    mode = LogLine(f"a{FREE_PORT}", fatal=re.compile("b"))
    assert (f"a{FREE_PORT}", "b") == mode.texts
    assert ("a",) == LogLine("a").texts


# --- what a line says -----------------------------------------------------------------------------


async def arm(mode: LogLine, port: int | None = None) -> ArmedLogLine:
    """A mode at work, with nobody to hear yet."""
    start = Start(name="queen", instance_id="7f", port=port, prober=cast("Prober", None))
    return await mode.arm(start)


@in_simulated_time
async def hear(mode: LogLine, lines: list[str], expected: Report | None, port: int | None) -> None:
    """Let lines be heard, and look at what comes of it."""
    armed = await arm(mode, port)
    assert armed.awaited.startswith("a line with '")
    armed._hear(lines)
    assert expected == armed._decision()


ADDRESS = LogLine(r"^(?:url (?P<url>\S+) ?)?(?:port (?P<port>\S+))?(?: by (?P<who>\w+))?$")


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("port 82", Report("http://127.0.0.1:82", 82, {"port": "82"})),
        ("port 82 by me", Report("http://127.0.0.1:82", 82, {"port": "82", "who": "me"})),
        ("url http://10.0.0.5:81/v1", Report("http://10.0.0.5:81/v1", 81, {"url": "http://10.0.0.5:81/v1"})),
        ("url https://x/ port 9", Report("https://x/", 9, {"url": "https://x/", "port": "9"})),
        ("url tcp://x port 9", Report("http://127.0.0.1:9", 9, {"url": "tcp://x", "port": "9"})),
        ("url http://u:p@x/ ", Report(None, 7, {"url": "http://u:p@x/"})),
        ("url http://x/ port 0", Report("http://x/", 80, {"url": "http://x/", "port": "0"})),
        ("port 65536", Report(None, 7, {"port": "65536"})),
        ("port ٣", Report(None, 7, {"port": "٣"})),
        ("port 000000000082", Report(None, 7, {"port": "000000000082"})),
        (f"url http://x:{FREE_PORT}/", Report(None, 7, {"url": f"http://x:{FREE_PORT}/"})),
        ("", Report(None, 7, {})),
    ],
)  # fmt: skip
def test_named_groups_become_the_report(line: str, report: Report) -> None:
    hear(ADDRESS, [line], report, 7)


@pytest.mark.parametrize("port", [None, 7])
def test_a_line_that_names_no_place_gives_no_url(port: int | None) -> None:
    # It would stand in the place of one that another mode knows, and redis speaks no HTTP.
    hear(LogLine("ready"), ["is ready now"], Report(None, port, {}), port)


def test_the_free_port_is_filled_in() -> None:
    mode = LogLine(re.compile(f"PORT {FREE_PORT}\\b", re.IGNORECASE), fatal=f"{FREE_PORT} taken")
    hear(mode, ["port 1", "port 78"], None, 7)
    hear(mode, ["port 1", "port 7"], Report(None, 7), 7)


def test_of_a_line_only_its_beginning_is_searched() -> None:
    hear(LogLine("ready"), ["x" * LONGEST_SEARCHED_CHARS + "ready"], None, None)
    hear(LogLine("ready"), ["x" * (LONGEST_SEARCHED_CHARS - 5) + "ready"], Report(), None)


@pytest.mark.parametrize("lines", [["ready, failed"], ["failed", "ready"], ["ready", "failed"]])
async def test_a_fatal_line_wins_over_readiness_that_nobody_has_seen(lines: list[str]) -> None:
    armed = await arm(LogLine("ready", fatal="failed"))
    armed._hear(lines)
    with pytest.raises(ReadyError, match=r"queen can't become ready: it wrote '.*failed'"):
        armed._decision()


async def test_the_first_fatal_line_is_quoted_and_no_more_than_200_characters_of_it() -> None:
    armed = await arm(LogLine("ready", fatal="failed"))
    armed._hear(["failed\x1b[31m" + "x" * 300, "failed again"])
    with pytest.raises(ReadyError) as caught:
        armed._decision()
    shown = "failed\\x1b[31m" + "x" * 189
    assert f"it wrote '{shown}'..., which means that it has failed" == caught.value.problem


@given(st.text())
def test_what_is_quoted_is_one_line_of_bounded_length(text: str) -> None:
    assert quote(text).isprintable()
    assert len(quote(text)) <= 200 * len(r"\U0010ffff") + 5


@given(st.lists(st.sampled_from(["ready", "x ready", "failed", "ready failed", "", "else"])))
def test_the_first_line_that_decides_decides(lines: list[str]) -> None:
    async def listen() -> str:
        armed = await arm(LogLine("ready", fatal="failed"))
        for line in lines:
            armed._hear([line])
            try:
                if armed._decision() is not None:
                    return line
            except ReadyError:
                return line
        return "nothing"

    told = [line for line in lines if "ready" in line or "failed" in line]
    assert [*told, "nothing"][0] == run_simulated(listen)


# --- in simulated time ----------------------------------------------------------------------------


@in_simulated_time
async def test_it_is_ready_at_the_moment_of_the_line() -> None:
    daemon = SimulatedDaemon(says=[(1.0, "loading"), (2.5, "port 77")])
    lifecycle = daemon.lifecycle(ready_mode=LogLine(r"port (?P<port>\d+)"))
    async with lifecycle.running() as handle:
        assert (2.5, 77, {"port": "77"}) == (handle.ready_after_s, handle.port, handle.report)
        assert "running" == await handle.check()


@in_simulated_time
async def test_a_line_at_the_very_deadline_counts() -> None:
    daemon = SimulatedDaemon(says=[(30.0, "ready")])
    async with daemon.lifecycle(ready_mode=LogLine("ready")).running() as handle:
        assert 30.0 == handle.ready_after_s


@in_simulated_time
async def test_a_time_out_quotes_the_last_line() -> None:
    daemon = SimulatedDaemon(says=[(1.0, "one"), (2.0, "two")])
    with pytest.raises(ReadyTimeoutError) as caught:
        async with daemon.lifecycle(ready_mode=LogLine("ready")).running():
            raise AssertionError("it is not ready")
    assert "its last line was 'two'" == caught.value.last_seen


@in_simulated_time
async def test_a_time_out_says_that_there_was_no_line() -> None:
    with pytest.raises(ReadyTimeoutError, match="it has written no whole line"):
        async with SimulatedDaemon().lifecycle(ready_mode=LogLine("ready")).running():
            raise AssertionError("it is not ready")


@in_simulated_time
async def test_a_fatal_line_ends_the_wait_at_once() -> None:
    daemon = SimulatedDaemon(says=[(1.0, "it failed")])
    with pytest.raises(ReadyError, match="it wrote 'it failed'") as caught:
        async with daemon.lifecycle(ready_mode=LogLine("ready", fatal="fail")).running():
            raise AssertionError("it is not ready")
    assert (1.0, "it failed\n") == (trio.current_time(), caught.value.output_tail)
    assert 0 == daemon.alive


@in_simulated_time
async def test_a_fatal_line_counts_while_it_is_to_hold() -> None:
    daemon = SimulatedDaemon(says=[(1.0, "ready"), (2.0, "failed")])
    mode = LogLine("ready", fatal="fail").stable_for(5.0)
    with pytest.raises(ReadyError, match="it wrote 'failed'"):
        async with daemon.lifecycle(ready_mode=mode).running():
            raise AssertionError("it is not ready")
    assert 2.0 <= trio.current_time() < 2.2


@in_simulated_time
async def test_a_death_is_the_news_and_not_the_end_of_the_output() -> None:
    daemon = SimulatedDaemon(says=[(1.0, "oh")], dies_after=1.0)
    with pytest.raises(DiedBeforeReadyError):
        async with daemon.lifecycle(ready_mode=LogLine("ready")).running():
            raise AssertionError("it is not ready")


class Read(Process):
    """As much of a process as its lines are."""

    def lines(self) -> Any:
        """Three lines, then the end."""

        async def give() -> Any:
            for line in "abc":
                await trio.sleep(1.0)
                yield line

        return give()


Read.__abstractmethods__ = frozenset()


@in_simulated_time
async def test_a_process_of_another_kind_is_heard_by_its_lines() -> None:
    process = Read()  # type: ignore[abstract]
    assert Report() == await (await arm(LogLine("b"))).wait(process)
    armed = await arm(LogLine("x"))
    assert await armed.ask(process) is None
    with pytest.raises(ReadyError, match=r"its output has ended, .* its last line was 'c'"):
        await armed.wait(process)
    await armed.disarm()
    closed = process.hear_lines(lambda lines: None)
    closed.close()
    await closed.run()


# --- hearing --------------------------------------------------------------------------------------


async def test_who_hears_through_a_pipe_hears_all_and_is_told_the_end() -> None:
    lines = Lines()
    heard: list[str] = []
    hearing = lines.hear(heard.extend, lambda: lines.feed(["taken in"]))
    much = [str(number) for number in range(LINES_KEPT_FOR_A_READER + 5)]
    assert lines.wanted
    lines.feed(much)
    hearing.look()
    lines.close()
    hearing.look()
    await hearing.run()
    assert [*much, "taken in"] == heard
    late = lines.hear(heard.extend, lambda: None)
    await late.run()


async def test_who_hears_no_more_is_forgotten() -> None:
    lines = Lines()
    heard: list[str] = []
    hearing = lines.hear(heard.extend, lambda: None)
    hearing.close()
    hearing.close()
    lines.feed(["a"])
    assert (False, []) == (lines.wanted, heard)


async def test_who_fails_to_hear_breaks_off_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    reader = lines.read()

    def fail(some: list[str]) -> None:
        raise ValueError(some)

    hearing = lines.hear(fail, lambda: None)
    with caplog.at_level(logging.ERROR, "trio_lifecycle"):
        lines.feed(["a"])
        lines.feed(["b"])
    assert 1 == len(caplog.records)
    await hearing.run()
    assert ["a", "b"] == [await anext(reader) for _ in range(2)]


class Life:
    """As much of a process as who hears its file asks for."""

    ended = False


def hearing_of(path: Path, heard: list[str], life: Life) -> FileHearing:
    return FileHearing(path, cast("Process", life), heard.extend, 0)


async def test_a_file_is_heard_until_the_process_ends_with_its_last_unfinished_line(
    tmp_path: Path,
) -> None:
    path, heard, life = tmp_path / "log", Heard(), Life()
    path.touch()

    def hear(lines: list[str]) -> None:
        for line in lines:
            heard(line)

    hearing = FileHearing(path, cast("Process", life), hear, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hearing.run)
        append(path, "a\nb")
        await heard.line("a")
        append(path, "c\nlast")
        await heard.line("bc")
        life.ended = True
    assert ["a", "bc", "last"] == heard.lines
    hearing.close()
    hearing.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def test_a_file_is_heard_on_from_its_beginning_when_it_was_truncated(
    tmp_path: Path,
) -> None:
    path, heard = tmp_path / "log", list[str]()
    append(path, "one\ntwo, half")
    hearing = hearing_of(path, heard, Life())
    hearing.look()
    path.write_text("up\n")
    hearing.look()
    assert ["one", "two, half", "up"] == heard
    hearing.close()


async def test_a_file_is_heard_where_the_kernel_tells_nothing_of_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path, heard = tmp_path / "log", list[str]()
    hearing = hearing_of(path, heard, Life())  # it is not there yet, so it can't be watched
    assert -1 == hearing._changes._fd
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hearing.run)
        await trio.sleep(10)
        path.write_text("a\n")
        await trio.sleep(0.05)
        assert ["a"] == heard
        hearing.close()


async def test_one_who_is_closed_while_he_waits_for_a_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    hearing = hearing_of(path, [], Life())
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hearing.run)
            await trio.testing.wait_all_tasks_blocked()
            hearing.close()
    hearing.look()


async def test_a_last_look_at_a_file_is_bounded(tmp_path: Path) -> None:
    path, heard = tmp_path / "log", list[str]()
    path.write_bytes((b"x" * 1023 + b"\n") * 2048)
    hearing = hearing_of(path, heard, Life())
    hearing.look()
    assert 1024 == len(heard)
    hearing.close()


# --- real daemons ---------------------------------------------------------------------------------


async def test_a_line_on_standard_error_counts_and_the_port_in_it_is_the_daemons() -> None:
    config = shell_daemon("echo out; echo port 4321 >&2; exec sleep 1000", ready_mode=ADDRESS_LINE)
    async with DaemonLifecycle(config).running() as daemon:
        assert (4321, "http://127.0.0.1:4321") == (daemon.port, daemon.url)


ADDRESS_LINE = LogLine(r"port (?P<port>\d+)")


@pytest.mark.fault(29)
async def test_one_that_closes_its_output_without_the_line_has_failed() -> None:
    config = shell_daemon("echo a; exec sleep 1000 >&- 2>&-", ready_mode=ADDRESS_LINE)
    with pytest.raises(
        ReadyError, match=r"its output has ended, .* its last line was 'a'"
    ) as caught:
        async with DaemonLifecycle(config).running():
            raise AssertionError("it is not ready")
    assert "a\n" == caught.value.output_tail


@pytest.mark.fault(15)
async def test_one_that_ends_without_the_line_has_died() -> None:
    for _ in range(5):
        config = shell_daemon("echo a; exit 3", ready_mode=ADDRESS_LINE)
        with pytest.raises(DiedBeforeReadyError, match="exited with status 3"):
            async with DaemonLifecycle(config).running():
                raise AssertionError("it is not ready")


FLOOD = """
import os
block = (b"x" * 99 + b"\\n") * 655
for _ in range(200):
    os.write(1, block)
os.write(1, b"ready\\n")
while True:
    os.write(1, block)
"""


@pytest.mark.fault(35)
@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_a_line_in_the_middle_of_a_flood_is_heard(guarantee: Guarantee) -> None:
    config = python_daemon(FLOOD, ready_mode=LogLine("^ready$"))
    with trio.fail_after(PATIENCE_S):
        async with DaemonLifecycle(config, spawner=LocalSpawner(guarantee)).running() as daemon:
            assert daemon.ready_after_s > 0


LINES = """
import time
for number in range(30_000):
    print(number)
print("ready", flush=True)
time.sleep(1000)
"""


async def test_one_that_is_left_running_is_heard_by_its_log_file(tmp_path: Path) -> None:
    mode = LogLine("^ready$", fatal="^29998x")
    config = python_daemon(LINES, ready_mode=mode, detach=True, output=Output(to=tmp_path / "log"))
    lifecycle = DaemonLifecycle(config)
    (tmp_path / "log").write_text("ready\n")  # of another spawn
    daemon = await lifecycle.ensure_running()
    try:
        assert "29999" in (tmp_path / "log").read_text()
        assert "running" == await daemon.check()
    finally:
        await daemon.stop()  # noqa: ASYNC102 - it shields itself


@pytest.mark.fault(96)
@pytest.mark.parametrize("fatal", [None, "password"])
async def test_a_secret_in_a_log_file_is_not_quoted(fatal: str | None, tmp_path: Path) -> None:
    config = shell_daemon(
        'echo "the password is $PASSWORD"; exec sleep 1000',
        ready_mode=LogLine("ready", fatal=fatal),
        ready_timeout=0.3,
        detach=True,
        output=Output(to=tmp_path / "log"),
        secret_env={"PASSWORD": "s3cret-s3cret"},
    )
    with pytest.raises((ReadyError, ReadyTimeoutError), match=r"the password is \*\*\*'") as caught:
        await DaemonLifecycle(config).ensure_running()
    assert "s3cret" not in str(caught.value)


async def test_it_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path would keep it open longer

    config = shell_daemon(
        "echo ready; exec sleep 1000",
        ready_mode=LogLine("ready"),
        detach=True,
        output=Output(to=tmp_path / "log"),
    )
    counts = []
    for _ in range(3):
        daemon = await DaemonLifecycle(config).ensure_running()
        await daemon.stop()
        await trio.testing.wait_all_tasks_blocked()
        counts.append(count())
    assert counts[1] == counts[2]
