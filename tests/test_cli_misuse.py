"""``trio-lifecycle ensure``, used wrongly: what is said, and that nothing is started."""

import subprocess
from pathlib import Path

import pytest

from tests import cli
from tests.cli import COMMAND, Ask, call

# What is wrong must start nothing; should it do so, that is ended.
pytestmark = pytest.mark.usefixtures("all_stopped")

all_stopped, ask, handlers = cli.all_stopped, cli.ask, cli.handlers

SLEEP = ("sleep", "600")


WRONG_USE = {
    "no program": ((), "PROGRAM is missing; write: trio-lifecycle ensure"),
    "quiet and verbose": (("-q", "-v", "--", *SLEEP), "--quiet and --verbose: exclude each other"),
    "a command": (("--then", "x", "--", *SLEEP), "Unknown option: --then."),
    "a slip": (
        ("--on-chance", "keep", "--", *SLEEP),
        "Did you mean --on-change?\nMore with: trio-lifecycle ensure --help",
    ),
    "an option of the program": (
        ("uvicorn", "app:app", "--port", "1"),
        "goes behind --: trio-lifecycle ensure [OPTIONS] -- PROGRAM",
    ),
    "no policy": (("--on-change", "panic", "--", *SLEEP), "--on-change: must be one of 'keep',"),
    "no number": (("--claim-timeout", "soon", "--", *SLEEP), "--claim-timeout: wants a number"),
    "no patience": (("--claim-timeout", "0", "--", *SLEEP), "--claim-timeout: must be more than 0"),
    "no name": (("--name", "", "--", *SLEEP), "--name: '' is no name; give one such as queen\n"),
    "no directory": (("--cwd", "", "--", *SLEEP), "--cwd: '' is no directory"),
    "no registry": (("--registry", "", "--", *SLEEP), "--registry: wants the path of a file"),
}


@pytest.mark.parametrize("wrong", WRONG_USE)
def test_wrong_use_exits_2_and_says_what_is_wrong(wrong: str, ask: Ask) -> None:
    words, said = WRONG_USE[wrong]
    done = ask("ensure", *words)
    assert (2, "") == (done.status, done.out)
    assert said in done.err


def test_a_path_that_leads_nowhere_is_not_looked_for_elsewhere() -> None:
    done = call("ensure", "--", "./nowhere")
    assert 127 == done.process.returncode
    assert done.err.endswith("/nowhere\nInstall it, or give its full path as PROGRAM.\n")


def test_a_path_from_a_directory_that_was_removed_exits_2(tmp_path: Path) -> None:
    script = f"mkdir gone; cd gone; rmdir ../gone; exec {' '.join(COMMAND)} ensure -- ./x"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    said = "trio-lifecycle: PROGRAM: is a path from the current directory, which was removed; "
    assert (2, f"{said}give it in full\n") == (done.returncode, done.stderr)
