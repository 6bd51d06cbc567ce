"""Which one-time tokens are expected, and what becomes of each callback."""

import hashlib
import hmac
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import trio

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import show
from trio_lifecycle._receiver._asgi import ASGIReceiver
from trio_lifecycle._receiver._body import parse_body
from trio_lifecycle._receiver._loops import event_of_this_loop, runs_in
from trio_lifecycle._receiver._reply import REQUEST_LIMIT_S, Reply
from trio_lifecycle._urls import check_url
from trio_lifecycle._way_back_contract import Peer

# How long the news that a daemon is ready waits until the daemon has its answer. A server that is
# stopped in between must not withhold the news.
_ANSWER_LIMIT_S: Final = 0.2

# How many tokens that are no longer good are remembered, so that a late daemon is told that it is
# late. What is remembered are digests: 32 bytes each, useless to whoever reads them.
_RETIRED_TOKENS: Final = 1024

_log: Final = logging.getLogger("trio_lifecycle")

_NOT_POST: Final = Reply(405, "a callback is a POST")
_UNKNOWN: Final = Reply(404, "the token is not known")
_TWICE: Final = Reply(409, "the daemon has reported already")
_LATE: Final = Reply(410, "the daemon is not waited for any more")
_UNDECIDED: Final = Reply(503, "it could not be told whether this is the daemon; try again")

Verify = Callable[[Mapping[str, Any], Peer | None], Awaitable[str | None]]
"""Says what is wrong with a callback that has the right token; None when it is the daemon's."""


