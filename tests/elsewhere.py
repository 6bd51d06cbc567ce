"""A prober that is elsewhere: what reports back to this program has to be led here."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from trio_lifecycle import LocalSpawner
from trio_lifecycle.abc import Caller, Datagram, Inbox, Peer, Start, WayBack
from trio_lifecycle.spawner._local_prober import LocalProber

# Higher than Linux lets a process's number be: whoever asked this machine would find nobody.
THERE = 5_000_000


class Relay(WayBack):
    """Carries connections from a port of its own to a server, in system tasks.

    Attributes:
        who: Who has made the connections, by what it is asked with; None: it can't be told.
        calls: The far ends of all connections, by the ends that the server sees.
    """

    def __init__(self, listener: trio.SocketListener, to: tuple[str, int]) -> None:
        address = listener.socket.getsockname()
        super().__init__(address[0], address[1])
        self.who: Caller | None = None
        self.calls: dict[tuple[str, int], tuple[str, int]] = {}
        self.open = trio.CancelScope()
        self.left = 0
        self._listener = listener
        self._to = to

    async def caller(self, peer: Peer) -> Caller | None:
        await trio.lowlevel.checkpoint()
        assert self._to == peer.server
        return self.who if peer.client in self.calls else None

    async def run(self) -> None:
        with self.open:
            await trio.serve_listeners(self._carry, [self._listener])

    async def _carry(self, far: trio.SocketStream) -> None:
        try:
            near = await trio.open_tcp_stream(*self._to)
        except OSError:
            await far.aclose()
            return
        self.calls[near.socket.getsockname()] = far.socket.getpeername()
        async with far, near, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, far, near)
            await _pump(near, far)
            nursery.cancel_scope.cancel()


async def _pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
    try:
        async for data in source:
            await target.send_all(data)
        await target.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


class Letterbox(Inbox):
    """An inbox that a test puts messages into.

    Attributes:
        users: The users of the processes there.
        is_closed: Whether it was closed.
    """

    def __init__(self, address: str, uids: frozenset[int]) -> None:
        self._address = address
        self._uids = uids
        self._letters: list[Datagram] = []
        self._news = trio.Event()
        self.users: dict[int, frozenset[int]] = {}
        self.is_closed = False

    def post(self, text: str, pid: int, uid: int = 0, ancestors: tuple[int, ...] = ()) -> None:
        self._letters.append(Datagram(text.encode(), pid, uid, ancestors=ancestors))
        self._news.set()

    @property
    def address(self) -> str:
        return self._address

    @property
    def uids(self) -> frozenset[int]:
        return self._uids

    def receive(self) -> Datagram | None:
        return self._letters.pop(0) if self._letters else None

    async def wait(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError
        self._news = trio.Event()
        await self._news.wait()

    async def uids_of(self, pid: int) -> frozenset[int]:
        await trio.lowlevel.checkpoint()
        return self.users.get(pid, frozenset())

    async def close(self) -> None:
        self.is_closed = True
        self._news.set()


class Elsewhere(LocalProber):
    """Asks from this machine, but says that it does not.

    Attributes:
        ways: The ways back that were opened.
        inboxes: The inboxes that were opened.
        refusal: Why neither can be opened; None: both can.
    """

    def __init__(self) -> None:
        super().__init__(LocalSpawner())
        self.ways: list[Relay] = []
        self.inboxes: list[Letterbox] = []
        self.refusal: Callable[[], OSError] | None = None

    @property
    def is_here(self) -> bool:
        return False

    def open_way_back(self, host: str, port: int) -> AbstractAsyncContextManager[WayBack]:
        return self._way_back(host, port)

    @asynccontextmanager
    async def _way_back(self, host: str, port: int) -> AsyncIterator[WayBack]:
        self._refuse()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        relay = Relay(listener, (host, port))
        self.ways.append(relay)
        trio.lowlevel.spawn_system_task(relay.run)
        try:
            yield relay
        finally:
            relay.left += 1
            relay.open.cancel()
            await listener.aclose()

    async def open_inbox(
        self, directory: Path | None, user: str | int | None, longest_bytes: int
    ) -> Inbox:
        await trio.lowlevel.checkpoint()
        self._refuse()
        users = frozenset({0, user} if isinstance(user, int) else {0})
        self.inboxes.append(Letterbox(f"{directory or '@there'}/notify", users))
        return self.inboxes[-1]

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal()

    def start(self, **known: object) -> Start:
        """What a mode may know of a daemon that runs there."""
        usual = {"name": "worker", "instance_id": "7f", "port": None, "prober": self}
        return Start(**usual | known)  # type: ignore[arg-type]
