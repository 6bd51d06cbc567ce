"""Whoever watches the demo: hears what all programs tell, and has it shown."""

import json as json_module
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final

import trio

from trio_lifecycle._cli._demo_rows import Row, Who, rows
from trio_lifecycle._cli._demo_stage import Stage
from trio_lifecycle._cli._json_lines import json_line
from trio_lifecycle._cli._session import Session
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle.demo._asking import Asker, AskingError, address, lines_of
from trio_lifecycle.demo._hub import Hub
from trio_lifecycle.observe._phases import is_event

# How often the picture is drawn anew, and the programs are asked how much memory they use.
_PICTURE_S: Final = 0.1
_MEMORY_S: Final = 0.5

# What has happened is told by each program to the next.
_ON_ITS_WAY_S: Final = 0.02

# The queen asks its hives every second, and so knows of a new worker no sooner.
_MEMORY_KNOWN_S: Final = 2.0


class Audience:
    """Hears, shows and keeps what happens. It goes on when the play is interrupted.

    Args:
        session: The streams.
        hub: What the keeper has seen.
        json: Whether events are printed, instead of the table.

    Attributes:
        events: What happened, of all programs.
    """

    def __init__(self, session: Session, hub: Hub, *, json: bool) -> None:
        self.events: list[dict[str, Any]] = []
        self._session = session
        self._hub = hub
        self._stage = None if json else Stage(session.out)
        self._asker = Asker()
        self._memory: dict[Who, int] = {}
        self._heard: set[str] = set()
        self._is_new = False
        self._closed = False
        self._tasks: trio.Nursery | None = None
        self._heard_queen: dict[str, trio.Event] = {}
        if self._stage is not None and self._stage.moves:
            session.display.draw_by(self._stage.pass_on)

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """Watch for the length of a block."""
        if self._stage is not None:
            self._stage.begin()
        try:
            # Shielded, for what is told after Ctrl-C is to be heard, too; the block is not.
            async with trio.open_nursery() as outer:
                scope, begun = trio.CancelScope(shield=True), trio.Event()
                outer.start_soon(self._watch, scope, begun)
                try:
                    await begun.wait()
                    yield
                finally:
                    scope.cancel()
        finally:
            self.close()

    async def _watch(self, scope: trio.CancelScope, begun: trio.Event) -> None:
        with scope:
            async with self._asker, trio.open_nursery() as self._tasks:
                self._tasks.start_soon(self._hear, self._hub.listen())
                self._tasks.start_soon(self._draw)
                begun.set()

    def close(self) -> None:
        """Leave the last picture; what is told then stands below it."""
        if self._stage is not None and not self._closed:
            self._closed = True
            self._stage.show_rows(self.rows())
            self._stage.end()

    # --- what is heard ---

    def hear(self, queen: DaemonHandle) -> None:
        """Hear what a queen tells from now on; one that is known already is not heard twice."""
        if queen.instance_id not in self._heard_queen and self._tasks is not None:
            self._heard_queen[queen.instance_id] = trio.Event()
            self._tasks.start_soon(self._hear_queen, queen)
            self._tasks.start_soon(self._ask_memory, address(queen, "/health"))

    async def hear_all(self, patience_s: float) -> None:
        """Wait for the last words of the queens that have ended."""
        with trio.move_on_after(patience_s):
            for heard in self._heard_queen.values():
                await heard.wait()
        # What the keeper itself has seen is on its way, too.
        await trio.sleep(_PICTURE_S)

    async def hear_memory(self) -> None:
        """Wait until all have said how much memory they use; some never do."""
        with trio.move_on_after(_MEMORY_KNOWN_S):
            while self._lacks_memory():  # noqa: ASYNC110  # nobody tells
                await trio.sleep(_PICTURE_S)

    def _lacks_memory(self) -> bool:
        return any(row.memory_mib is None and row.state == "ready" for row in self.rows())

    async def _hear(self, lines: AsyncGenerator[bytes]) -> None:
        async with aclosing(lines):
            async for line in lines:
                self._note(line.decode())

    async def _hear_queen(self, queen: DaemonHandle) -> None:
        try:
            async with self._asker.stream("GET", address(queen, "/events")) as bits:
                async for line in lines_of(bits):
                    self._note(line)
        except AskingError:
            pass  # It has ended.
        self._heard_queen[queen.instance_id].set()

    def _note(self, line: str) -> None:
        # A queen that takes up what another has left tells all of it again.
        if line in self._heard:
            return
        self._heard.add(line)
        event = json_module.loads(line)
        self.events.append(event)
        self._is_new = True
        if self._stage is None:
            self._session.out.write(json_line(event))

    def note_end(self, row: Row) -> None:
        """Take down that a daemon is gone whose own starter, killed as it was, tells of nothing."""
        told = [each for each in self.events if each.get("by") == row.by]
        last = [each for each in told if each["name"] == row.name and is_event(each)][-1]
        same = {key: last[key] for key in ("by", "name", "instance_id", "host") if key in last}
        # What never had a process was given up.
        how = {"pid": row.pid, "rung": "SIGKILL"} if row.pid is not None else {}
        self._note(json_module.dumps({**same, "event": "stopped", "time": time.time(), **how}))

    async def _ask_memory(self, url: str) -> None:
        while True:
            try:
                self._memory |= _memory_in(await self._asker.get(url))
                self._is_new = True
            except AskingError:
                return  # It has ended.
            await trio.sleep(_MEMORY_S)

    # --- what is shown ---

    def rows(self) -> list[Row]:
        """Give the rows of the table."""
        return rows(self.events, self._memory)

    async def _draw(self) -> None:
        found: list[Row] = []
        while self._stage is not None and not self._closed:
            if self._is_new:
                self._is_new, found = False, self.rows()
            self._stage.show_rows(found)
            await trio.sleep(_PICTURE_S)

    async def announce(self, text: str) -> None:
        """Tell people what comes, below what has come: that is on its way."""
        if self._stage is not None:
            await trio.sleep(_ON_ITS_WAY_S)
            self._stage.show_rows(self.rows())
            self._stage.say(text)

    def tell(self, text: str) -> None:
        """Tell people at once."""
        if self._stage is not None:
            self._stage.say(text)

    def complain(self, text: str) -> None:
        """Say what went wrong."""
        self._session.display.complain(text)

    @contextmanager
    def text(self, begin: str) -> Iterator[Callable[[str], object]]:
        """Show a text as it is made, by what is given; and keep as much of it as came."""
        if self._stage is None:
            yield lambda _word: None
            return
        self._stage.begin_text(begin)
        try:
            yield self._stage.go_on
        finally:
            self._stage.end_text()


def _memory_in(health: dict[str, Any]) -> dict[Who, int]:
    """Read how much memory each daemon has used: the queen, its hives, their workers."""
    found: dict[Who, int | None] = {("rbee-keeper", "queen-rbee"): health["memory_mib"]}
    for hive in health["hives"]:
        name = f"rbee-hive@{hive['host']}"
        found["queen-rbee", name] = hive["memory_mib"]
        for worker in hive["workers"] or ():
            found[name, worker["name"]] = worker["memory_mib"]
    return {who: mib for who, mib in found.items() if mib is not None}
