"""The places where a daemon is asked over HTTP, and whose they are."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import trio
from attrs import evolve

from trio_lifecycle._urls import addresses, host_of, loopback_addresses, port_of, with_host
from trio_lifecycle.abc import Answer, Prober, Process, Question, Verdict
from trio_lifecycle.ready._polled import NOT_ACCEPTED, Outcome, Place, Reply, whose_listener
from trio_lifecycle.ready._unix_place import whose_socket

Judge = Callable[[Answer], Reply]
QueueAt = Callable[[str, int], bool | None]

# Between two looks whether a question has left the queue of a passed socket.
_LOOK_AT_QUEUE_S: Final = 0.05


def http_places(
    prober: Prober,
    question: Question,
    limit_s: float,
    judge: Judge,
    queue_at: QueueAt | None = None,
) -> list[Place]:
    """Give the places to ask in turn.

    Args:
        prober: Asks.
        question: What is asked, with the URL as its user wrote it, markers filled in.
        limit_s: How long one question may take.
        judge: Says what an answer means.
        queue_at: See ``Start``; None before there is one.
    """
    if question.unix_path is not None:
        path = question.unix_path
        return [_HTTPPlace(prober, question, (path, 0), limit_s, judge, queue_at)]
    return [
        _HTTPPlace(
            prober,
            evolve(question, url=where.url, server_name=where.server_name),
            where.address,
            limit_s,
            judge,
            queue_at,
        )
        for where in _wheres(question.url)
    ]


class _Where(NamedTuple):
    url: str
    server_name: str | None
    address: tuple[str, int] | None


@lru_cache(maxsize=1024)
def _wheres(url: str) -> tuple[_Where, ...]:
    """Give where a URL leads to: ``localhost`` is two places, anything else one."""
    host = host_of(url)
    hosts = loopback_addresses(host)
    if len(hosts) > 1:
        # Its certificate is for localhost, whichever address that is.
        return tuple(_Where(with_host(url, here), host, (here, port_of(url))) for here in hosts)
    # Of a name it is not known whose it is: it may be another machine's.
    address = next(((digits, port_of(url)) for digits in addresses(host)), None)
    return (_Where(url, None, address),)


class _HTTPPlace:
    """One address, or one UNIX socket, asked over HTTP."""

    def __init__(
        self,
        prober: Prober,
        question: Question,
        address: tuple[str, int] | None,
        limit_s: float,
        judge: Judge,
        queue_at: QueueAt | None,
    ) -> None:
        self.address = address
        self._queue_at = queue_at
        self._prober = prober
        self._question = question
        self._limit_s = limit_s
        self._judge = judge

    async def ask(self, *, patient: bool = False) -> Reply:
        """Ask once."""
        if patient and self._queue() is not None:
            return await self._ask_in_queue()
        with trio.move_on_after(self._limit_s):
            return self._judge(await self._prober.ask(self._question))
        return self._overdue

    async def _ask_in_queue(self) -> Reply:
        """Ask once; where the question waits to be accepted, the limit counts from then.

        One after the other would fill the queue, and keep the daemon busy once it is up.
        """
        answers: list[Answer] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._limit, nursery.cancel_scope)
            answers.append(await self._prober.ask(self._question))
            nursery.cancel_scope.cancel()
        return self._judge(answers[0]) if answers else self._overdue

    @trio.lowlevel.enable_ki_protection
    async def _limit(self, asking: trio.CancelScope) -> None:
        await trio.sleep(self._limit_s)
        if self._queue():
            # First in, first out: when the queue is empty, the question was taken out of it.
            while self._queue():  # noqa: ASYNC110  # nobody tells
                await trio.sleep(_LOOK_AT_QUEUE_S)
            await trio.sleep(self._limit_s)
        asking.cancel()

    def _queue(self) -> bool | None:
        """Say whether questions wait to be accepted; None where no socket is passed."""
        if self.address is None or self._queue_at is None:
            return None
        return self._queue_at(*self.address)

    @property
    def _overdue(self) -> Reply:
        text = NOT_ACCEPTED if self._queue() else f"gave no answer within {self._limit_s} s"
        return Reply(Outcome.NOT_YET, text)

    async def whose(self, process: Process) -> Verdict:
        """Look who listens."""
        path = self._question.unix_path
        if path is not None:
            return await whose_socket(self._prober, process, path, self._is_up)
        return await whose_listener(process, self.address, self._is_up)

    async def _is_up(self) -> bool:
        return (await self.ask()).outcome is Outcome.UP
