"""What users meet at the doors: complete, sorted, documented, and named by its public path."""

import importlib
import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType

import pytest

import trio_lifecycle

DOORS = [importlib.import_module(f"trio_lifecycle{door}") for door in ("", ".abc", ".testing")]

each_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


def public_objects() -> Iterator[tuple[ModuleType, str]]:
    """Every door with every name that it hands out."""
    for door in DOORS:
        for name in door.__all__:
            yield door, name


each_public_object = pytest.mark.parametrize(
    ("door", "name"),
    list(public_objects()),
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else value,
)


def public_errors() -> list[type[Exception]]:
    """The exceptions that the front door hands out; warnings are none."""
    found = (getattr(trio_lifecycle, name) for name in trio_lifecycle.__all__)
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception)]
    return [kind for kind in kinds if not issubclass(kind, Warning)]


each_public_error = pytest.mark.parametrize(
    "error", list(public_errors()), ids=lambda e: e.__name__
)


def place(name: str) -> tuple[int, str]:
    """Where a name stands in a sorted list: constants first, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@each_door
def test_all_is_sorted_and_names_each_thing_once(door: ModuleType) -> None:
    assert sorted(set(door.__all__), key=place) == list(door.__all__)


@each_door
def test_all_is_complete(door: ModuleType) -> None:
    own = {
        name
        for name, value in vars(door).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
        # What another door calls its own stands there.
        if getattr(value, "__module__", "") not in {d.__name__ for d in DOORS} - {door.__name__}
        if getattr(value, "__module__", "").partition(".")[0] == "trio_lifecycle"
    }
    assert own <= set(door.__all__)


@each_public_object
def test_a_public_object_says_its_public_path(door: ModuleType, name: str) -> None:
    value = getattr(door, name)
    if isinstance(value, type | FunctionType):
        # The front door also hands out what the other doors call their own.
        doors = [d.__name__ for d in DOORS if name in d.__all__]
        assert value.__module__ in doors
        assert value is getattr(importlib.import_module(value.__module__), name)


@each_public_object
def test_a_public_object_is_documented(door: ModuleType, name: str) -> None:
    value = getattr(door, name)
    if isinstance(value, type | FunctionType):
        assert (value.__doc__ or "").strip()


def written_members(kind: type) -> Iterator[str]:
    """Names of the public methods and properties that somebody wrote in a class."""
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, FunctionType | property | classmethod | staticmethod):
            yield name


def documented(kind: type, name: str) -> bool:
    """Whether the member, or the contract that it fulfils, has a docstring."""
    members = (vars(base)[name] for base in kind.__mro__ if name in vars(base))
    return any((inspect.getdoc(member) or "").strip() for member in members)


@each_public_object
def test_public_methods_are_documented(door: ModuleType, name: str) -> None:
    value = getattr(door, name)
    if isinstance(value, type):
        bare = [member for member in written_members(value) if not documented(value, member)]
        assert [] == bare


@each_public_error
def test_every_error_is_a_lifecycle_error_and_no_os_error(error: type[Exception]) -> None:
    assert issubclass(error, trio_lifecycle.LifecycleError)
    # TimeoutError is an OSError: a poll's `except OSError` would swallow ours.
    assert not issubclass(error, OSError)


def test_a_wrong_configuration_is_also_a_value_error() -> None:
    assert issubclass(trio_lifecycle.ConfigError, ValueError)
