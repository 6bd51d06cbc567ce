"""Ready when the daemon answers over HTTP with success."""

import os
from typing import Final

from attrs import field, frozen

from trio_lifecycle._armed_contract import ArmedHeld
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import fill, markers_in, show
from trio_lifecycle._urls import check_url, port_of
from trio_lifecycle.abc import (
    TLS,
    ArmedReady,
    Prober,
    Question,
    ReadyMode,
    Report,
    Sighting,
    Start,
)
from trio_lifecycle.ready._answers import (
    MOST_BODY_BYTES,
    Body,
    Expectation,
    Judge,
    accepts,
    check_body,
    check_expect,
)
from trio_lifecycle.ready._filled import port_values
from trio_lifecycle.ready._http_places import http_places
from trio_lifecycle.ready._options import (
    Headers,
    check_headers,
    check_method,
    check_tls,
    secrets_in,
)
from trio_lifecycle.ready._polled import (
    DEFAULT_INTERVAL_S,
    DEFAULT_PROBE_TIMEOUT_S,
    ArmedPolled,
    Outcome,
    Place,
    Reply,
    check_interval,
    check_probe_timeout,
)
from trio_lifecycle.ready._statuses import Statuses, read_statuses, show_statuses
from trio_lifecycle.ready._unix_place import check_socket_path, socket_path

# Neither a redirect nor an error: RFC 9110 section 15.
SUCCESS: Final = frozenset(range(200, 300))

# What a status line can hold: RFC 9112 section 4. Those below 200 are no answers yet.
_POSSIBLE: Final = range(200, 1000)


def _url(value: str) -> str:
    return check_url("url", value)


def _statuses(statuses: Statuses) -> frozenset[int]:
    found = read_statuses("statuses", statuses, _POSSIBLE)
    if not found:
        raise ConfigError("statuses", "must hold at least one: with none, it is never ready")
    return found


def _fatal_statuses(statuses: Statuses) -> frozenset[int]:
    return read_statuses("fatal_statuses", statuses, _POSSIBLE)


