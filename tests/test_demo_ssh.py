"""The four programs with a hive on another machine, by the name that it has in ~/.ssh/config."""

import json
import os
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

from tests.cutting import There, Wire, expect_nothing_left, machine, there, wire_to
from tests.demo import unmeasured
from tests.gpu_box import environment_of, write_home
from tests.support import PATIENCE_S
from trio_lifecycle import LifecycleError, attach
from trio_lifecycle.demo import queen_lifecycle
from trio_lifecycle.demo._asking import Asker, address, lines_of
from trio_lifecycle.demo._sentences import sentence_of
from trio_lifecycle.demo.queen_lifecycle import HiveLifecycles

__all__ = ["machine", "there"]

pytestmark = [pytest.mark.needs("sshd"), pytest.mark.needs("ssh-keygen"), pytest.mark.slow]

KEEPER = Path(sysconfig.get_path("scripts")) / "rbee-keeper"


@frozen
class Elsewhere:
    """The programs, of which the hive is on the machine gpu-2."""

    there: There
    wire: Wire

    async def keeper(self, *words: str, status: int = 0) -> str:
        """Ask rbee-keeper, and give what it says."""
        done = await trio.run_process(
            [sys.executable, KEEPER, *words], capture_stdout=True, capture_stderr=True, check=False
        )
        assert status == done.returncode, done.stderr.decode()
        return (done.stdout + done.stderr).decode()

    async def hive(self) -> dict[str, Any]:
        """Say what the queen knows of the hive."""
        hives = json.loads(await self.keeper("--json", "status"))["hives"]
        assert ["gpu-2"] == [each["host"] for each in hives]
        return dict(hives[0])

    async def hive_once(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the queen knows this of the hive."""
        with trio.fail_after(PATIENCE_S):
            while not is_so(hive := await self.hive()):  # noqa: ASYNC110  # another program
                await trio.sleep(0.05)
            return hive

    async def hive_in(self, state: str) -> dict[str, Any]:
        """Wait until the queen has it in a state."""
        return await self.hive_once(lambda hive: state == hive["state"])

    def hives(self) -> list[int]:
        """The processes there that are hives."""
        return self.there.living("rbee-hive --name gpu-2")

    def workers(self) -> list[int]:
        """The processes there that are workers."""
        return self.there.living("llm-worker-rbee")

    async def queen(self) -> int:
        """The queen's process."""
        return int(json.loads(await self.keeper("--json", "status"))["pid"])

    async def spawned(self, pid: int) -> dict[str, Any]:
        """Wait until the queen tells that a process was started, and give what she says."""
        url = address(await attach("queen-rbee"), "/events")
        found: dict[str, Any] = {}
        # Cancelled, so that the generators between here and the connection are closed.
        with trio.move_on_after(PATIENCE_S) as scope:
            async with Asker() as asker, asker.stream("GET", url) as bits:
                async for line in lines_of(bits):
                    event = json.loads(line)
                    if ("spawned", pid) == (event["event"], event.get("pid")):
                        found = event
                        scope.cancel()
        return found


@asynccontextmanager
async def programs(there: There, home: Path) -> AsyncIterator[Elsewhere]:
    """Have gpu-2 reached through a wire; all is stopped at the end, whatever went wrong."""
    async with wire_to(there) as wire:
        write_home(home, there.server, wire.port)
        demo = Elsewhere(there, wire)
        with environment_of(home):
            try:
                yield demo
            except BaseException:
                with trio.CancelScope(shield=True):
                    wire.go_on()
                    await demo.keeper("stop")
                raise


async def test_a_hive_on_another_machine_answers_and_lives_through_cuts_and_deaths_of_its_queen(
    there: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ.keys() - unmeasured(os.environ):
        monkeypatch.delenv(name)
    async with programs(there, tmp_path / "home") as demo:
        assert "gpu-2: online, process " in await demo.keeper("hives", "--add", "gpu-2")
        assert (await demo.keeper("infer", "A list is", "--words", "3")).startswith("A list is ")
        first = await demo.hive_once(lambda hive: bool(hive["workers"]))
        assert "up" == first["workers"][0]["state"]
        await expect_one_through_a_cut(demo, first["pid"])
        await expect_adopted_by_the_next_queen(demo, first["pid"])
        await expect_replaced(demo, first)
        assert "rbee-hive on gpu-2 is gone, with its workers\n" == await demo.keeper("stop")
        await expect_nothing_left(there)


async def expect_one_through_a_cut(demo: Elsewhere, pid: int) -> None:
    """A connection that is lost is no end, and nothing is started twice."""
    demo.wire.fall_silent()
    demo.wire.cut()
    assert pid == (await demo.hive_in("unknown"))["pid"]
    demo.wire.go_on()
    assert pid == (await demo.hive_in("online"))["pid"]
    await demo.keeper("infer", "A list is", "--words", "1")
    assert [pid] == demo.hives()
    # What happens there is heard of again, too.
    os.kill(demo.workers()[0], signal.SIGKILL)
    await demo.there.wait_until(lambda: not demo.workers())
    await demo.keeper("infer", "A list is", "--words", "1")
    event = await demo.spawned(demo.workers()[0])
    assert ("gpu-2", "rbee-hive@gpu-2") == (event["host"], event["by"])


async def expect_adopted_by_the_next_queen(demo: Elsewhere, pid: int) -> None:
    """What the queen has started outlives her."""
    os.kill(await demo.queen(), signal.SIGKILL)
    await demo.keeper("infer", "A list is", "--words", "1")
    assert pid == (await demo.hive_in("online"))["pid"]
    assert [pid] == demo.hives()


async def expect_replaced(demo: Elsewhere, first: dict[str, Any]) -> None:
    """A hive that is killed takes its workers along, and the next request starts another."""
    os.kill(first["pid"], signal.SIGKILL)
    await demo.there.wait_until(lambda: not demo.workers(), seconds=2)
    await demo.hive_in("offline")
    await demo.keeper("infer", "A list is", "--words", "1")
    assert first["pid"] != (await demo.hive_in("online"))["pid"]


async def test_a_machine_without_the_programs_is_told_in_one_sentence(
    there: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queen_lifecycle, "PROGRAMS", tmp_path)
    async with programs(there, tmp_path / "home"):
        assert (
            f"there is no hive on gpu-2: rbee-hive is neither in {tmp_path} nor on the PATH of "
            "that machine; install trio_lifecycle there, with its extra demo"
        ) == await refusal("gpu-2")


async def refusal(host: str) -> str:
    """What a user hears of a hive that can't be had."""
    try:
        await HiveLifecycles([], lambda event: None).of(host).ensure_running()
    except LifecycleError as error:
        return sentence_of(error, f"there is no hive on {host}")
    pytest.fail("it started")
