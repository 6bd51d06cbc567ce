"""``trio-lifecycle ensure``: one daemon, however often and from wherever it is asked for."""

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import cli
from tests.cli import COMMAND, DEAF, HEALTH, SERVER, Run, call, ensured, is_alive, record_elsewhere
from trio_lifecycle._cli._codes import ENSURE_EXIT_STATUSES, status_of_error, table
from trio_lifecycle._cli._sentences import sentence_of

pytestmark = pytest.mark.usefixtures("all_stopped")

all_stopped = cli.all_stopped

SLEEP = ("sleep", "600")
WEB = ("--name", "web", *HEALTH, "--", *SERVER)
KEYS = ["event", "name", "pid", "url", "port", "origin", "instance_id", "machine"]


# --- one daemon -----------------------------------------------------------------------------------


def test_asked_twice_it_is_started_once_and_says_where_it_is() -> None:
    said = r"http://127\.0\.0\.1:(\d+)/ \(process (\d+), (\w+)\)\n"
    first, second = call("ensure", *WEB), call("ensure", *WEB)
    assert [0, 0] == [first.process.returncode, second.process.returncode]
    spawned, adopted = re.fullmatch(said, first.out), re.fullmatch(said, second.out)
    assert spawned
    assert adopted
    assert spawned.groups()[:2] == adopted.groups()[:2]
    assert ("spawned", "adopted") == (spawned[3], adopted[3])
    assert is_alive(int(spawned[2]))
    assert ("", "") == (first.err, second.err)


def test_without_a_place_it_says_only_its_process() -> None:
    assert re.fullmatch(r"process \d+, spawned\n", call("ensure", *SLEEP).out)


def test_the_last_object_has_all_that_a_script_needs() -> None:
    first, second = ensured(*WEB), ensured(*WEB)
    assert [KEYS, KEYS] == [list(first), list(second)]
    assert first | {"origin": "adopted"} == second
    assert f"http://127.0.0.1:{first['port']}/" == first["url"]
    bare = ensured("--", *SLEEP)
    assert KEYS == list(bare)
    assert (None, None) == (bare["url"], bare["port"])


def test_events_come_before() -> None:
    done = call("ensure", "--json", *WEB)
    kinds = [event["event"] for event in done.events()]
    assert ["starting", "found", "spawned", "ready", "ensured"] == kinds
    again = call("ensure", "--json", *WEB)
    assert ["starting", "adopted", "ensured"] == [event["event"] for event in again.events()]


def test_a_pipeline_ends_although_the_daemon_runs_on() -> None:
    script = f"{' '.join(COMMAND)} ensure --json -- sleep 600 2>&1 | tail -n 1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert '{"event": "ensured", "name": "sleep", "pid": ' in done.stdout
    assert is_alive(int(done.stdout.partition('"pid": ')[2].partition(",")[0]))


def test_substitution_gives_the_line() -> None:
    words = " ".join(f"'{word}'" for word in WEB)
    script = f"set -- $({' '.join(COMMAND)} ensure {words}); echo $1 $3"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"http://127.0.0.1:\d+/ \d+,\n", done.stdout)


@pytest.mark.fault(56)
def test_five_shells_that_ask_at_once_get_one_daemon() -> None:
    with ExitStack() as stack:
        shells = [stack.enter_context(Run("ensure", "--json", *WEB)) for _ in range(5)]
        assert [0] * 5 == [shell.end() for shell in shells]
    facts = [shell.events()[-1] for shell in shells]
    assert 1 == len({fact["pid"] for fact in facts})
    assert ["adopted"] * 4 + ["spawned"] == sorted(fact["origin"] for fact in facts)


@pytest.mark.fault(89)
def test_one_that_was_killed_is_started_anew() -> None:
    first = ensured(*WEB)
    os.kill(first["pid"], signal.SIGKILL)
    assert 3 == call("status", "web").process.returncode
    done = call("ensure", "--json", *WEB)
    second = done.events()[-1]
    assert "record_stale" in [event["event"] for event in done.events()]
    assert "spawned" == second["origin"]
    assert first["pid"] != second["pid"]
    assert is_alive(second["pid"])


