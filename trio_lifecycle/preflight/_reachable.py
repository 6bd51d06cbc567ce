"""A check that a server can be reached."""

import os
from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle import _loopback_http
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._http import HTTPClient
from trio_lifecycle._markers import markers_in
from trio_lifecycle._questions import Question
from trio_lifecycle._urls import check_url, host_of, loopback_addresses, port_of
from trio_lifecycle.abc import Preflight, Prober
from trio_lifecycle.preflight import _values
from trio_lifecycle.preflight._elsewhere import asked_by, said_of
from trio_lifecycle.preflight._failure import CheckFailed

# TCP asks again 1 s and 3 s after the first try, should that be lost (RFC 6298).
DEFAULT_CHECK_TIMEOUT_S: Final = 5.0

_TCP: Final = "tcp://"


def _url(value: object) -> str:
    if isinstance(value, str) and markers_in([value]):
        raise ConfigError("url", "can hold no marker: nothing is spawned yet")
    if not isinstance(value, str) or not value.startswith(_TCP):
        return check_url("url", value)
    place = value.removeprefix(_TCP)
    check_url("url", f"http://{place}")
    if place.endswith("]") or ":" not in place or any(char in place for char in "/?"):
        raise ConfigError("url", f"must be written as tcp://HOST:PORT, not {value!r}")
    return value


@frozen(repr=False)
class Reachable:
    """Something answers at a URL: what the daemon will need, such as a database.

    An ``http:`` or ``https:`` URL is asked by GET, directly, whatever the variables for proxies
    say; every HTTP status counts as an answer. Of ``tcp://HOST:PORT`` a connection is opened, and
    closed again.

    Attributes:
        url: What to ask.
        check_timeout: Seconds that the check may take. Defaults to 5. With less than 3, one lost
            packet makes it fail.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    url: str = field(converter=_url)
    check_timeout: float = field(
        default=DEFAULT_CHECK_TIMEOUT_S, converter=_values.check_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        return _values.brief(self)

    async def __call__(self) -> None:
        """Ask once.

        Raises:
            CheckFailed: No answer came.
        """
        ask = _connect if self.url.startswith(_TCP) else _get
        problem = await ask(self.url)
        self.judge(problem)

    def at(self, prober: Prober) -> Preflight:
        """Give the check of what the prober reaches."""
        return _ReachableElsewhere(self, prober)

    def judge(self, problem: str) -> None:
        """Fail, if there is a problem; it is a part of a sentence."""
        if problem:
            raise CheckFailed(f"{self.url} {problem}: start what should be there, or mend the URL")


@frozen(repr=False)
class _ReachableElsewhere:
    check: Reachable
    prober: Prober

    def __repr__(self) -> str:
        return repr(self.check)

    async def __call__(self) -> None:
        """Connect from there; ask over HTTP, too, what is on the loopback of that machine.

        A prober need not ask other hosts over HTTP from where it connects.

        Raises:
            CheckFailed: No answer came, or it could not be asked.
        """
        url = self.check.url
        place = f"http://{url.removeprefix(_TCP)}" if url.startswith(_TCP) else url
        with asked_by(self.prober, f"whether {url} answers"):
            if place == url and loopback_addresses(host_of(url)):
                problem = (await self.prober.ask(Question(url))).problem
            else:
                problem = (await self.prober.connect(host_of(place), port_of(place))).problem
        with said_of(""):
            self.check.judge(problem)


async def _get(url: str) -> str:
    question = Question(url)
    address = _loopback_http.way_to(question)
    if address is None:
        return (await HTTPClient().ask(question)).problem
    return (await _loopback_http.ask(question, address)).problem


async def _connect(url: str) -> str:
    place = f"http://{url.removeprefix(_TCP)}"
    try:
        stream = await trio.open_tcp_stream(host_of(place), port_of(place))
    except OSError as error:
        return f"could not be connected to ({_reason(error)})"
    await trio.aclose_forcefully(stream)
    return ""


def _reason(error: OSError) -> str:
    """Say what the first address gave; Trio makes a group of what all of them did."""
    cause = error.__cause__
    first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause or error
    number = getattr(first, "errno", None) or 0
    # Those of a resolver are negative, and strerror(3) does not know them.
    return os.strerror(number) if number > 0 else getattr(first, "strerror", None) or str(first)
