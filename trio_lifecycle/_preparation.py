"""What is done before there is a process: where its output goes, its port, its request."""

import errno
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import trio
from attrs import evolve

from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._destination import Output
from trio_lifecycle._errors import ConfigError, SpawnError
from trio_lifecycle._logs import rotate
from trio_lifecycle._markers import FREE_PORT, Marker, fill, markers_in
from trio_lifecycle._passed_sockets import PID_VARIABLE, CannotListenError, PassedSockets
from trio_lifecycle._paths import absolute
from trio_lifecycle._requests import INSTANCE_VARIABLE, NOT_INHERITED
from trio_lifecycle._state_dir import log_path, make_private
from trio_lifecycle.abc import ArmedReady, Prober, Progress, Spawner, SpawnRequest, Start

_log: Final = logging.getLogger("trio_lifecycle")

# How long letting go of a callback socket and the like may take; it never needs the network.
_DISARM_PATIENCE_S: Final = 1.0


async def choose_port(
    config: LifecycleConfig, spawner: Spawner, held: AsyncExitStack, sockets: PassedSockets
) -> dict[Marker, str]:
    """Reserve a port if the configuration wants one; ``held`` lets go of it.

    One that the kernel has chosen for a socket needs no reservation.

    Raises:
        SpawnError: None is free.
    """
    if sockets.free_port is not None:
        return {FREE_PORT: str(sockets.free_port)}
    if FREE_PORT not in config.markers:
        return {}
    try:
        port = await spawner.reserve_port()
    except OSError as error:
        problem = f"no port is free ({error})"
        raise SpawnError(config.name, problem, error.errno, retryable=True) from error
    held.callback(port.release)
    return {FREE_PORT: str(port.number)}


async def open_sockets(config: LifecycleConfig, sockets: PassedSockets, prober: Prober) -> None:
    """Have the sockets open that are passed to the daemon.

    Raises:
        SpawnError: One can't be had; it says who has its address.
    """
    try:
        sockets.open()
        return
    except CannotListenError as error:
        refusal = error
    problem = f"it can't listen at {refusal.wanted}: {await _reason(refusal, prober)}"
    raise SpawnError(config.name, problem, refusal.errno) from refusal


async def _reason(error: CannotListenError, prober: Prober) -> str:
    wanted = error.wanted
    if wanted.unix is None and error.errno == errno.EADDRINUSE:
        owner = await prober.describe_owner(wanted.host, error.port)
        if wanted.is_free_port:
            return f"{owner} has taken port {error.port}, which it had before. Stop that program"
        return f"{owner} has that port. Stop that program, or choose another port"
    if wanted.unix is None and error.errno == errno.EACCES:
        return "only root may have it (net.ipv4.ip_unprivileged_port_start); take a higher port"
    if wanted.unix is None and error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return error.detail


def insist_on_plain_output(config: LifecycleConfig) -> None:
    """Refuse what this program would have to do to the output of a daemon that outlives it.

    Raises:
        ConfigError: That is wanted.
    """
    for name in ("timestamps", "prefix", "rotate"):
        if getattr(config.output, name):
            raise ConfigError(
                f"output.{name}",
                f"{config.name} is to outlive this program, so it writes its file itself, just as "
                f"it is: leave out {name}, or own it, as by 'async with lifecycle.running()'",
            )


def detached_output(
    config: LifecycleConfig, directory: Path | None, *, is_here: bool = True
) -> Output:
    """Say where the output of a daemon goes that outlives this program; older logs make room.

    Args:
        config: The daemon's.
        directory: Where logs are that name no file; None is in the state directory.
        is_here: Whether it runs on this machine. On another one paths are its own, and its spawner
            makes the file.

    Raises:
        ConfigError: It is to go where only this program can bring it, or the state directory is not
            private.
        SpawnError: The file can't be made.
    """
    output = config.output
    if output.to is not None and not isinstance(output.to, Path):
        raise ConfigError(
            "output.to",
            f"{config.name} is to outlive this program, so its output can only go to a "
            "file: give a path, or nothing for a file in the state directory",
        )
    if not is_here:
        return output
    if output.to is not None:
        return evolve(output, to=absolute("output.to", output.to))
    path = log_path(os.environ, config.name, directory)
    try:
        make_private(path.parent)
        rotate(path)
    except OSError as error:
        raise SpawnError(
            config.name, f"its log file can't be made: {error}", error.errno
        ) from error
    return evolve(output, to=path)


