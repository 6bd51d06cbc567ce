"""The guard's program: that any Python from 3.7 on can run it, and how it gets to its machine."""

import ast
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.guards import GUARD_PYTHON, guarded, run, start
from tests.sessions import LocalSession
from tests.support import PATIENCE_S
from tests.test_house import foreign_imports
from trio_lifecycle._ssh import _guard_program
from trio_lifecycle._ssh._guard_frames import Frames, GarbledError
from trio_lifecycle._ssh._guard_link import GuardLink
from trio_lifecycle._ssh._guard_program import PARTS, guard_script
from trio_lifecycle._ssh._session import LostError

# One argument of a program may have so many bytes: MAX_ARG_STRLEN, <linux/binfmts.h>.
LONGEST_ARGUMENT_BYTES = 131_072
# What every Python from 3.7 on has, also one that a distribution has taken apart.
PLAIN = {
    *("__future__", "errno", "grp", "itertools", "json", "marshal", "mmap", "os", "pwd"),
    *("resource", "select", "sys", "time"),
}
# Only for who checks types.
UNRUN = {"collections", "typing"}


def source_of(part: str) -> str:
    spec = find_spec(part)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_read_by_python_3_7_and_imports_only_what_is_there(part: str) -> None:
    tree = ast.parse(source_of(part), feature_version=(3, 7))
    packages = {name for name, _ in foreign_imports(tree)} - {"trio_lifecycle"}
    assert set() == packages - PLAIN - UNRUN
    asked = [n.lineno for n in ast.walk(tree) if isinstance(n, (ast.Match, ast.NamedExpr))]
    assert [] == asked


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_only_parts_before_it(part: str) -> None:
    wanted = {
        node.module
        for node in ast.walk(ast.parse(source_of(part)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trio_lifecycle")
    }
    assert wanted <= {*PARTS[: PARTS.index(part)]}


def test_the_program_is_small_enough_for_one_argument() -> None:
    assert len(guard_script("python3", "token", 15.0)) < LONGEST_ARGUMENT_BYTES * 3 // 4


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh", "bash --posix"])
@pytest.mark.fault(76)
async def test_every_shell_becomes_the_guard_whatever_is_printed_before(shell: str) -> None:
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"{shell} is not installed")
    noisy = ("sh", "-c", f"printf 'Welcome!\\nno newline {{'; exec {shell} -s")
    async with guarded(command=noisy) as link:
        assert (0, b"hi\n") == await run(link, "/bin/echo", "hi")


async def test_a_guard_without_daemons_ends_with_its_input() -> None:
    async with trio.open_nursery() as nursery:
        session = await LocalSession.start(nursery)
        await GuardLink.open(session, GUARD_PYTHON, heartbeat_limit_s=PATIENCE_S)
        session.close()
        with trio.fail_after(PATIENCE_S):
            assert 0 == await session.wait_end()


async def test_a_guard_ends_when_nobody_reads_what_it_writes(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        session = await LocalSession.start(nursery)
        await GuardLink.open(session, GUARD_PYTHON, heartbeat_limit_s=PATIENCE_S)
        assert session.process.stdout is not None
        await session.process.stdout.aclose()
        with trio.fail_after(PATIENCE_S):
            assert 0 == await session.wait_end()
        session.close()


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("/no/python3", "/no/python3"),
        ("/bin/false", "there came no guard"),
        ("/bin/echo", "no guard"),
    ],
)
async def test_there_is_a_clear_reason_when_there_comes_no_guard(python: str, said: str) -> None:
    async with trio.open_nursery() as nursery:
        session = await LocalSession.start(nursery)
        with pytest.raises(LostError, match=said):
            await GuardLink.open(session, python, heartbeat_limit_s=PATIENCE_S)
        await session.wait_end()


# Says hello as a guard does, then something else.
IMPOSTOR = """#!/bin/sh
printf '%s {"hello": 1, "start": 1, "outer": 1, "boot_id": "b", "namespace": 1, "ticks": 1}\\n' "$5"
printf '%s\\n' "$WORDS"
exec cat >/dev/null
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Segmentation fault", "can't be understood"),
        ("[1]", "can't be understood"),
        ('{"out": 1, "n": -1}', "announces -1 bytes"),
        ('{"spawned": 7, "exited": [], "fwd": {}}', "could not be taken in"),
        ('{"ticks": "soon"}', "says 'soon' for 'ticks'"),
    ],
)
async def test_garbage_costs_the_link_with_a_clear_reason(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impostor = tmp_path / "python3"
    impostor.write_text(IMPOSTOR)
    impostor.chmod(0o700)
    monkeypatch.setenv("WORDS", words)
    async with guarded(python=str(impostor)) as link:
        with trio.fail_after(PATIENCE_S):
            await link.wait_lost()
        assert said in str(link.lost)


@pytest.mark.parametrize("pid", ["1", "-1", "true", '"x"', "null"])
async def test_a_guard_that_names_no_process_is_not_believed(
    pid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impostor = tmp_path / "python3"
    impostor.write_text(IMPOSTOR)
    impostor.chmod(0o700)
    monkeypatch.setenv("WORDS", f'{{"spawned": 1, "pid": {pid}, "start": 1, "ticks": 1}}')
    async with guarded(python=str(impostor)) as link:
        with pytest.raises(LostError, match="for 'pid'"):
            await start(link, "/bin/true")


async def test_a_guard_that_greets_with_nonsense_is_none(tmp_path: Path) -> None:
    impostor = tmp_path / "python3"
    impostor.write_text(IMPOSTOR.replace('"start": 1', '"start": []'))
    impostor.chmod(0o700)
    async with trio.open_nursery() as nursery:
        session = await LocalSession.start(nursery)
        with pytest.raises(LostError, match="there came no guard"):
            await GuardLink.open(session, str(impostor), heartbeat_limit_s=1.0)
        nursery.cancel_scope.cancel()


# --- frames ---------------------------------------------------------------------------------------

SAID: list[tuple[dict[str, Any], bytes]] = [
    ({"hello": 1}, b""),
    ({"out": 1, "n": 5}, b"a\n{b}"),
    ({"fwd": 1, "fd": 3, "n": 0}, b""),
    ({"exited": 1, "status": 0}, b""),
]


@given(st.lists(st.integers(1, 30)))
def test_frames_are_the_same_in_whatever_pieces_they_come(sizes: list[int]) -> None:
    text = b"noise T\nT "
    text += b"".join(json.dumps(facts).encode() + b"\n" + raw for facts, raw in SAID)
    frames = Frames("T")
    found: list[tuple[dict[str, Any], bytes]] = []
    for size in [*sizes, len(text)]:
        chunk, text = text[:size], text[size:]
        for facts, raw in frames.feed(chunk):
            if found and found[-1][0] is facts:
                found[-1] = facts, found[-1][1] + raw
            else:
                found.append((facts, raw))
    assert SAID == found


@pytest.mark.parametrize(("beginning", "length"), [(b"", 1 << 21), (b"T ", 70_000)])
def test_what_has_no_end_is_given_up(beginning: bytes, length: int) -> None:
    with pytest.raises(GarbledError, match="without an end"):
        [*Frames("T").feed(beginning + b"x" * length)]


def test_a_program_without_its_source_can_not_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard_program, "PARTS", ("_posixsubprocess",))
    with pytest.raises(RuntimeError, match="source of _posixsubprocess"):
        guard_script("python3", "token", 1.0)
