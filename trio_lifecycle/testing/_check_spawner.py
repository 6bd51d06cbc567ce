"""What every spawner must do, as a check."""

import signal
import uuid
from collections.abc import Sequence

import trio
from attrs import evolve

from trio_lifecycle import BinaryNotFoundError, Output, SpawnError
from trio_lifecycle.abc import DaemonRecord, Process, Report, Spawner, SpawnRequest

# How long the check waits for what must happen soon, before it calls it missing.
_PATIENCE_S = 10.0

# How long it looks whether something happens that must not.
_MOMENT_S = 0.05

# Between two looks at a process that was killed.
_LOOK_INTERVAL_S = 0.01


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
        await check.a_look_tells_of_the_end(stays)
        await check.an_address_is_reached_or_there_is_none(stays)
        await check.a_cancelled_spawn_leaves_nothing(stays)
        await check.nothing_runs_before_its_gate_is_open(ends)
        await check.one_that_ends_at_its_gate_leaves_nothing(stays)
        await check.a_record_finds_it(stays)
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

    async def a_look_tells_of_the_end(self, command: Sequence[str]) -> None:
        process = await self._spawn(command)
        await process.look()
        assert _seen(process) == (False, None), "look() has ended the process, or left it unseen"
        await process.signal_tree(signal.SIGKILL)
        with trio.fail_after(_PATIENCE_S):
            while not process.gone:
                await trio.sleep(_LOOK_INTERVAL_S)
                await process.look()
        assert _seen(process) == (True, None), "it is gone, but has not ended, or is unseen"
        process.close()

    async def an_address_is_reached_or_there_is_none(self, command: Sequence[str]) -> None:
        process = await self._spawn(command)
        nowhere = await self._spawner.reach(Report(facts={"a": 1}), self._nursery, process)
        assert nowhere == Report(facts={"a": 1}), "reach() has invented an address"
        port = await self._spawner.reserve_port()
        report = Report(f"http://127.0.0.1:{port.number}/a", port.number, {"a": 1})
        for nursery in (self._nursery, None):
            reached = await self._spawner.reach(report, nursery, process)
            assert reached.facts == report.facts, "reach() has changed what the daemon said"
            assert reached.url is not None, "reach() has lost an address"
            assert reached.url.endswith(f":{reached.port}/a"), "reach() gives a url of another port"
        port.release()
        await self._end(process)

    async def a_cancelled_spawn_leaves_nothing(self, command: Sequence[str]) -> None:
        process = None
        with trio.CancelScope() as scope:
            scope.cancel()
            process = await self._spawn(command)
        # Either nothing was spawned, or it was handed over.
        if process is not None:
            await self._end(process)

    async def nothing_runs_before_its_gate_is_open(self, command: Sequence[str]) -> None:
        process = await self._spawn(command, gated=True)
        with trio.move_on_after(_MOMENT_S):
            await process.wait()
        assert not process.ended, "it has run, although its gate was not opened"
        with trio.fail_after(_PATIENCE_S):
            await process.open_gate()
            await process.open_gate()
            status = await process.wait()
            await process.wait_gone()
        assert status == 1, f"status {status} of a program that ends with 1, behind a gate"
        process.close()

    async def one_that_ends_at_its_gate_leaves_nothing(self, command: Sequence[str]) -> None:
        process = await self._spawn(command, gated=True)
        await process.signal_tree(signal.SIGKILL)
        with trio.fail_after(_PATIENCE_S):
            await process.wait_gone()
            try:
                await process.open_gate()
            except SpawnError:
                process.close()
                return
        raise AssertionError("open_gate() said nothing of a process that had ended")

    async def a_record_finds_it(self, command: Sequence[str]) -> None:
        process, other = await self._spawn(command, gated=True), await self._spawn(command)
        identity = process.identity
        assert identity is None or identity != other.identity, "two processes are one"
        assert await self._find(process) == process.pid, "a record does not find it"
        await process.open_gate()
        assert process.identity == identity, "its identity has changed"
        assert await self._find(process) == process.pid, "a record does not find it"
        await self._end(process)
        await self._end(other)
        assert process.identity == identity, "its identity has changed"
        assert identity is None or await self._find(process) is None, "it is found after its end"

    async def _find(self, process: Process) -> int | None:
        """Look for a process by a record of it; one that can't be recorded is believed."""
        identity = process.identity
        if identity is None:
            return process.pid
        record = DaemonRecord(
            name="checked", instance_id="", started_at=0.0, heartbeat_at=0.0, **identity._asdict()
        )
        found = await self._spawner.find_process(record)
        return None if found is None else found.pid

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

    async def _spawn(self, command: Sequence[str], *, gated: bool = False) -> Process:
        name, *args = command
        program = await self._spawner.find_binary(name, ())
        request = evolve(self._request(program, args), gated=gated)
        return await self._spawner.spawn(request, self._nursery)

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


def _seen(process: Process) -> tuple[bool, str | None]:
    return process.ended, process.unseen
