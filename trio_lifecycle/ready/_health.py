"""Ready when the daemon answers a GET with success."""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle._errors import ConfigError, ForeignDaemonError
from trio_lifecycle._markers import FREE_PORT, Marker, fill, markers_in, show
from trio_lifecycle._polling import next_interval
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle._urls import (
    addresses,
    check_url,
    host_of,
    loopback_addresses,
    port_of,
    with_host,
)
from trio_lifecycle.abc import (
    Answer,
    ArmedReady,
    Prober,
    Process,
    ReadyMode,
    Report,
    Sighting,
    Start,
    Verdict,
)

_log: Final = logging.getLogger("trio_lifecycle")

# The longest pause between two probes, as in the design that this grew from. It is reached after 10
# s of waiting.
DEFAULT_INTERVAL_S: Final = 0.1

# How long one probe may take, as Kubernetes has it. A health endpoint that needs longer never
# counts as up.
DEFAULT_PROBE_TIMEOUT_S: Final = 1.0


def _url(value: str) -> str:
    return check_url("url", value)


def _interval(value: float) -> float:
    return check_seconds("interval", value)


def _probe_timeout(value: float) -> float:
    return check_seconds("probe_timeout", value)


# Between two looks whether a question has left the queue of a passed socket.
_LOOK_AT_QUEUE_S: Final = 0.05

# What an answer says of who gives it stands at its beginning.
MOST_BODY_BYTES: Final = 65_536

Expectation = Callable[[Answer], object]


def _expect(value: Expectation | None) -> Expectation | None:
    if value is not None and not callable(value):
        raise ConfigError("expect", f"must be a callable that takes an answer, not {value!r}")
    return value


