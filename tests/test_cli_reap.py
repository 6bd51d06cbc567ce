"""``trio-lifecycle reap``: what it shows, when it kills, and what the shell is told."""

import json
import os
import pty
import re
import signal
from collections.abc import Iterator

import pytest

from tests import cli
from tests import marked as marks
from tests.cli import ROOT, Ask, Run
from tests.marked import DEAF, Marked
from tests.support import lives
from trio_lifecycle._cli import _reap
from trio_lifecycle._cli._codes import EXIT_STATUSES, REAP_EXIT_STATUSES, table
from trio_lifecycle._cli._reap import Reap, as_json, as_table
from trio_lifecycle._cli._tables import in_words
from trio_lifecycle._strays import Owner, Stray, find_strays, owner_mark

instance_id = marks.instance_id
dead_owner = marks.dead_owner
marked = marks.marked
ask, handlers = cli.ask, cli.handlers

PAGE = (ROOT / "docs/guides/command-line.md").read_text()


def reap(*words: str) -> Run:
    """Run it to its end. Always with an instance: on this machine may be strays of others."""
    with Run("reap", *words) as running:
        running.end()
    return running


def stray_of(instance_id: str) -> Stray:
    return next(stray for stray in find_strays() if stray.instance_id == instance_id)


# --- what is shown --------------------------------------------------------------------------------


def test_nothing_left_exits_0(instance_id: str) -> None:
    done = reap("--instance", instance_id)
    assert (0, "") == (done.process.returncode, done.out)
    assert "trio-lifecycle: nothing was left\n" == done.err


def test_without_a_terminal_it_shows_what_is_left_and_kills_nothing(
    marked: Marked, instance_id: str, dead_owner: Owner
) -> None:
    pids = sorted([marked().pid, marked().pid])
    done = reap("--instance", instance_id)
    assert 1 == done.process.returncode
    header, *rows = done.out.splitlines()
    assert ["process", "age", "user", "owner", "instance", "command"] == header.split()
    assert pids == sorted(int(row.split()[0]) for row in rows)
    for row in rows:
        assert f"{dead_owner.pid}, dead  {instance_id[:12]}  " in row
        assert row.endswith("sys.stdin.read()")
    assert "trio-lifecycle: nothing was killed; add --yes" in done.err
    assert "\x1b" not in done.out + done.err
    assert all(map(lives, pids))


def test_json_is_one_object_a_line_and_kills_nothing(
    marked: Marked, instance_id: str, dead_owner: Owner
) -> None:
    process = marked()
    done = reap("--json", "--instance", instance_id)
    assert 1 == done.process.returncode
    facts = json.loads(done.out)
    assert done.out.count("\n") == 1
    expected = {
        "pid": process.pid,
        "ppid": os.getpid(),
        "instance_id": instance_id,
        "owner_pid": dead_owner.pid,
        "uid": os.getuid(),
    }
    assert expected == {key: facts[key] for key in expected}
    assert 0 <= facts["age_s"] < 60
    assert facts["command"].endswith("sys.stdin.read()")
    assert lives(process.pid)


def test_page_shows_the_keys_of_the_objects(marked: Marked, instance_id: str) -> None:
    marked()
    shown = re.findall(r'"(\w+)":', PAGE.partition("\n## What was left\n")[2])
    assert shown == list(json.loads(as_json([stray_of(instance_id)])))


def test_ages_are_in_the_greatest_whole_unit() -> None:
    ages = (0, 59.9, 60, 3599, 3600, 86_399, 86_400, 8_640_000)
    words = ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "100 d"]
    assert words == [in_words(age) for age in ages]


def test_what_looks_like_markup_is_shown_as_it_is_and_users_without_name_by_number(
    marked: Marked, instance_id: str
) -> None:
    from attrs import evolve

    marked()
    odd = evolve(stray_of(instance_id), command="[bold]x[/] [link", uid=4_000_000_000)
    with open(os.devnull) as nowhere:  # noqa: PTH123
        shown = as_table([odd], nowhere.fileno())
    assert shown.endswith("[bold]x[/] [link\n")
    assert "  4000000000  " in shown


# --- what is killed -------------------------------------------------------------------------------


def test_yes_kills_what_was_shown_and_nothing_else(marked: Marked, instance_id: str) -> None:
    process, other = marked(), marked(instance="e" * 32)
    living = marked(owner=owner_mark())
    done = reap("--yes", "--instance", instance_id)
    assert 0 == done.process.returncode
    assert str(process.pid) in done.out
    assert -signal.SIGTERM == process.wait()
    assert "SIGTERM to all, and SIGKILL to what is left after 10 s\n" in done.err
    assert done.err.endswith("trio-lifecycle: all of it is gone\n")
    assert lives(other.pid)
    assert lives(living.pid)


def test_grace_is_kept_before_sigkill(marked: Marked, instance_id: str) -> None:
    deaf = marked(DEAF)
    done = reap("-y", "--json", "--grace", "0.2", "--instance", instance_id[:10])
    assert 0 == done.process.returncode
    assert deaf.pid == json.loads(done.out)["pid"]
    assert -signal.SIGKILL == deaf.wait()


