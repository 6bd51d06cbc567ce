"""The connection to the machine of ``--host``, before anything else: what it waits for is shown."""

from typing import Final

import trio

from trio_lifecycle._cli._display import Display, Wait
from trio_lifecycle._cli._machine_options import MachineOptions
from trio_lifecycle._cli._speech import say
from trio_lifecycle._errors import LifecycleError

# A machine that is up answers in less; then one begins to wonder.
_SILENCE_S: Final = 2.0


async def connect(machine: MachineOptions, display: Display) -> None:
    """Connect to a machine that is not this one.

    Raises:
        ConfigError: What was said of it can't be meant.
        SSHConnectError: It can't be reached.
    """
    if machine.is_here:
        # What belongs to another machine is refused.
        machine.spawner()
        return
    there = machine.elsewhere()
    display.machine = there.name
    display.begin(Wait(f"connecting to {there.name}", lambda: "", lambda: ""))
    await there.facts()
    display.end_wait()


async def connect_plainly(machine: MachineOptions) -> None:
    """Do the same for a command without a display: a line says what is waited for.

    Raises:
        ConfigError: What was said of it can't be meant.
        SSHConnectError: It can't be reached.
    """
    if machine.is_here:
        machine.spawner()
        return
    there = machine.elsewhere()
    failure: LifecycleError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_say_later, f"connecting to {there.name}")
        try:
            await there.facts()
        except LifecycleError as error:
            # Outside of the nursery, which would wrap it into a group.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _say_later(text: str) -> None:
    await trio.sleep(_SILENCE_S)
    say(text)