@pytest.mark.needs("redis-server")
def test_redis_is_kept_across_shells_and_comes_back_after_a_kill(tmp_path: Path) -> None:
    redis = ("redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--save", "")
    words = ("--cwd", str(tmp_path), "--", *redis)
    first, second = ensured(*words), ensured(*words)
    assert first["pid"] == second["pid"]
    assert "redis-server" == first["name"]
    os.kill(first["pid"], signal.SIGKILL)
    assert 3 == call("status", "redis-server").process.returncode
    third = ensured(*words)
    assert third["pid"] != first["pid"]
    with Run("logs", "redis-server", "-f", "-n", "all") as following:
        following.line("Ready to accept connections", "stdout")
        assert 0 == call("stop", "redis-server").process.returncode
        assert 0 == following.end()
    assert "bye bye" in following.out
    assert not is_alive(third["pid"])


def test_a_worker_that_calls_back_says_where_it_is() -> None:
    script = (
        "import os, time, urllib.request as request\n"
        "url = os.environ['TRIO_LIFECYCLE_CALLBACK_URL']\n"
        'request.urlopen(url, b\'{"port": 4711, "key": "hunter2"}\').close()\n'
        "time.sleep(600)"
    )
    words = ("--callback", "--name", "worker", "--", sys.executable, "-c", script)
    first, second = ensured(*words), ensured(*words)
    assert 4711 == first["port"]
    assert first | {"origin": "adopted"} == second
    # What else it said of itself may be secret.
    assert "hunter2" not in call("status", "--json").out


def test_the_directory_is_the_one_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    script = "pwd; exec sleep 600"
    words = ("--cwd", "here", "--name", "there", "--", "sh", "-c", script)
    ensured(*words, cwd=tmp_path)
    with Run("logs", "-f", "there") as following:
        following.line(f"^{tmp_path}/here$", "stdout")
        following.interrupt()


def test_the_program_is_the_one_that_was_meant(tmp_path: Path) -> None:
    program = tmp_path / "here"
    program.symlink_to("/bin/sleep")
    first = call("ensure", "--", "./here", "600", cwd=tmp_path)
    assert (0, "") == (first.process.returncode, first.err)
    (tmp_path / "elsewhere").mkdir()
    other = call("ensure", "--", "./here", "600", cwd=tmp_path / "elsewhere")
    assert "started with other PROGRAM; it is used as it is" in other.err
    same = call("ensure", "--", str(program), "600")
    assert (0, "") == (same.process.returncode, same.err)


# --- other options --------------------------------------------------------------------------------


@pytest.mark.fault(61)
def test_one_with_other_arguments_is_kept_and_people_are_told() -> None:
    first = ensured("--", "sleep", "600")
    done = call("ensure", "--", "sleep", "601")
    assert f"process {first['pid']}, adopted\n" == done.out
    said = f"sleep: runs as process {first['pid']}, started with other args; it is used as it is\n"
    assert said == done.err


@pytest.mark.fault(61)
def test_one_with_other_arguments_is_started_anew_where_that_is_wanted() -> None:
    first = ensured("--", "sleep", "600")
    done = call("ensure", "--json", "--on-change", "restart", "--", "sleep", "601")
    second = done.events()[-1]
    assert "spawned" == second["origin"]
    assert not is_alive(first["pid"])
    assert is_alive(second["pid"])
    # Until there is a new one, events speak of the old one, or of none.
    pids = [event.get("pid") for event in done.events()]
    assert [first["pid"]] * 3 == pids[1:4]
    assert [second["pid"]] * 3 == pids[-3:]


@pytest.mark.fault(61)
def test_one_with_other_arguments_is_an_error_where_that_is_wanted() -> None:
    first = ensured("--", "sleep", "600")
    done = call("ensure", "--on-change", "error", "--", "sleep", "601")
    assert (125, "") == (done.process.returncode, done.out)
    assert "was started with other args. Stop it first, or say --on-change restart or" in done.err
    assert is_alive(first["pid"])


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.fault(15)
def test_one_that_dies_shows_its_last_words_and_where_the_rest_is() -> None:
    done = call("ensure", *HEALTH, "--", "sh", "-c", "echo no such model; exit 3")
    assert (125, "") == (done.process.returncode, done.out)
    assert re.fullmatch(
        r"sh: ended \(exited with status 3\)\n"
        r"trio-lifecycle: sh exited with status 3 after .*, before it was ready\.\n"
        r"Its last output:\n  \| no such model\n"
        r"trio-lifecycle: all of its output is in /\S+/logs/sh\.log\n",
        done.err,
    )
    assert "no such model\n" == call("logs", "sh").out
    assert "trio-lifecycle: no daemon is recorded\n" == call("status").err


