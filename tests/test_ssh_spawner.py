"""Daemons on another machine, over a real SSH server."""

from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.sshd import Server, running_sshd, sshd
from trio_lifecycle import (
    FREE_PORT,
    BinaryNotFoundError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    GuaranteeError,
    HealthCheck,
    LifecycleConfig,
    LogLine,
    Manual,
    Output,
    RemoteBinaryNotFoundError,
    SpawnError,
    SQLiteRegistry,
    SSHConnectError,
    SSHSpawner,
    TCPPort,
)
from trio_lifecycle._http import HTTPClient
from trio_lifecycle._proc import read_stat
from trio_lifecycle.abc import Question
from trio_lifecycle.testing import check_spawner

__all__ = ["sshd"]

pytestmark = pytest.mark.needs("sshd")

HTTP = LifecycleConfig(
    "python3",
    # -u: before 3.9 Python kept back what it wrote to a pipe as an error.
    args=["-u", "-m", "http.server", "--bind", "127.0.0.1", FREE_PORT],
    ready_mode=HealthCheck(f"http://localhost:{FREE_PORT}/"),
)


def shell(script: str, **changes: object) -> LifecycleConfig:
    """A daemon that is a script."""
    options: dict[str, object] = {"ready_mode": Manual(), **changes}
    return LifecycleConfig("sh", args=["-c", script], name="script", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_it_keeps_the_contract_of_spawners(sshd: Server, guarantee: str) -> None:
    await check_spawner(sshd.spawner(guarantee=guarantee))


async def test_a_service_there_is_reached_at_a_port_of_this_machine(sshd: Server) -> None:
    lifecycle = DaemonLifecycle(HTTP, spawner=sshd.spawner())
    async with lifecycle.running() as daemon:
        assert ("spawned", "guarded") == (daemon.origin, daemon.guarantee)
        assert daemon.url is not None
        assert daemon.url == f"http://127.0.0.1:{daemon.port}/"
        assert 200 == (await HTTPClient().ask(Question(daemon.url))).status
        assert "running" == await daemon.check()
        assert "GET / HTTP/1.1" in daemon.output_tail
        pid = daemon.pid
    assert pid is not None
    assert read_stat(pid) is None
    assert "gone" == await daemon.check()


async def test_its_death_before_it_is_ready_is_told_with_its_last_words(sshd: Server) -> None:
    for guarantee in ("guarded", "scoped"):
        config = shell("echo no license >&2; exit 3", ready_mode=TCPPort(FREE_PORT))
        lifecycle = DaemonLifecycle(config, spawner=sshd.spawner(guarantee=guarantee))
        with trio.fail_after(15), pytest.raises(DiedBeforeReadyError) as caught:
            async with lifecycle.running():
                raise AssertionError("it has become ready")
        assert (3, "no license\n") == (caught.value.exit_status, caught.value.output_tail)


async def test_a_daemon_that_stays_is_found_by_its_record_and_stopped(
    sshd: Server, tmp_path: Path
) -> None:
    config = shell(
        "echo up; exec sleep 1000",
        ready_mode=LogLine("up"),
        detach=True,
        output=Output(to=tmp_path / "log"),
    )
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        lifecycle = DaemonLifecycle(config, spawner=sshd.spawner(), registry=registry)
        daemon = await lifecycle.ensure_running()
        assert ("spawned", "detached") == (daemon.origin, daemon.guarantee)
        other = DaemonLifecycle(config, spawner=sshd.spawner(), registry=registry)
        found = await other.ensure_running()
        assert ("adopted", daemon.pid) == (found.origin, daemon.pid)
        assert "up\n" == found.output_tail
        assert await lifecycle.ensure_running() is daemon
        report = await found.stop()
        assert "SIGTERM" == report.rung
        assert "gone" == await daemon.check()
        assert [] == await registry.daemons()


async def test_what_is_not_there_is_told_with_the_machine_and_every_place(sshd: Server) -> None:
    lifecycle = DaemonLifecycle(
        LifecycleConfig("no-such-program", ready_mode=Manual()), spawner=sshd.spawner()
    )
    with pytest.raises(RemoteBinaryNotFoundError, match=r"On 127\.0\.0\.1: no-such-") as caught:
        async with lifecycle.running():
            raise AssertionError("it runs")
    assert isinstance(caught.value, BinaryNotFoundError)
    assert "/usr/bin/no-such-program" in caught.value.searched


async def test_environment_directory_and_arguments_come_through_as_they_are(
    sshd: Server, tmp_path: Path
) -> None:
    hostile = ["a b", "'", '"', "$(touch x)", "`touch x`", "a\nb", "ü\udcff", "", "-e", "*", "\\"]
    directory = tmp_path / "with space"
    directory.mkdir()
    script = 'printf "%s|" "$@" "$VALUE" "${HOME_GONE-unset}" "$PWD"; echo; exec sleep 1000'
    for guarantee in ("guarded", "scoped"):
        config = LifecycleConfig(
            "sh",
            args=["-c", script, "sh", *hostile],
            env={"VALUE": "$(touch x)\n'", "HOME_GONE": None},
            working_dir=directory,
            ready_mode=LogLine("with space"),
            name="hostile",
        )
        spawner = sshd.spawner(guarantee=guarantee)
        async with DaemonLifecycle(config, spawner=spawner).running() as daemon:
            expected = "|".join([*hostile, "$(touch x)\n'", "unset", str(directory), "\n"])
            assert expected.replace("\udcff", "\\xff") == daemon.output_tail
    assert [] == list(directory.iterdir())


async def test_what_was_asked_for_and_can_not_be_had_is_refused(sshd: Server) -> None:
    lifecycle = DaemonLifecycle(shell("sleep 9"), spawner=sshd.spawner(guarantee="contained"))
    with pytest.raises(GuaranteeError, match="contained"):
        async with lifecycle.running():
            raise AssertionError("it runs")


async def test_a_directory_that_is_not_there_is_named(sshd: Server) -> None:
    for guarantee in ("guarded", "scoped"):
        config = shell("sleep 9", working_dir="/no/such/place")
        lifecycle = DaemonLifecycle(config, spawner=sshd.spawner(guarantee=guarantee))
        with pytest.raises(SpawnError, match="/no/such/place"):
            async with lifecycle.running():
                raise AssertionError("it runs")


async def test_an_output_file_of_this_machine_that_can_not_be_made_is_named(
    sshd: Server, tmp_path: Path
) -> None:
    for guarantee in ("guarded", "scoped"):
        config = shell("sleep 9", output=Output(to=tmp_path / "missing" / "log"))
        lifecycle = DaemonLifecycle(config, spawner=sshd.spawner(guarantee=guarantee))
        with pytest.raises(SpawnError, match=r"output can't be set up.*missing/log"):
            async with lifecycle.running():
                raise AssertionError("it runs")


def test_a_spawner_shows_where_it_leads_and_nothing_secret(sshd: Server) -> None:
    shown = repr(SSHSpawner("gpu-2", user="worker", port=2222, passphrase="sesame"))
    assert "SSHSpawner('worker@gpu-2:2222')" == shown


@pytest.mark.needs("sshd")
async def test_a_machine_whose_tools_talk_nonsense_is_an_error_of_its_own(tmp_path: Path) -> None:
    awk = tmp_path / "awk"
    awk.write_text("#!/bin/sh\nprintf '\\377 here\\n\\nx'\n")
    awk.chmod(0o755)
    with running_sshd(SetEnv=f"PATH={tmp_path}:/usr/bin:/bin") as server:
        prober = server.spawner().open_prober()
        with pytest.raises(SSHConnectError, match="its answer makes no sense"):
            await prober.owner_of("127.0.0.1", 1)
