"""Models that a hive can have loaded: what they are made from, and what loading them takes."""

import math
import tomllib
from pathlib import Path
from typing import Any, Final

from attrs import frozen

# The text of Python's own help is on every machine that has Python.
PYDOC: Final = "pydoc"
HASHING: Final = "hashing"

# What a word model takes in memory: measured with texts of 0.5 and 5 MB, some 60 bytes
# for each byte of the text.
_BYTES_PER_BYTE: Final = 60
_MIB: Final = 2**20
_LEAST_MIB: Final = 64


class ModelError(Exception):
    """There is no such model, or what describes it can't be used; the text says what to do."""


@frozen
class Model:
    """A model, by its name.

    Attributes:
        name: What it is called in requests.
        path: The text or the weights; None for what is built in.
        memory_gib: How much memory must be free before it is loaded.
        vram_gib: How much memory of a GPU must be free; 0 if it uses none.
    """

    name: str
    path: Path | None = None
    memory_gib: float = _LEAST_MIB / 1024
    vram_gib: float = 0.0

    @property
    def source(self) -> str:
        """What its worker is told: a path, or the name of what is built in."""
        return self.name if self.path is None else str(self.path)

    @property
    def is_gguf(self) -> bool:
        """Whether it is for llama.cpp."""
        return self.path is not None and self.path.suffix == ".gguf"


def find_model(name: str, folder: Path | None) -> Model:
    """Find a model by its name: in a folder, or built in.

    A folder has ``NAME.txt``, ``NAME.gguf``, or ``NAME.toml``: a card with ``file``, and if need be
    ``memory_mib`` and ``vram_gib``.

    Raises:
        ModelError: There is none.
    """
    path = _files(folder).get(name)
    if path is None and name in (PYDOC, HASHING):
        return Model(name)
    if path is None:
        raise ModelError(f"there is no model {name!r}; there are {', '.join(model_names(folder))}")
    try:
        return _read_card(name, path) if path.suffix == ".toml" else _model_in(name, path)
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        # A card may be odd in many ways, and a file may go between two looks.
        raise ModelError(f"the model {name!r} can't be used: {path}: {error}") from error


def model_names(folder: Path | None) -> list[str]:
    """List the models that there are."""
    return sorted({PYDOC, HASHING, *_files(folder)})


def _files(folder: Path | None) -> dict[str, Path]:
    """Find the file of each model; a card goes before a text, and that before weights."""
    if folder is None:
        return {}
    kinds = [sorted(folder.glob(f"*{suffix}")) for suffix in (".gguf", ".txt", ".toml")]
    return {path.stem: path for paths in kinds for path in paths}


def _model_in(name: str, path: Path) -> Model:
    return Model(name, path, _memory_gib(path))


def _memory_gib(path: Path) -> float:
    size = path.stat().st_size
    needed = size if path.suffix == ".gguf" else size * _BYTES_PER_BYTE
    return max(needed, _LEAST_MIB * _MIB) / 2**30


def _read_card(name: str, card: Path) -> Model:
    facts = tomllib.loads(card.read_text(encoding="utf-8"))
    if unknown := sorted(facts.keys() - {"file", "memory_mib", "vram_gib"}):
        raise ModelError(f"{card}: {unknown[0]} is no field; there are file, memory_mib, vram_gib")
    path = None if "file" not in facts else card.parent / str(facts["file"])
    least = _memory_gib(path) if path is not None and path.is_file() else _LEAST_MIB / 1024
    memory_mib = _number(card, facts, "memory_mib", least * 1024)
    vram_gib = _number(card, facts, "vram_gib", 0.0)
    if path is None and name not in (PYDOC, HASHING):
        raise ModelError(f"{card}: file must say where the model is")
    return Model(name, path, memory_mib / 1024, vram_gib)


def _number(card: Path, facts: dict[str, Any], key: str, default: float) -> float:
    value = facts.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ModelError(f"{card}: {key} must be a number of 0 or more, not {value!r}")
    return float(value)
