"""What a person sees: progress, the daemon's output, and what became of it."""

from collections.abc import Callable
from typing import Final

import trio

from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._paint import ERASE_LINE, Paint
from trio_lifecycle._cli._sentences import in_shell_words, printable
from trio_lifecycle._events import (
    Adopted,
    Checked,
    ClaimAwaited,
    ConfigChanged,
    Event,
    Found,
    Left,
    Ready,
    RecordStale,
    Spawned,
    Starting,
    Stopped,
    Stopping,
    Unseen,
)
from trio_lifecycle._proc import command_line
from trio_lifecycle._status import describe_status

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
        verb: What is going on.
        what: Says what for, or nothing.
        seen: Says what was seen last, or nothing.
        said: What was said of that already.
    """

    def __init__(
        self, verb: str, what: Callable[[], str], seen: Callable[[], str], said: str = ""
    ) -> None:
        self.verb = verb
        self.what = what
        self.seen = seen
        self.began = trio.current_time()
        self.next_word_s = next_word_s(0)
        self.said = said

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return trio.current_time() - self.began

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waited for yet, or nothing ever will be."""
        return self.verb == "waiting" and not self.what()

    def __str__(self) -> str:
        # The seconds come first: a narrow terminal has no room for the rest of a long URL.
        what, seen = self.what(), self.seen()
        words = f"{self.verb} ({self.seconds:.0f} s)" + (f" for {what}" if what else "")
        return f"{words}: {seen}" if seen else words


