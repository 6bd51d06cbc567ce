"""The checks before a start: all at once, and all that fail are reported together."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import trio

from trio_lifecycle._errors import PreflightError
from trio_lifecycle.abc import Placed, Preflight, Prober, Recovering

# A check may have another daemon started first. One that loads a model has 300 s by default, and
# somebody else's start of it may have to be waited for as long.
DEFAULT_CHECK_TIMEOUT_S: Final = 600.0

# What is waited for when the daemon is gone: the check that wants it, and what to ask.
Awaited = tuple[Recovering, Preflight]


async def check_all(name: str, checks: Sequence[Preflight], prober: Prober) -> list[Awaited]:
    """Run all checks at once, and report all that fail together.

    Args:
        name: The daemon's.
        checks: As they were given. Those that can look where the prober is do so.
        prober: How to ask, from where the daemon will run.

    Returns:
        What is to be waited for when the daemon is gone.

    Raises:
        PreflightError: At least one failed.
    """
    failures: dict[int, str] = {}
    awaited: list[Awaited] = []

    async def look(preflight: Preflight) -> None:
        check = _at(preflight, prober)
        answer: object = check()
        if not isinstance(answer, Awaitable):
            raise TypeError(f"{_name_of(preflight)} is no async callable: it gave {answer!r}")
        await answer
        if isinstance(check, Recovering) and check.wait_for_recovery:
            awaited.append((check, await check.recovery()))

    @trio.lowlevel.enable_ki_protection
    async def check(number: int, preflight: Preflight) -> None:
        problem = await find_problem(preflight, lambda: look(preflight))
        if problem is not None:
            failures[number] = problem

    if checks:
        async with trio.open_nursery() as nursery:
            for number, preflight in enumerate(checks):
                nursery.start_soon(check, number, preflight)
    if failures:
        raise PreflightError(name, tuple(text for _, text in sorted(failures.items())))
    return awaited


def _at(check: Preflight, prober: Prober) -> Preflight:
    if prober.is_here or not isinstance(check, Placed):
        return check
    return check.at(prober)


def awaited_after(checks: Sequence[Preflight], prober: Prober) -> list[Awaited]:
    """Say what is to be waited for when a daemon is gone that was not started here."""
    return [
        (check, check)
        for check in (_at(each, prober) for each in checks)
        if isinstance(check, Recovering) and check.wait_for_recovery
    ]


def limit_of(check: object) -> float:
    """Give the seconds that a check may take: its own word, or the default."""
    seconds: float = getattr(check, "check_timeout", DEFAULT_CHECK_TIMEOUT_S)
    return seconds


async def find_problem(check: object, look: Callable[[], Awaitable[object]]) -> str | None:
    """Look within the check's own limit; None when all is well."""
    limit_s = limit_of(check)
    with trio.move_on_after(limit_s):
        try:
            await look()
        except Exception as error:
            return "; ".join(_words_of(check, each) for each in _leaves(error))
        return None
    return (
        f"{_name_of(check)} took longer than its check_timeout of {limit_s:g} s: "
        "see what holds it up, or give it more"
    )


def _name_of(check: object) -> str:
    return getattr(check, "__qualname__", None) or repr(check)


def _leaves(error: Exception) -> Iterator[Exception]:
    """Give the errors in a group: a check with a nursery raises one."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _words_of(check: object, error: Exception) -> str:
    """Give its sentence; where it is none by itself, with the check's name."""
    if str(error) and not isinstance(error, KeyError):
        return str(error)
    return f"{_name_of(check)} raised {error!r}"
