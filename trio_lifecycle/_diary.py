"""The diary of one instance: every event moves its state by the table and goes to the observer."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from trio_lifecycle._events import Event
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._states import State, next_state
from trio_lifecycle._waits import apart
from trio_lifecycle.abc import Observer

_log: Final = logging.getLogger("trio_lifecycle")


class Diary:
    """What happened to one instance so far, and where it stands.

    Args:
        name: The daemon's name.
        instance_id: Which spawn of it this is about.
        observer: Who is told.
        state: Where it stands at first.
        secrets: What stands in no event.
    """

    def __init__(
        self,
        name: str,
        instance_id: str,
        observer: Observer | None,
        state: State = State.NEW,
        secrets: Secrets | None = None,
    ) -> None:
        self.name = name
        self.instance_id = instance_id
        self.state: State = state
        self._observer = observer
        self._secrets = secrets or Secrets()

    def note(self, kind: Callable[..., Event], **facts: Any) -> None:
        """Note an event: the state moves, and the observer is told.

        An observer that raises is logged and hears no more.

        Raises:
            IllegalMoveError: The table has no such move; nothing changes and nobody is told.
        """
        facts = {key: self._blot_out(fact) for key, fact in facts.items()}
        event = kind(name=self.name, instance_id=self.instance_id, time=time.time(), **facts)
        self.state = next_state(self.state, event.kind)
        if self._observer is None:
            return
        try:
            # A task that it starts is not waited for.
            with apart():
                self._observer(event)
        except BaseException as error:  # noqa: ASYNC103  # an observer awaits nothing
            _log.exception(
                "an observer of %s failed at %r and hears no more", self.name, event.kind
            )
            self._observer = None
            if not isinstance(error, Exception):
                raise

    def _blot_out(self, fact: Any) -> Any:
        return self._secrets.blot_out(fact) if isinstance(fact, str) else fact