class Display:
    """Writes lines for people: ``web: ready at ...`` is ours, ``web | ...`` is the daemon's output.

    On a terminal the last line shows what is waited for, and for how long.

    Args:
        outlet: Where to write.
        paint: What can be shown there.
        verbosity: -1 shows errors only, 1 also the small steps.

    Attributes:
        announces: Whether to say where the daemon is once it is up.
        adopted: Whether the daemon ran already, so that it is left and not stopped.
        awaited: Says what the daemon's start waits for; empty where it does not wait.
        last_seen: Says what was seen of that last.
        blot_out: Takes secrets out of a text.
        machine: Where it runs, if that is not this machine.
    """

    def __init__(self, outlet: Outlet, paint: Paint, verbosity: int) -> None:
        self._put: Callable[[str], object] = outlet.write
        self._paint = paint
        self._verbosity = verbosity
        self._status = ""
        self._wait: Wait | None = None
        self._wait_begins = trio.Event()
        self._last_words: list[str] = []
        self._name = "?"
        self._prefix = ""
        self._asked = False
        self.announces = True
        self.adopted = False
        self.machine = ""
        self.awaited: Callable[[], str] = lambda: ""
        self.last_seen: Callable[[], str] = lambda: ""
        self.blot_out: Callable[[str], str] = lambda text: text

    def name(self, name: str, prefix: str | None = None) -> None:
        """Say what the daemon is called, and what stands before its output; that is its name."""
        self._name = name
        self._prefix = self._paint.prefix(f"{name} | " if prefix is None else prefix)

    def draw_by(self, put: Callable[[str], object]) -> None:
        """Hand what is to be written to somebody else, who draws on the same terminal."""
        self._put = put

    # --- lines ---

    def output(self, line: str) -> None:
        """Show a line of the daemon's output."""
        self._write(f"{self._prefix}{self._paint.passed_on(line)}")

    def say(self, text: str, name: str = "") -> None:
        """Say something about the daemon, or about another one."""
        if self._verbosity > QUIET:
            self._write(f"{name or self._name}: {text}")

    def answer(self, text: str) -> None:
        """Say something after a key was pressed, which the terminal has echoed on its last line."""
        if self._verbosity > QUIET:
            self._write(f"{self._name}: {text}", self._paint.fresh_line)

    def complain(self, text: str) -> None:
        """Say what went wrong, however quiet we shall be."""
        # It may end with the last output of a daemon.
        lines = map(self._paint.passed_on, f"trio-lifecycle: {text}".split("\n"))
        self._write("\n".join(lines))

    def _write(self, line: str, fresh: str = "") -> None:
        erase = ERASE_LINE if self._status else fresh
        self._put(f"{erase}{self.blot_out(line)}\n{self._status}")

    # --- events ---

    def observe(self, event: Event) -> None:
        """Show an event; what comes after the daemon's last output is kept until `conclude`."""
        match event:
            case Found() | Checked() | RecordStale():
                self._say_last_words()
                self._say_step(event)
            case Starting() | Spawned():
                self._say_last_words()
                self._say_step(event)
                self.begin(Wait("waiting", self.awaited, self.last_seen))
            case ClaimAwaited():
                self._say_step(event)
                self.begin(Wait("waiting", lambda: _starter(event.holder_pid), lambda: ""))
            case ConfigChanged() if event.action != "error":
                self.say(in_shell_words(_sentence(event)))
            case Ready():
                self.end_wait()
                if self.announces:
                    place = place_of(event.url, event.port)
                    at = f" at {place}" if place else ""
                    who = f"process {event.pid}{self._there}"
                    self.say(f"ready{at}, {who}, after {event.ready_after_s:.2f} s")
            case Adopted():
                self.end_wait()
                self.adopted = True
                if self.announces:
                    at = f" at {printable(event.url)}" if event.url else ""
                    who = self._owner(event.pid)
                    self.say(f"ran already{at}, {who}: it is used, and left running")
            case Unseen():
                self.say(_sentence(event))
                self.begin(Wait("stopping", lambda: "", lambda: "it can't be seen"))
            case Stopping():
                self._show_stopping(event)
            case Stopped(rung=None):
                self._last_words.append(f"ended ({describe_status(event.status)})")
            case Stopped() | Left():
                self._last_words.append(_sentence(event))

    @property
    def _there(self) -> str:
        return f" on {self.machine}" if self.machine else ""

    def _owner(self, pid: int | None) -> str:
        if pid is None:
            return "a process that can't be seen"
        # On another machine it is another process that has the number.
        command = "" if self.machine else command_line(pid)
        return f"process {pid}{self._there}" + (f" ({command})" if command else "")

    def _say_step(self, event: Event) -> None:
        if self._verbosity >= VERBOSE:
            self.say(_sentence(event))

    def _show_stopping(self, event: Stopping) -> None:
        seen = f"{event.rung} was sent"
        self.begin(Wait("stopping", lambda: "", lambda: seen, said=seen))
        if event.rung == "SIGKILL":
            self.say("is still there; gets SIGKILL" if self._asked else "gets SIGKILL")
        else:
            self._asked = True
            self._say_step(event)

    def show_command_told(self, rung: str) -> None:
        """Show that the command of ``--then`` was sent a signal, and is waited for."""
        seen = f"{rung} was sent"
        self.begin(Wait("waiting", lambda: "the command of --then", lambda: seen))
        if rung == "SIGKILL":
            self.say("the command of --then is still there; gets SIGKILL")

    def conclude(self) -> None:
        """Say what there is to say once all output has been shown."""
        self.end_wait()
        self._say_last_words()

    def _say_last_words(self) -> None:
        for words in self._last_words:
            self.say(words)
        self._last_words.clear()

    # --- waits ---

    def begin(self, wait: Wait) -> None:
        """Show this wait from now on."""
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
        status = self.blot_out(status)
        if status or self._status:
            self._put(ERASE_LINE + status)
        self._status = status

    async def run(self) -> None:
        """Keep what is shown of a wait up to date."""
        while True:
            await self._wait_begins.wait()
            if self._wait is not None:
                self._tell(self._wait)
            await trio.sleep(TICK_S)

    def _tell(self, wait: Wait) -> None:
        if wait.is_idle:
            return
        seen = wait.seen()
        if self._verbosity >= VERBOSE and seen != wait.said:
            wait.said = seen
            self.say(str(wait))
        if self._paint.moves:
            self._show(self._paint.status(f"{self._name}: {wait}", wait.seconds))
        elif wait.seconds >= wait.next_word_s:
            wait.next_word_s = next_word_s(wait.seconds)
            self.say(str(wait))


def _sentence(event: Event) -> str:
    """Say what an event says, without the name that stands before each line anyway."""
    return str(event).removeprefix(f"{event.name} ")


def place_of(url: str | None, port: int | None) -> str:
    """Say where a daemon can be reached; nothing where that is not known."""
    return printable(url or "") or ("" if port is None else f"port {port}")


def _starter(pid: int | None) -> str:
    who = "another program" if pid is None else f"process {pid}"
    return f"{who}, which is starting or stopping it"
