"""What must come of a wait for readiness: a model that knows no task and no poll.

In it everybody sees everything at once. Time is counted from the spawn, and what the daemon does
changes only at the moments of its plan; between them the answer to every question stays the same.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from math import inf

from attrs import Factory, define, frozen

from trio_lifecycle.testing import REFUSES

# What an HTTP answer or an exit status means.
FATAL_STATUS = 500
FATAL_EXIT = 2


@frozen
class Plan:
    """What the daemon does, and for how long that is waited for.

    Attributes:
        health: What it answers: pairs (from when on, status).
        probes: What a command that looks at it ends with: pairs (from when on, status).
        says: Its lines, with their moments.
        file_after: When it writes its file; None is never.
        dies_after: When it ends; None is never.
        ready_timeout: How long it is waited for.
        stall_timeout: How long it may say nothing; None is any time.
    """

    health: Sequence[tuple[float, int]]
    probes: Sequence[tuple[float, int]]
    says: Sequence[tuple[float, str]]
    file_after: float | None
    dies_after: float | None
    ready_timeout: float
    stall_timeout: float | None

    @property
    def moments(self) -> list[float]:
        """When anything changes."""
        planned = [moment for plan in (self.health, self.probes, self.says) for moment, _ in plan]
        return sorted({0.0, self.file_after or 0.0, *planned})

    @property
    def deadline(self) -> float:
        """When the wait ends, by whichever clock."""
        return min(self.ready_timeout, self.silence_ends)

    @property
    def silence_ends(self) -> float:
        """When it has been silent for too long."""
        if self.stall_timeout is None:
            return inf
        heard = [0.0, *(moment for moment, _ in self.says), inf]
        gaps = pairwise(heard)
        return next(since for since, until in gaps if until - since > self.stall_timeout) + (
            self.stall_timeout
        )


class FailedError(Exception):
    """It can't become ready any more."""

    def __init__(self, when: float) -> None:
        self.when = when


@frozen
class Outcome:
    """What comes of a wait: ``"ready"``, ``"failed"``, ``"died"``, ``"late"`` or ``"silent"``."""

    what: str
    when: float


@define
class Node:
    """One ready mode of a tree."""

    def wait(self, plan: Plan, since: float, until: float) -> float:
        """Say when it is ready; inf if that is not before it is given up.

        Raises:
            FailedError: It fails first.
        """
        raise NotImplementedError

    def ask(self, plan: Plan, now: float) -> bool:
        """Say whether it is ready now.

        Raises:
            FailedError: It has failed.
        """
        raise NotImplementedError

    def _first(self, plan: Plan, since: float, until: float) -> float:
        """Say when it is so first, where asking is all that waiting does."""
        moments = [since, *(moment for moment in plan.moments if since < moment < until)]
        return next((moment for moment in moments if self.ask(plan, moment)), inf)


@define
class Leaf(Node):
    """A mode that is made of no other: ``kind`` says which."""

    kind: str

    def wait(self, plan: Plan, since: float, until: float) -> float:
        return self._first(plan, since, until)

    def ask(self, plan: Plan, now: float) -> bool:
        status = _at(plan.health, now, REFUSES)
        match self.kind:
            case "manual":
                return True
            case "tcp":
                return status != REFUSES
            case "health":
                return 200 <= status <= 299
            case "fatal health":
                return _judged(200 <= status <= 299, status == FATAL_STATUS, now)
            case "exec":
                return _at(plan.probes, now, 1) == 0
            case "fatal exec":
                status = _at(plan.probes, now, 1)
                return _judged(status == 0, status == FATAL_EXIT, now)
            case "file":
                return plan.file_after is not None and plan.file_after <= now
            case "line":
                return _said(plan, "ready", now)
            case "fatal line":
                return _judged(_said(plan, "ready", now), _said(plan, "fatal", now), now)
        raise AssertionError(self.kind)


def _judged(is_so: bool, is_fatal: bool, now: float) -> bool:
    if is_fatal:
        raise FailedError(now)
    return is_so


def _at(plan: Sequence[tuple[float, int]], now: float, otherwise: int) -> int:
    return next((status for since, status in reversed(plan) if since <= now), otherwise)


