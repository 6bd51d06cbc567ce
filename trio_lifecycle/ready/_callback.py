"""Ready when the daemon posts to a URL that is good for this once."""

import ipaddress
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import trio
from attrs import field, frozen

from trio_lifecycle._errors import ConfigError, ReadyError
from trio_lifecycle._markers import CALLBACK_URL, Marker
from trio_lifecycle._receiver import CallbackReceiver, Expectation
from trio_lifecycle._requests import CALLBACK_VARIABLE
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._urls import host_of, loopback_addresses, port_of, with_address
from trio_lifecycle.abc import ArmedReady, Peer, Process, ReadyMode, Report, Start, WayBack
from trio_lifecycle.ready._callback_server import CallbackServer
from trio_lifecycle.ready._way_here import WayHere

__all__ = ["Callback", "CallbackReceiver"]

DEFAULT_HOST: Final = "127.0.0.1"

# The kernel caps it at net.core.somaxconn. A callback may come before the wait begins, and waits
# in this queue; the longer it is, the more idle connections it takes to fill it first.
_BACKLOG: Final = 65_535

# At the deadline: enough to answer a callback that is in the queue already, because the loop was
# busy elsewhere when it came.
_LAST_LOOK_S: Final = 0.05


def _receiver(receiver: CallbackReceiver | None) -> CallbackReceiver | None:
    value: object = receiver
    if value is None or isinstance(value, CallbackReceiver):
        return value
    raise ConfigError("receiver", f"must be a CallbackReceiver or None, not {value!r}")


def _host(address: str) -> str:
    value: object = address
    host = DEFAULT_HOST if value == "localhost" else value
    try:
        good = isinstance(host, str) and "%" not in host and ipaddress.ip_address(host)
    except ValueError:
        good = False
    if not good:
        raise ConfigError("host", f"must be an address such as '127.0.0.1', not {value!r}")
    return str(host)


@frozen
class Callback(ReadyMode):
    """Ready when the daemon sends a POST to a URL that was made for this spawn.

    The daemon finds the URL in ``TRIO_LIFECYCLE_CALLBACK_URL``, and wherever CALLBACK_URL stands.
    It may send a JSON object, or nothing. Of its keys four have a meaning: ``url`` (http or https)
    and ``port`` say where the daemon serves (a port alone means 127.0.0.1), ``pid`` must be a
    process of its tree, and ``instance_id`` must be what ``TRIO_LIFECYCLE_INSTANCE`` says. With
    every other key they stand in ``daemon.report``. Only the first good callback counts; one
    that comes before the spawn has returned is not lost. ``CallbackReceiver`` lists the answers.

    The environment of a process can be read by its user only, its arguments by everybody. So where
    CALLBACK_URL stands in the arguments, whoever calls must be a process of this user or of the
    daemon's tree, and must keep the connection open for the answer; if that can't be told (the
    connection came over a proxy or from another machine), the callback is refused.

    A daemon on another machine calls its own loopback address, and the spawner's connection leads
    that here: it need not reach this machine by itself, and on that machine, too, it is looked who
    calls. With the address of a network in ``host``, or in the receiver's URL, nothing is led: the
    daemon has to reach this machine over that network.

    Attributes:
        receiver: A receiver that is mounted in the program's own web server. Defaults to None: a
            small server runs for the length of each wait, on a free port.
        host: The address at which that server listens. Defaults to 127.0.0.1, where no other
            machine can knock. With 0.0.0.0 or :: it can, and the URL names the loopback address.
            Give one address of this machine for daemons that no spawner's connection leads here.
    """

    receiver: CallbackReceiver | None = field(default=None, converter=_receiver)
    host: str = field(default=DEFAULT_HOST, converter=_host)

    def __attrs_post_init__(self) -> None:
        if self.receiver and self.host != DEFAULT_HOST:
            raise ConfigError("host", "has no meaning with a receiver, which listens elsewhere")

    @property
    def markers(self) -> frozenset[Marker]:
        """CALLBACK_URL."""
        return frozenset({CALLBACK_URL})

    async def arm(self, start: Start) -> "ArmedCallback":
        """Make the token, and listen.

        Raises:
            ReadyError: The address is none of this machine's, the system refused, or nothing leads
                here from where the daemon will run.
            ConfigError: The spawner can't have it led here.
        """
        async with AsyncExitStack() as held:
            receiver, server = self.receiver, None
            if receiver is None:
                receiver, server = self._serve(start)
                held.callback(server.close)
            url, way = await _find_way(start, receiver.base_url, held)
            # Nothing is waited for from here on: what is held has an owner.
            return ArmedCallback(start, receiver, url, way, server, held.pop_all())

    def _serve(self, start: Start) -> tuple[CallbackReceiver, CallbackServer]:
        try:
            listener = _listen(self.host)
        except OSError as error:
            problem = f"listening at {self.host} for its callback failed: {error.strerror}"
            raise ReadyError(start.name, problem) from error
        receiver = CallbackReceiver(f"http://{_authority(listener)}/ready")
        return receiver, CallbackServer(receiver, listener)


