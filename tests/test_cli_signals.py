"""Signals to the command line, at every stage: all is ended in order, the status says why."""

import os
import pty
import re
import signal
import sys
import uuid
from collections.abc import Iterator

import pytest
import trio

from tests.cli import COMMAND, DEAF, HEALTH, LIKE_SERVER, SERVER, Run, is_alive, run
from tests.support import wait_until_gone, wait_until_none_bears

SLEEP = ("sleep", "600")
STATUSES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGQUIT": 131}

each_signal = pytest.mark.parametrize("name", STATUSES)


# --- the first one --------------------------------------------------------------------------------


@pytest.mark.fault(9, 48, 49)
@each_signal
def test_a_signal_before_it_is_ready_stops_the_daemon(name: str) -> None:
    with run("--json", *HEALTH, "--", *SLEEP) as running:
        pid = running.event("spawned")["pid"]
        running.signal(signal.Signals[name])
        assert STATUSES[name] == running.end()
    assert not is_alive(pid)
    assert ["stopping", "stopped", "failed"] == [e["event"] for e in running.events()[-3:]]
    assert "Traceback" not in running.err


@pytest.mark.fault(48, 49)
@each_signal
def test_a_signal_while_it_is_ready_stops_the_daemon(name: str) -> None:
    with run(*HEALTH, "--", *SERVER) as running:
        pid = int(running.line(r"ready at .* process (\d+)")[1])
        running.signal(signal.Signals[name])
        assert STATUSES[name] == running.end()
    assert not is_alive(pid)
    assert re.search(r"stopping .*\n(.*\n)*python.*: stopped after [0-9.]+ s", running.err)


@pytest.mark.fault(48, 49)
@each_signal
def test_a_signal_during_the_command_ends_its_whole_group_before_the_daemon(name: str) -> None:
    # A background job of a shell ignores SIGINT; the shell waits for it in the foreground.
    script = "sleep 600 & echo job $!; trap 'echo told; exit 9' INT TERM HUP QUIT; wait"
    with run("--json", "--then", script, "--", *SLEEP) as running:
        job = int(running.line(r"^job (\d+)")[1])
        running.signal(signal.Signals[name])
        assert STATUSES[name] == running.end()
    assert not is_alive(job)
    told = running.err.index("told\n")
    assert told < running.err.index("sleep: stopped after")


@pytest.mark.fault(98)
def test_a_command_that_heeds_nothing_is_killed_by_a_second_ctrl_c() -> None:
    script = "trap '' INT TERM; echo shell $$; sleep 600 & echo job $!; wait; wait; sleep 600"
    with run("--json", "-v", "--then", script, "--", *SLEEP) as running:
        pids = [int(running.line(rf"^{word} (\d+)")[1]) for word in ("shell", "job")]
        running.signal(signal.SIGINT)
        running.line(r"Ctrl-C: stopping \(Ctrl-C once more kills at once\)")
        running.line(r"^sleep: waiting \(\d s\) for the command of --then: SIGINT was sent")
        assert 130 == running.interrupt()
    assert [False, False] == [is_alive(pid) for pid in pids]
    assert "sleep: gets SIGKILL\n" in running.err
    assert "sleep: the command of --then is still there; gets SIGKILL\n" in running.err


def test_a_daemon_that_was_there_before_is_left_by_ctrl_c_and_not_stopped() -> None:
    with run(*HEALTH, "--", *SERVER) as first:
        url = first.line(r"ready at (\S+), process")[1]
        with run("--health", url, *LIKE_SERVER) as second:
            second.line("ran already")
            assert 130 == second.interrupt()
        assert re.search(r"again: Ctrl-C: leaving\nagain: is left running\n\Z", second.err)
        with run("--health", url, "--then", "echo up; sleep 600", *LIKE_SERVER) as third:
            third.line("^up", "stdout")
            assert 130 == third.interrupt()
        assert "Ctrl-C: stopping the command of --then (Ctrl-C once more kills it" in third.err
        first.interrupt()


def test_ctrl_c_after_the_command_while_the_daemon_is_stopped_exits_130() -> None:
    with run("--then", "exit 3", *HEALTH, "--", "sh", "-c", DEAF_SERVER, "{port}") as running:
        # The command ends at once; from then on the daemon is asked to go, and does not.
        running.line("told")
        running.signal(signal.SIGINT)
        running.line("Ctrl-C: stopping")
        assert 130 == running.interrupt()
    assert re.search(r"stopped after .* \(was killed by SIGKILL\)", running.err)


