"""One round: an application is struck, and all that it started must be gone."""

import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import asdict, field, frozen

from tests.chaos.plan import Fault, Plan
from tests.chaos.survey import Offspring, become_subreaper, reapers, wait_until

ROOT: Final = Path(__file__).resolve().parents[2]

# In the environment of all that belongs to a round, for whoever looks at one that is under way.
MARKER: Final = "TRIO_LIFECYCLE_CHAOS"

# Bounds what should be over in well under a second: coming up, answering, being killed.
PATIENCE_S: Final = 30.0
_START_FAILED: Final = ("SpawnError", "DiedBeforeReadyError")
# What is too late may still go in as much time again, and is no survivor then.
SECOND_LOOK_S: Final = 8.0


@frozen
class Outcome:
    """How a round went.

    Attributes:
        seed: Of the plan.
        fault: The name of what struck.
        seconds: From the last blow until nothing was left.
        ladder_s: How much of that the configured ladders permit.
        survivors: What was still there at the last look.
        troubles: What else was not as it must be.
        late: Whether it took longer than it may.
    """

    seed: int
    fault: str
    seconds: float = 0.0
    ladder_s: float = 0.0
    survivors: list[str] = field(factory=list)
    troubles: list[str] = field(factory=list)
    late: bool = False

    @property
    def over_s(self) -> float:
        """Seconds that it took beyond the ladders."""
        return max(0.0, self.seconds - self.ladder_s)


class NotPlayedError(Exception):
    """The round could not be played as planned."""


class Application:
    """An application that runs below this process."""

    def __init__(self, plan: Plan) -> None:
        self._said: list[dict[str, Any]] = []
        self._unread = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the round
        orders_read, self._orders = os.pipe()
        self._words, words_write = os.pipe()
        choice = plan.choice
        lists = [" ".join(choice.faults), " ".join(choice.kinds)]
        words = [str(plan.seed), *lists, choice.guarantee]
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "tests.chaos.application", *words],
            {**os.environ, "PYTHONPATH": str(ROOT), MARKER: f"{os.getpid()}-{plan.seed}"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, orders_read, 0),
                (os.POSIX_SPAWN_DUP2, words_write, 1),
                (os.POSIX_SPAWN_DUP2, self._errors.fileno(), 2),
            ],
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE),
        )
        os.close(orders_read)
        os.close(words_write)

    def hears(self, *events: str, seconds: float) -> str | None:
        """Wait until it tells one of these, or its standard output is closed."""
        deadline = time.monotonic() + seconds
        while True:
            for event in events:
                if self.said(event) is not None:
                    return event
            ready, _, _ = select.select(
                [self._words], [], [], max(0.0, deadline - time.monotonic())
            )
            data = os.read(self._words, 65536) if ready else b""
            if not data:
                return None
            *lines, self._unread = (self._unread + data).split(b"\n")
            self._said += map(json.loads, lines)

    def said(self, event: str) -> dict[str, Any] | None:
        """Give what it told of an event, if it did."""
        return next((words for words in self._said if words["at"] == event), None)

    def order(self, order: str) -> None:
        """Write to its standard input; one that is gone does not mind."""
        try:
            os.write(self._orders, order.encode() + b"\n")
        except BrokenPipeError:
            pass

    def last_words(self) -> str:
        """Give the end of what it wrote on its standard error."""
        self._errors.seek(0)
        return "\n    ".join(self._errors.read().decode(errors="replace").splitlines()[-12:])