@frozen
class HealthCheck(ReadyMode):
    """Ready when a GET of ``url`` is answered with a status of 200 to 299.

    Nothing else will do: no redirect, no proxy, and on an address of this machine, given as digits
    or as ``localhost``, no other program than the daemon's own. The first probe is sent at once;
    the pause between two grows with the time waited, 1.5 % of it, from 1 ms up to ``interval``. At
    the deadline one last probe is sent.

    Attributes:
        url: What to ask. It may hold FREE_PORT. ``localhost`` means 127.0.0.1, then ::1.
        interval: Seconds between two probes at most. Defaults to 0.1. Below 0.02 you mostly measure
            the endpoint; above 1 the news of readiness is late.
        probe_timeout: Seconds that one probe may take. Defaults to 1. One that is too short never
            sees a slow endpoint succeed; one that is too long delays the report of a time-out by as
            much.
        expect: Says whether who answers *before* the daemon is started is the daemon: a callable
            that is given an ``Answer``, with the headers and the first 64 KiB of the body, and
            returns true or false. Who is refused is a stranger, whatever he runs. Defaults to
            None: without a record, only a process that runs the very file of ``binary_name`` is the
            daemon. Give one for a daemon behind a wrapper, in a container, of another user or on
            another machine, and for one that is started by an interpreter; too lenient, it adopts
            strangers.
    """

    url: str = field(converter=_url)
    interval: float = field(default=DEFAULT_INTERVAL_S, converter=_interval)
    probe_timeout: float = field(
        default=DEFAULT_PROBE_TIMEOUT_S, converter=_probe_timeout, kw_only=True
    )
    expect: Expectation | None = field(default=None, converter=_expect, kw_only=True)

    def __repr__(self) -> str:
        limits = f"interval={self.interval}, probe_timeout={self.probe_timeout}"
        if self.expect is not None:
            limits += f", expect={getattr(self.expect, '__qualname__', self.expect)}"
        return f"HealthCheck({show(self.url)!r}, {limits})"

    @property
    def texts(self) -> tuple[str, ...]:
        """The URL."""
        return (self.url,)

    @property
    def longest_interval_s(self) -> float:
        """The interval."""
        return self.interval

    async def arm(self, start: Start) -> "ArmedHealthCheck":
        """Load the HTTP client."""
        values: dict[Marker, str] = {} if start.port is None else {FREE_PORT: str(start.port)}
        await start.prober.prepare()
        return ArmedHealthCheck(self, fill(self.url, values), start)

    async def arm_again(self, start: Start) -> "ArmedHealthCheck":
        """Ask the same URL, with the port that the daemon has."""
        return await self.arm(start)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Send one probe, if the URL is known before the spawn."""
        if markers_in([self.url]):
            return None
        wanted = 0 if self.expect is None else MOST_BODY_BYTES
        for url in _places(self.url):
            answer = await _probe(prober, url, self.probe_timeout, wanted)
            if not answer.absent:
                return self._sighting(answer, url)
        return None

    def _sighting(self, answer: Answer, url: str) -> Sighting:
        is_up = is_success(answer)
        accepted: bool | None = False
        if self.expect is not None:
            accepted = _accepts(self.expect, answer) if is_up else None
        return Sighting(
            report=Report(self.url, port_of(self.url)) if is_up else None,
            detail=f"{self.url} {answer}",
            address=_address(url),
            accepted=accepted,
            place=self.url,
            refused=self.expect is not None and accepted is False,
        )


class ArmedHealthCheck(ArmedReady):
    """A health check of one spawn."""

    def __init__(self, mode: HealthCheck, url: str, start: Start) -> None:
        self._mode = mode
        self._url = url
        self._places = _places(url)
        self._name = start.name
        self._prober = start.prober
        self._queue_at = start.queue_at
        self._answer = Answer(None, "was not asked yet")
        self._report = Report(url, port_of(url))

    @property
    def awaited(self) -> str:
        """The URL."""
        return self._url

    @property
    def last_seen(self) -> str:
        """The last answer."""
        return f"{self._url} {self._answer}"

    async def wait(self, process: Process) -> Report:
        """Probe until one succeeds."""
        began = trio.current_time()
        while (report := await self._look(process, self._probe_in_queue)) is None:
            waited = trio.current_time() - began
            await trio.sleep(next_interval(waited, self._mode.interval))
        return report

    async def ask(self, process: Process) -> Report | None:
        """Send one probe, and look who answered."""
        return await self._look(process, self._probe)

    async def _look(
        self, process: Process, probe: Callable[[str], Awaitable[Answer]]
    ) -> Report | None:
        foreign: tuple[str, int] | None = None
        for url in self._places:
            answer = await probe(url)
            if url == self._places[0] or not answer.absent:
                self._answer = answer
            if is_success(answer):
                address = _address(url)
                verdict = await self._verdict(process, url, address)
                if verdict is Verdict.OURS:
                    return self._report
                if verdict is Verdict.FOREIGN:
                    foreign = foreign or address
        if foreign:
            owner = self._prober.describe_owner(*foreign)
            raise ForeignDaemonError(self._name, self._url, owner)
        return None

    async def _probe(self, url: str) -> Answer:
        return await _probe(self._prober, url, self._mode.probe_timeout)

    async def _probe_in_queue(self, url: str) -> Answer:
        """Ask once; where the question waits to be accepted, the limit counts from then.

        One after the other would fill the queue, and keep the daemon busy once it is up.
        """
        address = _address(url)
        if address is None or self._queue_at(*address) is None:
            return await self._probe(url)
        answer = _overdue(self._mode.probe_timeout)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._limit, *address, nursery.cancel_scope)
            answer = await self._prober.get(url)
            nursery.cancel_scope.cancel()
        return answer

    @trio.lowlevel.enable_ki_protection
    async def _limit(self, host: str, port: int, asking: trio.CancelScope) -> None:
        await trio.sleep(self._mode.probe_timeout)
        if self._queue_at(host, port):
            # First in, first out: when the queue is empty, the question was taken out of it.
            while self._queue_at(host, port):  # noqa: ASYNC110  # nobody tells
                await trio.sleep(_LOOK_AT_QUEUE_S)
            await trio.sleep(self._mode.probe_timeout)
        asking.cancel()

    async def _verdict(
        self, process: Process, url: str, address: tuple[str, int] | None
    ) -> Verdict:
        """Say whose a success was; UNKNOWN: ask again later."""
        if address is None:
            return Verdict.OURS
        try:
            verdict = await process.listener_at(*address)
            if verdict is Verdict.UNKNOWN and process.pid is not None:
                # Nobody is seen to listen. A stranger may have left, and then there is no more
                # success; or the connection is brought to where the daemon listens.
                answer = await _probe(self._prober, url, self._mode.probe_timeout)
                verdict = await process.listener_at(*address)
                if verdict is Verdict.UNKNOWN and is_success(answer):
                    return Verdict.OURS
        except OSError as error:
            self._answer = Answer(None, f"answered, but by whom can't be seen: {error.strerror}")
            return Verdict.UNKNOWN
        # A daemon that has ended meanwhile owns nothing; the race with its end then says what
        # happened.
        return Verdict.OURS if process.ended or process.pid is None else verdict


def _accepts(expect: Expectation, answer: Answer) -> bool:
    try:
        said = expect(answer)
    except Exception as error:
        # Most of them can't read what a stranger answers. A text: the error would keep all frames.
        _log.warning("expect failed at an answer, which counts as a no: %s", repr(error))
        return False
    if isinstance(said, Coroutine):
        said.close()
        raise ConfigError("expect", "must say it at once; an async function can't be asked")
    return bool(said)


async def _probe(prober: Prober, url: str, limit_s: float, body_bytes: int = 0) -> Answer:
    """Ask once, within a limit."""
    with trio.move_on_after(limit_s):
        return await (prober.get(url, body_bytes) if body_bytes else prober.get(url))
    return _overdue(limit_s)


def _overdue(limit_s: float) -> Answer:
    return Answer(None, f"gave no answer within {limit_s} s")


@lru_cache(maxsize=1024)
def _places(url: str) -> tuple[str, ...]:
    """Give the URLs to ask in turn: ``localhost`` is two places, anything else one."""
    hosts = loopback_addresses(host_of(url))
    return tuple(with_host(url, host) for host in hosts) if len(hosts) > 1 else (url,)


def is_success(answer: Answer) -> bool:
    """Say whether a daemon that gives this answer is up."""
    return answer.status is not None and 200 <= answer.status <= 299


def _address(url: str) -> tuple[str, int] | None:
    """Say where to look for who answers; None for a name, which may be another machine's."""
    return next(((digits, port_of(url)) for digits in addresses(host_of(url))), None)
