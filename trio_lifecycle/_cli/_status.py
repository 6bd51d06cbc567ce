"""``trio-lifecycle status``: which daemons are recorded, and which of them run."""

import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import trio
from attrs import frozen
from rich.table import Table
from rich.text import Text

from trio_lifecycle._cli._codes import (
    ALL_WELL,
    NOT_RUNNING,
    UNKNOWN,
    status_of_error,
)
from trio_lifecycle._cli._complaints import complaints_to
from trio_lifecycle._cli._connect import connect_plainly
from trio_lifecycle._cli._display import place_of
from trio_lifecycle._cli._json_lines import json_line
from trio_lifecycle._cli._machine_options import HERE, MachineOptions
from trio_lifecycle._cli._sentences import printable, sentence_of
from trio_lifecycle._cli._speech import STDOUT, answer, say
from trio_lifecycle._cli._tables import empty_table, fits, in_words, render
from trio_lifecycle._cli._which import (
    check_names,
    is_elsewhere,
    none_recorded,
    registry_to_read,
    unrecorded,
)
from trio_lifecycle._errors import DaemonStateUnknownError, LifecycleError
from trio_lifecycle._status import signal_name
from trio_lifecycle.abc import DaemonRecord

State = Literal["running", "starting", "stopping", "gone", "unknown"]

_STYLES: Final[dict[State, str]] = {
    "running": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "gone": "red",
    "unknown": "magenta",
}


# What a problem explains.
_KNOWN: Final = {"unknown": "the state of {} is unknown", "gone": "{} is not running"}


@frozen
class Finding:
    """What was found of one daemon.

    Attributes:
        name: The daemon's name.
        state: What it does at this moment.
        record: What is remembered of it, if anything is.
        problem: Why it can't be told whether it runs, or why nothing is known; or nothing.
    """

    name: str
    state: State
    record: DaemonRecord | None = None
    problem: str = ""


@frozen(kw_only=True)
class Status:
    """One look at the registry, from the options as they were written to the exit status."""

    names: tuple[str, ...] = ()
    registry: str | None = None
    json: bool = False
    machine: MachineOptions = HERE

    def __call__(self) -> int:
        """Look, and show what there is; nothing is changed.

        Returns:
            The exit status.
        """
        try:
            with complaints_to(say):
                findings = trio.run(self._look)
            return self._show(findings)
        except LifecycleError as error:
            say(sentence_of(error, with_output=False))
            return status_of_error(error)

    async def _look(self) -> list[Finding]:
        wanted = check_names(self.names)
        await connect_plainly(self.machine)
        records = await registry_to_read(self.registry).daemons()
        recorded = {record.name: record for record in records}
        if not wanted:
            return [await self._look_at(record) for record in await self._asked_of(records)]
        return [
            await self._look_at(recorded[name])
            if name in recorded
            else Finding(name, "gone", problem=unrecorded(name, records))
            for name in wanted
        ]

    async def _asked_of(self, records: list[DaemonRecord]) -> list[DaemonRecord]:
        if self.machine.is_here:
            return records
        return await self.machine.elsewhere().those_of(records)

    async def _look_at(self, record: DaemonRecord) -> Finding:
        return await look_at(record, self.machine)

    def _show(self, findings: list[Finding]) -> int:
        if status := answer(self._text(findings)):
            return status
        if not findings:
            say(none_recorded(self.registry, self.machine.host))
        for finding in findings:
            if finding.problem:
                say(f"{_KNOWN[finding.state].format(finding.name)}: {printable(finding.problem)}")
        return exit_status(findings)

    def _text(self, findings: list[Finding]) -> str:
        if self.json:
            return as_json(findings)
        recorded = [finding for finding in findings if finding.record is not None]
        return as_table(recorded, STDOUT) if recorded else ""