@pytest.mark.fault(66)
@pytest.mark.parametrize("number", ["", ".4"], ids=["the new one", "the oldest"])
def test_a_log_that_can_not_be_made_is_no_fault_of_the_program(number: str) -> None:
    logs = Path(os.environ["XDG_STATE_HOME"], "trio-lifecycle", "logs")
    logs.mkdir(mode=0o700, parents=True)
    (logs / f"sleep.log{number}").mkdir()
    for older in ("", ".1", ".2", ".3") if number else ():
        (logs / f"sleep.log{older}").write_text("of a run before\n")
    done = call("ensure", "--", *SLEEP)
    assert (125, "") == (done.process.returncode, done.out)
    assert "trio-lifecycle: sleep could not be spawned: its " in done.err


@pytest.mark.fault(16)
def test_one_that_is_not_ready_in_time_exits_124_and_is_gone() -> None:
    done = call("ensure", "--json", *HEALTH, "--timeout", "0.3", "--", *SLEEP)
    assert 124 == done.process.returncode
    assert ["spawned", "stopping", "stopped", "failed"] == [
        event["event"] for event in done.events()[2:]
    ]
    assert not is_alive(done.event("spawned")["pid"])
    assert "raise --timeout." in done.err


def test_a_program_that_is_nowhere_exits_127() -> None:
    assert 127 == call("ensure", "--", "no-such-program-here").process.returncode


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_before_it_is_ready_gives_it_up(name: str) -> None:
    with Run("ensure", "--json", *HEALTH, "--", *SLEEP) as running:
        pid = running.event("spawned")["pid"]
        running.signal(signal.Signals[name])
        assert 128 + signal.Signals[name] == running.end()
    assert not is_alive(pid)
    assert "giving up its start" in running.err
    assert "Traceback" not in running.err
    assert "no daemon is recorded" in call("status").err


def test_a_second_ctrl_c_kills_one_that_ignores_the_first() -> None:
    with Run("ensure", "--json", *HEALTH, "--", *DEAF) as running:
        pid = running.event("spawned")["pid"]
        with Run("logs", "-f", "sh") as following:
            following.line("^deaf$", "stdout")
            running.signal(signal.SIGINT)
            running.event("stopping")
            assert 130 == running.interrupt()
            assert 0 == following.end()
    assert not is_alive(pid)
    assert "Ctrl-C once more: killing at once" in running.err


def test_a_reader_of_events_that_goes_gives_it_up() -> None:
    with Run("ensure", "--json", *HEALTH, "--", *SLEEP) as running:
        pid = running.event("spawned")["pid"]
        running.close("stdout")
        assert 141 == running.end()
    assert not is_alive(pid)