def _unix_socket(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else check_socket_path("unix_socket", path)


def _success_threshold(count: int) -> int:
    value: object = count
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError("success_threshold", f"must be a number, 1 or more, not {value!r}")
    return value


@frozen(repr=False)
class HealthCheck(ReadyMode):
    """Ready when a GET of ``url`` is answered with a status of 200 to 299.

    Nothing else will do: no redirect, no proxy, and on an address of this machine, given as digits
    or as ``localhost``, no other program than the daemon's own. The first probe is sent at once;
    the pause between two grows with the time waited, 1.5 % of it, from 1 ms up to ``interval``. At
    the deadline one last probe is sent.

    A daemon that runs already is the same daemon, however it is asked: of all this only ``url`` and
    ``unix_socket`` count as a change of its configuration.

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
        method: How it is asked. Defaults to GET. A POST has no body.
        headers: What is sent besides, such as ``{"Authorization": "Bearer ..."}``. Defaults to
            nothing. No value shows in ``repr``; those of Authorization, Cookie and others whose
            name speaks of a key, token, secret or the like are blotted out of output tails.
        statuses: With which statuses it is up: numbers, ranges, or several of them, such as
            ``(range(200, 300), 401)``. Defaults to 200 to 299.
        fatal_statuses: After which statuses waiting can't help: from the daemon itself, one is a
            ReadyError at once. They win over ``statuses``. Defaults to none.
        body: What the first 64 KiB of the body must be like: a text that stands there, a compiled
            pattern that is found, or a callable that is given the ``Answer`` and returns true or
            false. One that raises is logged once, and counts as a no; but a TypeError or NameError
            is a mistake, and ends the start. Defaults to None: the body is not read.
        tls: How TLS is spoken, for a URL of https. Defaults to None: the certificate must be one
            that the system trusts.
        unix_socket: The path of a UNIX socket to connect to; the URL's host and port are then only
            said to the daemon. It may hold FREE_PORT; a relative one is relative to the daemon's
            ``working_dir``, and is asked only after the spawn. Defaults to None: TCP.
        success_threshold: How many successes in a row it takes, ``interval`` apart. Defaults to 1.
            More delay the news of readiness. What runs already is asked for one.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    url: str = field(converter=_url)
    interval: float = field(default=DEFAULT_INTERVAL_S, converter=check_interval)
    probe_timeout: float = field(
        default=DEFAULT_PROBE_TIMEOUT_S, converter=check_probe_timeout, kw_only=True
    )
    expect: Expectation | None = field(default=None, converter=check_expect, kw_only=True)
    method: str = field(default="GET", converter=check_method, kw_only=True)
    headers: Headers = field(default=(), converter=check_headers, kw_only=True)
    statuses: frozenset[int] = field(default=SUCCESS, converter=_statuses, kw_only=True)
    fatal_statuses: frozenset[int] = field(
        default=frozenset(), converter=_fatal_statuses, kw_only=True
    )
    body: Body | None = field(default=None, converter=check_body, kw_only=True)
    tls: TLS | None = field(default=None, converter=check_tls, kw_only=True)
    unix_socket: str | None = field(default=None, converter=_unix_socket, kw_only=True)
    success_threshold: int = field(default=1, converter=_success_threshold, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.tls is not None and not self.url.startswith("https:"):
            raise ConfigError("tls", "has no meaning where the URL does not begin with https://")
        if self.body is not None and self.method == "HEAD":
            raise ConfigError("body", "can't be looked at: the answer to HEAD has none")
        if self.statuses <= self.fatal_statuses:
            raise ConfigError("fatal_statuses", "holds all statuses: it would never be ready")

    def __repr__(self) -> str:
        parts = [f"{show(self.url)!r}", f"interval={self.interval}"]
        parts += [f"probe_timeout={self.probe_timeout}"]
        parts += [f"{name}={shown}" for name, shown in self._shown_options().items()]
        return f"HealthCheck({', '.join(parts)})"

    def _shown_options(self) -> dict[str, object]:
        """Write what is not as usual, without the values of headers."""
        shown: dict[str, object] = {}
        for name in ("expect", "body"):
            value = getattr(self, name)
            if value is not None:
                shown[name] = getattr(value, "__qualname__", repr(value))
        if self.method != "GET":
            shown["method"] = repr(self.method)
        if self.headers:
            shown["headers"] = f"{{{', '.join(f'{name!r}: ...' for name, _ in self.headers)}}}"
        if self.statuses != SUCCESS:
            shown["statuses"] = f"{{{show_statuses(self.statuses)}}}"
        if self.fatal_statuses:
            shown["fatal_statuses"] = f"{{{show_statuses(self.fatal_statuses)}}}"
        if self.tls is not None:
            shown["tls"] = self.tls
        if self.unix_socket is not None:
            shown["unix_socket"] = repr(show(self.unix_socket))
        if self.success_threshold > 1:
            shown["success_threshold"] = self.success_threshold
        return shown

    @property
    def texts(self) -> tuple[str, ...]:
        """The URL, and the UNIX socket if there is one."""
        return (self.url,) if self.unix_socket is None else (self.url, self.unix_socket)

    @property
    def longest_interval_s(self) -> float:
        """The interval."""
        return self.interval

    @property
    def shortest_wait_s(self) -> float:
        """What lies between the successes."""
        return (self.success_threshold - 1) * self.interval

    async def arm(self, start: Start) -> ArmedReady:
        """Load the HTTP client, and what it needs for TLS.

        Raises:
            ConfigError: A file for TLS is not what it should be, or a path is too long.
        """
        return await self._armed(start, self.success_threshold)

    async def arm_again(self, start: Start) -> ArmedReady:
        """Ask the same URL, with the port that the daemon has."""
        return await self._armed(start, 1)

    async def arm_unfinished(self, start: Start) -> ArmedReady:
        """Ask the same URL; for as long as several successes in a row take at least."""
        armed = await self._armed(start, 1)
        return armed if self.success_threshold == 1 else ArmedHeld(armed, self.shortest_wait_s)

    async def _armed(self, start: Start, threshold: int) -> ArmedReady:
        url, path = fill(self.url, port_values(start)), self.unix_socket
        if path is not None:
            path = socket_path("unix_socket", path, start)
        question = self._question(url, path, 0 if self.body is None else MOST_BODY_BYTES)
        await start.prober.prepare(question)
        return ArmedPolled(
            start,
            url,
            http_places(start.prober, question, self.probe_timeout, self._judge, start.queue_at),
            self._report(url, start.port),
            self.interval,
            threshold=threshold,
            secrets=secrets_in(self.headers),
        )

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Send one probe, if it is known before the spawn where."""
        if markers_in(self.texts) or not (self.unix_socket or "/").startswith("/"):
            return None
        reads = self.expect is not None or self.body is not None
        question = self._question(self.url, self.unix_socket, MOST_BODY_BYTES if reads else 0)
        for place in http_places(prober, question, self.probe_timeout, self._judge):
            reply = await place.ask()
            if not reply.absent:
                return self._sighting(reply, place)
        return None

    @property
    def _judge(self) -> Judge:
        return Judge(self.statuses, self.fatal_statuses, self.body)

    def _question(self, url: str, unix_path: str | None, body_bytes: int) -> Question:
        return Question(
            url,
            method=self.method,
            headers=self.headers,
            body_bytes=body_bytes,
            tls=self.tls,
            unix_path=unix_path,
        )

    def _report(self, url: str, port: int | None) -> Report:
        # Over a UNIX socket the URL leads nowhere for anybody else.
        return Report(url, port_of(url)) if self.unix_socket is None else Report(None, port)

    def _sighting(self, reply: Reply, place: Place) -> Sighting:
        is_up = reply.outcome is Outcome.UP
        accepted: bool | None = False
        if self.expect is not None:
            accepted = None
            if is_up and reply.answer is not None:
                accepted = accepts(self.expect, reply.answer)
        return Sighting(
            report=self._report(self.url, None) if is_up else None,
            detail=f"{self.url} {reply.text}",
            address=place.address,
            accepted=accepted,
            place=self.url,
            refused=self.expect is not None and accepted is False,
        )
