"""The checks before a start: all at once, and all that fail are reported together."""

from collections.abc import Sequence

import trio

from trio_lifecycle._errors import PreflightError
from trio_lifecycle.abc import Preflight


async def check_all(name: str, checks: Sequence[Preflight]) -> None:
    """Run all checks at once, and report all that fail together.

    Raises:
        PreflightError: At least one failed.
    """
    failures: dict[int, str] = {}

    @trio.lowlevel.enable_ki_protection
    async def check(number: int, preflight: Preflight) -> None:
        try:
            await preflight()
        except Exception as error:
            failures[number] = str(error) or type(error).__name__

    if checks:
        async with trio.open_nursery() as nursery:
            for number, preflight in enumerate(checks):
                nursery.start_soon(check, number, preflight)
    if failures:
        raise PreflightError(name, tuple(text for _, text in sorted(failures.items())))
