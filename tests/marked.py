"""Processes that bear the marks of a daemon: strays, and those that only look like some."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.processes import WAIT, stat_of
from tests.support import QUICK_PYTHON
from trio_lifecycle._proc import namespace
from trio_lifecycle._requests import INSTANCE_VARIABLE, OWNER_VARIABLE
from trio_lifecycle._strays import Owner

Marked = Callable[..., "subprocess.Popen[str]"]

# Says that it is deaf to SIGTERM.
DEAF = "import signal; signal.signal(15, signal.SIG_IGN);" + WAIT


def pid_namespace() -> int:
    """Our own."""
    number = namespace("self", "pid")
    assert number is not None
    return number


@pytest.fixture
def instance_id() -> str:
    """An instance that nobody else has, so that a search for it finds only the test's own."""
    return uuid.uuid4().hex


@pytest.fixture
def dead_owner() -> Owner:
    """A program that has ended."""
    with subprocess.Popen(["sleep", "600"]) as process:
        owner = Owner(pid_namespace(), process.pid, stat_of(process.pid).start_time)
        process.kill()
    return owner


@pytest.fixture
def marked(instance_id: str, dead_owner: Owner) -> Iterator[Marked]:
    """Start programs with marks, those of a stray unless told otherwise; they are killed later."""
    with ExitStack() as stack:

        def start(code: str = WAIT, **marks: str | None) -> "subprocess.Popen[str]":
            usual: dict[str, str | None] = {"instance": instance_id, "owner": str(dead_owner)}
            usual |= marks
            names = {"instance": INSTANCE_VARIABLE, "owner": OWNER_VARIABLE}
            env = {key: value for key, value in os.environ.items() if key not in names.values()}
            env |= {names[key]: value for key, value in usual.items() if value is not None}
            process = subprocess.Popen(
                [sys.executable, *QUICK_PYTHON, code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline()
            return process

        yield start
