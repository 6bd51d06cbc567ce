"""What every ready mode must do, as a check."""

import pickle

import trio

from trio_lifecycle.abc import ReadyMode, Start
from trio_lifecycle.testing._daemon import SimulatedDaemon
from trio_lifecycle.testing._incarnation import HANGS
from trio_lifecycle.testing._spawner import SimulatedProcess, SimulatedSpawner

# How long the check waits for what must happen soon, before it calls it missing.
_PATIENCE_S = 10.0

# How long a wait is watched that must not end.
_WATCHED_S = 0.2


async def check_ready_mode(mode: ReadyMode, *, waits: bool = True) -> None:
    """Hold a ready mode to its contract.

    The daemon of the check takes connections, but says nothing and answers nothing, so a mode is
    seen to wait, to be cancelled, and to leave nothing behind. That it hears a daemon is for a test
    of its own.

    Args:
        mode: The mode.
        waits: False for a mode that is ready at once.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    _check_value(mode)
    silent = SimulatedDaemon(health=[(0.0, HANGS)])
    prober = SimulatedSpawner(silent).open_prober()
    start = Start(name="checked", instance_id="0" * 32, port=silent.port, prober=prober)
    process = SimulatedProcess(silent.start())
    await _check_disarm_without_wait(mode, start)
    armed = await mode.arm(start)
    assert mode.markers == armed.values.keys(), "values() does not fit markers"
    for text in (*armed.env, *armed.env.values(), *armed.values.values()):
        assert "\0" not in text, "a NUL is to be put into the daemon's arguments or environment"
    assert armed.last_seen, "last_seen is empty before the wait"
    report = None
    with trio.move_on_after(_WATCHED_S):
        report = await armed.wait(process)
    assert (report is None) == waits, f"wait() gave {report!r}"
    with trio.fail_after(_PATIENCE_S):
        asked = await armed.ask(process)
    assert (asked is None) == waits, f"ask() gave {asked!r}"
    assert armed.last_seen, "last_seen is empty after the wait"
    for secret in armed.secrets:
        assert secret not in armed.last_seen, "a secret shows in last_seen"
        assert secret not in repr(mode), "a secret shows in repr()"
    await armed.disarm()
    await armed.disarm()


def _check_value(mode: ReadyMode) -> None:
    assert mode == mode, "it does not equal itself"
    assert hash(mode) == hash(mode), "its hash changes"
    assert mode == pickle.loads(pickle.dumps(mode)), "its copy does not equal it"
    assert "\0" not in repr(mode), "a marker shows as NUL in repr()"
    assert mode.longest_interval_s >= 0, "its interval is negative"


async def _check_disarm_without_wait(mode: ReadyMode, start: Start) -> None:
    armed = await mode.arm(start)
    with trio.fail_after(_PATIENCE_S):
        await armed.disarm()
