"""The guide "In nox and in CI": its noxfile and its tests are run as they stand there."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.cli import COMMAND, ROOT, Run

GUIDE = ROOT / "docs/guides/nox-and-ci.md"
# A block that begins with the name of its file.
FILES = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The guide's project, and the command where it would be if it were installed."""
    for name, text in FILES.findall(GUIDE.read_text()):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("<p>hello")
    script = tmp_path / "bin/trio-lifecycle"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    script.chmod(0o700)
    return tmp_path


def nox(project: Path, *words: str) -> Run:
    """Run the session with what is installed here: nothing is downloaded."""
    path = os.pathsep.join(
        (str(project / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", ""))
    )
    # Our own settings of pytest are not the project's.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "NOX", "COVERAGE_"))}
    command = (sys.executable, "-m", "nox", "--no-venv", "--no-install", "-s", "integration")
    with Run(command=(*command, *words), cwd=project, env={**env, "PATH": path}) as done:
        done.end()
    return done


@pytest.mark.slow
def test_the_guides_session_runs_its_tests_against_the_service(project: Path) -> None:
    done = nox(project)
    assert 0 == done.process.returncode, done.out + done.err
    assert "1 passed" in done.out + done.err
    assert re.search(r"web: ready at http://127.0.0.1:\d+/", done.out + done.err)


@pytest.mark.slow
def test_the_guides_session_fails_with_its_tests(project: Path) -> None:
    (project / "site/index.html").write_text("<p>goodbye")
    done = nox(project, "--", "-x")
    assert 0 != done.process.returncode
    assert "1 failed" in done.out + done.err
    assert "failed with exit code 1" in done.out + done.err
