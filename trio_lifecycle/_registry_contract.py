"""The contract of a registry: what is remembered of daemons, and who may start one."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from trio_lifecycle._records import ClaimHolder, DaemonRecord, RecordChange


class Registry(ABC):
    """Remembers daemons by name, and gives out the right to start one.

    Every method but the constructor may raise RegistryError: the registry can't be used, and
    nothing in it was changed. Any task of any number of programs may use one at once; waiting in
    any of its methods can be cancelled at any time, and then nothing or all of it was done.
    """

    @property
    def log_directory(self) -> Path | None:
        """Where the logs of detached daemons go that name no file.

        None is the directory ``logs`` in this user's state directory. Two registries that may hold
        daemons of one name must not share one.
        """
        return None

    @abstractmethod
    def claim(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold the exclusive right to start the daemon of this name for the length of a block.

        The right of a program that is killed is free at once; it is never taken from one that
        lives. It is not re-entrant: claiming a name within its own block waits for ever. Waiting
        for it can be cancelled at once.

        Raises:
            ConfigError: The name can't be a daemon's.
        """

    @abstractmethod
    async def find_claim(self, name: str) -> ClaimHolder | None:
        """Say who holds the claim of this name at this moment; None when nobody does.

        Raises:
            ConfigError: The name can't be a daemon's.
        """

    @abstractmethod
    async def get(self, name: str) -> DaemonRecord | None:
        """Give the record of this name, None when there is none.

        Raises:
            ConfigError: The name can't be a daemon's.
        """

    def confirms(self, record: DaemonRecord) -> bool:
        """Say at once whether what is stored is still of this instance and in this state.

        For who asks often. False also where that can't be told without waiting; then ``get`` tells.
        It raises nothing.
        """
        return False

    @abstractmethod
    async def put(self, record: DaemonRecord) -> None:
        """Store a record in the place of any other of its name.

        When this returns, it outlives this program, however that ends (``MemoryRegistry`` lives
        only as long).
        """

    @abstractmethod
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        """Store ``new`` if what is stored is still of ``old``'s instance and in ``old``'s state.

        Returns:
            False when it is not, and nothing was done.

        Raises:
            ConfigError: The two are of different names.
        """

    @abstractmethod
    async def remove(self, record: DaemonRecord) -> bool:
        """Remove the record of this name if it still is about this instance, in whatever state.

        Another instance's is not touched.

        Returns:
            True when it was there.
        """

    @abstractmethod
    async def daemons(self) -> list[DaemonRecord]:
        """Give all records, ordered by name. Whether each one still runs is for others to judge."""

    @abstractmethod
    def watch(self) -> AsyncIterator[RecordChange]:
        """Give every record that is there, and then each change, in order, without an end.

        Of several changes to one name in quick succession only the last may be seen. It may be left
        at any moment. A wait for the next change can be cancelled: none is lost by that, and the
        watch goes on. What one watch has given, every other one still gives.
        """
