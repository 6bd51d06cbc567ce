"""What the command line shows: events, lines for people, the daemon's output; and to whom."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

import trio_lifecycle
from tests import cli
from tests.cli import (
    COMMAND,
    HEALTH,
    LIKE_SERVER,
    SERVER,
    call,
    ensured,
    finish,
    is_alive,
    run,
)
from trio_lifecycle._cli._display import Display, next_word_s
from trio_lifecycle._cli._outlet import MOST_HELD_BYTES, Outlet
from trio_lifecycle._cli._paint import Paint

all_stopped = cli.all_stopped

SLEEP = ("sleep", "600")
# A descriptor that is not open.
NO_TERMINAL = 999


# --- what is shown --------------------------------------------------------------------------------


def test_events_are_one_object_a_line_and_the_commands_output_goes_to_standard_error() -> None:
    done = finish("--json", "--name", "web", *HEALTH, "--then", "echo said", "--", *SERVER)
    events = done.events()
    kinds = ["starting", "found", "spawned", "ready", "stopping", "stopped"]
    assert kinds == [event["event"] for event in events]
    assert {"web"} == {event["name"] for event in events}
    assert sorted(event["time"] for event in events) == [event["time"] for event in events]
    pid, url = events[3]["pid"], events[3]["url"]
    assert [pid] * 4 == [event["pid"] for event in events[2:]]
    assert [url] * 3 == [event["url"] for event in events[3:]]
    assert "said\n" in done.err


def test_an_event_is_there_as_soon_as_it_happens() -> None:
    with run("--json", "--", *SLEEP) as running:
        assert is_alive(running.event("ready")["pid"])
        assert 130 == running.interrupt()


def test_quiet_shows_errors_with_the_end_of_the_output_and_nothing_else() -> None:
    assert (
        "" == finish("-q", "--then", "exit 0", "--", "sh", "-c", "echo hello; exec sleep 600").err
    )
    done = finish("-q", *HEALTH, "--", "sh", "-c", "echo no such model; exit 3")
    assert re.fullmatch(
        r"trio-lifecycle: sh exited with status 3 .*\nIts last output:\n  \| no such model\n",
        done.err,
    )


def test_verbose_shows_what_was_found_and_seen() -> None:
    done = finish("-v", *HEALTH, "--timeout", "0.4", "--", *SLEEP)
    # The reaper is started in between, and meanwhile it may be said once what is waited for.
    waiting = r"(sleep: waiting \(0 s\) for \S+: was not asked yet\n)?"
    begin = rf"sleep: is wanted\nsleep: is /\S+/sleep\n{waiting}sleep: started as process \d+\n"
    assert re.match(begin, done.err)
    assert re.search(r"sleep: waiting \(0 s\) for http://127.0.0.1:\d+/: refused", done.err)
    assert "sleep: gets SIGTERM\n" in done.err
    assert 1 == done.err.count("SIGTERM\n"), "said once"
    assert all(
        re.match(r"(sleep|trio-lifecycle): |It wrote", line) for line in done.err.split("\n")[:-1]
    )


def test_a_daemon_that_answers_without_success_before_the_start_is_shown() -> None:
    with run(*HEALTH, "--", *SERVER) as first:
        url = first.line(r"ready at (\S+), process")[1] + "missing"
        with run("-v", "--health", url, "--timeout", "600", *LIKE_SERVER) as second:
            second.line(rf"^again: waiting \(\d s\) for what is already at {url}: answered 404")
            assert 130 == second.interrupt()
        assert "started as" not in second.err
        first.interrupt()


def test_a_time_out_names_the_option_in_events_too() -> None:
    done = finish("--json", *HEALTH, "--timeout", "0.3", "--", *SLEEP)
    assert done.events()[-1]["reason"].endswith("If it only needs longer, raise --timeout.")


def test_a_daemon_without_a_place_is_just_ready() -> None:
    assert re.search(
        r"^sleep: ready, process \d+, after \d", finish("--then", ":", "--", *SLEEP).err, re.M
    )


def test_output_and_our_own_lines_come_in_their_order() -> None:
    script = "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.05; done"
    with run("--", "sh", "-c", script) as running:
        running.line(r"sh \| hello")
        running.interrupt()
    lines = re.findall(r"hello|Ctrl-C: stopping|bye|stopped after", running.err)
    assert ["hello", "Ctrl-C: stopping", "bye", "stopped after"] == lines


def test_a_wait_is_spoken_of_now_and_then() -> None:
    said = [next_word_s(0)]
    while said[-1] < 200:
        said.append(next_word_s(said[-1]))
    assert [5, 10, 20, 40, 80, 140, 200] == said


async def test_a_daemon_that_is_lost_from_sight_is_told_and_looked_for(
    autojump_clock: MockClock,
) -> None:
    written: list[str] = []
    display = Display(cast("Outlet", SimpleNamespace(write=written.append)), Paint(NO_TERMINAL), 0)
    display.name("web")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(display.run)
        about: Any = {"name": "web", "instance_id": "1", "time": 0.0, "pid": 5}
        display.observe(trio_lifecycle.Unseen(**about, reason="the connection is lost"))
        await trio.sleep(6)
        nursery.cancel_scope.cancel()
    assert [
        "web: can't be seen any more: the connection is lost\n",
        "web: stopping (5 s): it can't be seen\n",
    ] == written


async def test_where_no_line_can_be_rewritten_a_wait_gets_new_ones(
    autojump_clock: MockClock,
) -> None:
    written: list[str] = []
    outlet = SimpleNamespace(write=written.append)
    display = Display(cast("Outlet", outlet), Paint(NO_TERMINAL), 0)
    display.name("web")
    display.awaited, display.last_seen = lambda: "http://a/", lambda: "answered 503"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(display.run)
        about: Any = {"name": "web", "instance_id": "1", "time": 0.0, "pid": 5}
        display.observe(trio_lifecycle.Spawned(**about))
        await trio.sleep(12)
        display.observe(trio_lifecycle.Ready(**about, url=None, port=80, ready_after_s=12))
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert [
        "web: waiting (5 s) for http://a/: answered 503\n",
        "web: waiting (10 s) for http://a/: answered 503\n",
        "web: ready at port 80, process 5, after 12.00 s\n",
    ] == written


@pytest.mark.fault(35)
def test_a_program_that_writes_10_mb_before_it_listens_becomes_ready() -> None:
    script = (
        "import http.server, sys\n"
        "for _ in range(100_000): print('x' * 99)\n"
        "sys.stdout.flush()\n"
        "where = ('127.0.0.1', int(sys.argv[1]))\n"
        "http.server.HTTPServer(where, http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    words = (*HEALTH, "--name", "web", "--then", "exit 5", "--", sys.executable, "-c", script)
    done = finish(*words, "{port}")
    assert 5 == done.process.returncode
    assert 100_000 == done.err.count(f"web | {'x' * 99}\n")


@pytest.mark.fault(96)
def test_a_worker_that_calls_back_becomes_ready_and_its_token_is_not_shown() -> None:
    script = (
        "import os, sys, time, urllib.request as request\n"
        "assert sys.argv[1] == os.environ['TRIO_LIFECYCLE_CALLBACK_URL']\n"
        "print('calling', sys.argv[1], flush=True)\n"
        "request.urlopen(sys.argv[1], b'{\"port\": 4711}').close()\n"
        "time.sleep(600)"
    )
    words = ("--callback", "--then", "echo $TRIO_LIFECYCLE_PORT", "--", sys.executable, "-c")
    done = finish(*words, script, "{callback_url}")
    assert (0, "4711\n") == (done.process.returncode, done.out)
    assert re.search(r"\| calling http://127.0.0.1:\d+/\S*\*\*\*\n", done.err)


def test_a_daemon_that_ran_already_is_used_and_left_running() -> None:
    with run(*HEALTH, "--", *SERVER) as first:
        url, pid = first.line(r"ready at (\S+), process (\d+)").groups()
        second = finish("--health", url, "--then", "exit 4", *LIKE_SERVER)
        assert 4 == second.process.returncode
        who = rf"process {pid} \([^()]* -m http\.server [^()]*\)"
        assert re.search(rf"ran already at {url}, {who}: it is used, and left", second.err)
        assert "again: is left running" in second.err
        assert is_alive(int(pid))
        assert 130 == first.interrupt()


def test_another_program_that_answers_there_is_not_used() -> None:
    with run(*HEALTH, "--", *SERVER) as first:
        url, pid = first.line(r"ready at (\S+), process (\d+)").groups()
        second = finish("--health", url, "--", *SLEEP)
        assert 125 == second.process.returncode
        assert f"{url} is answered by process {pid} (" in second.err
        assert 130 == first.interrupt()


def test_a_shell_wrapper_takes_its_grandchild_with_it() -> None:
    with run("--", "sh", "-c", "sleep 600 & echo child $!; wait") as running:
        child = int(running.line(r"sh \| child (\d+)")[1])
        assert is_alive(child)
        assert 130 == running.interrupt()
        assert not is_alive(child)


@pytest.mark.fault(100)
async def test_a_reader_that_is_too_slow_loses_lines_and_is_told() -> None:
    read_end, write_end = os.pipe()
    try:
        outlet = Outlet(write_end, lambda: None)
        line = "x" * 1023 + "\n"
        for _ in range(MOST_HELD_BYTES // len(line) + 1000):
            outlet.write(line)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.run)
            text = bytearray()
            while b"lines were lost" not in text:
                await trio.lowlevel.wait_readable(read_end)
                text += os.read(read_end, 1 << 20)
            nursery.cancel_scope.cancel()
    finally:
        os.close(read_end)
        os.close(write_end)
    *lines, note = text.decode().splitlines()
    lost = MOST_HELD_BYTES // len(line) + 1000 - len(lines)
    assert f"({lost} lines were lost here: they were not read)" == note


# --- streams that are gone ------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_when_nobody_reads_its_output_it_stops_the_daemon_and_exits(
    tmp_path: Path, stream: str
) -> None:
    # It writes to neither stream between these two moments.
    script = "until [ -e go ]; do sleep 0.02; done; exec python3 -m http.server $0"
    with run("--json", *HEALTH, "--", "sh", "-c", script, "{port}", cwd=tmp_path) as running:
        pid = running.event("spawned")["pid"]
        running.close(stream)
        (tmp_path / "go").touch()
        assert 141 == running.end()
        assert not is_alive(pid)


def test_a_reader_of_events_that_goes_is_noticed_while_nothing_happens() -> None:
    with run("--json", "--", *SLEEP) as running:
        pid = running.event("ready")["pid"]
        running.close("stdout")
        assert 141 == running.end()
        assert not is_alive(pid)


def test_the_head_of_the_events_ends_the_rest() -> None:
    script = f"{' '.join(COMMAND)} run --json -- sleep 600 | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30)
    assert 141 == done.returncode
    assert 1 == done.stdout.count("\n")
    assert "Traceback" not in done.stderr


def test_closed_standard_streams_are_no_trouble() -> None:
    script = f"{' '.join(COMMAND)} run --json --then 'exit 6' -- sleep 600 <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=30)
    assert (6, b"", b"") == (done.returncode, done.stdout, done.stderr)


CLOSED = {
    "status": ("status", 125, ""),
    "logs": ("logs -n 1 sleep", 125, r"sleep: its log can't be shown: \[Errno 9\] "),
    "stop": ("stop --json --forget nobody", 125, ""),
    "help": ("--help", 125, ""),
    "ensure": ("ensure -- sleep 600", 1, ""),
}


@pytest.mark.usefixtures("all_stopped")
@pytest.mark.parametrize("command", CLOSED)
def test_what_is_said_to_a_closed_standard_output_is_missed(command: str) -> None:
    words, status, said = CLOSED[command]
    ensured("--", *SLEEP)
    (facts,) = call("status", "--json").events()
    Path(facts["log_file"]).write_text("up\n")
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(COMMAND)} {words} >&-"], capture_output=True, text=True, timeout=30
    )
    assert status == done.returncode
    said = said or "standard output can't be written to: "
    assert re.search(f"^trio-lifecycle: {said}Bad file descriptor", done.stderr, re.MULTILINE)


def test_nothing_is_missed_where_there_was_nothing_to_say() -> None:
    script = f"{' '.join(COMMAND)} stop nobody >&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)
    said = "nobody: is not running: nothing of that name is recorded\n"
    assert (0, said) == (done.returncode, done.stderr)


def test_a_full_disk_is_no_trouble() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = finish("--json", "--then", "exit 6", "--", *SLEEP, stdout=full)
    assert 6 == done.process.returncode
