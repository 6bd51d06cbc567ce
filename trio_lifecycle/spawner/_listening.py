"""Whose listening socket it is: a daemon's, or another's."""

import os
from collections.abc import Callable, Iterable

from trio_lifecycle._proc import Stat, has_variable, holders_of, holds_socket, listeners_at
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle.abc import Verdict


class Listening:
    """The listening sockets of one daemon, as far as they were met.

    Args:
        tree: Gives the living processes of its tree.
        instance_id: What one of its processes bears that is not in the tree any more; empty where
            that is not known.
    """

    def __init__(self, tree: Callable[[], list[Stat]], instance_id: str) -> None:
        self._tree = tree
        self._instance_id = instance_id
        # The kernel gives the numbers of sockets anew only after thousands of millions of others.
        self._met: set[int] = set()

    def note_passed(self, descriptors: Iterable[int]) -> None:
        """Take what was passed to the daemon for its own, although this program has it, too."""
        self._met.update(os.fstat(fd).st_ino for fd in descriptors)

    def verdict_at(self, host: str, port: int, main: int | None) -> Verdict:
        """Say whether who listens at an address of this machine is of the daemon.

        Args:
            host: The address.
            port: The port.
            main: The daemon's main process, if it lives: it is asked first.
        """
        found = listeners_at(host, port)
        if not found:
            return Verdict.UNKNOWN
        verdicts = {self._verdict_on(listener.inode, main) for listener in found}
        return verdicts.pop() if len(verdicts) == 1 else Verdict.FOREIGN

    def _verdict_on(self, inode: int, main: int | None) -> Verdict:
        if inode in self._met:
            return Verdict.OURS
        verdict = self._look_who_holds(inode, main)
        if verdict is Verdict.OURS:
            self._met.add(inode)
        return verdict

    def _look_who_holds(self, inode: int, main: int | None) -> Verdict:
        if main is not None and holds_socket(main, inode):
            return Verdict.OURS
        held = [holds_socket(stat.pid, inode) for stat in self._tree()]
        if True in held:
            return Verdict.OURS
        is_unsure = None in held
        holders = list(holders_of(inode)) if is_unsure or self._instance_id else []
        # The daemon's owner may be among them, who has passed it.
        if any(map(self._is_stray, holders)):
            return Verdict.OURS
        # One of ours that can't be looked at may have it, unless somebody else is seen to.
        return Verdict.UNKNOWN if is_unsure and not holders else Verdict.FOREIGN

    def _is_stray(self, pid: int) -> bool:
        # A child that forked twice belongs to nobody any more, but has its environment from us.
        return bool(self._instance_id) and has_variable(pid, INSTANCE_VARIABLE, self._instance_id)
