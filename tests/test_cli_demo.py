"""``trio-lifecycle demo``: four programs that start each other, stopped at any moment."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import cli
from tests.cli import Run, on_terminal
from tests.gpu_box import gpu_box
from trio_lifecycle.demo import _doors
from trio_lifecycle.demo._programs import PROGRAMS

ask, handlers = cli.ask, cli.handlers


DAEMONS = [
    "queen-rbee",
    "rbee-hive@localhost",
    "llm-worker-rbee@pydoc",
    "embedding-worker-rbee@hashing",
]


FAREWELL = "4 daemons were started, and nothing is left of them"


KEEPER = (sys.executable, "-m", "trio_lifecycle.demo.keeper")


# A queen that finds another hive, as after an installation that broke.
OTHER_QUEEN = f"""#!{sys.executable}
import sys
from pathlib import Path
from trio_lifecycle.demo import queen, queen_lifecycle
queen_lifecycle.PROGRAMS = Path(__file__).parent
sys.exit(queen.main())
"""


# The text is short, so that the tests are.
SHORT = """
import sys
from pathlib import Path
from trio_lifecycle._cli import _demo_play
from trio_lifecycle.demo import keeper_lifecycle
keeper_lifecycle.PROGRAMS = Path(sys.argv.pop(1))
_demo_play._WORDS = 4
from trio_lifecycle.__main__ import main
sys.exit(main())
"""


def demo(*words: str, programs: Path = PROGRAMS, **options: Any) -> Run:
    """Run ``trio-lifecycle demo`` with these words, and the queen that is in a folder."""
    return Run("demo", *words, command=(sys.executable, "-c", SHORT, str(programs)), **options)


def queen_with(folder: Path, text: str) -> Path:
    """Give a folder whose queen is another program."""
    program = folder / "queen-rbee"
    program.write_text(text)
    program.chmod(0o755)
    return folder


@pytest.fixture
def all_stopped() -> Iterator[None]:
    """Stop what was to be kept, also where the test has failed."""
    yield
    subprocess.run([*KEEPER, "stop"], check=True, capture_output=True)


@pytest.mark.needs("sshd")
@pytest.mark.needs("ssh-keygen")
def test_events_of_all_programs_on_two_machines_make_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page"
    with gpu_box(), demo("--hosts", "gpu-2", "--json", "--timeline", str(page)) as run:
        assert (0, "") == (run.end(), run.err)
    ready = [each for each in run.events() if each["event"] == "ready"]
    assert [
        ("rbee-keeper", "queen-rbee", None),
        ("queen-rbee", "rbee-hive@localhost", None),
        ("queen-rbee", "rbee-hive@gpu-2", None),
        ("rbee-hive@localhost", "llm-worker-rbee@pydoc", None),
        ("rbee-hive@gpu-2", "embedding-worker-rbee@hashing", "gpu-2"),
    ] == [(each["by"], each["name"], each.get("host")) for each in ready]
    (tmp_path / "events").write_text(run.out)
    drawn = cli.call("timeline", str(tmp_path / "events"))
    assert (0, "") == (drawn.process.returncode, drawn.err)
    assert drawn.out == page.read_text()
    assert "started by rbee-hive@gpu-2" in drawn.out


# What is going on when the signal comes: the event, of whom.
MOMENTS = {
    "the queen is looked for": ("starting", "queen-rbee", signal.SIGINT),
    "the queen starts": ("spawned", "queen-rbee", signal.SIGTERM),
    "a hive starts": ("spawned", "rbee-hive@localhost", signal.SIGTERM),
    "a worker loads": ("spawned", "llm-worker-rbee@pydoc", signal.SIGINT),
    "words come": ("ready", "llm-worker-rbee@pydoc", signal.SIGHUP),
    "all is stopping": ("stopping", "rbee-hive@localhost", signal.SIGTERM),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_leaves_nothing(moment: str) -> None:
    kind, name, signum = MOMENTS[moment]
    with demo("--json") as run:
        wait_for(run, kind, name)
        run.signal(signum)
        assert 128 + signum == run.end()
    assert "demo: " in run.err
    assert "stopping everything" in run.err
    wait_until_free()


@pytest.mark.parametrize("moment", ["a worker loads", "all is stopping"])
def test_ctrl_c_once_more_kills_at_once(moment: str) -> None:
    kind, name, _ = MOMENTS[moment]
    with demo() as run:
        run.line(f"{name}: {'loading' if kind == 'spawned' else kind}", "stdout")
        run.signal(signal.SIGINT)
        run.line("stopping everything")
        run.signal(signal.SIGINT)
        assert 130 == run.end()
    assert "demo: Ctrl-C once more: killing at once" in run.err
    said = re.search("(all that was left has been killed|nothing is left of them)\n$", run.out)
    assert said is not None, run.out


def wait_for(run: Run, kind: str, name: str) -> None:
    """Wait for an event of a daemon."""

    def found() -> bool | None:
        return (kind, name) in told_by(run) or None

    run.wait_for(found, f"{kind} of {name}")


def told_by(run: Run) -> list[tuple[str, str]]:
    """Give each event, and of which daemon it is."""
    return [(each["event"], each["name"]) for each in run.events()]


def wait_until_free() -> None:
    """See that no record was left."""
    done = cli.call("status")
    assert "no daemon is recorded" in done.err


def test_what_is_kept_is_used_by_the_next_and_stopped_by_the_keeper(all_stopped: None) -> None:
    with demo("--keep") as first:
        assert (0, "") == (first.end(), first.err)
    assert first.out.endswith("stop it with: rbee-keeper stop\n")
    assert all(f"  {name}: ready, process" in first.out for name in DAEMONS)
    assert "A context manager is" in first.out
    expect_rows(first.out.splitlines()[-6:-2], "ready")
    with demo() as second:
        assert (0, "") == (second.end(), second.err)
    assert "queen-rbee ran already: it is used, and left running" in second.out
    pid = re.search(r"^queen-rbee +ready +(\d+)", first.out, re.MULTILINE)
    assert pid is not None
    assert pid[0].split()[:3] == next(
        line.split()[:3] for line in second.out.splitlines() if line.startswith("queen-rbee  ")
    )
    with demo() as third:
        third.line("ran already", "stdout")
        assert 130 == third.interrupt()
    assert "demo: Ctrl-C: leaving all of it" in third.err
    assert cli.is_alive(int(pid[1]))
    with on_terminal("demo") as fourth:
        fourth.line("A context manager is .", "terminal")
        os.kill(int(pid[1]), signal.SIGKILL)
        assert 125 == fourth.end()
    assert "queen-rbee has ended while it answered" in fourth.text("terminal")
    assert "queen-rbee does not run any more" in fourth.text("terminal")
    assert "left running; see" not in fourth.text("terminal")


def test_a_queen_that_dies_meanwhile_is_told_of_and_its_hive_is_stopped() -> None:
    with demo("--json") as run:
        wait_for(run, "ready", "llm-worker-rbee@pydoc")
        pids = {each["name"]: each["pid"] for each in run.events() if each["event"] == "ready"}
        os.kill(pids["queen-rbee"], signal.SIGKILL)
        assert 125 == run.end()
    said = "queen-rbee has ended while it answered; ask again to have it started anew"
    assert f"trio-lifecycle: {said}\n" == run.err
    assert ("died", "queen-rbee") in told_by(run)
    assert not any(map(cli.is_alive, pids.values()))
    wait_until_free()


def test_a_hive_that_does_not_start_is_one_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "rbee-hive").write_text("#!/bin/sh\necho out of honey >&2\nexit 1\n")
    (tmp_path / "rbee-hive").chmod(0o755)
    with demo(programs=queen_with(tmp_path, OTHER_QUEEN)) as run:
        assert 125 == run.end()
    assert "trio-lifecycle: there is no hive on localhost: out of honey\n" == run.err
    assert ["gone", "failed"] == [line.split()[1] for line in run.out.splitlines()[-3:-1]]
    wait_until_free()


# What a queen does instead of stopping its hives.
REFUSES = "    raise ValueError"


TELLS_OF_ANOTHER = """    await stop_all(self, request)
    return queen.JSONResponse({"hives": [{"host": "gpu-2", "error": "gpu-2 is out of reach"}]})"""


def stopping_so(body: str) -> str:
    """Give a queen that stops its hives in another way."""
    change = "stop_all, queen.Queen.stop = queen.Queen.stop, stop"
    text = f"async def stop(self, request):\n{body}\n{change}\nsys.exit"
    return OTHER_QUEEN.replace("sys.exit", text).replace(
        "Path(__file__).parent", f"Path({str(PROGRAMS)!r})"
    )


def test_a_queen_that_does_not_stop_its_hives_is_killed_with_them(tmp_path: Path) -> None:
    with demo(programs=queen_with(tmp_path, stopping_so(REFUSES))) as run:
        assert 125 == run.end()
    assert "/stop answered with status 500" in run.err
    assert run.out.endswith("all that was left has been killed\n")
    ends = [line.split()[1] for line in run.out.splitlines()[-5:-1]]
    assert ["killed"] * 4 == ends
    wait_until_free()


def test_a_hive_that_can_neither_be_stopped_nor_killed_is_told_of(tmp_path: Path) -> None:
    cli.record_elsewhere("rbee-hive@nowhere.invalid")
    programs = queen_with(tmp_path, stopping_so(REFUSES))
    with demo("--hosts", "nowhere.invalid", programs=programs) as run:
        assert 125 == run.end()
    assert "trio-lifecycle: the hive on nowhere.invalid can't be killed: " in run.err
    assert "has been killed" not in run.out
    cli.forget("rbee-hive@nowhere.invalid")
    wait_until_free()


def test_what_the_queen_could_not_stop_is_told(tmp_path: Path) -> None:
    with demo(programs=queen_with(tmp_path, stopping_so(TELLS_OF_ANOTHER))) as run:
        assert 125 == run.end()
    assert "trio-lifecycle: gpu-2 is out of reach\n" == run.err
    assert run.out.endswith(f"{FAREWELL}\n")


def test_hives_of_a_queen_that_cannot_come_back_are_killed(tmp_path: Path) -> None:
    with demo(programs=queen_with(tmp_path, stopping_so(REFUSES))) as run:
        run.line("llm-worker-rbee@pydoc: loading", "stdout")
        found = run.line(r"queen-rbee: ready, process (\d+)", "stdout")
        queen_with(tmp_path, "#!/bin/sh\necho no crown >&2; exit 1\n")
        os.kill(int(re.findall(r"\d+", found[0])[0]), signal.SIGKILL)
        assert 125 == run.end()
    assert run.out.endswith("all that was left has been killed\n")
    assert "trio-lifecycle: queen-rbee can't be stopped: no crown\n" in run.err
    wait_until_free()


def test_a_database_that_is_none_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "rbee").mkdir()
    (tmp_path / "rbee/queen.sqlite").write_text("This is no database, but a text of some length.")
    with demo() as run:
        assert 125 == run.end()
    assert re.fullmatch("trio-lifecycle: queen-rbee can't be had: .*not a database\n", run.err)
    assert run.out.endswith("nothing is left: queen-rbee was not up yet\n")


def test_a_machine_that_is_not_there_is_one_sentence_and_so_is_a_full_disk() -> None:
    words = ("--hosts", "nowhere.invalid", "other.invalid", "--json")
    with Path("/dev/full").open("w") as full, demo(*words, stdout=full) as run:
        assert 125 == run.end()
    first, second = run.err.splitlines()
    assert first.startswith("trio-lifecycle: there is no hive on nowhere.invalid: ")
    assert second.endswith("standard output can't be written to: No space left on device")
    wait_until_free()


def test_a_reader_that_has_enough_ends_it_and_nothing_is_left() -> None:
    with demo() as run:
        run.line("rbee-hive@localhost: loading", "stdout")
        run.close("stdout")
        assert 141 == run.end()
    wait_until_free()


def test_on_a_terminal_four_programs_start_each_other_and_nothing_is_left() -> None:
    with on_terminal("demo") as run:
        run.line("loading", "terminal")
        assert 0 == run.end()
    text = run.text("terminal")
    assert re.search(r"\x1b\[3\dmready", text), "it has colours"
    assert re.search(r"\d\.\d s \.\.\.", text), "waits are seen to go on"
    assert "\x1b[?25h" in text, "the cursor is there again"
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).split("\r\n")[:-1]
    assert FAREWELL == lines[-1]
    expect_rows(lines[-5:-1], "gone")


def expect_rows(lines: Sequence[str], state: str) -> None:
    """A row for each daemon, with its state, process, time and memory."""
    found = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert [[name, state] for name in DAEMONS] == [row[:2] for row in found]
    for row in found:
        assert re.fullmatch(r"\d+ \d+\.\d\d s \d+ MiB", " ".join(row[2:]))


def test_ctrl_c_on_a_terminal_is_told_above_the_table_and_without_colours_if_so_wished() -> None:
    with on_terminal("demo", NO_COLOR="1") as run:
        run.line(r"llm-worker-rbee@pydoc +loading", "terminal")
        assert 130 == run.interrupt()
    text = run.text("terminal")
    assert "demo: Ctrl-C: stopping everything" in text
    assert not re.search(r"\x1b\[[\d;]*m", text)
    assert "3 daemons were started, and nothing is left of them" in text


@pytest.mark.parametrize("page", ["/nowhere/page.html", "/"])
def test_a_page_that_cannot_be_written_is_told_before_anything_is_started(
    page: str, ask: cli.Ask
) -> None:
    done = ask("demo", "--timeline", page)
    assert (2, "") == (done.status, done.out)
    assert f"trio-lifecycle: {page} can't be written" in done.err


@pytest.mark.parametrize("door", ["keeper", "queen", "hive", "worker", "embedding_worker"])
def test_without_the_extra_each_program_says_how_to_get_it(
    door: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_doors, "_NEEDED", ("there_is_no_such_library",))
    assert 2 == getattr(_doors, door)()
    said = capsys.readouterr().err
    assert said.endswith(f"{sys.executable} -m pip install 'trio-lifecycle[demo]'\n")
    assert 1 == said.count("\n")


def test_without_the_extra_the_demo_says_how_to_get_it(
    ask: cli.Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_doors, "_NEEDED", ("there_is_no_such_library",))
    done = ask("demo")
    assert (2, "") == (done.status, done.out)
    assert done.err.endswith("-m pip install 'trio-lifecycle[cli,demo]'\n")


def test_a_hive_that_is_killed_is_told_of_and_so_are_its_workers(tmp_path: Path) -> None:
    page = tmp_path / "page"
    with demo("--json", "--timeline", str(page)) as run:
        wait_for(run, "ready", "llm-worker-rbee@pydoc")
        hive = next(each for each in run.events() if each["name"] == DAEMONS[1] and "pid" in each)
        os.kill(hive["pid"], signal.SIGKILL)
        assert 125 == run.end()
    assert "not seen to be gone" not in run.err
    assert {("died", DAEMONS[1]), ("stopped", DAEMONS[2])} <= {*told_by(run)}
    assert "is up" not in page.read_text()


def test_what_can_be_no_machine_is_told_before_anything_is_started(ask: cli.Ask) -> None:
    done = ask("demo", "--hosts", "gpu-2", "root@gpu-2")
    assert (2, "") == (done.status, done.out)
    assert "trio-lifecycle: --hosts must be a machine, such as gpu-2, not 'root@gpu-2'" in done.err


def test_without_the_extra_for_other_machines_nothing_is_started(
    ask: cli.Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_doors, "_NEEDED_BY_HOSTS", ("there_is_no_such_library",))
    done = ask("demo", "--hosts", "gpu-2")
    assert (2, "") == (done.status, done.out)
    assert done.err.endswith("-m pip install 'trio-lifecycle[cli,demo,ssh]'\n")


def test_who_has_no_home_or_is_nowhere_is_told_before_anything_is_started(
    ask: cli.Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    done = ask("demo", "--timeline", "page.html")
    assert (2, "") == (done.status, done.out)
    assert "page.html can't be written: its folder is not there" in done.err
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr("pathlib.Path.home", Path)
    done = ask("demo")
    assert (2, "") == (done.status, done.out)
    assert "this user has no home directory; set XDG_STATE_HOME" in done.err
