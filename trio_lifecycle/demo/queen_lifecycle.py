"""How queen-rbee has its hives: one function for this machine and for others, over SSH."""

from trio_lifecycle import (
    FREE_PORT,
    DaemonHandle,
    DaemonLifecycle,
    DaemonNotRunningError,
    SSHSpawner,
    attach,
)
from trio_lifecycle.abc import Observer
from trio_lifecycle.demo._programs import PROGRAMS

HERE = "localhost"
HEALTH = f"http://127.0.0.1:{FREE_PORT}/health"


class HiveLifecycles:
    """Starts hives that outlive the queen, and finds them again."""

    def __init__(self, args: list[str], observer: Observer) -> None:
        self._args = args
        self._observer = observer
        self._of: dict[str, DaemonLifecycle] = {}

    def of(self, host: str) -> DaemonLifecycle:
        if host not in self._of:
            self._of[host] = DaemonLifecycle.with_health_check(
                "rbee-hive",
                HEALTH,
                ["--name", host, "--port", FREE_PORT, *self._args],
                name=f"rbee-hive@{host}",
                search_path=[PROGRAMS],
                spawner=spawner(host),
                observer=self._observer,
            )
        return self._of[host]

    async def find(self, host: str) -> DaemonHandle | None:
        try:
            name = f"rbee-hive@{host}"
            return await attach(name, spawner=spawner(host), observer=self._observer)
        except DaemonNotRunningError:
            return None


def spawner(host: str) -> SSHSpawner | None:
    return None if host == HERE else SSHSpawner(host)
