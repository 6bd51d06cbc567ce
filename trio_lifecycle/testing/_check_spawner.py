"""What every spawner must do, as a check."""

import signal
import uuid
from collections.abc import Sequence

import trio

from trio_lifecycle import BinaryNotFoundError, Output, SpawnError
from trio_lifecycle.abc import Process, Spawner, SpawnRequest

# How long the check waits for what must happen soon, before it calls it missing.
_PATIENCE_S = 10.0


async def check_spawner(
    spawner: Spawner,
    *,
    stays: Sequence[str] = ("sleep", "1000"),
    ends: Sequence[str] = ("false",),
) -> None:
    """Hold a spawner to its contract.

    Args:
        spawner: The spawner.
        stays: A program with its arguments that runs until it gets a signal.
        ends: A program with its arguments that ends at once, with status 1.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    async with trio.open_nursery() as nursery:
        check = _Check(spawner, nursery)
        await check.a_signal_ends_it(stays, signal.SIGTERM)
        await check.a_signal_ends_it(stays, signal.SIGKILL)
        await check.everybody_sees_the_end(ends)
        await check.a_cancelled_wait_leaves_it_alone(stays)
        await check.a_cancelled_spawn_leaves_nothing(stays)
        await check.a_missing_program_is_reported()
        await check.ports_differ()
        nursery.cancel_scope.cancel()


class _Check:
    """One check of one spawner."""

    def __init__(self, spawner: Spawner, nursery: trio.Nursery) -> None:
        self._spawner = spawner
        self._nursery = nursery

    async def a_signal_ends_it(self, command: Sequence[str], signum: signal.Signals) -> None:
        process = await self._spawn(command)
        assert not process.ended, "a program that stays has ended at once"
        assert process.pid is not None, "a spawned process has no pid"
        assert await process.contains(process.pid) is not False, "it is not in its own tree"
        await process.signal_tree(signum)
        with trio.fail_after(_PATIENCE_S):
            status = await process.wait()
            await process.wait_gone()
        assert process.gone, "wait_gone() has returned, but gone is false"
        assert status == -signum, f"status {status} after {signum.name}"
        assert process.find_stuck() is None, "something is stuck although all is gone"
        await process.signal_tree(signum)
        await process.send_signal(signum)
        process.close()
        process.close()
        assert process.status == status, "the status is forgotten after close()"

    async def everybody_sees_the_end(self, command: Sequence[str]) -> None:
        process = await self._spawn(command)
        statuses = []

        async def wait() -> None:
            statuses.append(await process.wait())

        with trio.fail_after(_PATIENCE_S):
            async with trio.open_nursery() as waiters:
                for _ in range(3):
                    waiters.start_soon(wait)
            await process.wait_gone()
        assert statuses == [1, 1, 1], f"three tasks waited and saw {statuses}"
        assert process.ended, "wait() has returned, but ended is false"
        process.close()

    async def a_cancelled_wait_leaves_it_alone(self, command: Sequence[str]) -> None:
        process = await self._spawn(command)
        with trio.move_on_after(0.01):
            await process.wait()
        assert not process.ended, "cancelling wait() has ended the process"
        await self._end(process)

    async def a_cancelled_spawn_leaves_nothing(self, command: Sequence[str]) -> None:
        process = None
        with trio.CancelScope() as scope:
            scope.cancel()
            process = await self._spawn(command)
        # Either nothing was spawned, or it was handed over.
        if process is not None:
            await self._end(process)

    async def a_missing_program_is_reported(self) -> None:
        name = f"no-such-program-{uuid.uuid4().hex}"
        try:
            await self._spawner.find_binary(name, ())
        except BinaryNotFoundError as missing:
            named = missing.name
        else:
            raise AssertionError("find_binary() found a program that is not there")
        assert named == name, f"BinaryNotFoundError names {named!r}"
        try:
            await self._spawner.spawn(self._request(f"/{name}", ()), self._nursery)
        except (SpawnError, BinaryNotFoundError):
            return
        raise AssertionError("spawn() started a program that is not there")

    async def ports_differ(self) -> None:
        reserved = [await self._spawner.reserve_port() for _ in range(20)]
        numbers = {port.number for port in reserved}
        assert len(numbers) == len(reserved), "a port was given twice"
        for port in reserved:
            port.release()
            port.release()

    async def _spawn(self, command: Sequence[str]) -> Process:
        name, *args = command
        program = await self._spawner.find_binary(name, ())
        return await self._spawner.spawn(self._request(program, args), self._nursery)

    def _request(self, program: str, args: Sequence[str]) -> SpawnRequest:
        return SpawnRequest(
            name="checked",
            instance_id=uuid.uuid4().hex,
            program=program,
            args=tuple(args),
            env={},
            working_dir=None,
            output=Output(),
            detached=False,
        )

    async def _end(self, process: Process) -> None:
        await process.signal_tree(signal.SIGKILL)
        with trio.fail_after(_PATIENCE_S):
            await process.wait_gone()
        process.close()
