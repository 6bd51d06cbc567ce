"""The guard with every other Python of this machine, as other machines have them."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests import odd_hosts, reapers
from tests.guards import HOLD, guarded, run, start, until
from tests.odd_hosts import MOUNTABLE, OddHost, file_systems, run_owned, usual_pythons
from tests.reapers import Mark, held, house, kill, reaper_of
from tests.sessions import LocalSession
from tests.support import PATIENCE_S, Heard
from trio_lifecycle import Notify, SpawnError
from trio_lifecycle._ssh._guard_link import GuardLink
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.spawner._kernel import children

mark = reapers.mark
odd_server, odd_host = odd_hosts.odd_server, odd_hosts.odd_host

PLACES = ("/usr/bin", "/usr/local/bin", *os.environ.get("PATH", "").split(":"))


def found() -> Iterator[tuple[tuple[int, int], str]]:
    """All interpreters that are where they are usually put, with their versions."""
    for path in [
        *Path.home().glob(".pyenv/versions/3.*/bin/python3"),
        *(path for place in PLACES if place for path in Path(place).glob("python3.*")),
    ]:
        version = re.fullmatch(r"3\.(\d+)(\.\d+)?", path.parts[-3]) or re.fullmatch(
            r"python3\.(\d+)", path.name
        )
        # What stands for several and starts none (a shim of pyenv) is no interpreter.
        if version is not None and "shims" not in path.parts and runs(path):
            yield (3, int(version[1])), str(path)


def runs(python: Path) -> bool:
    """Whether it is one."""
    try:
        return subprocess.run([python, "-I", "-S", "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False


# One of each version.
OTHERS = {version: path for version, path in found() if version != sys.version_info[:2]}
ABLE = sorted(version for version in OTHERS if version >= (3, 7))
TOO_OLD = sorted(version for version in OTHERS if version < (3, 7))
NONE = pytest.param(None, marks=pytest.mark.skip("there is no such Python here"), id="none")


def each(versions: list[tuple[int, int]]) -> pytest.MarkDecorator:
    """Try each of these, or say that there is none."""
    known = [pytest.param(OTHERS[v], id=".".join(map(str, v))) for v in versions]
    return pytest.mark.parametrize("python", known or [NONE])


TREE = "setsid sh -c 'echo far $$; exec sleep 1000' & echo near; wait"


@each(ABLE)
async def test_a_guard_does_what_it_is_asked_with_every_python(python: str, tmp_path: Path) -> None:
    async with guarded(python=python) as link:
        words = ["a b", "line\nline", "é", os.fsdecode(b"\xff\xfe"), ""]
        show = 'printf "<%s>" "$@"; echo "$V"; umask; ulimit -n; pwd'
        more = {"env": {"V": words[3]}, "umask": 0o27, "limits": {"nofile": (99, 100)}}
        status, output = await run(
            link, "/bin/sh", "-c", show, "sh", *words, working_dir=tmp_path, **more
        )
        shown = "".join(f"<{word}>" for word in words) + f"{words[3]}\n0027\n99\n{tmp_path}\n"
        assert (0, os.fsencode(shown)) == (status, output)

        with pytest.raises(SpawnError, match="No such file"):
            await start(link, "/no/program")
        with pytest.raises(SpawnError, match="no user 'nobody-has-it'"):
            await start(link, "/bin/true", user="nobody-has-it")

        gated, output_of_gated = await start(link, "/bin/echo", "ran", gated=True)
        assert b"" == output_of_gated.tail()
        await gated.open_gate()
        await gated.gone.wait()
        assert (0, b"ran\n") == (gated.status, output_of_gated.tail())

        pieces: list[bytes] = []
        code = "echo b >&7; exec 7>&-; kill -9 $$"
        ward, _ = await start(link, "/bin/sh", "-c", code, forwards={7: pieces.append})
        await ward.gone.wait()
        assert (-9, [b"b\n", b""]) == (ward.status, pieces)

        heard = Heard()
        ward, _ = await start(link, "/bin/sh", "-c", TREE, to=heard)
        far = await heard.pid("far")
        assert await ward.contains(far)
        await ward.signal(signal.SIGTERM, tree=True)
        with trio.fail_after(PATIENCE_S):
            await ward.gone.wait()
        await until(lambda: not children(link.inner))


@each(ABLE)
async def test_a_socket_for_messages_is_held_with_every_python(python: str, tmp_path: Path) -> None:
    async with guarded(python=python) as link:
        heard: list[bytes] = []
        number = link.new_number()
        link.inboxes[number] = lambda _, raw: heard.append(raw)
        box = tmp_path / "box"
        order = {"do": "listen", "id": number, "address": str(box), "most": 100, "user": None}
        assert {"uids": sorted({0, os.getuid()})} == await link.ask(order)
        send = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "s.connect(sys.argv[1])\ns.send(b'READY=1')"
        )
        assert (0, b"") == await run(link, sys.executable, "-c", send, str(box))
        await until(lambda: heard == [b"READY=1"])


@each(ABLE)
@pytest.mark.parametrize("end", ["inner killed", "outer killed", "killed", "silent"])
def test_nothing_is_left_with_every_python(
    python: str, end: str, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_LIFECYCLE_GUARD_PYTHON", python)
    args = ("0.6" if end == "silent" else "60", "setsid", "double fork")
    with house(HOLD, mark, *args) as program, held(reaper_of(program)) as guard:
        assert Path(python).resolve() == Path(f"/proc/{guard.inner}/exe").resolve()
        half, _, _ = end.rpartition(" ")
        victim = getattr(guard, half) if half else program.pid
        kill(victim, signal.SIGSTOP if end == "silent" else signal.SIGKILL)
        mark.wait_until_alone(program.pid)
        guard.wait_gone()


@each(TOO_OLD)
async def test_a_python_that_is_too_old_says_so(python: str) -> None:
    async with trio.open_nursery() as nursery:
        session = await LocalSession.start(nursery)
        with pytest.raises(LostError, match=r"no guard: Python 3\.\d is too old; it needs 3\.7"):
            await GuardLink.open(session, python, heartbeat_limit_s=PATIENCE_S)
        await session.wait_end()


@each(TOO_OLD)
@pytest.mark.needs("sshd")
@pytest.mark.skipif(not MOUNTABLE, reason="nothing may be mounted")
async def test_a_machine_whose_python_is_too_old_is_as_one_without(
    python: str, odd_host: OddHost
) -> None:
    fake = odd_host.write("python3", f'#!/bin/sh\nexec {python} "$@"\n', 0o755)
    with file_systems(*(f"mount --bind {fake} {path}" for path in usual_pythons())) as within:
        odd_host.become("dash", within=within)
        await run_owned(odd_host.spawner(), "scoped")


@each(ABLE[:1])
@pytest.mark.needs("sshd")
async def test_a_machine_whose_python_is_old_guards(python: str, odd_host: OddHost) -> None:
    odd_host.become("dash", environment={"PATH": f"{Path(python).parent}:/usr/bin:/bin"})
    await run_owned(odd_host.spawner(), "guarded")
    notify = Notify()
    code = 'echo up; python3 -c "$CODE"; exec sleep 1000'
    send = (
        "import os, socket\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "s.connect(os.environ['NOTIFY_SOCKET'].replace('@', chr(0)))\ns.send(b'READY=1')"
    )
    await run_owned(
        odd_host.spawner(), "guarded", args=["-c", code], env={"CODE": send}, ready_mode=notify
    )
