"""What the demo shows of daemons, and says of them in the end, made of events alone."""

import os
import pty
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from rich.console import Console

from tests import cli
from trio_lifecycle import SpawnError
from trio_lifecycle._cli import _demo_end, _demo_stage
from trio_lifecycle._cli._codes import DEMO_EXIT_STATUSES, table
from trio_lifecycle._cli._demo_audience import Audience
from trio_lifecycle._cli._demo_rows import Row, rows
from trio_lifecycle._cli._demo_table import table as demo_table
from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._session import Session
from trio_lifecycle.demo._asking import AskingError
from trio_lifecycle.demo._hub import Hub


def event(kind: str, name: str, by: str, at: float, **more: Any) -> dict[str, Any]:
    """Make an event."""
    who = {"event": kind, "name": name, "by": by, "instance_id": name, "time": at}
    return {**who, **more}


def some_rows() -> list[Row]:
    """Give rows of daemons on two machines."""
    hive = "rbee-hive@gpu-2"
    events = [
        event("starting", "queen-rbee", "rbee-keeper", 1),
        event("spawned", "queen-rbee", "rbee-keeper", 2, pid=7),
        event("ready", "queen-rbee", "rbee-keeper", 3, pid=7),
        event("adopted", hive, "queen-rbee", 4, pid=8),
        event("spawned", "w@m", hive, 5, pid=9, host="gpu-2"),
        event("spawned", "v@n", hive, 5, pid=10, host="gpu-2"),
        event("died", "v@n", hive, 6, pid=10, host="gpu-2"),
    ]
    return rows(events, {(hive, "w@m"): 12})


def shown(found: Sequence[Row], width: int | None) -> list[list[str]]:
    """Draw a table, and give its cells."""
    console = Console(width=200)
    with console.capture() as captured:
        console.print(demo_table(found, 8.0, width))
    return [re.split(r"\s{2,}", line.strip()) for line in captured.get().splitlines()]


def test_rows_say_who_started_whom_and_how_each_is() -> None:
    assert [
        ["program", "state", "process", "ready after", "memory", "machine"],
        ["queen-rbee", "ready", "7", "1.00 s"],
        ["rbee-hive@gpu-2", "ready", "8", "gpu-2"],
        ["w@m", "loading", "9", "3.0 s ...", "12 MiB", "gpu-2"],
        ["v@n", "died", "10", "gpu-2"],
    ] == shown(some_rows(), None)


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (62, "program state process ready after machine"),
        (50, "program state process ready after"),
        (45, "program state ready after"),
        (30, "program state"),
        (5, "program"),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns(width: int, heads: str) -> None:
    assert heads == " ".join(shown(some_rows(), width)[0])


def test_a_long_wait_is_told_of_now_and_then_where_nothing_moves(tmp_path: Path) -> None:
    now = time.time()
    with (tmp_path / "out").open("w") as file:
        stage = _demo_stage.Stage(Outlet(file.fileno(), lambda: None))
        stage.moves = False
        for waited_s in (0, 3, 6, 7, 13):
            spawned = event("spawned", "queen-rbee", "rbee-keeper", now - waited_s, pid=7)
            stage.show_rows(rows([spawned], {}))
    assert [
        "  queen-rbee: loading",
        "  queen-rbee: loading (6 s)",
        "  queen-rbee: loading (13 s)",
    ] == (tmp_path / "out").read_text().splitlines()


def test_what_was_not_seen_to_be_gone_is_named() -> None:
    said = _demo_end.remainder(["rbee-hive@gpu-2", "w@m"])
    assert said.startswith("not seen to be gone: rbee-hive@gpu-2, w@m; stop what is left")
    assert "1 daemon was started, and nothing is left of it" == _demo_end.farewell(1)


def test_of_a_long_text_a_small_terminal_shows_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setattr(_demo_stage, "STDOUT", theirs)
    for name, value in {"TERM": "xterm", "COLUMNS": "40", "LINES": "10"}.items():
        monkeypatch.setenv(name, value)
    with (tmp_path / "out").open("w") as file:
        stage = _demo_stage.Stage(Outlet(file.fileno(), lambda: None))
        stage.begin()
        stage.show_rows(some_rows())
        stage.begin_text("Once")
        stage.go_on(" upon a time" * 20 + " the end")
        shown = (tmp_path / "out").read_text().splitlines()[-4:]
        stage.end()
    os.close(ours)
    os.close(theirs)
    assert ["", True, True] == [shown[0].strip(), *("upon" in line for line in shown[1:3])]
    assert shown[-1].endswith("the end")


class _Keeper:
    """A keeper whose queen has ended, or else neither stops nor can be killed."""

    def __init__(self, kill: Callable[[], Awaitable[object]] | None = None) -> None:
        self.used: Any = SimpleNamespace(instance_id="queen", url="http://x", kill=kill)

    async def queen(self) -> Any:
        return self.used

    async def stop(self) -> list[dict[str, Any]]:
        if self.used.kill is not None:
            raise AskingError("the queen is silent")
        return []


async def ended_by(keeper: _Keeper, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Have the demo end that has seen a hive on another machine; give what it says."""
    audience = Audience(Session(0, str), Hub("rbee-keeper"), json=True)
    for name, by in (("queen-rbee", "rbee-keeper"), ("rbee-hive@gpu-2", "queen-rbee")):
        audience.events += [event(kind, name, by, 1.0) for kind in ("starting", "spawned", "ready")]
    audience.events.append(event("stopped", "queen-rbee", "rbee-keeper", 2.0))
    # No hive of this name is recorded, so there is none to be killed.
    end: Any = _demo_end.End(keeper, audience, ())  # type: ignore[arg-type]
    return await end.come(), capfd.readouterr().err


async def test_a_hive_of_another_machine_that_nobody_tells_of_any_more_is_named(
    capfd: pytest.CaptureFixture[str],
) -> None:
    status, said = await ended_by(_Keeper(), capfd)
    cure = "stop what is left of that with: rbee-keeper stop"
    assert (125, f"trio-lifecycle: not seen to be gone: rbee-hive@gpu-2; {cure}\n") == (
        status,
        said,
    )


async def _refuse() -> None:
    raise SpawnError("queen-rbee", "it is not ours")


@pytest.mark.parametrize(
    ("kill", "problem"),
    [
        (_refuse, "queen-rbee can't be killed: "),
        (trio.sleep_forever, "not all was seen to be gone within 0 s"),
    ],
)
async def test_a_queen_that_can_not_be_killed_is_told_of(
    kill: Callable[[], Awaitable[object]],
    problem: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_demo_end, "_KILL_S", 0.1)
    status, said = await ended_by(_Keeper(kill), capfd)
    assert 125 == status
    assert said.startswith(f"trio-lifecycle: the queen is silent\ntrio-lifecycle: {problem}")


def test_the_documented_exit_statuses_are_those_of_the_program() -> None:
    assert "\n".join(table(DEMO_EXIT_STATUSES)) in cli.PAGE.read_text()
