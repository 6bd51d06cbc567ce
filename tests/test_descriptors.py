"""Descriptors that a daemon is given: at their numbers, however it is started, and no more."""

import errno
import os
import resource
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.descriptors import FREE, LOOK, files_at, files_of, found
from tests.support import PATIENCE_S, QUICK_PYTHON, end, request, spawn
from tests.test_posix_spawn import start
from trio_lifecycle import ConfigError, LocalSpawner, Output, SpawnError
from trio_lifecycle._renumbering import moves
from trio_lifecycle._requests import DESCRIPTOR_NUMBERS
from trio_lifecycle.spawner import _local
from trio_lifecycle.spawner._reaper_link import ReaperLink

# Neighbours that change places, one that is where it belongs, one from far above, and two that are
# one. Between them are gaps.
CROSSED = {3: 110, 4: 111, 6: 112, 110: 111, 111: 110, 112: 112, 120: 113, 121: 113}

WAYS: dict[str, Mapping[str, Any]] = {
    "guarded": {},
    "scoped": {"guarantee": "scoped"},
    "detached": {"detached": True},
    "guarded gate": {"gated": True},
    "scoped gate": {"guarantee": "scoped", "gated": True},
    "detached gate": {"detached": True, "gated": True},
    "guarded step": {"umask": 0o22},
    "scoped step": {"guarantee": "scoped", "limits": {"nofile": (200, 200)}},
    "guarded gate of a step": {"umask": 0o22, "gated": True},
    "scoped gate of a step": {"guarantee": "scoped", "umask": 0o22, "gated": True},
}


async def look(**changes: Any) -> bytes:
    """What a daemon finds that is started in some way."""
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, sys.executable, *QUICK_PYTHON, LOOK, **changes)
        with trio.fail_after(PATIENCE_S):
            await process.open_gate()
            await process.wait()
        written = process.output_tail()
        await end(process)
    return written


@pytest.mark.fault(11)
@pytest.mark.parametrize("way", WAYS)
async def test_a_daemon_has_what_it_was_given_at_its_numbers_and_nothing_else(
    tmp_path: Path, way: str
) -> None:
    changes = dict(WAYS[way])
    if "detached" in changes:
        changes["output"] = Output(to=tmp_path / "log")
    with files_at({*CROSSED.values()}):
        written = await look(descriptors=CROSSED, **changes)
        assert files_of(CROSSED) == found(written)


async def test_what_it_has_is_closed_in_nobody_else_when_this_program_closes_it() -> None:
    # Neither the reaper nor a daemon that is started later keeps the other end of a pipe.
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        async with trio.open_nursery() as nursery:
            one = await spawn(nursery, "/bin/sh", "-c", "echo x >&3", descriptors={3: write_end})
            os.close(write_end)
            other = await spawn(nursery, "/bin/sleep", "1000")
            with trio.fail_after(PATIENCE_S):
                await trio.lowlevel.wait_readable(read_end)
                assert b"x\n" == os.read(read_end, 100)
                await trio.lowlevel.wait_readable(read_end)
                assert b"" == os.read(read_end, 100)
            await end(one, other)
    finally:
        os.close(read_end)


async def test_a_socket_stays_as_blocking_as_it_was() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        code = "import os; print(os.get_blocking(3), os.get_blocking(4))"
        async with trio.open_nursery() as nursery:
            there = {3: ours.fileno(), 4: theirs.fileno()}
            process = await spawn(
                nursery, sys.executable, *QUICK_PYTHON, code, descriptors=there, umask=0o22
            )
            await process.wait()
            assert b"True False\n" == process.output_tail()
            await end(process)
        assert not os.get_inheritable(ours.fileno())
        assert not theirs.getblocking()


async def test_as_many_as_can_be_are_given_beside_a_large_environment() -> None:
    with files_at([FREE[0]]):
        every = dict.fromkeys(DESCRIPTOR_NUMBERS, FREE[0])
        written = await look(descriptors=every, env={"LARGE": "x" * 100_000})
        assert files_of(every) == found(written)


async def test_a_request_is_refused_when_there_is_no_room_for_it_in_the_reaper() -> None:
    # It can receive some of them, which is not enough.
    with files_at(range(100, 130)):
        many = {number: number for number in range(100, 130)}
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with trio.open_nursery() as nursery:
            await end(await spawn(nursery, "/bin/true"))
            reaper = _reaper_pid()
            resource.prlimit(reaper, resource.RLIMIT_NOFILE, (25, hard))
            with pytest.raises(SpawnError) as caught:
                await spawn(nursery, "/bin/true", descriptors=many)
            assert errno.EMFILE == caught.value.errno
            assert caught.value.retryable
            with pytest.raises(SpawnError):
                await spawn(nursery, "/bin/true", descriptors=many, env={"LARGE": "x" * 100_000})
            resource.prlimit(reaper, resource.RLIMIT_NOFILE, (soft, hard))
            await end(await spawn(nursery, "/bin/true", descriptors=many))


def _reaper_pid() -> int:
    (link,) = (link for link in ReaperLink.all() if link.lost is None)
    return link.inner


# --- the plan -------------------------------------------------------------------------------------

numbers = st.integers(3, 12)
plans = st.dictionaries(st.integers(0, 12), st.integers(0, 12))


@given(plans)
def test_each_descriptor_gets_to_its_number_whatever_the_others_are(wanted: dict[int, int]) -> None:
    table = {fd: f"file {fd}" for fd in range(40)}
    into_place, aside = moves(wanted)
    for source, target in into_place:
        assert source != target
        table[target] = table[source]
    assert {number: f"file {fd}" for number, fd in wanted.items()} == {
        number: table[number] for number in wanted
    }
    assert wanted.keys().isdisjoint(aside)
    assert {target for _, target in into_place} == {*wanted, *aside}


places = st.sampled_from(FREE[:5])
real = st.dictionaries(places | st.integers(3, 6), places)


@given(real)
@settings(max_examples=25, deadline=None)
def test_a_child_finds_every_permutation_as_it_was_asked_for(wanted: dict[int, int]) -> None:
    with files_at({*wanted.values()}):
        assert files_of(wanted) == {
            int(fd): tuple(file) for fd, file in start(LOOK, descriptors=wanted).items()
        }


# --- what can't be --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, -1, 250])
def test_a_number_that_can_not_be_given_is_a_config_error(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"descriptors: .*3 to 249, not as {number}"):
        request("/bin/true", descriptors={number: 5})


async def test_only_its_own_number_can_be_kept_where_there_is_no_linux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_local, "is_portable_only", lambda: True)
    spawner = LocalSpawner("scoped")
    look = (sys.executable, *QUICK_PYTHON, LOOK)
    with files_at([FREE[0]]):
        async with trio.open_nursery() as nursery:
            kept = {FREE[0]: FREE[0]}
            process = await spawner.spawn(request(*look, descriptors=kept), nursery)
            await process.wait()
            assert files_of(kept) == found(process.output_tail())
            process.close()
            with pytest.raises(SpawnError, match="can't be given another number"):
                await spawner.spawn(request(*look, descriptors={3: FREE[0]}), nursery)