def test_nothing_is_killed_when_nobody_reads_what_is_shown(
    marked: Marked, instance_id: str
) -> None:
    process = marked()
    read_end, write_end = os.pipe()
    os.close(read_end)
    with Run("reap", "--yes", "--instance", instance_id, stdout=write_end) as running:
        os.close(write_end)
        assert 141 == running.end()
    assert "Traceback" not in running.err
    assert lives(process.pid)


# --- a terminal -----------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: our end, and the program's."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def on(terminal: tuple[int, int], *words: str, **env: str) -> Run:
    """Run on a terminal."""
    ours, theirs = terminal
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    running = Run(
        "reap",
        *words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**clean, "TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": "80", **env},
    )
    running.watch("terminal", ours)
    return running


def wait_for_question(running: Run, what: str) -> None:
    question = f"Kill {what}? [y/N] "
    running.wait_for(lambda: question in running.text("terminal") or None, question)


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"yesterday\n", b"\x04"])
def test_any_answer_but_yes_kills_nothing(
    answer: bytes, terminal: tuple[int, int], marked: Marked, instance_id: str
) -> None:
    process = marked()
    with on(terminal, "--instance", instance_id) as running:
        wait_for_question(running, "this process")
        os.write(terminal[0], answer)
        assert 1 == running.end()
    assert "\r\ntrio-lifecycle: nothing was killed" in running.text("terminal")
    assert lives(process.pid)


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n"])
def test_yes_to_the_question_kills(
    answer: bytes, terminal: tuple[int, int], marked: Marked, instance_id: str
) -> None:
    processes = [marked(), marked()]
    with on(terminal, "--instance", instance_id) as running:
        wait_for_question(running, "these 2 processes")
        os.write(terminal[0], answer)
        assert 0 == running.end()
    assert [-signal.SIGTERM] * 2 == [process.wait() for process in processes]


def test_ctrl_c_at_the_question_kills_nothing(
    terminal: tuple[int, int], marked: Marked, instance_id: str
) -> None:
    process = marked()
    with on(terminal, "--instance", instance_id) as running:
        wait_for_question(running, "this process")
        assert 130 == running.interrupt()
    assert "\r\ntrio-lifecycle: Ctrl-C: leaving" in running.text("terminal")
    assert "Traceback" not in running.text("terminal")
    assert lives(process.pid)


def test_terminal_gets_colours_and_lines_that_fit(
    terminal: tuple[int, int], marked: Marked, instance_id: str
) -> None:
    marked()
    with on(terminal, "--instance", instance_id) as running:
        wait_for_question(running, "this process")
        running.interrupt()
    with on(terminal, "--instance", instance_id, NO_COLOR="1") as plain:
        wait_for_question(plain, "this process")
        plain.interrupt()
    assert "\x1b[36m" in running.text("terminal")
    assert "\x1b" not in plain.text("terminal")
    header, row = plain.text("terminal").splitlines()[:2]
    assert len(header) < len(row) <= 80
    assert row.endswith("…")


# --- exit statuses and words ----------------------------------------------------------------------


def test_what_outlives_sigkill_exits_3_and_is_named(
    marked: Marked,
    instance_id: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def fail(strays: list[Stray], _grace_s: float) -> list[Stray]:
        return strays

    process = marked()
    monkeypatch.setattr(_reap, "kill_strays", fail)
    monkeypatch.setattr(_reap, "wchan", lambda _pid: "nfs_wait")
    assert 3 == Reap(instances=(instance_id,), yes=True)()
    said = rf"process {process.pid} is still there \(it waits in the kernel: nfs_wait\): .*python"
    assert re.search(said, capfd.readouterr().err)


def test_what_can_not_be_told_exits_3(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> list[Stray]:
        raise OSError("no descriptor left")

    monkeypatch.setattr(_reap, "find_strays", fail)
    assert 3 == Reap()()
    assert "it can't be told what is left: no descriptor left\n" in capfd.readouterr().err
    monkeypatch.setattr(_reap, "owner_mark", str)
    assert 3 == Reap()()
    assert "there is no /proc of our own pid namespace\n" in capfd.readouterr().err


WRONG_USE = {
    "no number": (("--grace", "soon"), "--grace: wants seconds, 0 or more, not 'soon'"),
    "a number below 0": (("--grace", "-1"), "--grace: wants seconds, 0 or more, not '-1'"),
    "a number that is none": (("--grace", "nan"), "--grace: wants seconds, 0 or more"),
    "no end": (("--grace", "inf"), "--grace: wants seconds, 0 or more"),
    "an empty id": (("--instance", ""), "--instance: wants an id, or its beginning; it is empty"),
    "a slip": (("--gracy", "1"), "Did you mean --grace?\nMore with: trio-lifecycle reap --help"),
}


@pytest.mark.parametrize("wrong", WRONG_USE)
def test_wrong_use_exits_2_and_says_what_is_wrong(wrong: str, ask: Ask) -> None:
    words, said = WRONG_USE[wrong]
    done = ask("reap", *words)
    assert (2, "") == (done.status, done.out)
    assert said in done.err


def test_the_documented_exit_statuses_are_those_of_the_program() -> None:
    assert "\n".join(table(REAP_EXIT_STATUSES)) in PAGE


def test_statuses_of_its_own_mean_nothing_to_run() -> None:
    assert not {"1", "3", "4"} & {row.status for row in EXIT_STATUSES}