DEAF_SERVER = (
    "trap 'echo told' TERM; python3 -m http.server --bind 127.0.0.1 $0 & "
    "while :; do wait; sleep 0.05; done"
)


# --- the second one -------------------------------------------------------------------------------


@pytest.mark.fault(38)
@pytest.mark.parametrize("stage", ["not ready", "ready"])
def test_a_second_ctrl_c_kills_a_daemon_that_ignores_the_first(stage: str) -> None:
    mode = HEALTH if stage == "not ready" else ("--manual",)
    with run("--json", *mode, "--", *DEAF) as running:
        running.line("deaf")
        running.signal(signal.SIGINT)
        running.event("stopping")
        assert 130 == running.interrupt()
    assert not is_alive(running.event("spawned")["pid"])
    assert -9 == running.event("stopped")["status"]
    assert running.event("stopped")["seconds"] < 5
    assert "Ctrl-C once more: killing at once" in running.err
    # Before it is ready it is not its owner who kills it, so that no event says so.
    assert (stage == "ready") == ("sh: is still there; gets SIGKILL\n" in running.err)


def test_ctrl_c_after_another_signal_is_the_first() -> None:
    with run("--", *DEAF) as running:
        running.line("deaf")
        running.signal(signal.SIGTERM)
        running.line(r"SIGTERM: stopping \(Ctrl-C kills at once\)")
        running.signal(signal.SIGINT)
        assert 143 == running.end()
    assert "sh: Ctrl-C: killing at once" in running.err


def test_a_second_sigterm_is_no_impatience() -> None:
    with run("--json", "--stop-timeout", "0.5", "--", *DEAF) as running:
        running.line("deaf")
        running.signal(signal.SIGTERM)
        running.event("stopping")
        running.signal(signal.SIGTERM)
        assert 143 == running.end()
    assert running.event("stopped")["seconds"] >= 0.5
    assert "deaf" in running.err


@pytest.mark.fault(38)
def test_the_patience_of_stop_timeout_is_kept() -> None:
    with run("--stop-timeout", "0.3", "--", *DEAF) as running:
        running.line("deaf")
        assert 130 == running.interrupt()
    seconds = re.search(
        r"is still there; gets SIGKILL\n(?:.*\n)*.*stopped after ([0-9.]+) s", running.err
    )
    assert seconds
    assert 0.3 <= float(seconds[1]) < 3


@pytest.mark.fault(47)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_not_even_a_kill_of_ours_leaves_the_daemon_behind(name: str) -> None:
    script = "setsid sleep 600 & echo child $!; exec sleep 600"
    word = uuid.uuid4().hex
    with run("--json", "--env", f"WORD={word}", "--", "sh", "-c", script) as running:
        pids = [running.event("ready")["pid"], int(running.line(r"sh \| child (\d+)")[1])]
        running.signal(signal.Signals[name])
        assert -signal.Signals[name] == running.end()
    wait_until_none_bears("WORD", word)
    # One that is about to end has lost its environment already.
    for pid in pids:
        trio.run(wait_until_gone, pid)


@pytest.mark.fault(100)
def test_a_kill_of_ours_leaves_the_command_to_itself() -> None:
    with run("--json", "--then", "echo job $$; exec sleep 600", "--", *SLEEP) as running:
        job = int(running.line(r"^job (\d+)")[1])
        running.signal(signal.SIGKILL)
        assert -signal.SIGKILL == running.end()
    assert is_alive(job)
    os.kill(job, signal.SIGKILL)


# --- what was ignored, and who does not read ------------------------------------------------------


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    command = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *COMMAND)
    with Run("run", "--json", "--", *SLEEP, command=command) as running:
        running.event("ready")
        running.signal(signal.SIGHUP)
        running.signal(signal.SIGTERM)
        assert 143 == running.end()


@pytest.mark.fault(35)
def test_sigterm_is_heard_while_nobody_reads_what_the_daemon_writes() -> None:
    with run("--json", "--", "sh", "-c", "yes flood & echo $!; wait") as running:
        running.event("ready")
        running.deafen("stderr")
        pid = running.event("ready")["pid"]
        running.signal(signal.SIGTERM)
        assert 143 == running.end()
        assert not is_alive(pid)


