"""The connections of this program: one for each machine, shared by all who need it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio
from attrs import define, field, fields

from trio_lifecycle._errors import LifecycleError
from trio_lifecycle._ssh._bridge import Bridge, bridge
from trio_lifecycle._ssh._failures import Progress, explain, too_slow, was_turned_away
from trio_lifecycle._ssh._login import Login, log_in, prepare
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh._target import LEFT_OUT, SSHTarget
from trio_lifecycle._ssh._transport import Transport
from trio_lifecycle._ssh_errors import SSHConnectError

# A server that has too many newcomers (MaxStartups) hangs up on some. They come again one by one.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.0

# Connections that are made at the same time; a server takes 10 newcomers for sure, by default.
_MOST_AT_ONCE: Final = 8

# A machine, and which of the connections to it.
Key = tuple[SSHTarget, int]


async def connection(target: SSHTarget, number: int = 0) -> Transport:
    """Give the connection to a machine, made if need be.

    All who ask at once wait for one attempt, and share what becomes of it.

    Args:
        target: The machine.
        number: Which of its connections. Defaults to 0, the one that all share; there are more
            only where more sessions are kept than a server allows on one.

    Raises:
        SSHConnectError: It can't be reached, or not in ``connect_timeout``.
        SSHAuthError: It does not let the user in.
        SSHHostKeyError: It could not be proved to be the right machine.
        ConfigError: What is needed is not installed, or a pinned key is none.
    """
    here = await _connections()
    return await here.get(target, (), number)


@define(eq=False)
class _Attempt:
    """A connection that is being made; for as long as somebody waits for it."""

    done: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    transport: Transport | None = None
    error: Exception | None = None
    waiting: int = 0


@define(eq=False)
class _Connections:
    """Those of one loop."""

    bridge: Bridge
    standing: dict[Key, Transport] = field(factory=dict)
    attempts: dict[Key, _Attempt] = field(factory=dict)
    at_once: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(_MOST_AT_ONCE))
    is_over: bool = False

    async def get(
        self, target: SSHTarget, via: tuple[SSHTarget, ...], number: int = 0
    ) -> Transport:
        """Give a standing one, or wait for one that is being made."""
        await trio.lowlevel.checkpoint()
        key = target, number
        standing = self.standing.get(key)
        if standing is not None and standing.lost is None:
            return standing
        attempt = self.attempts.get(key) or self._begin(key, via)
        with self._waiting(key, attempt):
            await attempt.done.wait()
        if attempt.error is not None:
            raise _again(attempt.error) from attempt.error.__cause__
        assert attempt.transport is not None
        return attempt.transport

    @contextmanager
    def _waiting(self, key: Key, attempt: _Attempt) -> Iterator[None]:
        attempt.waiting += 1
        try:
            yield
        finally:
            attempt.waiting -= 1
            if attempt.waiting == 0 and self.attempts.get(key) is attempt:
                # Nobody needs it any more, and who asks now begins anew.
                attempt.scope.cancel()
                del self.attempts[key]

    def _begin(self, key: Key, via: tuple[SSHTarget, ...]) -> _Attempt:
        attempt = self.attempts[key] = _Attempt()
        trio.lowlevel.spawn_system_task(
            self._attempt, key, via, attempt, name=f"connect to {key[0].host}"
        )
        return attempt

    async def _attempt(self, key: Key, via: tuple[SSHTarget, ...], attempt: _Attempt) -> None:
        try:
            with attempt.scope:
                attempt.transport = await _Connecting(self, key[0], via).run()
                self._keep(key, attempt.transport)
        except Exception as error:
            attempt.error = error
        finally:
            if self.attempts.get(key) is attempt:
                del self.attempts[key]
            if attempt.transport is None and attempt.error is None:
                attempt.error = LostError("the Trio run has ended")
            attempt.done.set()

    def _keep(self, key: Key, transport: Transport) -> None:
        if self.is_over:
            transport.abort()
        else:
            self.standing[key] = transport

    async def close(self) -> None:
        """Close all; bounded."""
        self.is_over = True
        async with trio.open_nursery() as nursery:
            for transport in self.standing.values():
                nursery.start_soon(transport.close)
        self.standing.clear()


@define
class _Connecting:
    """The work of one attempt."""

    here: _Connections
    target: SSHTarget
    via: tuple[SSHTarget, ...]
    progress: Progress | None = None
    turned_away: SSHConnectError | None = None

    async def run(self) -> Transport:
        """Connect within the target's patience."""
        limit = self.target.connect_timeout
        with trio.move_on_after(limit):
            login = await prepare(self.here.bridge, self.target)
            self.progress = login.progress
            tunnel = await self._tunnel(login)
            return await self._connect(login, tunnel)
        progress = self.progress or Progress(self.target.host, self.target.user, self.target.port)
        raise too_slow(progress, limit, self.turned_away)

    async def _tunnel(self, login: Login) -> Any:
        """Give the connection to go through, if there is one."""
        hop = self.target.tunnel
        if hop is LEFT_OUT and login.hops is not None:
            hop = self.target.through(login.hops, LEFT_OUT)
            # As ssh(1): a ProxyJump for all machines is not for the one that it names.
            if hop.host == self.target.host:
                return None
        if not isinstance(hop, SSHTarget):
            return None
        if hop in self.via:
            raise login.progress.fail(
                SSHConnectError,
                "its way leads in a circle",
                "Correct ProxyJump in ~/.ssh/config, or give tunnel=.",
                "going through other machines",
            )
        transport = await self.here.get(hop, (*self.via, self.target))
        return transport.connection

    async def _connect(self, login: Login, tunnel: Any) -> Transport:
        pause = _FIRST_PAUSE_S
        while True:
            transport = Transport(self.here.bridge, login)
            try:
                async with self.here.at_once:
                    transport.connection = await log_in(
                        self.here.bridge, login, tunnel, transport.hear_end
                    )
                return transport
            except LostError:
                raise
            except LifecycleError:
                raise
            except Exception as error:
                explained = explain(error, login.progress)
                if not was_turned_away(error, login.progress):
                    raise explained from error
                self.turned_away = explained
                explained.__cause__ = error
            if tunnel is None and await _is_no_ssh_server(login.address):
                raise self.turned_away from self.turned_away.__cause__
            await trio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, _LONGEST_PAUSE_S)


async def _is_no_ssh_server(address: tuple[str, int] | None) -> bool:
    """Say whether what listens there has other words for us than an SSH server's."""
    if address is None:
        return False
    try:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(b"SSH-2.0-trio_lifecycle\r\n")
            words = await stream.receive_some()
    except (OSError, trio.BrokenResourceError):
        return False
    # sshd has lines of its own before its version, when it is too busy.
    return bool(words) and b"SSH-" not in words and b"MaxStartups" not in words


def _again(error: Exception) -> Exception:
    """Give an error that is another task's own: each adds its own traceback."""
    if not isinstance(error, LifecycleError):
        return error
    return type(error)(**{fact.name: getattr(error, fact.name) for fact in fields(type(error))})


_by_bridge: Final = trio.lowlevel.RunVar[dict[Bridge, _Connections]]("trio_lifecycle.connections")


async def _connections() -> _Connections:
    over = await bridge()
    try:
        known = _by_bridge.get()
    except LookupError:
        known = {}
        _by_bridge.set(known)
    if over not in known:
        known[over] = _Connections(over)
        over.before_end(known[over].close)
    return known[over]
