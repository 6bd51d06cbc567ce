"""``trio-lifecycle stop`` and ``wait``: daemons that were left running, until they are gone."""

import os
import re
import shlex
import signal
import time
from pathlib import Path

import pytest

from tests import cli
from tests.cli import (
    DEAF,
    Ask,
    Run,
    call,
    change_record,
    ensured,
    forget,
    is_alive,
    record_elsewhere,
)
from trio_lifecycle import StopError
from trio_lifecycle._cli import _stop
from trio_lifecycle._cli._stop import Stop, Wanted

pytestmark = pytest.mark.usefixtures("all_stopped")

all_stopped, ask, handlers = cli.all_stopped, cli.ask, cli.handlers

SLEEP = ("--", "sleep", "600")


def start_deaf(*words: str) -> int:
    """Start a daemon that SIGTERM can't end any more; give its process."""
    pid: int = ensured("--name", "deaf", *words, "--", *DEAF)["pid"]
    with Run("logs", "-f", "deaf") as following:
        following.line("^deaf$", "stdout")
        following.interrupt()
    return pid


# --- stop -----------------------------------------------------------------------------------------


def test_it_is_asked_to_go_and_seen_to_be_gone() -> None:
    pid = ensured(*SLEEP)["pid"]
    done = call("stop", "sleep")
    assert (0, "") == (done.process.returncode, done.out)
    assert re.fullmatch(r"sleep: stopped after \d\.\d\d s by SIGTERM\n", done.err)
    assert not is_alive(pid)
    assert "no daemon is recorded" in call("status").err


def test_its_whole_tree_goes() -> None:
    ensured("--name", "tree", "--", "sh", "-c", "sleep 600 & echo child $!; wait")
    with Run("logs", "-f", "tree") as following:
        child = int(following.line(r"^child (\d+)", "stdout")[1])
        assert is_alive(child)
        assert 0 == call("stop", "tree").process.returncode
        assert 0 == following.end()
    assert not is_alive(child)


def test_several_are_stopped_at_once_and_each_is_told() -> None:
    names = ("a", "b", "c")
    pids = [ensured("--name", name, *SLEEP)["pid"] for name in names]
    done = call("stop", "--json", "a", "b", "nobody", "a")
    assert 0 == done.process.returncode
    told = {facts.pop("name"): facts for facts in done.events()}
    assert {"a", "b", "nobody"} == set(told)
    assert 0 <= told["a"].pop("seconds")
    assert {"gone": True, "pid": pids[0], "rung": "SIGTERM", "error": None} == told["a"]
    assert {"gone": True, "pid": None, "rung": None, "seconds": None, "error": None} == told[
        "nobody"
    ]
    assert "nobody: is not running: nothing of that name is recorded\n" in done.err
    assert [False, False, True] == [is_alive(pid) for pid in pids]
    everything = call("stop", "--all", "--quiet")
    assert (0, "") == (everything.process.returncode, everything.err)
    assert not is_alive(pids[2])


def test_all_of_nothing_is_stopped() -> None:
    done = call("stop", "--all")
    assert (0, "trio-lifecycle: no daemon is recorded\n") == (done.process.returncode, done.err)


@pytest.mark.fault(89)
def test_one_that_was_killed_is_gone_and_forgotten() -> None:
    pid = ensured(*SLEEP)["pid"]
    os.kill(pid, signal.SIGKILL)
    done = call("stop", "--json", "sleep")
    assert 0 == done.process.returncode
    assert done.events()[0]["gone"]
    assert f"sleep: is not running: process {pid} is gone; its record was removed\n" == done.err
    assert "no daemon is recorded" in call("status").err


@pytest.mark.parametrize("command", ["stop", "wait"])
def test_the_record_of_a_start_that_failed_is_left_to_who_starts_it(command: str) -> None:
    pid = ensured(*SLEEP)["pid"]
    change_record("sleep", state="starting")
    os.kill(pid, signal.SIGKILL)
    done = call(command, "sleep")
    said = f"sleep: is not running: process {pid} is gone\n"
    assert (0, said) == (done.process.returncode, done.err)
    (left,) = call("status", "--json").events()
    assert ("sleep", "gone", pid) == (left["name"], left["state"], left["pid"])


@pytest.mark.fault(38)
def test_one_that_ignores_sigterm_is_killed_after_the_patience_it_was_started_with() -> None:
    pid = start_deaf("--stop-timeout", "0.3")
    done = call("stop", "--json", "deaf")
    (facts,) = done.events()
    assert (0, "SIGKILL") == (done.process.returncode, facts["rung"])
    assert 0.3 <= facts["seconds"]
    assert "deaf: is still there; gets SIGKILL\n" in done.err
    assert not is_alive(pid)


@pytest.mark.fault(38)
def test_the_patience_may_be_another() -> None:
    pid = start_deaf("--stop-timeout", "600")
    done = call("stop", "--stop-timeout", "0", "deaf")
    assert 0 == done.process.returncode
    assert re.search(r"deaf: stopped after \d\.\d\d s by SIGKILL\n", done.err)
    assert not is_alive(pid)


