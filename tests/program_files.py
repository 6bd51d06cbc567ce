"""Files that are programs, or that only look like some."""

from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = b"#!/bin/sh\nexit 0\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file into a directory of its own, executable unless said otherwise."""

    def write(name: str, content: bytes = SCRIPT, mode: int = 0o755) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
        return file

    return write
