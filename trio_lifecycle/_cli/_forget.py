"""``trio-lifecycle stop --forget``: records removed, where nobody can judge them any more."""

from typing import Final

from trio_lifecycle._cli._codes import ALL_WELL
from trio_lifecycle._cli._connect import connect
from trio_lifecycle._cli._display import QUIET
from trio_lifecycle._cli._json_lines import json_line
from trio_lifecycle._cli._sentences import printable
from trio_lifecycle._cli._session import Session
from trio_lifecycle._cli._status import Finding, age_s, look_at
from trio_lifecycle._cli._stop import Wanted
from trio_lifecycle._cli._tables import in_words
from trio_lifecycle._cli._which import check_names, registry_to_read, unrecorded
from trio_lifecycle.abc import DaemonRecord, Registry

_LEFT_ALONE: Final = "nobody was signalled, so it is left alone if it lives"


class Forget:
    """One removal of one or more records; it signals nobody."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        verbosity = QUIET if wanted.quiet else 0
        self._session = Session(verbosity, lambda _key: "", settle=self._settle)

    async def __call__(self) -> int:
        """Remove them, and say what of.

        Returns:
            The exit status.
        """
        self._session.display.name("trio-lifecycle")
        return await self._session.run(self._forget_all, _kill_nothing)

    def _settle(self, status: int) -> int:
        return self._session.insist_on_output(status)

    async def _forget_all(self) -> int:
        self._wanted.check()
        await connect(self._wanted.machine, self._session.display)
        registry = registry_to_read(self._wanted.registry)
        for name in check_names(self._wanted.names):
            await self._forget(name, registry)
        return ALL_WELL

    async def _forget(self, name: str, registry: Registry) -> None:
        record = await registry.get(name)
        if record is None:
            self._session.display.say(unrecorded(name, await registry.daemons()), name)
            self._tell(Finding(name, "gone"), removed=False)
            return
        finding = await look_at(record, self._wanted.machine)
        removed = await registry.remove(record)
        if not removed:
            self._session.display.say("its record was exchanged meanwhile, and is left", name)
        elif finding.state in ("gone", "unknown"):
            what = "which is gone" if finding.state == "gone" else _LEFT_ALONE
            self._session.display.say(f"its record was removed: {_process(record)}; {what}", name)
        else:
            self._session.display.complain(
                f"{name} runs on, and is known to nobody any more: {_process(record)}; "
                f"end it with: kill {record.pid}{self._there}"
            )
        self._tell(finding, removed=removed)

    @property
    def _there(self) -> str:
        machine = self._session.display.machine
        return f" (on {machine})" if machine else ""

    def _tell(self, finding: Finding, *, removed: bool) -> None:
        if self._wanted.json:
            keys = ("pid", "host", "instance_id", "started_at")
            facts = {key: getattr(finding.record, key, None) for key in keys}
            told = {"event": "forgotten", "name": finding.name, "removed": removed}
            self._session.out.write(json_line(told | {"state": finding.state} | facts))


def _process(record: DaemonRecord) -> str:
    age = in_words(age_s(record))
    return f"process {record.pid} of machine {printable(record.host)}, started {age} ago"


async def _kill_nothing() -> None:
    """Do nothing: a second Ctrl-C finds us gone."""
