"""``trio-lifecycle logs``: the end of a log, what comes after it, and nothing else."""

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests import cli
from tests.cli import COMMAND, Ask, Run, call, ensured, forget, record_elsewhere
from trio_lifecycle._cli import _log_file
from trio_lifecycle._cli._log_file import LocalLogFile

all_stopped, ask, handlers = cli.all_stopped, cli.ask, cli.handlers

stops_all = pytest.mark.usefixtures("all_stopped")

# Writes what it is given through a pipe.
ECHOES = ("sh", "-c", "echo begin; exec < to; while read line; do echo $line; done")


@pytest.fixture
def to(tmp_path: Path) -> Iterator[Callable[[str], object]]:
    """Have a daemon write a line."""
    os.mkfifo(tmp_path / "to")
    # Both ends: opening one would wait for the other, and closing the only writer would end it.
    pipe = os.open(tmp_path / "to", os.O_RDWR)
    yield lambda line: os.write(pipe, f"{line}\n".encode())
    os.close(pipe)


def write_log(name: str, content: bytes) -> Path:
    """Make a log, as a daemon that has ended leaves it."""
    path = Path(os.environ["XDG_STATE_HOME"]) / "trio-lifecycle" / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(content)
    return path


NUMBERS = "".join(f"{number}\n" for number in range(100)).encode()


# --- the end of it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "first"),
    [((), 80), (("-n", "3"), 97), (("--lines", "0"), 100), (("-n", "all"), 0), (("-n", "1000"), 0)],
)
def test_the_last_lines_are_shown(words: tuple[str, ...], first: int) -> None:
    write_log("web", NUMBERS)
    done = call("logs", "web", *words)
    assert (0, "") == (done.process.returncode, done.err)
    assert "".join(f"{number}\n" for number in range(first, 100)) == done.out


@stops_all
def test_the_log_stays_when_the_daemon_was_stopped_and_a_new_one_begins_with_the_next() -> None:
    script = ("--name", "d", "--", "sh", "-c", "echo I am $$; exec sleep 600")
    for _ in range(2):
        pid = ensured(*script)["pid"]
        with Run("logs", "-f", "d") as following:
            following.line(f"^I am {pid}$", "stdout")
            assert 0 == call("stop", "d").process.returncode
            assert 0 == following.end()
        assert f"I am {pid}\n" == call("logs", "d").out


def test_there_is_none_of_a_daemon_that_never_ran() -> None:
    done = call("logs", "nobody")
    assert (1, "") == (done.process.returncode, done.out)
    said = r"trio-lifecycle: nobody: has no log: /\S+/nobody\.log is not there, nor is it recorded"
    assert re.fullmatch(said + "\n", done.err)
    assert not Path(os.environ["XDG_STATE_HOME"]).exists()


@stops_all
def test_the_log_of_another_registry_is_beside_it(tmp_path: Path) -> None:
    place = ("--registry", str(tmp_path / "r"))
    write_log("web", b"of this user's own\n")
    ensured(*place, "--name", "web", "--", "sh", "-c", "echo of another; exec sleep 600")
    with Run("logs", *place, "-f", "web") as following:
        following.line("^of another$", "stdout")
        assert 0 == call("stop", *place, "web").process.returncode
        assert 0 == following.end()
    done = call("logs", *place, "web")
    assert (0, "of another\n") == (done.process.returncode, done.out)
    nobody = call("logs", "--registry", str(tmp_path / "none"), "web")
    assert 1 == nobody.process.returncode
    assert f"{tmp_path}/none.logs/web.log is not there" in nobody.err
    assert not (tmp_path / "none").exists()


def test_there_is_none_of_a_daemon_that_was_found_running() -> None:
    record_elsewhere("found")
    write_log("found", b"another one's\n")
    done = call("logs", "found")
    forget("found")
    assert (1, "") == (done.process.returncode, done.out)
    assert "its output is not kept" in done.err


def test_a_recorded_log_that_is_no_path_is_told() -> None:
    record_elsewhere("far", log_file=f"/{'x' * 300}")
    done = call("logs", "far")
    forget("far")
    assert (125, "") == (done.process.returncode, done.out)
    assert done.err.startswith("trio-lifecycle: far: its log can't be read: ")


def test_the_log_is_the_recorded_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("here\n")
    record_elsewhere("far", log_file=str(tmp_path / "log"))
    plain, following = call("logs", "far"), call("logs", "-f", "far")
    forget("far")
    assert (0, "here\n") == (plain.process.returncode, plain.out)
    # Its end could not be seen, so nothing is waited for.
    assert (4, "here\n") == (following.process.returncode, following.out)
    assert "the state of far is unknown" in following.err


def test_what_is_no_file_exits_125(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    record_elsewhere("odd", log_file=str(tmp_path / "pipe"))
    done = call("logs", "odd")
    forget("odd")
    assert (125, "") == (done.process.returncode, done.out)
    assert "its log can't be read: " in done.err
    assert "is no regular file" in done.err


def test_a_huge_log_is_read_from_its_end() -> None:
    path = write_log("huge", b"")
    # Sparse: it takes no room, but hours to be read from the beginning.
    with path.open("r+b") as file:
        file.truncate(1 << 42)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + NUMBERS)
    assert "98\n99\n" == call("logs", "-n", "2", "huge").out
    path.unlink()