def test_a_stop_that_was_begun_goes_on_after_ctrl_c() -> None:
    pid = start_deaf("--stop-timeout", "600")
    with Run("stop", "deaf") as stopping:
        wait_until_asked(stopping)
        stopping.signal(signal.SIGINT)
        stopping.line(r"Ctrl-C: a stop that was begun goes on to its end \(Ctrl-C once more")
        os.kill(pid, signal.SIGKILL)
        assert 130 == stopping.end()
    assert re.search(r"deaf: stopped after .* by SIGTERM\n", stopping.err)
    assert not is_alive(pid)


def test_a_second_ctrl_c_kills() -> None:
    pid = start_deaf("--stop-timeout", "600")
    with Run("stop", "deaf") as stopping:
        wait_until_asked(stopping)
        stopping.signal(signal.SIGINT)
        stopping.line("goes on to its end")
        assert 130 == stopping.interrupt()
    assert "Ctrl-C once more: killing at once\n" in stopping.err
    assert not is_alive(pid)


def wait_until_asked(stopping: Run) -> None:
    """Wait until the record says that it was asked to go."""
    while "stopping" != call("status", "--json", "deaf").events()[0]["state"]:
        assert stopping.process.poll() is None, stopping.err


def test_one_that_is_being_stopped_is_shown_as_such_and_counts_as_running() -> None:
    start_deaf("--stop-timeout", "600")
    with Run("stop", "deaf") as stopping:
        wait_until_asked(stopping)
        done = call("status", "deaf")
        stopping.signal(signal.SIGINT)
        stopping.line("goes on to its end")
        stopping.interrupt()
    assert 0 == done.process.returncode
    assert re.search(r"^deaf +stopping ", done.out, re.MULTILINE)


@pytest.mark.parametrize("words", [("--all",), ("far", "sleep")])
def test_what_can_not_be_told_exits_4_and_the_others_are_stopped(words: tuple[str, ...]) -> None:
    pid = ensured(*SLEEP)["pid"]
    record_elsewhere("far")
    done = call("stop", "--json", *words)
    forget("far")
    assert 4 == done.process.returncode
    told = {facts["name"]: facts for facts in done.events()}
    assert (True, False) == (told["sleep"]["gone"], told["far"]["gone"])
    assert "machine elsewhere" in told["far"]["error"]
    assert "trio-lifecycle: the state of far is unknown: " in done.err
    assert not is_alive(pid)


@pytest.mark.usefixtures("handlers")
def test_what_outlives_sigkill_exits_125_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import trio

    async def fail(*_: object, **__: object) -> None:
        raise StopError("sleep", 4711, "nfs_wait", 15.0)

    ensured(*SLEEP)
    monkeypatch.setattr(_stop, "attach", fail)
    assert 125 == trio.run(Stop(Wanted(names=("sleep",))))
    assert "process 4711 of sleep outlived SIGKILL (it waits in the" in capfd.readouterr().err


