"""How rbee-keeper has queen-rbee running: found when it runs, else started and left running."""

from trio_lifecycle import FREE_PORT, DaemonHandle, DaemonLifecycle
from trio_lifecycle.abc import Observer
from trio_lifecycle.demo._programs import PROGRAMS

HEALTH = f"http://127.0.0.1:{FREE_PORT}/health"


async def ensure_queen_running(args: list[str], observer: Observer | None = None) -> DaemonHandle:
    queen = DaemonLifecycle.with_health_check(
        "queen-rbee",
        HEALTH,
        ["--port", FREE_PORT, *args],
        ready_timeout=30,
        search_path=[PROGRAMS],
        observer=observer,
    )
    return await queen.ensure_running()
