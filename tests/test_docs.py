"""What the pages say of the code: rooms, names, and what a program prints."""

import ast
import builtins
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from attrs import fields

import trio_lifecycle
import trio_lifecycle.abc
import trio_lifecycle.testing
from tests.faults_table import FAULTS_PAGE, read_faults
from tests.test_house import FLOORS, PACKAGE
from trio_lifecycle._cli._ready_options import ReadyOptions
from trio_lifecycle.abc import ReadyMode

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


# --- contributing.md ---


def rooms_that_stand() -> dict[str, set[str]]:
    """Every floor that has a room, with its rooms as the page writes them."""
    floors = {name: {_shown(room) for room in rooms} - {""} for name, rooms in FLOORS.items()}
    return {name: rooms for name, rooms in floors.items() if rooms}


def _shown(room: str) -> str:
    if (PACKAGE / f"{room}.py").is_file():
        return room
    return f"{room}/" if list((PACKAGE / room).glob("*.py")) else ""


def rooms_of_the_page() -> dict[str, set[str]]:
    """The table of floors in contributing.md."""
    page = (DOCS / "contributing.md").read_text().partition("\n## The house\n")[2]
    rows = re.findall(r"^\| (\w+) \| (`.+?`) \|", page.partition("\n## ")[0], re.MULTILINE)
    return {floor: set(re.findall(r"`(.+?)`", rooms)) for floor, rooms in rows}


def test_contributing_lists_each_room_that_stands_on_its_floor() -> None:
    assert rooms_that_stand() == rooms_of_the_page()


def test_contributing_lists_the_highest_floor_first() -> None:
    assert list(reversed(rooms_that_stand())) == list(rooms_of_the_page())


# --- faults.md ---


def test_faults_page_marks_the_errors_that_do_not_exist_yet() -> None:
    page = FAULTS_PAGE.read_text()
    assert set() == {n for n in re.findall(r"`(\w+Error)`", page) if not _exists(n)}
    assert set() == {n for n in re.findall(r"\*(\w+Error)\*", page) if _exists(n)}


def _exists(error: str) -> bool:
    return error in trio_lifecycle.__all__ or hasattr(builtins, error)


def test_faults_page_has_a_hundred_numbers() -> None:
    assert list(range(1, 101)) == list(read_faults(FAULTS_PAGE.read_text()))


# --- reference.md ---

DOORS = [trio_lifecycle, trio_lifecycle.abc, trio_lifecycle.testing]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_reference_has_all_that_a_door_gives(door: ModuleType) -> None:
    page = (DOCS / "reference.md").read_text()
    told = set(re.findall(r":: (?:trio_lifecycle\._\w+\.)?(\w+)", page))
    assert set() == {name for name in door.__all__ if name != "__version__"} - told


# --- daemons.md ---


def test_the_page_that_tells_which_way_has_every_ready_mode_and_option() -> None:
    page = (DOCS / "guides" / "daemons.md").read_text().partition("\n## ")[0]
    modes = {name for name in trio_lifecycle.__all__ if _is_ready_mode(name)}
    assert set() == {mode for mode in modes if f"`{mode}(" not in page}
    patience = {"timeout", "stall_timeout", "max_timeout"}
    options = {
        f"--{field.name.replace('_', '-')}"
        for field in fields(ReadyOptions)
        if field.name not in patience
    }
    assert set() == {option for option in options if f"`{option}" not in page}


def _is_ready_mode(name: str) -> bool:
    thing = getattr(trio_lifecycle, name)
    return isinstance(thing, type) and issubclass(thing, ReadyMode)


# --- tutorial.md ---


def tutorial_blocks(language: str) -> list[str]:
    """The tutorial's blocks of one language."""
    return [m[2] for m in BLOCK.finditer((DOCS / "tutorial.md").read_text()) if m[1] == language]


def as_one_file(pieces: list[str]) -> str:
    """Do as the tutorial says: what awaits goes into main(), in order, and trio.run ends it."""
    main = [textwrap.indent(piece, "    ") for piece in pieces if _awaits(piece)]
    rest = [piece for piece in pieces if not _awaits(piece)]
    return "\n".join((*rest, "async def main():", *main, "trio.run(main)\n"))


def _awaits(piece: str) -> bool:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(piece, "piece", "exec", flags=flags | ast.PyCF_ONLY_AST)
    return any(isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)) for node in _top(code))


def _top(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs at the top level: what stands in no function."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _top(child)


def without_chance(text: str) -> str:
    """What is printed, without what differs from run to run: numbers, and where Python lies."""
    return re.sub(r"\d+(\.\d+)?", "N", re.sub(r"\S*/python[\d.]*", "PYTHON", text))


@pytest.mark.slow
def test_tutorial_works_as_one_file_and_prints_what_it_shows(tmp_path: Path) -> None:
    program = tmp_path / "tutorial.py"
    program.write_text(as_one_file(tutorial_blocks("python")))
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert 0 == done.returncode, done.stderr
    *by_chance, simulated = tutorial_blocks("text")
    printed = without_chance(done.stdout)
    assert [] == [text for text in by_chance if without_chance(text) not in printed]
    assert simulated in done.stdout
