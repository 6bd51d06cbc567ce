"""What a hive tells of its workers, heard whole although the way to it breaks off."""

import json
from contextlib import aclosing
from typing import Final

import trio

from trio_lifecycle.demo._asking import Asker, AskingError, address, lines_of
from trio_lifecycle.demo._hives import Hive
from trio_lifecycle.demo._hub import Hub
from trio_lifecycle.demo.queen_lifecycle import HERE

# When there is no connection any more, or no hive: then the queen is about to see that.
_AGAIN_S: Final = 1.0


async def listen(hive: Hive, instance_id: str, told: trio.Event, asker: Asker, hub: Hub) -> None:
    """Pass on what a hive tells, until it is gone.

    Args:
        hive: The hive.
        instance_id: Which start of it is listened to.
        told: Set when all was heard that it has told.
        asker: Asks it.
        hub: Where it is passed on.
    """
    heard, elsewhere = 0, {} if hive.host == HERE else {"host": hive.host}
    while (handle := hive.handle) is not None and handle.instance_id == instance_id:
        asked = asker.stream("GET", address(handle, f"/events?after={heard}"))
        try:
            async with asked as bits, aclosing(lines_of(bits)) as lines:
                async for line in lines:
                    hub.pass_on(json.loads(line) | elsewhere)
                    heard += 1
            # It ends; or else it has cut off who was too slow for it, and there is more.
            told.set()
        except (AskingError, ValueError):
            pass
        await trio.sleep(_AGAIN_S)
    told.set()