# --- a terminal -----------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: our end, and the program's."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


# The terminal becomes that of the new session, so that Ctrl-C is a signal there.
AT_HOME = """
import fcntl, sys, termios
from trio_lifecycle.__main__ import main
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(main())
"""


def on(terminal: tuple[int, int], *words: str, **env: str) -> Run:
    """Run on a terminal that is the program's own, as a login shell's is."""
    ours, theirs = terminal
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    running = Run(
        "run",
        *words,
        command=(sys.executable, "-c", AT_HOME),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**clean, "TERM": "xterm-256color", "LANG": "C.UTF-8", **env},
    )
    running.watch("terminal", ours)
    return running


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_a_terminal_shows_how_long_the_wait_takes_and_colours(terminal: tuple[int, int]) -> None:
    with on(terminal, *HEALTH, "--", "sh", "-c", "echo loading; exec sleep 600") as running:
        running.wait_for(
            lambda: re.search(
                r"waiting \(1 s\) for http://[^\n]*: refused", running.text("terminal")
            ),
            "elapsed time",
        )
        os.write(terminal[0], b"\x03")
        assert 130 == running.end()
    shown = running.text("terminal")
    assert COLOUR.search(shown)
    assert "\x1b[36msh | \x1b[0mloading" in shown
    assert len(set(re.findall("[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", shown))) > 1
    assert "\r\x1b[2K" in shown
    assert "sh: stopped after" in shown.splitlines()[-1]


def test_no_color_is_honoured(terminal: tuple[int, int]) -> None:
    with on(
        terminal, *HEALTH, "--", "sh", "-c", "echo loading; exec sleep 600", NO_COLOR="1"
    ) as running:
        running.wait_for(
            lambda: re.search(r"waiting \(0 s\) for", running.text("terminal")), "elapsed time"
        )
        running.interrupt()
    assert not COLOUR.search(running.text("terminal"))


def test_without_a_terminal_there_are_no_control_codes() -> None:
    env = {**os.environ, "FORCE_COLOR": "1"}
    with run(*HEALTH, "--timeout", "0.4", "--", *SLEEP, env=env) as running:
        running.end()
    assert "\x1b" not in running.err


@pytest.mark.fault(48)
def test_ctrl_c_at_the_terminal_reaches_the_command_once(terminal: tuple[int, int]) -> None:
    script = (
        "trap 'echo told; told=1' INT; echo shell $$; until [ $told ]; do sleep 0.02; done; exit 9"
    )
    with on(terminal, "--then", script, "--", *SLEEP) as running:
        running.line("shell", "terminal")
        os.write(terminal[0], b"\x03")
        assert 130 == running.end()
    assert 1 == running.text("terminal").count("told\r")
    assert "\r\x1b[2Ksleep: Ctrl-C: stopping" in running.text("terminal"), "not behind ^C"


UNRULY = r"\033[31mred\033[2J \033[1A\033[?25l\033cup 10%%\r\033[1mdone\033[K"


def test_a_daemon_can_colour_a_terminal_but_not_clear_it(terminal: tuple[int, int]) -> None:
    with on(terminal, "--", "sh", "-c", f"printf '{UNRULY}\n\033[31mred\n'; sleep 600") as running:
        running.line(r"\x1b\[1mdone\x1b\[0m\r", "terminal")
        running.line(r"\x1b\[31mred\x1b\[0m\r", "terminal")
        running.interrupt()
    shown = running.text("terminal")
    assert not re.search(r"\x1b(c|\[(2J|1A|\?25l|K))", shown)


def test_without_a_terminal_a_daemons_bytes_pass_unchanged() -> None:
    with run("--", "sh", "-c", f"printf '{UNRULY}\n'; exec sleep 600") as running:
        running.line("done")
        running.interrupt()
    assert "sh | \x1b[31mred\x1b[2J \x1b[1A\x1b[?25l\x1bcup 10%\r\x1b[1mdone\x1b[K\n" in running.err


def test_the_command_can_read_from_the_terminal(terminal: tuple[int, int]) -> None:
    with on(
        terminal, "--then", "echo name?; read name; echo hello $name; exit 5", "--", *SLEEP
    ) as running:
        running.line(r"name\?", "terminal")
        os.write(terminal[0], b"trio\n")
        assert 5 == running.end()
    assert "hello trio" in running.text("terminal")
