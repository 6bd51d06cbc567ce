"""Thousands of strings for other machines, and each comes through as it is and runs nothing."""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from tests import shells
from tests.guards import guarded, run
from tests.hostile import FUZZED, Hostile
from tests.shells import OpenLine
from tests.test_launcher import REPORT, each_shell, outcome
from trio_lifecycle._names import check_name
from trio_lifecycle._ssh._host_facts import split
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._order import Order
from trio_lifecycle._ssh._remote_binary import find_binary
from trio_lifecycle._ssh._remote_copies import begin_copy, compare, make_executable
from trio_lifecycle._ssh._remote_files import Chunk, find_file, read_log, remove_private
from trio_lifecycle.spawner._local_prober import _mark_of

pytestmark = pytest.mark.fault(71)

open_line = shells.open_line

# So many in one start: 100 arguments, 80 variables' values and 20 names, directory, file.
_AT_ONCE: Final = 202


@pytest.fixture
def hostile(tmp_path: Path) -> Hostile:
    """Strings that would make a file below the test's directory."""
    return Hostile(tmp_path)


def rounds() -> range:
    """As many as it takes."""
    return range(-(-FUZZED // _AT_ONCE))


def a_file(name: str) -> bool:
    """Whether a file can have that name."""
    return "/" not in name and name not in (".", "..")


def a_variable(name: str) -> bool:
    """Whether a variable can have that name, and the loader does not obey it."""
    return "=" not in name and not name.startswith(("LD_", "PATH"))


def a_daemon(name: str) -> bool:
    """Whether a daemon can have that name."""
    try:
        return bool(check_name("name", name))
    except ValueError:
        return False


def environment(hostile: Hostile) -> dict[str, str]:
    """Plain names and odd ones, all with odd values."""
    names = [f"V{number}" for number in range(60)] + hostile.names(20, a_variable)
    return dict(zip(names, hostile.strings(80), strict=True))


def is_there(path: Path) -> bool:
    return path.exists()


def program_at(path: Path) -> str:
    path.write_text(f"#!{sys.executable} -IS\n{REPORT}")
    path.chmod(0o755)
    return str(path)


def make(path: Path) -> None:
    path.write_bytes(b"1\n\n")


def make_private(path: Path) -> None:
    path.mkdir(mode=0o700)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def hexed(texts: list[str]) -> list[str]:
    return [os.fsencode(text).hex() for text in texts]


@each_shell
async def test_what_a_launcher_is_told_arrives_as_it_is(
    command: tuple[str, ...], hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for number in rounds():
        args, env = hostile.strings(100), environment(hostile)
        directory, log, program = hostile.names(3, a_file)
        (name,) = hostile.names(1, a_daemon)
        place = tmp_path / f"{number}" / directory
        place.mkdir(parents=True)
        named = str(tmp_path / f"{number}" / f"log {log}")
        order = Order(
            name=name,
            # env(1) would take it for a variable otherwise.
            program=program_at(tmp_path / f"{number}" / f"program {program.replace('=', '-')}"),
            args=tuple(args),
            env=env,
            working_dir=str(place),
            log=named if number % 2 else None,
        )
        status, text = await outcome(order, *command)
        assert status == 0, (hostile, text[:500])
        found = json.loads(text)
        assert hexed(args) == found["args"], hostile
        assert hexed(list(env.values())) == [found["env"].get(name) for name in env], hostile
        assert str(place) == found["cwd"], hostile
        wanted = tmp_path / "state/trio-lifecycle/logs" / f"{name}.log"
        assert is_there(Path(named) if number % 2 else wanted), hostile
    assert not is_there(hostile.mark), hostile


async def test_what_a_guard_is_told_arrives_as_it_is(hostile: Hostile, tmp_path: Path) -> None:
    async with guarded() as link:
        for number in rounds():
            args, env = hostile.strings(100), environment(hostile)
            (directory,) = hostile.names(1, a_file)
            place = tmp_path / f"{number}" / directory
            place.mkdir(parents=True)
            (name,) = hostile.names(1, a_daemon)
            words = ("-I", "-S", "-c", REPORT, *args)
            _, output = await run(
                link, sys.executable, *words, env=env, working_dir=place, name=name
            )
            found = json.loads(output)
            assert hexed(args) == found["args"], hostile
            assert hexed(list(env.values())) == [found["env"].get(name) for name in env], hostile
            assert str(place) == found["cwd"], hostile
    assert not is_there(hostile.mark), hostile


@shells.each_shell
async def test_what_is_asked_by_the_line_arrives_as_it_is(
    shell: str, hostile: Hostile, open_line: OpenLine
) -> None:
    async with open_line(shell) as line:
        for _ in rounds():
            strings = hostile.strings(_AT_ONCE)
            assert strings == split((await line.run("tl_say", *strings)).output), hostile
    assert not is_there(hostile.mark), hostile


# --- names of files -------------------------------------------------------------------------------


async def _is_seen(line: Line, path: Path) -> None:
    assert await find_file(line, str(path)) is None
    make(path)
    assert _mark_of(str(path)) == await find_file(line, str(path))


async def _is_read(line: Line, path: Path) -> None:
    assert await read_log(line, str(path), 0) is None
    make(path)
    assert Chunk(3, b"\n\n") == await read_log(line, str(path), 1, 5)


async def _is_compared(line: Line, path: Path) -> None:
    make(path)
    assert (await compare(line, str(path), 3)).is_there
    await make_executable(line, str(path), 0o100)
    assert 0o100 == mode_of(path) & 0o100


async def _is_made_and_removed(line: Line, path: Path) -> None:
    make_private(path)
    copy = Path(await begin_copy(line, str(path / "below" / path.name)))
    assert is_there(path / "below")
    assert path / "below" == copy.parent
    assert await remove_private(line, str(path)) is None
    assert not is_there(path)


async def _is_found_as_program(line: Line, path: Path) -> None:
    program_at(path)
    found = await find_binary(line, "there", f"{path.parent}/{path.name}")
    assert (str(path), str(path)) == (found.path, found.resolved)
    found = await find_binary(line, "there", path.name, [str(path.parent)])
    assert (str(path), str(path)) == (found.path, found.resolved)


async def _is_searched_as_socket(line: Line, path: Path) -> None:
    looked = await line.run("tl_listening_unix", str(path))
    assert b"" == looked.output.strip()


_LOOKS: Final[tuple[Callable[[Line, Path], Awaitable[None]], ...]] = (
    *(_is_seen, _is_read, _is_compared),
    *(_is_made_and_removed, _is_found_as_program, _is_searched_as_socket),
)


@shells.each_shell
async def test_a_file_may_have_any_name(
    shell: str, hostile: Hostile, open_line: OpenLine, tmp_path: Path
) -> None:
    place = tmp_path / "files '$(touch x)"
    place.mkdir()
    async with open_line(shell) as line:
        for number, name in enumerate(hostile.names(-(-FUZZED // 5), a_file)):
            look = _LOOKS[number % len(_LOOKS)]
            try:
                await look(line, place / name)
            except Exception as error:
                error.add_note(f"{look.__name__}({name!r}) of {hostile}")
                raise
    assert not is_there(hostile.mark), hostile
