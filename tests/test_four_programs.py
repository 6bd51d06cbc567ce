"""What is typed on the page of the four programs, typed in order: does it print what is shown?"""

import ast
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.demo import unmeasured
from tests.gpu_box import gpu_box
from tests.plugins.documents import SHELL_SECONDS, commands
from tests.test_demo_lines import FOLDER, lines_of_code

PAGE = Path(__file__).resolve().parents[1] / "docs/four-programs.md"
SESSION = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CUT = "---- the next command ----"


def steps(page: str) -> list[tuple[str, str]]:
    """List what is typed, and what is shown below it."""
    sessions = SESSION.findall(page)
    parts = [part for text in sessions for part in re.split(r"^(?=\$ )", text, flags=re.MULTILINE)]
    return [(commands(part), part.partition("\n")[2]) for part in parts if part]


def without_chance(text: str) -> str:
    """What is printed without what differs from run to run: numbers, columns, made-up text.

    How much memory a program uses is known a moment after it is up.
    """
    text = re.sub(r", \d+ MiB", "", text)
    text = re.sub(r"^(A list is) .+", r"\1 SO", text, flags=re.MULTILINE)
    return re.sub(r"[ \t]+", " ", re.sub(r"\d+(\.\d+)?", "N", text))


def is_shown(shown: str, printed: str) -> bool:
    """Say whether that is it; a line of dots stands for any lines."""
    pattern = re.escape(without_chance(shown)).replace(re.escape("...\n"), "(?:.*\n)*")
    return re.fullmatch(pattern, without_chance(printed)) is not None


def test_dots_stand_for_any_lines_and_numbers_for_others() -> None:
    assert is_shown("...\nprocess 4711, 3 MiB\n", "some\nmore\nprocess  12\n")
    assert not is_shown("...\nprocess 4711\n", "process 12\nmore\n")


@pytest.mark.slow
def test_the_four_programs_do_what_their_page_shows(tmp_path: Path) -> None:
    typed, shown = zip(*steps(PAGE.read_text()), strict=True)
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    with gpu_box():
        done = subprocess.run(
            ["bash", "-c", "exec 2>&1\n" + f"echo '{CUT}'\n".join(typed)],
            cwd=tmp_path,
            env={**unmeasured(os.environ), "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SHELL_SECONDS,
        )
    printed = done.stdout.split(f"{CUT}\n")
    wrong = [each for each in zip(typed, shown, printed, strict=True) if not is_shown(*each[1:])]
    assert [] == wrong


def test_the_page_says_how_many_lines_each_file_has() -> None:
    said = re.findall(r"`(\w+)_lifecycle\.py`: (\d+) lines", PAGE.read_text())
    assert {name: str(lines_of_code(FOLDER / f"{name}_lifecycle.py")) for name, _ in said} == dict(
        said
    )


def test_the_page_shows_all_that_starts_something() -> None:
    """Each function and class of those files is drawn in from there."""
    files = sorted(FOLDER.glob("*_lifecycle.py"))
    parts = {(file.name, node.name) for file in files for node in _described(file)}
    shown = re.findall(
        r"\{literalinclude\} \S+/(\w+\.py)\n:pyobject: (\w+)$", PAGE.read_text(), re.MULTILINE
    )
    assert set() == parts - set(shown)


def _described(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in ast.parse(file.read_text()).body if isinstance(node, kinds)]
