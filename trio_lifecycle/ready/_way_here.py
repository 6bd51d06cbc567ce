"""The way back of a daemon that runs on this machine: it calls the server itself."""

import os

import trio

from trio_lifecycle._proc import connection_uid, holder_of
from trio_lifecycle.abc import Caller, Peer, WayBack


class WayHere(WayBack):
    """The server's own address."""

    async def caller(self, peer: Peer) -> Caller | None:
        """Ask the kernel whose socket stands at the other end."""
        found = connection_uid(peer.client, peer.server)
        if found is None:
            return None
        uid, inode = found
        if uid == os.geteuid():
            return Caller(uid, None, is_same_user=True)
        # In a thread, because it looks at every descriptor of the machine.
        holder = await trio.to_thread.run_sync(holder_of, inode)
        return Caller(uid, holder, is_same_user=False)