def _said(plan: Plan, word: str, now: float) -> bool:
    return any(moment <= now and word in line for moment, line in plan.says)


@define
class Stable(Node):
    """One that must hold."""

    inner: Node
    seconds: float
    has_held: bool = False

    def wait(self, plan: Plan, since: float, until: float) -> float:
        self.has_held = False
        while True:
            began = self.inner.wait(plan, since, until)
            if began == inf:
                return inf
            lost = self._lost(plan, began, min(until, began + self.seconds))
            if lost == inf:
                self.has_held = began + self.seconds < until
                return began + self.seconds if self.has_held else inf
            since = lost

    def _lost(self, plan: Plan, began: float, until: float) -> float:
        moments = [moment for moment in plan.moments if began < moment <= until]
        return next((moment for moment in moments if not self.inner.ask(plan, moment)), inf)

    def ask(self, plan: Plan, now: float) -> bool:
        return self.has_held and self.inner.ask(plan, now)


@define
class All(Node):
    """All of several."""

    members: list[Node]
    ready: set[int] = Factory(set)

    def wait(self, plan: Plan, since: float, until: float) -> float:
        while True:
            missing = sorted(set(range(len(self.members))) - self.ready)
            missing = missing or list(range(len(self.members)))
            since = self._wait_for(missing, plan, since, until)
            if since == inf or self.ask(plan, since):
                return since

    def _wait_for(self, numbers: Sequence[int], plan: Plan, since: float, until: float) -> float:
        # Whoever fails first ends it for all, at that moment.
        ends = [_end(self.members[number], plan, since, until) for number in numbers]
        failed = min((error.when for error in ends if isinstance(error, FailedError)), default=inf)
        moments = [end for end in ends if not isinstance(end, FailedError)]
        if failed < inf:
            raise FailedError(failed)
        self.ready |= {number for number, end in zip(numbers, ends, strict=True) if end != inf}
        return max(moments)

    def ask(self, plan: Plan, now: float) -> bool:
        answers = [member.ask(plan, now) for member in self.members]
        self.ready = {number for number, is_so in enumerate(answers) if is_so}
        return all(answers)


@define
class Any(Node):
    """Any of several."""

    members: list[Node]
    failed: set[int] = Factory(set)

    def wait(self, plan: Plan, since: float, until: float) -> float:
        hopeful = [n for n in range(len(self.members)) if n not in self.failed]
        ends = {n: _end(deepcopy(self.members[n]), plan, since, until) for n in hopeful}
        wins = min((end for end in ends.values() if not isinstance(end, FailedError)), default=inf)
        for number in hopeful:
            end = _end(self.members[number], plan, since, min(until, wins + _A_MOMENT))
            if isinstance(end, FailedError):
                self.failed.add(number)
        if len(self.failed) == len(self.members):
            raise FailedError(max(_failures(ends.values()), default=since))
        return wins

    def ask(self, plan: Plan, now: float) -> bool:
        answers, failed = [], set(self.failed)
        for number, member in enumerate(self.members):
            if number not in failed:
                try:
                    answers.append(member.ask(plan, now))
                except FailedError:
                    failed.add(number)
        if len(failed) == len(self.members):
            raise FailedError(now)
        return any(answers)


# Those that are given up because another has won have got as far as at that moment.
_A_MOMENT = 1e-6


def _end(node: Node, plan: Plan, since: float, until: float) -> "float | FailedError":
    try:
        return node.wait(plan, since, until)
    except FailedError as error:
        return error


def _failures(ends: "Iterable[float | FailedError]") -> list[float]:
    return [end.when for end in ends if isinstance(end, FailedError)]


def expect(tree: Node, plan: Plan) -> Outcome:
    """Say what must come of it, and when."""
    clock = "late" if plan.ready_timeout <= plan.silence_ends else "silent"
    try:
        when = tree.wait(plan, 0.0, plan.deadline)
        what = "ready" if when < inf or tree.ask(plan, plan.deadline) else clock
        outcome = Outcome(what, min(when, plan.deadline))
    except FailedError as error:
        outcome = Outcome("failed", error.when)
    dies = inf if plan.dies_after is None else plan.dies_after
    return outcome if outcome.when < dies else Outcome("died", dies)
