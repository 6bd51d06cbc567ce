"""Processes beside a campaign that look like its own, and that nobody may hurt."""

import subprocess
import sys
from typing import Final

from tests.chaos.campaign import PATIENCE_S, Application, NotPlayedError
from tests.chaos.daemons import command
from tests.chaos.plan import Choice, draw
from tests.chaos.survey import REAPER, Seen, descendants, look

# The same command line as a daemon's, and the same kind with a family.
_KINDS: Final = ("plain", "forking", "setsid")
# As the reaper's own, should somebody look for that by name.
_LIKE_THE_REAPER: Final = ("-I", "-S", "-c", "import time; time.sleep(7200)", REAPER)
# Another application, with daemons in blocks and in a nursery and a reaper of its own.
_SEED: Final = 0


class Bystanders:
    """They run from the beginning to the end of a campaign; one that is hurt is replaced."""

    def __init__(self) -> None:
        self._alone: list[subprocess.Popen[bytes]] = []
        self._neighbour: Application | None = None
        self._members: list[Seen] = []

    def start(self) -> None:
        """Start all, and note who they are."""
        for words in (*map(command, _KINDS), [sys.executable, *_LIKE_THE_REAPER]):
            process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
            self._alone.append(process)
            if REAPER not in words:
                assert process.stdout is not None
                assert process.stdout.readline() == b"up\n"
        self._neighbour = Application(draw(_SEED, Choice(("cancellation",), _KINDS)))
        if not self._neighbour.hears("up", seconds=PATIENCE_S):
            raise NotPlayedError(f"the neighbour did not start: {self._neighbour.last_words()}")
        mine = [*(process.pid for process in self._alone), self._neighbour.pid]
        found = [seen for pid in mine for seen in (look(pid), *descendants(pid))]
        self._members = [seen for seen in found if seen is not None]

    def hurt(self) -> list[str]:
        """Say who of them is not there any more, or stands still."""
        return [str(member) for member in self._members if not _is_well(member)]

    def replace(self) -> None:
        """Start others in their place."""
        self.end()
        self.start()

    def end(self) -> None:
        """End them; what belongs to them is left to whoever is their subreaper."""
        for process in self._alone:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._alone.clear()
        if self._neighbour is not None:
            self._neighbour.order("cancellation")
            self._neighbour.hears("end", seconds=PATIENCE_S)
            self._neighbour = None


def _is_well(member: Seen) -> bool:
    now = look(member.pid)
    return now is not None and now.started == member.started and now.state not in "ZXT"