def _listen(host: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.bind((host, 0))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _authority(listener: socket.socket) -> str:
    address: tuple[str, int] = listener.getsockname()[:2]
    host, port = address
    host = {"0.0.0.0": DEFAULT_HOST, "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _find_way(start: Start, url: str, held: AsyncExitStack) -> tuple[str, WayBack | None]:
    """Give a server's URL as the daemon finds it, and the way there; None is over a network."""
    here, port = loopback_addresses(host_of(url)), port_of(url)
    if start.prober.is_here:
        return url, WayHere(host_of(url), port)
    if not here:
        return url, None
    try:
        way = await held.enter_async_context(start.prober.open_way_back(here[0], port))
    except OSError as error:
        problem = f"nothing leads from its machine to here: {error.strerror or error}"
        raise ReadyError(start.name, problem) from error
    # The certificate is for the host that was written.
    host = host_of(url) if url.startswith("https:") else way.host
    return with_address(url, host, way.port), way


class ArmedCallback(ArmedReady):
    """A callback that one spawn is to send.

    Args:
        start: The spawn.
        receiver: Who takes it.
        url: Where the daemon finds the receiver.
        way: How it gets there; None where that is over a network.
        server: Runs for the length of the wait; None with a receiver that is mounted elsewhere.
        held: What is let go of at the end.
    """

    def __init__(
        self,
        start: Start,
        receiver: CallbackReceiver,
        url: str,
        way: WayBack | None,
        server: CallbackServer | None,
        held: AsyncExitStack,
    ) -> None:
        self._start = start
        self._way = way
        self._server = server
        self._held = held
        self._expectation: Final[Expectation] = receiver.expect(self._find_problem, url)
        self._process: Process | None = None
        self._spawned = trio.Event()
        self._disarmed = False

    @property
    def env(self) -> Mapping[str, str]:
        """The URL."""
        return {CALLBACK_VARIABLE: self._expectation.url}

    @property
    def values(self) -> Mapping[Marker, str]:
        """The URL."""
        return {CALLBACK_URL: self._expectation.url}

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token."""
        return (self._expectation.token,)

    @property
    def awaited(self) -> str:
        """A callback."""
        return "its callback"

    @property
    def last_seen(self) -> str:
        """Why the last callback was refused."""
        expectation = self._expectation
        if not expectation.refused:
            return "no callback came"
        refusal, count = expectation.last_refusal, expectation.refused
        return f"the last callback was refused: {refusal} ({count} refused)"

    async def wait(self, process: Process) -> Report:
        """Serve callbacks until a good one has come, and was answered."""
        self._process = process
        self._spawned.set()
        async with trio.open_nursery() as nursery:
            if self._server and self._expectation.body is None:
                nursery.start_soon(self._server.serve, nursery)
            body = await self._expectation.wait()
            nursery.cancel_scope.cancel()
        return self._report(body)

    async def ask(self, process: Process) -> Report | None:
        """Look into the queue of those who have called."""
        if self._expectation.body is None and self._disarmed:
            return None
        with trio.move_on_after(_LAST_LOOK_S):
            return await self.wait(process)
        return None

    async def disarm(self) -> None:
        """Stop listening, and let the token be good no more."""
        self._disarmed = True
        self._expectation.close()
        self._spawned.set()
        # First: who waits to be served is turned away, and nobody waits on the way for them.
        if self._server:
            self._server.close()
        await self._held.aclose()

    def _report(self, body: Mapping[str, Any]) -> Report:
        url: str | None = body.get("url")
        port: int | None = body.get("port")
        if url is not None:
            return Report(url, port or port_of(url), body)
        port = port or self._start.port
        return Report(f"http://{DEFAULT_HOST}:{port}" if port else None, port, body)

    # --- whether it is the daemon ---

    async def _find_problem(self, body: Mapping[str, Any], peer: Peer | None) -> str | None:
        # With a mounted receiver, the callback may be here before the spawn has returned.
        await self._spawned.wait()
        if self._process is None:
            return "the daemon was not spawned"
        instance_id, pid = body.get("instance_id"), body.get("pid")
        if instance_id not in (None, self._start.instance_id):
            # Before it is cut to the length of an answer: half a secret is not found.
            shown = Secrets(self._start.secrets).blot_out(str(instance_id))
            return f"instance_id {shown!r} is not this spawn's"
        if pid is not None and await self._process.contains(pid) is False:
            return f"process {pid} does not belong to the daemon"
        if CALLBACK_URL in self._start.in_arguments:
            return await self._find_stranger(self._process, peer)
        return None

    async def _find_stranger(self, process: Process, peer: Peer | None) -> str | None:
        """Say why whoever calls can't be trusted; None if it is the same user, or the daemon."""
        caller = await self._way.caller(peer) if self._way and peer else None
        if caller is None:
            return (
                "who calls can't be told; "
                f"take the URL from {CALLBACK_VARIABLE}, not from the arguments"
            )
        if caller.is_same_user:
            return None
        if caller.pid is not None and await process.contains(caller.pid):
            return None
        return f"whoever calls is user {caller.uid}, and not the daemon"