def test_a_full_disk_is_told_and_they_are_stopped() -> None:
    pid = ensured(*SLEEP)["pid"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = call("stop", "--json", "sleep", stdout=full)
    assert 125 == done.process.returncode
    assert "standard output can't be written to: No space left on device\n" in done.err
    assert not is_alive(pid)


WRONG_USE = {
    "no name": ((), "NAME is missing; write: trio-lifecycle stop [OPTIONS] NAME... | --all\n"),
    "all and a name": (("--all", "x"), "NAME and --all: exclude each other"),
    "all is forgotten": (("--forget", "--all"), "--forget and --all: exclude each other"),
    "nothing is forgotten": (("--forget",), "NAME is missing; write: "),
    "a patient forget": (("--forget", "--stop-timeout", "3", "x"), "--forget and --stop-timeout: "),
    "an empty name": (("",), "NAME: '' is no name; give one such as queen\n"),
    "no name at all": (("a/b",), "NAME: 'a/b' can't be a file name"),
    "no number": (("x", "--stop-timeout", "soon"), "--stop-timeout: wants a number of seconds"),
    "a slip": (("--al",), "Did you mean --all?\nMore with: trio-lifecycle stop --help"),
}


@pytest.mark.parametrize("wrong", WRONG_USE)
def test_wrong_use_exits_2_and_says_what_is_wrong(wrong: str, ask: Ask) -> None:
    words, said = WRONG_USE[wrong]
    done = ask("stop", *words)
    assert (2, "") == (done.status, done.out)
    assert said in done.err


# --- forget ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("ensure", "--", "sleep"), ("stop", "sleep"), ("wait", "sleep")])
@pytest.mark.parametrize("place", [False, True], ids=["own", "another"])
def test_what_nobody_can_judge_is_forgotten_as_is_said(
    words: tuple[str, ...], place: bool, tmp_path: Path
) -> None:
    record_elsewhere("sleep", started_at=time.time() - 7200)
    command, *rest = words
    option: tuple[str, ...] = ()
    if place:
        path = Path(os.environ["XDG_STATE_HOME"], "trio-lifecycle", "registry.sqlite")
        option = ("--registry", str(path))
    done = call(command, *option, *rest)
    assert 4 == done.process.returncode
    how = shlex.join(["trio-lifecycle", "stop", "--forget", *option, "sleep"])
    said = f"trio-lifecycle: if you know that sleep is gone, free its name with: {how}\n"
    assert said in done.err
    cured = call(*shlex.split(how)[1:])
    assert (0, "") == (cured.process.returncode, cured.out)
    assert (
        "sleep: its record was removed: process 4711 of machine elsewhere, started 2 h ago; "
        "nobody was signalled, so it is left alone if it lives\n"
    ) == cured.err
    assert "spawned" == ensured(*SLEEP)["origin"]


def test_one_that_runs_is_forgotten_but_not_without_a_word() -> None:
    pid, deaf = ensured(*SLEEP)["pid"], start_deaf()
    os.kill(deaf, signal.SIGKILL)
    record_elsewhere("far")
    done = call("stop", "--quiet", "--json", "--forget", "sleep", "deaf", "far", "nobody")
    try:
        assert 0 == done.process.returncode
        (line,) = done.err.splitlines()
        assert "trio-lifecycle: sleep runs on, and is known to nobody any more: " in line
        assert line.endswith(f"end it with: kill {pid}")
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    told = done.events()
    assert {"forgotten"} == {facts["event"] for facts in told}
    assert [
        ("sleep", True, "running", pid),
        ("deaf", True, "gone", deaf),
        ("far", True, "unknown", 4711),
        ("nobody", False, "gone", None),
    ] == [tuple(facts[key] for key in ("name", "removed", "state", "pid")) for facts in told]
    assert ("elsewhere", "0" * 32) == (told[2]["host"], told[2]["instance_id"])
    assert "no daemon is recorded" in call("status").err


def test_who_is_alive_but_not_up_is_not_to_be_forgotten() -> None:
    ensured(*SLEEP)
    change_record("sleep", state="starting")
    done = call("ensure", "--timeout", "0.2", "--health", "http://127.0.0.1:1/", *SLEEP)
    assert 4 == done.process.returncode
    assert "is alive, but" in done.err
    assert "--forget" not in done.err


def test_forgetting_what_is_not_recorded_is_well_and_makes_no_files() -> None:
    done = call("stop", "--forget", "nobody")
    said = "nobody: nothing of that name is recorded\n"
    assert (0, said) == (done.process.returncode, done.err)
    assert not Path(os.environ["XDG_STATE_HOME"]).exists()


# --- wait -----------------------------------------------------------------------------------------


def test_wait_ends_with_the_daemon() -> None:
    pid = ensured(*SLEEP)["pid"]
    with Run("wait", "sleep") as waiting:
        os.kill(pid, signal.SIGKILL)
        assert 0 == waiting.end()
    assert "sleep: " in waiting.err


def test_wait_for_one_that_is_gone_or_never_was_is_over_at_once() -> None:
    pid = ensured(*SLEEP)["pid"]
    os.kill(pid, signal.SIGKILL)
    done = call("wait", "sleep")
    assert 0 == done.process.returncode
    assert f"sleep: is not running: process {pid} is gone" in done.err
    nobody = call("wait", "slep")
    assert 0 == nobody.process.returncode
    assert "slep: is not running: nothing of that name is recorded" in nobody.err


def test_wait_for_one_that_is_being_stopped_ends_with_it() -> None:
    pid = start_deaf("--stop-timeout", "600")
    with Run("stop", "deaf") as stopping:
        wait_until_asked(stopping)
        with Run("wait", "deaf") as waiting:
            wait_until_it_waits(waiting.pid)
            assert is_alive(pid)
            os.kill(pid, signal.SIGKILL)
            assert 0 == waiting.end()
        assert 0 == stopping.end()
    assert re.match("deaf: (has ended|is not running)", waiting.err)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_wait_and_not_the_daemon(name: str) -> None:
    pid = ensured("--name", "loud", "--", "sh", "-c", "echo up; exec sleep 600")["pid"]
    with Run("wait", "loud") as waiting:
        wait_until_it_waits(waiting.pid)
        waiting.signal(signal.Signals[name])
        assert 128 + signal.Signals[name] == waiting.end()
    assert "" == waiting.err
    assert is_alive(pid)


def wait_until_it_waits(pid: int) -> None:
    """Wait until it has a descriptor of another process (pidfd_open(2))."""
    folder = f"/proc/{pid}/fd"
    while True:
        for fd in os.listdir(folder):  # noqa: PTH208
            try:
                if "pidfd" in os.readlink(f"{folder}/{fd}"):  # noqa: PTH115
                    return
            except FileNotFoundError:
                pass  # closed meanwhile


def test_wait_for_what_can_not_be_told_exits_4() -> None:
    record_elsewhere("far")
    done = call("wait", "far")
    forget("far")
    assert 4 == done.process.returncode
    assert "the state of far is unknown" in done.err


@pytest.mark.parametrize("words", [(), ("a/b",), ("a", "b"), ("a", "--for")])
def test_wait_used_wrongly_exits_2(words: tuple[str, ...], ask: Ask) -> None:
    assert (2, "") == ask("wait", *words)[:2]
