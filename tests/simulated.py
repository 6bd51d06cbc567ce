"""Tests that run in simulated time."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from trio_lifecycle.testing import run_simulated


def in_simulated_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test with a clock of its own that jumps over every wait."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def call() -> None:
            await test(*args, **kwargs)

        run_simulated(call)

    return run