@given(
    pieces=st.lists(st.sampled_from([b"\n", b"a", b"\xff\n", b"bcd", b"\n\n"]), max_size=12),
    lines=st.integers(0, 12),
    chunk=st.integers(1, 5),
)
def test_the_last_lines_are_those_of_splitting_the_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], lines: int, chunk: int
) -> None:
    whole = b"".join(pieces)
    path = tmp_path_factory.getbasetemp() / "log"
    path.write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_log_file, "_CHUNK_BYTES", chunk)
        read = trio.run(_read_last, path, lines)
    split = re.findall(rb"[^\n]*\n|[^\n]+", whole)
    assert b"".join(split[len(split) - min(lines, len(split)) :]) == read


async def _read_last(path: Path, lines: int) -> bytes:
    log, read = LocalLogFile(path), b""
    with closing(log):
        await log.skip_to_last(lines)
        while chunk := await log.read():
            read += chunk
    return read


# --- what comes after it --------------------------------------------------------------------------


@stops_all
def test_it_follows_until_the_daemon_has_ended(tmp_path: Path, to: Callable[[str], object]) -> None:
    ensured("--name", "d", "--cwd", str(tmp_path), "--", *ECHOES)
    with Run("logs", "-f", "d") as following:
        following.line("^begin$", "stdout")
        for word in ("one", "two"):
            to(word)
            following.line(f"^{word}$", "stdout")
        assert 0 == call("stop", "d").process.returncode
        assert 0 == following.end()
    assert "begin\none\ntwo\n" == following.out
    assert "d: has ended\n" == following.err


@stops_all
def test_it_follows_a_log_that_was_emptied(tmp_path: Path, to: Callable[[str], object]) -> None:
    ensured("--name", "d", "--cwd", str(tmp_path), "--", *ECHOES)
    with Run("logs", "-f", "d") as following:
        following.line("^begin$", "stdout")
        path = call("status", "--json", "d").events()[0]["log_file"]
        os.truncate(path, 0)
        to("x")
        following.line("^x$", "stdout")
        following.interrupt()


@stops_all
def test_it_stays_with_the_log_and_the_daemon_that_it_began_with() -> None:
    def ensure(word: str) -> None:
        script = f"echo {word}; exec sleep 600"
        ensured("--name", "d", "--on-change", "restart", "--", "sh", "-c", script)

    ensure("first")
    with Run("logs", "-f", "d") as following:
        following.line("^first$", "stdout")
        ensure("second")
        assert 0 == following.end()
    assert ("first\n", "d: has ended\n") == (following.out, following.err)
    with Run("logs", "-f", "d") as following:
        following.line("^second$", "stdout")
        following.interrupt()


@stops_all
def test_ctrl_c_leaves_without_a_word_and_the_daemon_runs_on() -> None:
    pid = ensured("--name", "d", "--", "sh", "-c", "echo up; exec sleep 600")["pid"]
    with Run("logs", "-f", "d") as following:
        following.line("^up$", "stdout")
        assert 130 == following.interrupt()
    assert "" == following.err
    assert cli.is_alive(pid)


@stops_all
def test_the_head_of_it_ends_the_rest() -> None:
    ensured("--name", "d", "--", "sh", "-c", "echo up; exec sleep 600")
    script = f"{' '.join(COMMAND)} logs -f d | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (141, "up\n", "") == (done.returncode, done.stdout, done.stderr)


def test_following_one_that_is_not_running_ends_at_once() -> None:
    write_log("web", b"bye")
    done = call("logs", "-f", "web")
    assert (0, "bye", "web: is not running\n") == (done.process.returncode, done.out, done.err)


def test_a_reader_that_is_slow_gets_all_of_it() -> None:
    line = b"x" * 99 + b"\n"
    write_log("long", line * 300_000)
    with Run("logs", "-n", "all", "long") as running:
        assert 0 == running.end()
    assert 300_000 * 100 == len(running.out)


# --- what is shown of it --------------------------------------------------------------------------

UNRULY = b"\x1b[31mred\x1b[2J \x1b[1A\x1bcup 10%\r\x1b[1mdone\x1b[K\n\xff\n"


def test_without_a_terminal_bytes_pass_unchanged() -> None:
    write_log("web", UNRULY)
    done = subprocess.run([*COMMAND, "logs", "web"], capture_output=True, timeout=60)
    assert UNRULY == done.stdout


def test_a_log_can_colour_a_terminal_but_not_clear_it() -> None:
    write_log("web", UNRULY + b"rest")
    with cli.on_terminal("logs", "web") as running:
        assert 0 == running.end()
    assert "\x1b[1mdone\x1b[0m\r\n\\xff\r\nrest\r\n" == running.text("terminal")


def test_a_full_disk_is_told() -> None:
    write_log("web", NUMBERS)
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = call("logs", "web", stdout=full)
    assert 125 == done.process.returncode
    assert f"web: its log can't be shown: [Errno {errno.ENOSPC}]" in done.err


WRONG_USE = {
    "no name": ((), "NAME"),
    "no name at all": (("../x",), "NAME: '../x' can't be a file name"),
    "no number": (("web", "-n", "some"), "--lines: wants a number of lines, 0 or more, or 'all',"),
    "a slip": (("web", "--folow"), "Did you mean --follow?\nMore with: trio-lifecycle logs --help"),
}


@pytest.mark.parametrize("wrong", WRONG_USE)
def test_wrong_use_exits_2_and_says_what_is_wrong(wrong: str, ask: Ask) -> None:
    words, said = WRONG_USE[wrong]
    done = ask("logs", *words)
    assert (2, "") == (done.status, done.out)
    assert said in done.err
