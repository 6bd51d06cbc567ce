"""What the body of a callback may say: a JSON object, in which four keys have a meaning."""

from collections.abc import Callable, Mapping
from math import isinf
from typing import Any, Final, NoReturn

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._urls import check_url, show_url

# What is nested deeper than a program's own stack allows would break whoever prints or stores it.
_DEEPEST: Final = 32

# Of a number, in an answer.
_LONGEST_NUMBER: Final = 32


def parse_body(body: bytes) -> dict[str, Any]:
    """Give what a body says; nothing, if it is empty.

    A key that is null counts as not given, except that it stands in the result.

    Raises:
        ValueError: It is no JSON object, or ``url``, ``port``, ``pid`` or ``instance_id`` is no
            such thing; the message is a sentence.
    """
    facts = _load(body) if body.strip() else {}
    if not isinstance(facts, dict):
        raise ValueError("the body is no JSON object")
    for key, check in _CHECKS.items():
        if facts.get(key) is not None:
            check(facts[key])
    return facts


def _load(body: bytes) -> Any:
    import json  # not at the top: few programs that import this package get callbacks

    try:
        value = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as error:
        raise ValueError(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _is_deeper(value, _DEEPEST):
        raise ValueError(_TOO_DEEP)
    return value


_TOO_DEEP: Final = f"the body is nested deeper than {_DEEPEST} levels"


def _refuse_constant(name: str) -> NoReturn:
    # Python's json takes NaN and Infinity; RFC 8259 section 6 does not.
    raise ValueError(f"{name} is no JSON value")


def _finite(number: str) -> float:
    # Python's json makes Infinity of 1e999, and writes what others can't read.
    value = float(number)
    if isinf(value):
        raise ValueError(f"{number[:_LONGEST_NUMBER]} is beyond what a number can hold")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [child for item in level for child in _children(item)]
    return any(isinstance(item, (dict, list)) for item in level)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_url(url: object) -> None:
    try:
        good = "\0" not in check_url("url", url)
    except ConfigError as error:
        # The URL itself, which begins the message, may carry a password.
        shown = show_url(url) if isinstance(url, str) else url
        raise ValueError(f"url {error.problem.removeprefix(f'{shown!r} ')}") from None
    if not good:
        raise ValueError("url contains a NUL")


def _check_port(port: object) -> None:
    if type(port) is not int or not 1 <= port <= 65_535:
        raise ValueError("port must be a number from 1 to 65535")


def _check_pid(pid: object) -> None:
    if type(pid) is not int or pid < 1:
        raise ValueError("pid must be a number above 0")


def _check_instance_id(instance_id: object) -> None:
    if not isinstance(instance_id, str):
        raise ValueError("instance_id must be a string")


_CHECKS: Final[Mapping[str, Callable[[object], None]]] = {
    "url": _check_url,
    "port": _check_port,
    "pid": _check_pid,
    "instance_id": _check_instance_id,
}
