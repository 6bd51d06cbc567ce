"""What a person sees: progress, the daemon's output, and what became of it."""

from collections.abc import Callable
from typing import Final

import trio

from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._paint import ERASE_LINE, Paint
from trio_lifecycle._events import (
    Adopted,
    Event,
    Found,
    Left,
    Ready,
    Spawned,
    Starting,
    Stopped,
    Stopping,
)

# Four pictures a second are enough for a spinner to look alive, and cost 1 % of a core.
TICK_S: Final = 0.25

# Lines about a wait, where none can be rewritten: after 5, 10, 20, 40, 80 s, then every minute.
_FIRST_WORD_S: Final = 5.0
_LONGEST_SILENCE_S: Final = 60.0

QUIET: Final = -1
VERBOSE: Final = 1


def next_word_s(waited_s: float) -> float:
    """Say after how many seconds of waiting the next line about it is due."""
    return waited_s + min(max(waited_s, _FIRST_WORD_S), _LONGEST_SILENCE_S)


class Wait:
    """A wait that is going on.

    Args:
        what: Says what is waited for.
        seen: Says what was seen last, or nothing.
    """

    def __init__(self, what: Callable[[], str], seen: Callable[[], str]) -> None:
        self.what = what
        self.seen = seen
        self.began = trio.current_time()
        self.next_word_s = next_word_s(0)
        self.said = ""

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return trio.current_time() - self.began

    def __str__(self) -> str:
        seen = self.seen()
        return f"{self.what()} ({self.seconds:.0f} s)" + (f": {seen}" if seen else "")


class Display:
    """Writes lines for people: ``web: ready at ...`` is ours, ``web | ...`` is the daemon's output.

    On a terminal the last line shows what is waited for, and for how long.

    Args:
        outlet: Where to write.
        paint: What can be shown there.
        verbosity: -1 shows errors only, 1 also the small steps.
    """

    def __init__(self, outlet: Outlet, paint: Paint, verbosity: int) -> None:
        self._outlet = outlet
        self._paint = paint
        self._verbosity = verbosity
        self._status = ""
        self._wait: Wait | None = None
        self._wait_begins = trio.Event()
        self._last_words: list[str] = []
        self._name = "?"
        self._prefix = ""
        self.awaited: Callable[[], str] = lambda: ""
        self.last_seen: Callable[[], str] = lambda: ""

    def name(self, name: str) -> None:
        """Say what the daemon is called."""
        self._name = name
        self._prefix = self._paint.prefix(f"{name} | ")

    # --- lines ---

    def output(self, line: str) -> None:
        """Show a line of the daemon's output."""
        self._write(f"{self._prefix}{line}")

    def say(self, text: str) -> None:
        """Say something about the daemon."""
        if self._verbosity > QUIET:
            self._write(f"{self._name}: {text}")

    def complain(self, text: str) -> None:
        """Say what went wrong, however quiet we shall be."""
        self._write(f"trio-lifecycle: {text}")

    def _write(self, line: str) -> None:
        erase = ERASE_LINE if self._status else ""
        self._outlet.write(f"{erase}{line}\n{self._status}")

    # --- events ---

    def observe(self, event: Event) -> None:
        """Show an event; what comes after the daemon's last output is kept until `conclude`."""
        match event:
            case Spawned() if self.awaited():
                self._begin(Wait(lambda: f"waiting for {self.awaited()}", self.last_seen))
            case Ready():
                self.end_wait()
                place = event.url or (f"port {event.port}" if event.port else "")
                at = f"at {place}, " if place else ""
                self.say(f"ready {at}process {event.pid}, after {event.ready_after_s:.2f} s")
            case Adopted():
                process = f"process {event.pid}" if event.pid else "a process that can't be seen"
                self.say(f"ran already at {event.url}, {process}: it is used, and left running")
            case Stopping():
                self._begin(Wait(lambda: "stopping", lambda: f"{event.rung} was sent"))
                if event.rung == "SIGKILL":
                    self.say("is still there; gets SIGKILL")
            case Stopped() | Left():
                self._last_words.append(str(event).removeprefix(f"{event.name} "))
        if self._verbosity >= VERBOSE and isinstance(event, Starting | Found | Spawned | Stopping):
            self._write(str(event))

    def conclude(self) -> None:
        """Say what there is to say once all output has been shown."""
        self.end_wait()
        for words in self._last_words:
            self.say(words)
        self._last_words.clear()

    # --- waits ---

    def _begin(self, wait: Wait) -> None:
        self.end_wait()
        if self._verbosity > QUIET:
            self._wait = wait
            self._wait_begins.set()

    def end_wait(self) -> None:
        """Show no wait any more."""
        self._wait = None
        # Replaced only if nobody waits for it.
        if self._wait_begins.is_set():
            self._wait_begins = trio.Event()
        self._show("")

    def _show(self, status: str) -> None:
        if status or self._status:
            self._outlet.write(ERASE_LINE + status)
        self._status = status

    async def run(self) -> None:
        """Keep what is shown of a wait up to date."""
        while True:
            await self._wait_begins.wait()
            if self._wait is not None:
                self._tell(self._wait)
            await trio.sleep(TICK_S)

    def _tell(self, wait: Wait) -> None:
        seen = wait.seen()
        if self._verbosity >= VERBOSE and seen != wait.said:
            wait.said = seen
            self.say(str(wait))
        if self._paint.moves:
            self._show(self._paint.status(f"{self._name}: {wait}", wait.seconds))
        elif wait.seconds >= wait.next_word_s:
            wait.next_word_s = next_word_s(wait.seconds)
            self.say(str(wait))