def make_start(
    config: LifecycleConfig,
    instance_id: str,
    port: int | None,
    prober: Prober,
    hear: Callable[[Progress], None] | None = None,
    queue_at: Callable[[str, int], bool | None] | None = None,
) -> Start:
    """Tell a ready mode what is known before the spawn.

    Args:
        config: The daemon's.
        instance_id: The id of the spawn.
        port: What FREE_PORT stands for, if it is used.
        prober: Asks from where the daemon runs.
        hear: Takes what the daemon says of itself.
        queue_at: Knows the sockets that are passed to it.
    """
    values: dict[Marker, str] = {} if port is None else {FREE_PORT: str(port)}
    given = {**config.env, **config.secret_env}
    env = {key: None if text is None else fill(text, values) for key, text in given.items()}
    start = Start(
        name=config.name,
        instance_id=instance_id,
        port=port,
        prober=prober,
        in_arguments=markers_in(config.args),
        env={key: text for key, text in env.items() if text is None or not markers_in([text])},
        secrets=config.secrets,
        working_dir=config.working_dir,
        user=config.user,
        group=config.group,
        passes_sockets=bool(config.listen),
    )
    start = start if hear is None else evolve(start, hear=hear)
    return start if queue_at is None else evolve(start, queue_at=queue_at)


async def arm_again(
    config: LifecycleConfig, instance_id: str, port: int | None, prober: Prober
) -> ArmedReady | None:
    """Get the ready mode ready to ask a daemon that runs; None where it can't be asked again."""
    start = make_start(config, instance_id, port, prober)
    return await config.ready_mode.arm_again(start)


def make_request(
    config: LifecycleConfig,
    instance_id: str,
    program: str,
    output: Output,
    values: Mapping[Marker, str],
    armed: ArmedReady,
    sockets: PassedSockets,
    *,
    detached: bool,
    gated: bool,
) -> SpawnRequest:
    """Fill in all that is known now.

    Raises:
        ConfigError: The ready mode gives the daemon a descriptor as a number that can't be, or that
            is a socket's.
    """
    both = sockets.descriptors.keys() & armed.descriptors
    if both:
        problem = f"descriptor {min(both)} of the daemon is a socket of listen; choose another"
        raise ConfigError("ready_mode", problem)
    given = {**config.env, **config.secret_env}
    env = {key: None if value is None else fill(value, values) for key, value in given.items()}
    not_inherited: dict[str, str | None] = dict.fromkeys(NOT_INHERITED)
    return SpawnRequest(
        name=config.name,
        instance_id=instance_id,
        program=program,
        args=tuple(fill(arg, values) for arg in config.args),
        env=not_inherited | env | {**sockets.env, **armed.env, INSTANCE_VARIABLE: instance_id},
        working_dir=config.working_dir,
        output=output,
        detached=detached,
        limits=config.limits,
        umask=config.umask,
        user=config.user,
        group=config.group,
        ladder=config.stop_ladder,
        gated=gated,
        descriptors={**sockets.descriptors, **armed.descriptors},
        pid_variable=PID_VARIABLE if sockets.wanted else None,
        secrets=tuple(env[key] or "" for key in config.secret_env),
    )


async def disarm(armed: ArmedReady) -> None:
    """Let a ready mode let go of what it has taken."""
    # Shielded: a socket that stays open after a cancelled start is a leak. Bounded, because it is
    # somebody's plug-in.
    with trio.move_on_after(_DISARM_PATIENCE_S, shield=True):
        try:
            await armed.disarm()
        except Exception:
            _log.exception("a ready mode could not let go of what it had taken")
