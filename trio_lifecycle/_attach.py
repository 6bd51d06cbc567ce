"""Taking up a daemon that was left running, by nothing but its name."""

from trio_lifecycle._diary import Diary
from trio_lifecycle._entry import Entry, recorded_ladder
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._liveness import Asker
from trio_lifecycle._names import check_name
from trio_lifecycle._record_errors import DaemonNotRunningError, RegistryError
from trio_lifecycle._states import State
from trio_lifecycle._stop import Stopper
from trio_lifecycle.abc import DaemonRecord, Observer, Registry, Report, Spawner
from trio_lifecycle.spawner._local import LocalSpawner


async def attach(
    name: str,
    registry: Registry | None = None,
    *,
    spawner: Spawner | None = None,
    observer: Observer | None = None,
) -> DaemonHandle:
    """Take up a daemon that runs, by its name: wait for it, read its log, stop it.

    Nothing is started, and the daemon is not asked whether it is up; it may still be starting. Its
    handle has the ``instance_id`` of its spawn and climbs the stop ladder that it was started with.
    Where its main process has ended but others of it are left, ``wait_exit()`` returns at once, and
    ``stop()`` ends these. The record of one that is gone is removed where that can be, unless it
    was still starting.

    Args:
        name: The daemon's name.
        registry: Where it is remembered. Defaults to this user's: ``SQLiteRegistry()``.
        spawner: Where it runs. Defaults to this machine.
        observer: Hears what becomes of it through this handle.

    Raises:
        ConfigError: The name can't be a daemon's.
        DaemonNotRunningError: It is not recorded, or its process is gone.
        DaemonStateUnknownError: Whether its process lives can't be told from here.
        RegistryError: The registry can't be used.
    """
    check_name("name", name)
    if registry is not None and not isinstance(registry, Registry):
        raise ConfigError(
            "registry", f"must be a Registry such as SQLiteRegistry(path), not {registry!r}"
        )
    place = _default() if registry is None else registry
    record = await place.get(name)
    if record is None:
        raise DaemonNotRunningError(name, f"{place!r} has no record of it")
    where = spawner or LocalSpawner()
    process = await where.find_process(record)
    if process is None or process.gone:
        and_so = "; its record was removed" if await _clear_away(place, record) else ""
        problem = f"process {record.pid} is gone{and_so}"
        raise DaemonNotRunningError(name, problem)
    diary = Diary(name, record.instance_id, observer, State.READY)
    stopper = Stopper(process, recorded_ladder(record), diary, Entry(place, record))
    report = await where.reach(Report(record.url, record.port, record.report), None, process)
    # What its mode was is not recorded, only that there was one.
    by = (process, stopper, report, 0.0, (), Asker(process).ask)
    return DaemonHandle(name, record.instance_id, "adopted", *by)


async def _clear_away(place: Registry, record: DaemonRecord) -> bool:
    """Remove the record of one that is gone; say whether that was done."""
    if record.state == "starting":
        # Whoever starts it holds the claim, and sees to what is recorded.
        return False
    try:
        return await place.remove(record)
    except RegistryError:
        # It is gone, also where nothing can be written.
        return False


def _default() -> Registry:
    # Loads SQLite, which owners without a registry never need.
    from trio_lifecycle.registry._default import default_registry

    return default_registry()