async def look_at(record: DaemonRecord, machine: MachineOptions) -> Finding:
    """Look on a machine whether the daemon of a record runs there."""
    try:
        process = await machine.spawner().find_process(record)
    except DaemonStateUnknownError as error:
        ask = machine.is_here and is_elsewhere(record)
        hint = f"; ask {record.host} with --host" if ask else ""
        return Finding(record.name, "unknown", record, f"{error.problem}{hint}")
    if process is None or process.ended:
        return Finding(record.name, "gone", record)
    return Finding(record.name, "running" if record.state == "ready" else record.state, record)


def exit_status(findings: Sequence[Finding]) -> int:
    """Say which exit status several findings have together."""
    states = {finding.state for finding in findings}
    if "unknown" in states:
        return UNKNOWN
    return NOT_RUNNING if "gone" in states else ALL_WELL


# --- how it is shown ------------------------------------------------------------------------------


def as_json(findings: list[Finding]) -> str:
    """Write one object a line."""
    return "".join(json_line(_facts(finding)) for finding in findings)


def _facts(finding: Finding) -> dict[str, Any]:
    # Not what it said of itself when it became ready: there may be a secret in that.
    keys = ("pid", "url", "port", "instance_id", "host", "started_at", "log_file")
    record = finding.record
    return {
        "name": finding.name,
        "state": finding.state,
        **{key: getattr(record, key, None) for key in keys},
        "age_s": None if record is None else round(age_s(record), 2),
        "stop_ladder": None if record is None else _ladder(record),
        "problem": finding.problem or None,
    }


def _ladder(record: DaemonRecord) -> list[tuple[str, float]]:
    return [(signal_name(signum), seconds) for signum, seconds in record.stop_ladder]


def as_table(findings: list[Finding], fd: int) -> str:
    """Write a row each; where these do not fit, without the ages, or else some lines each.

    Nothing is cut off: half a name or half an address is of no use.
    """
    for with_age in (True, False):
        table = _table(findings, with_age=with_age)
        if fits(table, fd):
            return render(table, fd)
    return "".join(render(_lines(finding), fd, folds=False) for finding in findings)


def _table(findings: list[Finding], *, with_age: bool) -> Table:
    machines = [_machine(finding) for finding in findings]
    table = empty_table()
    table.add_column("daemon")
    table.add_column("state")
    table.add_column("process", justify="right")
    if with_age:
        table.add_column("age", justify="right")
    if any(machines):
        table.add_column("machine")
    table.add_column("where")
    for finding, machine in zip(findings, machines, strict=True):
        # No plain text: what looks like Rich's markup is the daemon's own.
        name, state, where = Text(finding.name), _state(finding), _where(finding)
        age = (_age(finding),) if with_age else ()
        on = (Text(machine),) if any(machines) else ()
        table.add_row(name, state, _pid(finding), *age, *on, where)
    return table


def _lines(finding: Finding) -> Text:
    age = _age(finding)
    machine = _machine(finding)
    on = f" on {machine}" if machine else ""
    facts = f", process {_pid(finding)}{on}" + (f", {age}" if age else "")
    where = _where(finding)
    place = Text.assemble("\n  ", where) if where else ""
    return Text.assemble(finding.name, "\n  ", _state(finding), facts, place)


def _state(finding: Finding) -> Text:
    return Text(finding.state, _STYLES[finding.state])


def _pid(finding: Finding) -> str:
    assert finding.record is not None
    return str(finding.record.pid)


def _machine(finding: Finding) -> str:
    """Name the machine, as it names itself; nothing where it is this one."""
    assert finding.record is not None
    return printable(finding.record.host) if is_elsewhere(finding.record) else ""


def _age(finding: Finding) -> str:
    assert finding.record is not None
    return "" if finding.state == "gone" else in_words(age_s(finding.record))


def _where(finding: Finding) -> Text:
    assert finding.record is not None
    return Text(place_of(finding.record.url, finding.record.port), "cyan")


def age_s(record: DaemonRecord) -> float:
    """Say how many seconds ago it was started."""
    # The clock may have been set back since then.
    return max(0.0, time.time() - record.started_at)
