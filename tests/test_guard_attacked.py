"""A guard in trouble: garbage, huge orders, many daemons, halves and machines that stand still."""

import errno
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from tests.guards import GUARD_PYTHON, guarded, start, until
from tests.reapers import status_of
from tests.sessions import LocalSession
from tests.support import PATIENCE_S, lives, request, wait_until_gone
from trio_lifecycle import SpawnError, StopLadder
from trio_lifecycle._ssh import _guard_program
from trio_lifecycle._ssh._guard_link import GuardLink, _order
from trio_lifecycle.spawner._kernel import children


class Unguided:
    """A guard that hears nothing but what a test sends."""

    def __init__(self, session: LocalSession, link: GuardLink) -> None:
        self.session = session
        self.inner, self.outer = link.inner, link.outer
        self.unread = b""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, limit_s: float = PATIENCE_S, command: tuple[str, ...] = ("sh", "-s")
    ) -> AsyncIterator["Unguided"]:
        """Have one; when the block is over, so is its input."""
        async with trio.open_nursery() as nursery:
            session = await LocalSession.start(nursery, command)
            yield cls(
                session, await GuardLink.open(session, GUARD_PYTHON, heartbeat_limit_s=limit_s)
            )
            session.close()
            with trio.fail_after(PATIENCE_S):
                await session.wait_end()

    async def hear(self, word: str) -> Any:
        """Wait until it says this; give what it says of it."""
        with trio.fail_after(PATIENCE_S):
            while True:
                *lines, self.unread = self.unread.split(b"\n")
                for facts in map(json.loads, lines):
                    if word in facts:
                        return facts
                self.unread += await self.session.receive()


def order(program: str, *args: str, **changes: Any) -> bytes:
    """A daemon as it is asked for."""
    changes = {"instance_id": os.urandom(8).hex(), **changes}
    return json.dumps(_order(1, request(program, *args, **changes), [])).encode() + b"\n"


def files_in(directory: Path) -> list[Path]:
    return [*directory.iterdir()]


# --- garbage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\n",
        b"{\n",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b'{"do": "spawn"}\n',
        b'{"do": "signal", "id": 1, "ask": 1, "tree": true, "signum": "x"}\n',
        b"\0" * 100_000 + b"\n",
    ],
    ids=["no text", "half", "list", "deep", "incomplete", "no number", "zeros"],
)
async def test_a_guard_that_hears_garbage_ends_its_daemons(garbage: bytes) -> None:
    async with guarded() as link:
        ward, _ = await start(link, "/bin/sleep", "1000")
        link._unsent.append(garbage)
        link._has_more.set()
        with trio.fail_after(PATIENCE_S):
            await link.wait_lost()
        assert str(link.lost).startswith("the guard has ended: ")
        await wait_until_gone(ward.pid)


async def test_half_an_order_starts_nothing(tmp_path: Path) -> None:
    whole = order("/usr/bin/touch", str(tmp_path / "ran"))
    async with Unguided.open() as guard:
        await guard.session.send(whole[:-1])
    assert [] == files_in(tmp_path)


# --- much -----------------------------------------------------------------------------------------


async def test_a_huge_order_is_refused_and_costs_others_nothing() -> None:
    async with guarded(limit_s=5.0) as link:
        ward, _ = await start(link, "/bin/sleep", "1000")
        with pytest.raises(SpawnError, match="E2BIG") as caught:
            await start(link, "/bin/true", "x" * 30_000_000)
        assert errno.E2BIG == caught.value.errno
        before = ward.seen_alive
        await until(lambda: ward.seen_alive > before)
        assert (None, True) == (link.lost, lives(ward.pid))


async def test_two_hundred_daemons_are_guarded() -> None:
    pids: list[int] = []
    async with guarded() as link:

        async def one() -> None:
            ward, _ = await start(link, "/bin/sleep", "1000")
            pids.append(ward.pid)

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(one)
        assert 200 == len(set(pids))
        assert all(map(lives, pids))
    await until(lambda: not any(map(lives, pids)))


# --- an end amid a start --------------------------------------------------------------------------


async def test_what_is_not_the_program_yet_when_the_input_ends_goes_at_once() -> None:
    random = Random(9)
    for _ in range(10):
        # What is still a copy of the guard does not hear that it is asked to end.
        with trio.fail_after(PATIENCE_S):
            async with Unguided.open() as guard:
                ladder = StopLadder((signal.SIGTERM, 1000.0))
                await guard.session.send(order("/bin/sleep", "1000", ladder=ladder))
                await trio.sleep(random.uniform(0, 0.006))


# --- processes that stand still -------------------------------------------------------------------


def is_stopped(pid: int) -> bool:
    return status_of(pid)["State"].startswith("T")


async def test_an_outer_half_that_was_stopped_is_woken_up_and_guards() -> None:
    async with guarded(limit_s=3.0) as link:
        ward, _ = await start(link, "/bin/sh", "-c", "setsid sleep 1000 & sleep 1000")
        os.kill(link.outer, signal.SIGSTOP)
        await until(lambda: is_stopped(link.outer))
        await until(lambda: not is_stopped(link.outer))
        await until(lambda: bool(children(ward.pid)))
        pids = [ward.pid, *children(ward.pid)]
        os.kill(link.inner, signal.SIGKILL)
        for pid in pids:
            await wait_until_gone(pid)


def turns_of(pid: int) -> int:
    """How often it has waited for something."""
    return int(status_of(pid)["voluntary_ctxt_switches"])


@pytest.mark.slow
async def test_a_machine_that_stood_still_costs_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(name: str) -> str:
        return source(name).replace("PATIENCE_S = 10.0", "PATIENCE_S = 1.0")

    source = _guard_program._source
    monkeypatch.setattr(_guard_program, "_source", hasty)
    # The cat is in the place of the SSH server there, which stands still as well.
    async with Unguided.open(limit_s=2.0, command=("sh", "-c", "cat | sh -s")) as guard:
        await guard.session.send(order("/bin/sleep", "1000"))
        daemon = (await guard.hear("spawned"))["pid"]
        cat = next(pid for pid in children(guard.session.process.pid) if pid != guard.outer)
        frozen = (cat, guard.inner, guard.outer)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        await guard.session.send(b'{"do": "beat"}\n')
        await trio.sleep(3.5)
        before = turns_of(guard.inner)
        for pid in (guard.inner, guard.outer):
            os.kill(pid, signal.SIGCONT)
        await until(lambda: turns_of(guard.inner) > before + 1)
        os.kill(cat, signal.SIGCONT)
        await guard.hear("ticks")
        assert lives(daemon)
        # It is no reason to wait for ever.
        await guard.hear("silent")
    await wait_until_gone(daemon)
