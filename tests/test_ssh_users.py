"""As whom daemons on another machine run, with what limits and secrets."""

import grp
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
from attrs import evolve

from tests.odd_hosts import (
    UP,
    OddHost,
    odd_host,
    odd_server,
    run_detached,
    run_owned,
)
from tests.sshd import plain_user, running_sshd
from trio_lifecycle import (
    ConfigError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    LifecycleConfig,
    ListenSocket,
    Notify,
    SpawnError,
)

__all__ = ["odd_host", "odd_server"]

pytestmark = pytest.mark.needs("sshd")


def own(directory: str, user: str) -> None:
    """Give a directory to a user."""
    shutil.chown(directory, user)


@pytest.mark.skipif(os.getuid() != 0, reason="only root logs others in")
async def test_an_ordinary_user_has_all_of_it(tmp_path: Path) -> None:
    user = plain_user()
    if user is None:
        pytest.skip("there is no ordinary user")
    with tempfile.TemporaryDirectory(prefix="plain-") as home:
        own(home, user)
        # PAM: an account without a password is not taken for a locked one.
        with running_sshd(
            user, UsePAM="yes", SetEnv=f"HOME={home} XDG_STATE_HOME={home}"
        ) as server:
            await run_owned(server.spawner(guarantee="guarded"), "guarded")
            await run_owned(server.spawner(guarantee="scoped"), "scoped")
            await run_detached(server.spawner(), tmp_path)
            with pytest.raises(SpawnError, match="only root may"):
                await run_owned(server.spawner(), "guarded", user="root")


SHOWN = "id -un; id -gn; umask; ulimit -Sn; ulimit -Hn; echo up; exec /bin/sleep 1000"
ASKED: dict[str, Any] = {"umask": 0o027, "limits": {"nofile": (100, 200)}}


@pytest.mark.fault(77)
@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_limits_umask_user_and_group_hold_there_or_are_refused(
    odd_host: OddHost, guarantee: str
) -> None:
    config = evolve(UP, args=["-c", SHOWN], **ASKED)
    spawner = odd_host.spawner(guarantee=guarantee)
    me = pwd.getpwuid(os.getuid())
    async with DaemonLifecycle(config, spawner=spawner).running() as daemon:
        groups = grp.getgrgid(me.pw_gid).gr_name
        assert [me.pw_name, groups, "0027", "100", "200", "up"] == daemon.output_tail.split()
    other = plain_user()
    if other is None or os.getuid():
        return
    lifecycle = DaemonLifecycle(evolve(config, user=other, group=other), spawner=spawner)
    if guarantee == "guarded":
        async with lifecycle.running() as daemon:
            assert [other, other, "0027"] == daemon.output_tail.split()[:3]
        return
    with pytest.raises(SpawnError, match=r"user: .* use SSHSpawner\(\.\.\., user="):
        async with lifecycle.running():
            raise AssertionError("it runs")


async def test_a_socket_of_this_machine_can_not_be_listened_on_there(odd_host: OddHost) -> None:
    listen = LifecycleConfig(
        "/bin/sh", args=["-c", ":"], name="d", ready_mode=Notify(), listen=[ListenSocket(port=8080)]
    )
    with pytest.raises(ConfigError, match="listen"):
        async with DaemonLifecycle(listen, spawner=odd_host.spawner()).running():
            raise AssertionError("it runs")


@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_a_secret_stands_in_no_list_of_processes_no_log_and_no_error(
    odd_host: OddHost, guarantee: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = uuid4().hex
    script = 'echo "$SECRET"; echo up; exec /bin/sleep 1000'
    config = evolve(UP, args=["-c", script], secret_env={"SECRET": secret})
    caplog.set_level("DEBUG")
    lifecycle = DaemonLifecycle(config, spawner=odd_host.spawner(guarantee=guarantee))
    async with lifecycle.running() as daemon:
        assert secret not in daemon.output_tail
        assert daemon.output_tail.endswith("up\n")
        listed = await trio.run_process(["ps", "axww", "-o", "args"], capture_stdout=True)
        assert secret.encode() not in listed.stdout
        assert secret not in repr(daemon)
    failing = evolve(config, args=["-c", 'echo "$SECRET" >&2; exit 3'])
    with pytest.raises(DiedBeforeReadyError) as caught:
        async with DaemonLifecycle(
            failing, spawner=odd_host.spawner(guarantee=guarantee)
        ).running():
            raise AssertionError("it is ready")
    assert secret not in f"{caught.value!r} {caught.value} {caught.value.output_tail}"
    assert secret not in caplog.text
