"""Strings at random that a shell would rather read than hand on."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

# As many as each way of handing them on is tried with; SSH_FUZZED=10000 takes two minutes.
FUZZED: Final = int(os.environ.get("SSH_FUZZED", "300"))

_PIECES: Final = (
    *"'\"`$\\;|&<>(){}[]*?~#!=%-+^@:,. \n\t\r/aZ0_",
    *("$(touch MARK)", "`touch MARK`", ";touch MARK;", "\ntouch MARK\n", "'$(touch MARK)'"),
    *(
        "$HOME",
        "${HOME",
        "$((1))",
        "$'a'",
        "<<.",
        "\n.\n",
        "EOF",
        "\\n",
        "\\000",
        "%s",
        "%%",
        "\\c",
    ),
    *("--", "-n", "-e", "-u", "-i", "-", "!!", "é", "日本", "\u2028", "\ufeff", "\x1b[0m", "trio_"),
    # No UTF-8; what shells mark with inside; other controls.
    *(os.fsdecode(bytes([byte])) for byte in (*range(1, 32), *range(127, 256))),
)


class Hostile:
    """Strings from a seed, which a failed test shows.

    Attributes:
        mark: What is there when one of them has been run.
    """

    def __init__(self, directory: Path) -> None:
        self.mark = directory / "injected"
        self._seed = random.randrange(1 << 32)
        self._random = random.Random(self._seed)

    def __repr__(self) -> str:
        return f"Hostile(seed={self._seed})"

    def strings(self, count: int) -> list[str]:
        """Some of them; one of a hundred is long."""
        return [self._string() for _ in range(count)]

    def names(self, count: int, suits: Callable[[str], object], longest: int = 100) -> list[str]:
        """Different ones that suit, none of them empty."""
        found: dict[str, None] = {}
        while len(found) < count:
            name = os.fsdecode(os.fsencode(self._string())[:longest])
            if name and suits(name):
                found[name] = None
        return list(found)

    def _string(self) -> str:
        most = 2_000 if self._random.random() < 0.01 else 12
        pieces = self._random.choices(_PIECES, k=self._random.randrange(most))
        text = "".join(pieces).replace("MARK", str(self.mark))
        # As it comes back: two halves of a letter may have met.
        return os.fsdecode(os.fsencode(text))
