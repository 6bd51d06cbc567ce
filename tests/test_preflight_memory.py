"""The check of memory: what the kernel says of the machine, and of control groups."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from trio_lifecycle import FreeMemory, _memory
from trio_lifecycle._hierarchy import Mount
from trio_lifecycle._memory import Room, find_room, rooms_in
from trio_lifecycle._procfs import available_memory
from trio_lifecycle.preflight import _free_memory
from trio_lifecycle.preflight._failure import CheckFailed

GIB = 2**30


def group(directory: Path, files: Mapping[str, object]) -> Path:
    """A control group as the kernel shows it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_text(f"{content}\n")
    return directory


async def said_by(check: FreeMemory) -> str:
    """What a check says that fails."""
    with pytest.raises(CheckFailed) as caught:
        await check()
    return str(caught.value)


# --- the machine ----------------------------------------------------------------------------------


def test_what_is_free_is_what_the_kernel_says() -> None:
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    expected = int(rows["MemAvailable"].split()[0]) * 1024
    # Others use memory meanwhile.
    assert expected == pytest.approx(available_memory(), rel=0.1)


async def test_a_machine_with_memory_passes() -> None:
    await FreeMemory(gib=1 / 1024)()


async def test_a_machine_with_less_says_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "own_group", lambda: None)
    said = await said_by(FreeMemory(gib=1_000_000))
    assert said.startswith("the machine has ")
    assert "1,000,000.00 GiB are needed: end other programs, or ask for less" in said


async def test_a_system_that_does_not_tell_fails_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_free_memory, "find_room", lambda: None)
    assert "how much memory is free can't be told" in await said_by(FreeMemory(1))


@pytest.mark.parametrize("content", [b"MemTotal: 5 kB\n", FileNotFoundError()])
def test_a_kernel_without_the_figure_gives_none(
    monkeypatch: pytest.MonkeyPatch, content: bytes | Exception
) -> None:
    def read(path: str) -> bytes:
        if isinstance(content, Exception):
            raise content
        return content

    monkeypatch.setattr("trio_lifecycle._procfs.read", read)
    assert available_memory() is None


# --- control groups -------------------------------------------------------------------------------


def test_a_limit_leaves_what_is_not_used(tmp_path: Path) -> None:
    group(tmp_path, {"memory.max": 4 * GIB, "memory.high": "max", "memory.current": GIB})
    assert [Room(3 * GIB, tmp_path)] == list(rooms_in(tmp_path, tmp_path))


def test_file_cache_that_is_taken_back_first_is_not_used(tmp_path: Path) -> None:
    stat = f"anon 5\nactive_file 7\ninactive_file {GIB}\n"
    files = {"memory.max": 4 * GIB, "memory.current": 2 * GIB, "memory.stat": stat}
    assert [Room(3 * GIB, tmp_path)] == list(rooms_in(group(tmp_path, files), tmp_path))


def test_the_lower_of_both_limits_counts(tmp_path: Path) -> None:
    files = {"memory.max": 4 * GIB, "memory.high": 2 * GIB, "memory.current": GIB}
    assert [Room(GIB, tmp_path)] == list(rooms_in(group(tmp_path, files), tmp_path))


def test_a_limit_that_was_lowered_below_what_is_used_leaves_nothing(tmp_path: Path) -> None:
    files = {"memory.max": 0, "memory.current": GIB}
    assert [Room(0, tmp_path)] == list(rooms_in(group(tmp_path, files), tmp_path))


def test_a_limit_above_binds_too_and_what_is_above_the_top_does_not(tmp_path: Path) -> None:
    group(tmp_path, {"memory.max": 1, "memory.current": 1})
    top = group(tmp_path / "top", {"cgroup.procs": ""})
    above = group(top / "a", {"memory.max": 2 * GIB, "memory.current": GIB})
    below = group(above / "b", {"memory.max": "max", "memory.current": 5})
    assert [Room(GIB, above)] == list(rooms_in(below, top))


async def test_the_tighter_of_machine_and_group_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group(tmp_path / "a", {"memory.max": 1 << 20, "memory.current": 0})
    monkeypatch.setattr(_memory, "own_group", lambda: "/a")
    monkeypatch.setattr(
        _memory, "own_mounts", lambda: [Mount("/b", tmp_path), Mount("/", tmp_path)]
    )
    assert Room(1 << 20, tmp_path / "a") == find_room()
    said = await said_by(FreeMemory(gib=0.5))
    assert (
        f"the limit of {tmp_path}/a leaves 0.00 GiB of memory, and 0.50 GiB are needed: "
        "raise its memory.max, or ask for less"
    ) == said
