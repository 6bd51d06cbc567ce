"""The demo's play: what is asked of the programs, one after the other, and what is seen of them."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from trio_lifecycle._cli._codes import ALL_WELL, NOT_KEPT_UP
from trio_lifecycle._cli._demo_audience import Audience
from trio_lifecycle._cli._demo_end import End
from trio_lifecycle._cli._session import Session
from trio_lifecycle._errors import LifecycleError
from trio_lifecycle.demo._asking import DEATH_KNOWN_S, AskingError
from trio_lifecycle.demo._hub import Hub
from trio_lifecycle.demo._models import PYDOC
from trio_lifecycle.demo._programs import state_folder
from trio_lifecycle.demo._sentences import sentence_of
from trio_lifecycle.demo.keeper import Keeper
from trio_lifecycle.demo.queen_lifecycle import HERE

PROMPT: Final = "A context manager is"
_WORDS: Final = 48

_NOT_LEFT: Final = (
    "queen-rbee does not run any more; if it has left hives, stop them with: rbee-keeper stop"
)


class Play:
    """Runs the programs, and shows them.

    Args:
        hosts: Machines that get a hive, too.
        keep: Whether all is left running.
        json: Whether events are printed, instead of the table.

    Attributes:
        audience: What was seen of it.
    """

    def __init__(self, hosts: Sequence[str], *, keep: bool, json: bool) -> None:
        self._hosts = hosts
        self._keep = keep
        self._session = session = Session(
            0,
            self._farewell,
            watches_stdout=True,
            shows_output=True,
            settle=self._settle,
        )
        session.display.name("demo")
        hub = Hub("rbee-keeper")
        self._keeper = Keeper(state_folder() / "queen.sqlite", observer=hub.observe)
        self.audience = Audience(session, hub, json=json)
        self._end = End(self._keeper, self.audience, hosts)

    async def __call__(self) -> int:
        """Play to the end, or until a signal comes.

        Returns:
            The exit status.
        """
        return await self._session.run(self._play, self._end.insist)

    @property
    def _leaves(self) -> bool:
        queen = self._keeper.used
        return self._keep or (queen is not None and queen.origin == "adopted")

    def _farewell(self, key: str) -> str:
        return "leaving all of it" if self._leaves else f"stopping everything ({key} kills at once)"

    def _settle(self, status: int) -> int:
        return self._session.insist_on_output(status)

    async def _play(self) -> int:
        status = ALL_WELL
        async with self.audience.watching():
            try:
                await self._act()
            except LifecycleError as error:
                self.audience.complain(sentence_of(error, "queen-rbee can't be had"))
                status = NOT_KEPT_UP
            except AskingError as error:
                self.audience.complain(str(error))
                await self._tell_of_death()
                status = NOT_KEPT_UP
            finally:
                # What was started is stopped, also after Ctrl-C; bounded by its own patience.
                with trio.CancelScope(shield=True):
                    status = await self._close() or status
        return status

    async def _tell_of_death(self) -> None:
        """Have it told that the queen has died, if she has."""
        queen = self._keeper.used
        if queen is not None and await queen.check() == "gone":
            # What else is left of her, the end takes care of.
            with suppress(LifecycleError):
                await queen.stop()

    async def _act(self) -> None:
        audience = self.audience
        audience.tell("rbee-keeper has queen-rbee running, and leaves it so:")
        queen = await self._keeper.queen()
        if queen.origin == "adopted":
            audience.tell("queen-rbee ran already: it is used, and left running")
        audience.hear(queen)
        if self._hosts:
            # Without others it would get one with the first request.
            await self._keeper.add_hive(HERE)
        for host in self._hosts:
            await audience.announce(f"queen-rbee has a hive on {host}, over SSH:")
            await self._keeper.add_hive(host)
        await audience.announce(
            "a text is to be continued: a hive has a worker load a model for that"
        )
        with audience.text(PROMPT) as show:
            await self._keeper.infer(PROMPT, PYDOC, _WORDS, show)
        vector = await self._keeper.embed(PROMPT)
        await audience.announce(
            f"a text has become a vector of {len(vector)} numbers, by the fifth program"
        )
        await audience.hear_memory()

    async def _close(self) -> int:
        if self._keeper.used is None:
            self.audience.close()
            self.audience.tell("nothing is left: queen-rbee was not up yet")
            return ALL_WELL
        if self._leaves:
            return await self._leave()
        return await self._end.come()

    async def _leave(self) -> int:
        is_left = await self._is_left()
        self.audience.close()
        if not is_left:
            self.audience.complain(_NOT_LEFT)
            return NOT_KEPT_UP
        self.audience.tell("all is left running; see: rbee-keeper status")
        self.audience.tell("stop it with: rbee-keeper stop")
        return ALL_WELL

    async def _is_left(self) -> bool:
        """Whether a queen runs, as it was to be; another program may have stopped or killed her."""
        with trio.move_on_after(DEATH_KNOWN_S):
            try:
                return await self._keeper.status() is not None
            except (LifecycleError, AskingError):
                pass
        return True