class CallbackReceiver:
    """Takes the callbacks of daemons inside a web server that the program runs anyway.

    Mount ``receiver.asgi`` where ``base_url`` leads to, and give the receiver to the ready mode::

        receiver = CallbackReceiver("http://10.0.0.5:8000/lifecycle")
        app = Starlette(routes=[Mount("/lifecycle", app=receiver.asgi)])
        config = LifecycleConfig(binary_name="worker", ready_mode=Callback(receiver))

    One receiver serves any number of daemons. Its server may run in the same Trio loop, in another
    thread, or under asyncio. Every callback is a POST of a JSON object to ``base_url/TOKEN``; each
    spawn has a token of its own, good for one callback. The answer's status says what became of it:

    - 200: taken, the daemon is ready.
    - 403: the token is right, but this is not the daemon: another instance, another process.
    - 404: the token is not known. 405: not a POST.
    - 408: the request was not complete after 5 s. 413: its body is longer than 64 KiB.
    - 409: the daemon has reported already; nothing happens.
    - 410: the daemon is not waited for any more.
    - 422: the body is no JSON object, or ``url``, ``port``, ``pid`` or ``instance_id`` in it is no
      such thing.
    - 503: it could not be told within 5 s whether this is the daemon; it may try again.

    Args:
        base_url: Where daemons reach ``asgi``. Only the last part of a path is looked at, so it
            does not matter whether a mount or a proxy takes away what stands before it. For a
            daemon on another machine a loopback address is led back to, and the URL that it gets
            has another port: give it in digits (``localhost`` is taken for 127.0.0.1; an https URL
            keeps its host, which the certificate is for). Any other host the daemon has to reach
            over the network.

    Raises:
        ConfigError: The URL can't be one.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = _check_base_url(base_url)
        self._expected: dict[bytes, Expectation] = {}
        self._retired: OrderedDict[bytes, Reply] = OrderedDict()
        self._refused = 0
        # The server may run in another thread than the loop in which daemons are awaited.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"CallbackReceiver({self._base_url!r})"

    @property
    def base_url(self) -> str:
        """Where daemons reach it, without the token."""
        return self._base_url

    @property
    def refused(self) -> int:
        """How many callbacks were refused so far."""
        return self._refused

    @property
    def asgi(self) -> ASGIReceiver:
        """The receiver as an ASGI application."""
        return ASGIReceiver(self)

    def expect(self, verify: Verify, base_url: str | None = None) -> "Expectation":
        """Make a token that is good for one callback. To be called in the loop that will wait.

        Args:
            verify: Says whether a callback is the daemon's; called in this loop.
            base_url: Where this daemon reaches the receiver, if not at its own ``base_url``.
        """
        expectation = Expectation(self, verify, base_url or self._base_url)
        with self._lock:
            self._expected[expectation.digest] = expectation
        return expectation

    def retire(self, expectation: "Expectation") -> None:
        """Take no callback with this token any more. Doing it again is fine."""
        with self._lock:
            if self._expected.pop(expectation.digest, None) is None:
                return
            late = _LATE if expectation.body is None else _TWICE
            self._retired[expectation.digest] = late
            if len(self._retired) > _RETIRED_TOKENS:
                self._retired.popitem(last=False)

    async def handle(self, method: str, path: str, body: bytes, peer: Peer | None) -> Reply:
        """Take or refuse one callback. Any event loop may call it.

        Args:
            method: The request's method.
            path: Its path; the last part is the token.
            body: Its whole body.
            peer: Who sent it, where that is known.
        """
        found = self._find(method, path)
        if isinstance(found, Reply):
            return self.refuse(found.status, found.problem)
        try:
            facts = parse_body(body)
        except ValueError as error:
            return self.refuse(422, str(error), found)
        return await found.offer(facts, peer)

    def refuse(self, status: int, problem: str, expectation: "Expectation | None" = None) -> Reply:
        """Count a refused callback, and give the reply to it.

        Args:
            status: The HTTP status.
            problem: The sentence that goes with it.
            expectation: Whose callback it was; None when that can't be told: it may be anyone's.
        """
        reply = Reply(status, problem)
        with self._lock:
            self._refused += 1
            for concerned in [expectation] if expectation else self._expected.values():
                concerned.refused += 1
                concerned.last_refusal = f"{status}, {reply.problem}"
        return reply

    def _find(self, method: str, path: str) -> "Expectation | Reply":
        if method != "POST":
            return _NOT_POST
        digest = _digest(path.rpartition("/")[2])
        with self._lock:
            # All are compared, so that the time says nothing about any of them.
            equal = [e for e in self._expected.values() if hmac.compare_digest(e.digest, digest)]
            return equal[0] if equal else self._retired.get(digest, _UNKNOWN)


class Expectation:
    """A callback that is waited for; made by ``CallbackReceiver.expect``.

    Attributes:
        token: The secret that makes a callback good, once.
        digest: What the token is recognized by.
        url: Where the daemon is to call.
        body: What the daemon said, once it has called.
        refused: How many callbacks were refused that were the daemon's, or may have been.
        last_refusal: The status and problem of the last of them.
    """

    def __init__(self, receiver: CallbackReceiver, verify: Verify, base_url: str) -> None:
        self.token: Final = secrets.token_urlsafe(32)
        self.digest: Final = _digest(self.token)
        self.url: Final = f"{base_url}/{self.token}"
        self.body: Mapping[str, Any] | None = None
        self.refused = 0
        self.last_refusal = ""
        self._receiver = receiver
        self._verify = verify
        self._closed = False
        self._home = trio.lowlevel.current_trio_token()
        self._taken = trio.Event()
        self._answered = trio.Event()

    async def wait(self) -> Mapping[str, Any]:
        """Wait until a callback was taken and answered; give its body."""
        await self._taken.wait()
        if not self._answered.is_set():
            with trio.move_on_after(_ANSWER_LIMIT_S):
                await self._answered.wait()
        assert self.body is not None
        return self.body

    def close(self) -> None:
        """Take no callback any more. Doing it again is fine."""
        self._closed = True
        self._receiver.retire(self)

    async def offer(self, body: Mapping[str, Any], peer: Peer | None) -> Reply:
        """Take or refuse a callback that has the token. Any event loop may call it."""
        if runs_in(self._home):
            return await self._decide(body, peer)
        replies: list[Reply] = []
        wait, wake = event_of_this_loop()

        async def decide() -> None:
            try:
                replies.append(await self._decide(body, peer))
            except Exception:
                _log.exception("a callback could not be checked")
            finally:
                wake()

        def begin() -> None:
            try:
                trio.lowlevel.spawn_system_task(decide)
            except RuntimeError:  # the loop is about to end and takes no tasks any more
                wake()

        try:
            self._home.run_sync_soon(begin)
        except trio.RunFinishedError:
            return self._refuse(_LATE)
        await wait()
        return replies[0] if replies else self._refuse(_UNDECIDED)

    async def _decide(self, body: Mapping[str, Any], peer: Peer | None) -> Reply:
        problem: str | None = None
        with trio.move_on_after(REQUEST_LIMIT_S) as limit:
            if self.body is None and not self._closed:
                problem = await self._verify(body, peer)
        if limit.cancelled_caught:
            return self._refuse(_UNDECIDED)
        # Looked at after the check, during which another callback may have been faster.
        if self.body is not None:
            return self._refuse(_TWICE)
        if self._closed:
            return self._refuse(_LATE)
        if problem:
            return self._refuse(Reply(403, problem))
        self.body = body
        self._taken.set()
        return Reply(200, sent=self._note_sent)

    def _refuse(self, reply: Reply) -> Reply:
        return self._receiver.refuse(reply.status, reply.problem, self)

    def _note_sent(self) -> None:
        if runs_in(self._home):
            self._answered.set()
            return
        with suppress(trio.RunFinishedError):
            self._home.run_sync_soon(self._answered.set)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="backslashreplace")).digest()


def _check_base_url(url: object) -> str:
    base = check_url("base_url", url)
    if "\0" in base or "?" in base:
        raise ConfigError("base_url", f"{show(base)!r} can hold no marker and no query")
    return base.rstrip("/")