class Round:
    """One application, one fault."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._offspring = Offspring()
        self._application = Application(plan)
        self._was_up = False

    def play(self, bound_s: float) -> Outcome:
        """Strike, look, and leave nothing."""
        plan, troubles = self._plan, list[str]()
        try:
            self._await_moment()
            struck_at = self._strike(plan.fault)
            if plan.fault.lost_reaper and not self._was_up:
                struck_at = self._strike_again(struck_at)
        except NotPlayedError as trouble:
            troubles.append(str(trouble))
            struck_at = time.monotonic()
        gone = wait_until(self._offspring.gone, bound_s + plan.ladder_s)
        gone = gone or wait_until(self._offspring.gone, min(bound_s, SECOND_LOOK_S))
        seconds = time.monotonic() - struck_at
        survivors = [] if gone else [str(seen) for seen in self._offspring.left()]
        if not gone and not survivors:
            survivors = ["something that is too quick to be seen"]
        troubles += [] if troubles else self._misbehaviour()
        late = seconds - plan.ladder_s > bound_s
        if late:
            troubles.append(f"gone after {seconds:.2f} s, with ladders of {plan.ladder_s:g} s")
        if survivors or troubles:
            troubles.append(f"its last words: {self._application.last_words()}")
        if not self._offspring.end(PATIENCE_S):
            troubles.append("not even SIGKILL ended it")
        return Outcome(
            plan.seed, plan.fault.name, seconds, plan.ladder_s, survivors, troubles, late
        )

    def _await_moment(self) -> None:
        moment, application = self._plan.moment, self._application
        if moment != "start" and not application.hears(moment, "end", seconds=PATIENCE_S):
            raise NotPlayedError(f"the application never said {moment!r}")
        if application.said("end") is not None:
            raise NotPlayedError(f"the application ended by itself: {application.said('end')}")
        time.sleep(self._plan.delay_s)
        # It may be up by now, also if that was not waited for.
        self._was_up = application.hears("up", seconds=0) is not None

    def _strike(self, fault: Fault) -> float:
        """Do it, and give the time of the last blow."""
        if fault.order:
            self._application.order(fault.order)
            return time.monotonic()
        victims = {"application": self._application.pid}
        if any(victim != "application" for victim in fault.victims):
            victims["outer"], victims["inner"] = self._find_reapers()
        # None of them can be another process yet: nobody has waited for the application, and the
        # descriptors belong to those that were alive.
        pidfds = [os.pidfd_open(victims[victim]) for victim in fault.victims]
        for number, pidfd in enumerate(pidfds):
            time.sleep(self._plan.gap_s if number else 0.0)
            try:
                signal.pidfd_send_signal(pidfd, fault.signum)
            except ProcessLookupError:
                pass  # it has followed the first one by itself
        return time.monotonic()

    def _find_reapers(self) -> tuple[int, int]:
        found: list[tuple[int, int]] = []

        def find() -> bool:
            pair = reapers(self._application.pid)
            found.extend([pair] if pair else [])
            return bool(found) or self._offspring.ended(self._application.pid)

        wait_until(find, PATIENCE_S if not self._was_up else 0.0)
        if not found:
            raise NotPlayedError("the two processes of the reaper were not found")
        return found[-1]

    def _strike_again(self, struck_at: float) -> float:
        """End an application that had not yet trusted anything to the reaper that was killed."""
        heard = self._application.hears("up", "end", seconds=PATIENCE_S)
        if heard != "up":
            return struck_at
        self._application.order("exception")
        return time.monotonic()

    def _misbehaviour(self) -> list[str]:
        """Say what is wrong with what the application told of its own end."""
        expected = self._plan.fault.ends
        if expected is None:
            return []
        self._application.hears("end", seconds=0)
        end = self._application.said("end")
        if end is None:
            # It was hit before it had code to tell anything, or while it started to have.
            early = self._plan.fault.victims and not self._was_up
            return [] if early else ["it ended without a word"]
        wanted = {expected} if expected else set[str]()
        if self._plan.fault.lost_reaper and not self._was_up:
            # Lost with nothing yet, it has another; lost while it or a daemon starts, that fails,
            # beside the loss of those that run.
            others = {"ChaosError", "GuaranteeError", *_START_FAILED}
            if end["errors"] and set(end["errors"]) <= wanted | others:
                return []
        good = end["errors"] == sorted(wanted)
        return [] if good else [f"it ended with {end['errors']}, not {wanted}"]


def play(plan: Plan, bound_s: float) -> Outcome:
    """Play a round below a process of its own, so that what waitpid(2) says is of this round.

    Args:
        plan: What happens.
        bound_s: Seconds that the end may take beyond the ladders.
    """

    def inside() -> Outcome:
        become_subreaper()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return Round(plan).play(bound_s)

    words = _in_a_child(lambda: json.dumps(asdict(inside())))
    if words.startswith("{"):
        return Outcome(**json.loads(words))
    return Outcome(plan.seed, plan.fault.name, troubles=[f"the round broke off: {words}"])


def _in_a_child(work: Callable[[], str]) -> str:
    """Give what a function gives that runs in a forked child; its traceback if it raises."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            words = work()
        except BaseException:  # noqa: ASYNC103  # the child ends here, and says it to its parent
            words = traceback.format_exc()
            Offspring().end(PATIENCE_S)
        with os.fdopen(write_end, "w") as sink:
            sink.write(words)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as source:
        words = source.read()
    os.waitpid(pid, 0)
    return words