def test_a_reader_that_goes_leaves_one_that_ran_before() -> None:
    pid = ensured("--", *SLEEP)["pid"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = call("ensure", "--json", "--", *SLEEP, stdout=write_end)
    os.close(write_end)
    assert 141 == done.process.returncode
    assert is_alive(pid)
    assert pid == ensured("--", *SLEEP)["pid"]


@pytest.mark.fault(58)
def test_a_kill_of_ours_leaves_a_start_that_the_next_one_finishes(tmp_path: Path) -> None:
    up, go = tmp_path / "up", tmp_path / "go"
    os.mkfifo(up)
    os.mkfifo(go)
    server = "echo up > up; read line < go; exec python3 -m http.server $0 --bind 127.0.0.1"
    words = ("--name", "web", "--cwd", str(tmp_path), *HEALTH, "--", "sh", "-c", server, "{port}")
    with Run("ensure", "--json", *words) as first:
        pid = first.event("spawned")["pid"]
        assert "up\n" == up.read_text()
        first.signal(signal.SIGKILL)
        assert -signal.SIGKILL == first.end()
    state = call("status", "--json").events()[0]
    assert ("starting", pid) == (state["state"], state["pid"])
    with Run("ensure", "--json", *words) as second:
        go.write_text("go\n")
        assert 0 == second.end()
    assert ("adopted", pid) == (second.events()[-1]["origin"], second.events()[-1]["pid"])


@pytest.mark.fault(59)
def test_another_program_that_is_starting_it_is_waited_for_only_so_long() -> None:
    with Run("ensure", "--json", *HEALTH, "--", *SLEEP) as first:
        first.event("spawned")
        second = call("ensure", "--json", "--claim-timeout", "0.5", *HEALTH, "--", *SLEEP)
        assert 124 == second.process.returncode
        assert first.pid == second.event("claim_awaited")["holder_pid"]
        assert f"process {first.pid} is starting it" in second.err
        assert "Wait longer with --claim-timeout" in second.err
        assert 130 == first.interrupt()


def test_what_can_not_be_told_to_run_exits_4_and_nothing_is_started() -> None:
    record_elsewhere("sleep")
    done = call("ensure", "--json", "--", *SLEEP)
    cli.forget("sleep")
    assert 4 == done.process.returncode
    assert "spawned" not in [event["event"] for event in done.events()]
    assert "machine elsewhere" in done.err


def test_last_words_can_not_clear_a_terminal() -> None:
    script = r"printf '\033[2J\033[31mred\n'; exit 3"
    with cli.on_terminal("ensure", *HEALTH, "--", "sh", "-c", script) as running:
        assert 125 == running.end()
    assert "  | \x1b[31mred\x1b[0m\r\n" in running.text("terminal")
    assert "\x1b[2J" not in running.text("terminal")


def test_a_registry_that_can_not_be_used_exits_125(tmp_path: Path) -> None:
    done = call("ensure", "--registry", str(tmp_path), "--", *SLEEP)
    assert (125, "") == (done.process.returncode, done.out)
    assert f"the registry {tmp_path} can't be used" in done.err
    assert "Traceback" not in done.err


def test_a_registry_of_its_own_knows_nothing_of_the_others(tmp_path: Path) -> None:
    place = ("--registry", str(tmp_path / "r.sqlite"))
    first, second = ensured("--", *SLEEP), ensured(*place, "--", *SLEEP)
    assert first["pid"] != second["pid"]
    assert second["pid"] == call("status", *place, "--json").events()[0]["pid"]
    assert 0 == call("stop", *place, "sleep").process.returncode
    assert not is_alive(second["pid"])
    assert is_alive(first["pid"])


# --- what is shown --------------------------------------------------------------------------------


def test_verbose_shows_the_steps_and_the_log_file() -> None:
    done = call("ensure", "-v", "--name", "s", "--", *SLEEP)
    assert re.fullmatch(
        r"s: is wanted\ns: is /\S+/sleep\ns: started as process \d+\n"
        r"s: ready, process \d+, after \S+ s\ns: its output goes to /\S+/logs/s\.log\n",
        done.err,
    )
    again = call("ensure", "-v", "--name", "s", "--", *SLEEP)
    assert re.search(r"ran already, process \d+ \(\S*sleep 600\): it is used", again.err)


def test_quiet_still_says_where_it_is() -> None:
    done = call("ensure", "-q", "--", *SLEEP)
    assert re.fullmatch(r"process \d+, spawned\n", done.out)
    other = call("ensure", "-q", "--", "sleep", "601")
    assert "" == done.err == other.err


def test_a_terminal_shows_the_wait_and_then_only_the_line() -> None:
    with cli.on_terminal("ensure", *WEB) as running:
        assert 0 == running.end()
    last = running.text("terminal").rpartition("\x1b[2K")[2]
    assert re.fullmatch(r"http://127.0.0.1:\d+/ \(process \d+, spawned\)\r\n", last)


def test_the_documented_exit_statuses_are_those_of_the_program() -> None:
    assert "\n".join(table(ENSURE_EXIT_STATUSES)) in cli.PAGE.read_text()


def test_statuses_of_errors_that_are_hard_to_meet() -> None:
    from trio_lifecycle import DaemonNotRunningError, StopError

    stopped = DaemonNotRunningError("web", "another program stopped it while it was being started")
    assert 3 == status_of_error(stopped)
    said = "web is not running: another program stopped it while it was being started."
    assert said == sentence_of(stopped, with_output=False)
    assert 125 == status_of_error(StopError("web", 5, "", 1.0))
