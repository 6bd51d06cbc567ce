"""What a daemon on another machine is started with comes through byte for byte."""

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sshd import Server, sshd
from trio_lifecycle import (
    ConfigError,
    DaemonLifecycle,
    LifecycleConfig,
    LogLine,
    Output,
    SpawnError,
    SQLiteRegistry,
    SSHSpawner,
)

__all__ = ["sshd"]

pytestmark = pytest.mark.needs("sshd")

WAYS = ("guarded", "scoped", "detached")

# Says its arguments, its directory and what is added to its environment, as hex; then stays.
PROGRAM = """
import os, signal, sys
said = [os.fsencode(arg) for arg in sys.argv[1:]] + [os.getcwdb()]
said += [b"=".join(pair) for pair in sorted(os.environb.items()) if pair[0].startswith(b"ODD")]
os.write(1, b"said " + b" ".join(b"x" + word.hex().encode() for word in said) + b" over\\n")
signal.pause()
"""

HOSTILE = [
    *(
        "a b",
        "'",
        '"',
        "$(touch x)",
        "`touch x`",
        "a\nb",
        "\n",
        "",
        " ",
        "-e",
        "--",
        "-c",
        "*",
        "~",
    ),
    *("\\", "\\n", "%s", "$HOME", "${x", "!!", "ü", "日本", "\udcff\udc80", "\r", "\t", "\x1b[0m"),
    *(";touch x", "|touch x", "&", ">x", "<x", "#", "'\"'\"'", "=", "\x01", "\x7f", "{a,b}"),
]
# One string of execve(2) may have 128 KiB.
LONG = "long'" * 20_000


def said(words: list[str], directory: Path, env: dict[str, str]) -> str:
    """What the program says of that."""
    pairs = sorted((os.fsencode(name), os.fsencode(value)) for name, value in env.items())
    told = [*map(os.fsencode, [*words, str(directory)]), *map(b"=".join, pairs)]
    return "said " + " ".join(f"x{word.hex()}" for word in told) + " over\n"


def config(words: list[str], **changes: Any) -> LifecycleConfig:
    """The program with these arguments."""
    options: dict[str, Any] = {
        "name": "odd",
        "ready_mode": LogLine(" over$"),
        "output": Output(tail_bytes=4_000_000),
        **changes,
    }
    return LifecycleConfig(sys.executable, args=["-I", "-S", "-c", PROGRAM, *words], **options)


async def outcome(spawner: Any, way: str, here: Path, made: LifecycleConfig) -> str:
    """Start it in a way, and give what it says."""
    lifecycle = DaemonLifecycle(made, spawner=spawner)
    if way != "detached":
        async with lifecycle.running() as daemon:
            return daemon.output_tail
    with closing(SQLiteRegistry(here / "registry.sqlite")) as registry:
        lifecycle = DaemonLifecycle(made, spawner=spawner, registry=registry)
        daemon = await lifecycle.ensure_running()
        tail = daemon.output_tail
        await daemon.stop()
        return tail


def by(sshd: Server, way: str) -> SSHSpawner:
    """The spawner for a way."""
    return sshd.spawner(guarantee=None if way == "detached" else way)


@pytest.mark.fault(71)
@pytest.mark.parametrize("way", WAYS)
async def test_arguments_environment_directory_and_names_are_byte_exact(
    sshd: Server, tmp_path: Path, way: str
) -> None:
    directory = tmp_path / "-a 'b' $(touch x) \n ü\udcff`touch x`"
    directory.mkdir()
    words = [*HOSTILE, LONG]
    env = {f"ODD{number}": word for number, word in enumerate(words)}
    env |= {"ODD.dots": "a'b", "ODD-$(touch x)": "c\nd", "ODD é": "$(touch x)"}
    log = {"output": Output(tail_bytes=4_000_000, to=directory / "log $(touch x)'\n\udcff")}
    made = config(
        words,
        env=env,
        working_dir=directory,
        detach=way == "detached",
        name="-n 'a' $(touch x) `touch x` ü",
        **(log if way == "detached" else {}),
    )
    assert said(words, directory, env) == await outcome(by(sshd, way), way, tmp_path, made)
    left = ["log $(touch x)'\n\udcff"] if way == "detached" else []
    assert left == [path.name for path in directory.iterdir()]


@pytest.mark.fault(71)
@pytest.mark.parametrize(("guarantee", "count"), [("guarded", 20), ("scoped", 5)])
def test_no_argument_is_ever_read_by_a_shell(
    sshd: Server, tmp_path: Path, guarantee: str, count: int
) -> None:
    pieces = st.sampled_from([*"'\"$`\\;|&<>(){}[]*?~#!=%-\n\t ", "touch x", "a", "é", "\udc80"])
    words = st.lists(st.lists(pieces, max_size=8).map("".join), min_size=1, max_size=4)
    examples: list[list[str]] = []

    @settings(max_examples=count)
    @given(words)
    def collect(example: list[str]) -> None:
        examples.append(example)

    async def run() -> None:
        spawner = sshd.spawner(guarantee=guarantee)
        for example in examples:
            made = config(example, working_dir=tmp_path)
            assert said(example, tmp_path, {}) == await outcome(spawner, "", tmp_path, made)

    collect()
    trio.run(run)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    "odd",
    [
        {"args": ["a\0b"]},
        {"env": {"A": "a\0b"}},
        {"env": {"A\0": "b"}},
        {"env": {"A=B": "b"}},
        {"working_dir": "a\0b"},
    ],
    ids=str,
)
async def test_what_no_process_can_be_given_is_refused_before_anything_is_connected(
    odd: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError):
        LifecycleConfig("sh", name="odd", ready_mode=LogLine("x"), **odd)


@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_what_is_too_long_is_refused_and_the_connection_stays(
    sshd: Server, tmp_path: Path, guarantee: str
) -> None:
    spawner = sshd.spawner(guarantee=guarantee)
    with pytest.raises(SpawnError, match="larger than the system takes"):
        await outcome(spawner, "", tmp_path, config(["x" * 200_000]))
    made = config(["a"], working_dir=tmp_path)
    assert said(["a"], tmp_path, {}) == await outcome(spawner, "", tmp_path, made)
