"""What is done before there is a process: where its output goes, its port, its request."""

import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from attrs import evolve

from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._destination import Output
from trio_lifecycle._errors import ConfigError, SpawnError
from trio_lifecycle._logs import rotate
from trio_lifecycle._markers import FREE_PORT, Marker, fill, markers_in
from trio_lifecycle._paths import absolute
from trio_lifecycle._requests import CALLBACK_VARIABLE, INSTANCE_VARIABLE
from trio_lifecycle._state_dir import log_path, make_private
from trio_lifecycle.abc import ArmedReady, Prober, Progress, Spawner, SpawnRequest, Start


async def choose_port(
    config: LifecycleConfig, spawner: Spawner, held: AsyncExitStack
) -> dict[Marker, str]:
    """Reserve a port if the configuration wants one; ``held`` lets go of it.

    Raises:
        SpawnError: None is free.
    """
    if FREE_PORT not in config.markers:
        return {}
    try:
        port = await spawner.reserve_port()
    except OSError as error:
        problem = f"no port is free ({error})"
        raise SpawnError(config.name, problem, error.errno, retryable=True) from error
    held.callback(port.release)
    return {FREE_PORT: str(port.number)}


def detached_output(config: LifecycleConfig, directory: Path | None) -> Output:
    """Say where the output of a daemon goes that outlives this program; older logs make room.

    Args:
        config: The daemon's.
        directory: Where logs are that name no file; None is in the state directory.

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
) -> Start:
    """Tell a ready mode what is known before the spawn.

    Args:
        config: The daemon's.
        instance_id: The id of the spawn.
        port: What FREE_PORT stands for, if it is used.
        prober: Asks from where the daemon runs.
        hear: Takes what the daemon says of itself.
    """
    values: dict[Marker, str] = {} if port is None else {FREE_PORT: str(port)}
    env = {key: None if text is None else fill(text, values) for key, text in config.env.items()}
    start = Start(
        name=config.name,
        instance_id=instance_id,
        port=port,
        prober=prober,
        in_arguments=markers_in(config.args),
        env={key: text for key, text in env.items() if text is None or not markers_in([text])},
        working_dir=config.working_dir,
        user=config.user,
        group=config.group,
    )
    return start if hear is None else evolve(start, hear=hear)


def make_request(
    config: LifecycleConfig,
    instance_id: str,
    program: str,
    output: Output,
    values: Mapping[Marker, str],
    armed: ArmedReady,
    *,
    detached: bool,
    gated: bool,
) -> SpawnRequest:
    """Fill in all that is known now.

    Raises:
        ConfigError: The ready mode gives the daemon a descriptor as a number that can't be.
    """
    env = {key: None if value is None else fill(value, values) for key, value in config.env.items()}
    return SpawnRequest(
        name=config.name,
        instance_id=instance_id,
        program=program,
        args=tuple(fill(arg, values) for arg in config.args),
        # The callback of our own starter is not for our daemons.
        env={CALLBACK_VARIABLE: None, **env, **armed.env, INSTANCE_VARIABLE: instance_id},
        working_dir=config.working_dir,
        output=output,
        detached=detached,
        limits=config.limits,
        umask=config.umask,
        user=config.user,
        group=config.group,
        ladder=config.stop_ladder,
        gated=gated,
        descriptors=armed.descriptors,
    )
