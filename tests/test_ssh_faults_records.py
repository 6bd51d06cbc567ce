"""Records of daemons on another machine that was started anew, and logins that are refused."""

from contextlib import closing
from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.cutting import There, family, machine, staying, there
from tests.sshd import make_key
from tests.trace import Trace
from trio_lifecycle import (
    DaemonLifecycle,
    DaemonRecord,
    DaemonStateUnknownError,
    SQLiteRegistry,
    SSHAuthError,
    SSHConnectError,
    SSHHostKeyError,
    SSHSpawner,
)

__all__ = ["machine", "there"]

pytestmark = pytest.mark.needs("sshd")

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


# --- the machine was started anew -----------------------------------------------------------------


async def recorded_daemon(there: There, registry: SQLiteRegistry, name: str) -> DaemonRecord:
    """Start one that stays, and give its record."""
    lifecycle = DaemonLifecycle(staying(name), spawner=there.spawner(), registry=registry)
    await lifecycle.ensure_running()
    (record,) = await registry.daemons()
    return record


async def test_a_record_from_before_the_machine_was_started_anew_is_dropped(
    there: There, tmp_path: Path
) -> None:
    trace = Trace()
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        record = await recorded_daemon(there, registry, "boots")
        # As if it were of an earlier boot; the process of that number is another then.
        await registry.put(evolve(record, boot_id=OTHER_BOOT))
        lifecycle = DaemonLifecycle(
            staying("boots"), spawner=there.spawner(), registry=registry, observer=trace.observe
        )
        daemon = await lifecycle.ensure_running()
        assert "spawned" == daemon.origin
        assert "record_stale" in trace.kinds
        assert {record.pid, daemon.pid} == there.named("boots")
        await daemon.stop()
        # Nobody has touched the other.
        assert {record.pid} == there.named("boots")
        await registry.put(record)
        found = await DaemonLifecycle(
            staying("boots"), spawner=there.spawner(), registry=registry
        ).ensure_running()
        assert ("adopted", record.pid) == (found.origin, found.pid)
        await found.stop()


async def test_a_record_of_another_machine_is_kept_and_its_state_unknown(
    there: There, tmp_path: Path
) -> None:
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        record = await recorded_daemon(there, registry, "elsewhere")
        await registry.put(evolve(record, boot_id=OTHER_BOOT, host="elsewhere"))
        lifecycle = DaemonLifecycle(
            staying("elsewhere"), spawner=there.spawner(), registry=registry
        )
        with pytest.raises(DaemonStateUnknownError, match="running on machine elsewhere"):
            await lifecycle.ensure_running()
        assert ["elsewhere"] == [each.host for each in await registry.daemons()]
        await registry.put(record)
        await (await lifecycle.ensure_running()).stop()


# --- who is not let in ----------------------------------------------------------------------------


def keys_that_are_refused(there: There, directory: Path) -> dict[type[SSHConnectError], SSHSpawner]:
    """Spawners with another host key and with another user's key."""
    key = make_key(directory / "other")
    return {
        SSHHostKeyError: there.spawner(host_key=Path(f"{key}.pub").read_text()),
        SSHAuthError: there.spawner(client_keys=key),
    }


@pytest.mark.fault(68, 69)
async def test_wrong_keys_are_told_at_once_and_not_tried_again(
    there: There, tmp_path: Path
) -> None:
    log = there.server.directory / "log"
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        for expected, spawner in keys_that_are_refused(there, tmp_path).items():
            seen = connections_in(log)
            owned = DaemonLifecycle(family(), spawner=spawner)
            stays = DaemonLifecycle(staying("refused"), spawner=spawner, registry=registry)
            with trio.fail_after(5):
                with pytest.raises(expected):
                    await owned.running().__aenter__()
                with pytest.raises(expected):
                    await stays.ensure_running()
            assert seen + 2 == connections_in(log)
        assert [] == await registry.daemons()


def connections_in(log: Path) -> int:
    """How many the server has noted: before it says anything."""
    return log.read_text().count("Connection from")


@pytest.mark.fault(68)
async def test_a_recorded_daemon_behind_a_wrong_key_is_unknown_and_its_record_is_kept(
    there: There, tmp_path: Path
) -> None:
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        record = await recorded_daemon(there, registry, "behind")
        for expected, spawner in keys_that_are_refused(there, tmp_path).items():
            lifecycle = DaemonLifecycle(staying("behind"), spawner=spawner, registry=registry)
            with trio.fail_after(5), pytest.raises(DaemonStateUnknownError) as caught:
                await lifecycle.ensure_running()
            assert expected is type(cause_of(caught.value))
        assert [record.pid] == [each.pid for each in await registry.daemons()]
        assert {record.pid} == there.named("behind")
        lifecycle = DaemonLifecycle(staying("behind"), spawner=there.spawner(), registry=registry)
        await (await lifecycle.ensure_running()).stop()


def cause_of(error: BaseException) -> BaseException:
    """The first of its causes."""
    while error.__cause__ is not None and not isinstance(error, SSHConnectError):
        error = error.__cause__
    return error
