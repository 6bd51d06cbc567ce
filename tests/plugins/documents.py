"""README.md and docs/ are tests: what they show is run.

```python blocks run, with `await` at the top level under Trio; a document's blocks share their
names and an empty working directory. ```bash and ```console blocks must parse; after `<!-- run -->`
they are run and must exit with 0. `<!-- skip: next -->` leaves the next block out, and
`<!-- invisible-code-block: python ... -->` runs code that a reader need not see. A document with
`<!-- machine: gpu-2 -->` at its top has a machine of that name to reach over SSH.
"""

import ast
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from sybil import Example, Sybil
from sybil.evaluators.python import pad
from sybil.parsers.markdown import CodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parents[2]
RUN = "<!-- run -->"
MACHINE = "<!-- machine: gpu-2 -->"
# Bounds a shell block below the limit for one test, so that the message is about the block.
SHELL_SECONDS = 50


def run_python(example: Example) -> None:
    """Run a block in the document's namespace, under Trio if it awaits at the top level."""
    source = pad(example.parsed, example.line + example.parsed.line_offset)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, example.path, "exec", flags=flags, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:

        async def main() -> None:
            await eval(code, example.namespace)

        trio.run(main)
    else:
        exec(code, example.namespace)


def check_shell(example: Example) -> None:
    """Parse a block, and run it where the document says so."""
    script = commands(example.parsed)
    _shell(example, "sh", "-n", "-c", script)
    if example.document.text[: example.start].rstrip().endswith(RUN):
        _shell(example, "/bin/bash", "-e", "-c", script)


def commands(block: str) -> str:
    """What a reader types: all of a script, or what follows the prompts of a session."""
    lines = block.splitlines()
    if not any(line.startswith("$ ") for line in lines):
        return block
    typed = []
    continued = False
    for line in lines:
        if line.startswith("$ ") or continued:
            typed.append(line.removeprefix("$ ") if not continued else line.removeprefix("> "))
            continued = line.endswith("\\")
    return "\n".join(typed) + "\n"


def _shell(example: Example, *command: str) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SHELL_SECONDS,
    )
    output = done.stdout + done.stderr
    assert 0 == done.returncode, f"{example.path}, line {example.line}: {output}"


def _enter(namespace: dict[str, Any]) -> None:
    scratch = tempfile.TemporaryDirectory(prefix="document-")
    namespace.update(_before=Path.cwd(), _scratch=scratch, __name__="__main__")
    os.chdir(scratch.name)


def _leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    namespace["_scratch"].cleanup()


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """The other machine, for a document that says that it needs it."""
    if not any(MACHINE in document.text for document in request.node.documents):
        yield
        return
    # Late, for it takes a fifth of a second that most runs can do without.
    from tests.gpu_box import gpu_box

    with gpu_box():
        yield


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", run_python),
        CodeBlockParser("bash", check_shell),
        CodeBlockParser("console", check_shell),
        SkipParser(),
    ],
    path=str(ROOT),
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    excludes=["docs/changes/*", "docs/_build/*"],
    setup=_enter,
    teardown=_leave,
    fixtures=["hygiene_of_file", "hygiene", "machine"],
).pytest()
