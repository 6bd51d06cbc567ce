"""One start, however many ask at once; and none where it could not be remembered."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.one_start_programs import daemon, starts
from tests.support import PATIENCE_S, QUICK_PYTHON, UNMEASURED, free_port, lives, permitted, run_app
from tests.trace import Trace
from trio_lifecycle import (
    DaemonLifecycle,
    ForeignDaemonError,
    HealthCheck,
    LifecycleConfig,
    Manual,
    SQLiteRegistry,
    attach,
)
from trio_lifecycle.abc import Answer

CROWD = """
import json
from pathlib import Path
from tests.one_start_programs import after_it, crowd, daemon, starts
for number in range(3):
    directory = Path(sys.argv[1]) / str(number)
    directory.mkdir()
    answers = crowd(directory, 20, 10)
    print(json.dumps([answers, starts(directory), after_it(directory, daemon(directory))]))
"""


@pytest.mark.slow
@pytest.mark.fault(56, 57)
def test_twenty_programs_with_ten_tasks_each_get_one_spawn_and_the_same_daemon(
    tmp_path: Path,
) -> None:
    rounds = run_app(CROWD, str(tmp_path), env=UNMEASURED)
    assert 3 == len(rounds)
    for answers, started, found in map(json.loads, rounds):
        assert 200 == len(answers)
        assert {found["instance"]} == {answer["instance"] for answer in answers}
        assert [[str(found["pid"]), "alone", "alone"]] == started
        assert "adopted" == found["origin"]
        # Of twenty programs one has started it; its tasks share that.
        assert [answer["origin"] for answer in answers].count("spawned") in range(1, 11)


MEANWHILE = """
import json
from functools import partial
from pathlib import Path
from tests.one_start_programs import after_it, ask, daemon, program, starts, wait_in_line
directory, ready = Path(sys.argv[1]), sys.argv[2]
config, (says, said) = daemon(directory, ready, hold=True), os.pipe()
starter = program(directory, partial(ask, [DaemonLifecycle(config)]))
while not starts(directory):
    time.sleep(0.002)
other = program(directory, partial(wait_in_line, config, said))
os.read(says, 1)
(directory / "go").touch()
print(json.dumps([starter.answer()[0], other.answer()]))
after_it(directory, config)
"""


@pytest.mark.parametrize("ready", ["health", "callback"])
def test_who_asks_during_a_start_waits_and_is_given_it_when_it_is_up(
    tmp_path: Path, ready: str
) -> None:
    one, other = json.loads(run_app(MEANWHILE, str(tmp_path), ready)[0])
    assert one["instance"] == other["instance"]
    assert ("spawned", "adopted") == (one["origin"], other["origin"])
    assert ["starting", "claim_awaited", "adopted"] == other["kinds"]


# --- many names at once ---------------------------------------------------------------------------

MANY = """
import json
from functools import partial
from pathlib import Path
from tests.one_start_programs import at_once, daemon

directory, programs, names = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

async def all_at_once(number, act):
    answers = []
    async def note(name):
        answers.append(await act(f"daemon-{number}-{name}"))
    async with trio.open_nursery() as nursery:
        for name in range(names):
            nursery.start_soon(note, name)
    return answers

async def start(name):
    handle = await DaemonLifecycle(daemon(directory, name=name)).ensure_running()
    return handle.port, handle.pid, handle.origin

async def end(name):
    return (await (await attach(name)).kill()).rung

for act in (start, end):
    works = [partial(all_at_once, number, act) for number in range(programs)]
    print(json.dumps(sum((program.answer() for program in at_once(directory, works)), [])))
"""


@pytest.mark.slow
@pytest.mark.fault(14)
def test_two_hundred_starts_at_once_are_all_ready_each_at_a_port_of_its_own(tmp_path: Path) -> None:
    started, ended = map(json.loads, run_app(MANY, str(tmp_path), "4", "50", env=UNMEASURED))
    ports, pids, origins = zip(*started, strict=True)
    assert 200 == len(set(pids)) == len(set(ports))
    assert {"spawned"} == set(origins)
    assert ["SIGKILL"] * 200 == ended


# --- strangers ------------------------------------------------------------------------------------

SERVES = """
import socket, sys
server = socket.socket()
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen(16)
print("up", flush=True)
answer = b"HTTP/1.1 200 OK\\r\\nServer: queen\\r\\nContent-Length: 9\\r\\n\\r\\nqueen 1.0"
while True:
    guest, _ = server.accept()
    guest.recv(4096)
    guest.sendall(answer)
    guest.close()
"""

Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that are nobody's daemons; they must be there when the test is over."""
    servers = []

    def serve(port: int, *command: str) -> int:
        words = command or (sys.executable, *QUICK_PYTHON, SERVES)
        server = subprocess.Popen([*words, str(port)], stdout=subprocess.PIPE)
        servers.append(server)
        assert server.stdout is not None
        assert b"up\n" == server.stdout.readline()
        return server.pid

    yield serve
    states = [server.poll() for server in servers]
    for server in servers:
        server.kill()
        server.communicate()
    assert {None} >= set(states), "a stranger was ended"


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/"


def sleeper(port: int, **changes: Any) -> LifecycleConfig:
    """A daemon that never gets to its port, and lives on all the same."""
    usual: dict[str, Any] = {
        "name": "daemon",
        "ready_mode": HealthCheck(url(port)),
        "detach": True,
    }
    return LifecycleConfig("/bin/sleep", args=["1000"], **(usual | changes))


@pytest.mark.fault(13, 19)
@pytest.mark.parametrize("recorded", [True, False], ids=["with a record", "without"])
async def test_one_that_lost_its_port_to_another_is_never_ready(
    serve: Serve, recorded: bool
) -> None:
    port, trace = free_port(), Trace()
    strangers = []

    async def lose_the_port() -> None:
        strangers.append(serve(port))

    lifecycle = DaemonLifecycle(
        sleeper(port, detach=recorded), observer=trace.observe, preflight=[lose_the_port]
    )
    have = lifecycle.ensure_running if recorded else lifecycle.run
    with trio.fail_after(PATIENCE_S), pytest.raises(ForeignDaemonError) as caught:
        await have()
    assert f"process {strangers[0]} (" in caught.value.owner
    tried = ["starting", "found", "checked", "spawned", "stopping", "stopped", "failed"]
    assert tried == trace.kinds
    (pid,) = (event.pid for event in trace.events if event.kind == "spawned")
    assert not lives(pid)
    assert [] == await SQLiteRegistry().daemons()


@pytest.mark.fault(19)
async def test_a_recorded_one_that_lives_is_not_taken_for_up_when_another_answers(
    serve: Serve,
) -> None:
    registry, port = SQLiteRegistry(), free_port()
    daemon = await DaemonLifecycle(sleeper(port, ready_mode=Manual())).ensure_running()
    (record,) = await registry.daemons()
    record = evolve(record, url=url(port), fingerprint="")
    await registry.put(record)
    stranger = serve(port)
    with pytest.raises(ForeignDaemonError, match=f"process {stranger} "):
        await DaemonLifecycle(sleeper(port)).ensure_running()
    assert [record] == await registry.daemons()
    assert daemon.pid is not None
    assert lives(daemon.pid)
    await daemon.kill()
    registry.close()


@pytest.mark.fault(13, 19)
async def test_another_program_at_the_port_is_named_and_nothing_is_started(serve: Serve) -> None:
    port, trace = free_port(), Trace()
    stranger = serve(port)
    with pytest.raises(ForeignDaemonError) as caught:
        await DaemonLifecycle(sleeper(port), observer=trace.observe).ensure_running()
    assert caught.value.owner.startswith(f"process {stranger} ({sys.executable} ")
    assert ["starting", "failed"] == trace.kinds


@pytest.mark.fault(100)
async def test_the_same_program_or_script_at_the_port_is_adopted(
    serve: Serve, tmp_path: Path
) -> None:
    script = tmp_path / "queen"
    script.write_text(f"#!{sys.executable} -IS\n{SERVES}")
    script.chmod(0o755)
    for name, command in (
        (sys.executable, [sys.executable, *QUICK_PYTHON, SERVES]),
        (str(script), [str(script)]),
    ):
        port = free_port()
        pid = serve(port, *command)
        mode = HealthCheck(url(port))
        config = LifecycleConfig(name, name=f"at {port}", ready_mode=mode, detach=True)
        daemon = await DaemonLifecycle(config).ensure_running()
        assert ("adopted", pid, port) == (daemon.origin, daemon.pid, daemon.port)
        again = await attach(f"at {port}")
        assert (daemon.instance_id, pid) == (again.instance_id, again.pid)


async def test_a_stranger_is_adopted_when_its_headers_and_body_are_as_expected(
    serve: Serve,
) -> None:
    port, answers = free_port(), []
    pid = serve(port)

    def is_queen(answer: Answer) -> bool:
        answers.append((answer.status, answer.headers["server"], answer.body))
        return answer.body.startswith(b"queen")

    config = sleeper(port, ready_mode=HealthCheck(url(port), expect=is_queen))
    daemon = await DaemonLifecycle(config).ensure_running()
    assert ("adopted", pid) == (daemon.origin, daemon.pid)
    assert [(200, "queen", b"queen 1.0")] == answers
    config = sleeper(port, name="other", ready_mode=HealthCheck(url(port), expect=lambda _: False))
    with pytest.raises(ForeignDaemonError):
        await DaemonLifecycle(config).ensure_running()


# --- a state directory that can't be used ---------------------------------------------------------

BROKEN = """
import errno, resource, subprocess
from pathlib import Path
from tests.one_start_programs import daemon, program, starts, state_home, told
from tests.registries import execute

directory, fault = Path(sys.argv[1]), sys.argv[2]
state = state_home(directory)
registry = state / "trio-lifecycle" / "registry.sqlite"

async def ensure(name):
    try:
        return told(await DaemonLifecycle(daemon(directory, name=name)).ensure_running())
    except RegistryError as error:
        return str(error)

async def ensure_within_no_size(name):
    if fault == "no size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    return await ensure(name)

async def end(name):
    await (await attach(name)).kill()

def run(work, name):
    return program(directory, lambda: work(name)).answer()

def fill():
    with open(state / "rest", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC

def mount(*options):
    subprocess.run(["mount", *options, state], check=True)

def nothing():
    pass

def bind_read_only():
    mount("--bind", state)
    mount("-o", "remount,bind,ro")

spoil, cure = {
    "no size": (nothing, nothing),
    "full": (fill, lambda: (state / "rest").unlink()),
    "read-only": (bind_read_only, lambda: subprocess.run(["umount", state], check=True)),
    "not writable": (lambda: registry.parent.chmod(0o500), lambda: registry.parent.chmod(0o700)),
    "of a later version": (
        lambda: execute(registry, "PRAGMA user_version = 99"),
        lambda: execute(registry, "PRAGMA user_version = 1"),
    ),
}[fault]

state.mkdir(mode=0o700)
if fault == "full":
    mount("-t", "tmpfs", "-o", "size=1m,mode=700", "none")
before = run(ensure, "before")
spoil()
print(run(ensure_within_no_size, "other"), len(starts(directory)))
cure()
assert {**before, "origin": "adopted"} == run(ensure, "before")
print(run(ensure, "other")["origin"], len(starts(directory)))
for name in ("before", "other"):
    run(end, name)
"""

MOUNTS = ("unshare", "--mount")
needs_mounts = pytest.mark.skipif(
    not permitted(*MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"), reason="nothing may be mounted"
)
as_user = pytest.mark.skipif(os.getuid() == 0, reason="root may write all the same")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("no size", "disk", marks=pytest.mark.fault(66)),
        pytest.param("full", "disk", marks=[pytest.mark.fault(66), needs_mounts]),
        pytest.param("read-only", "right to write", marks=[pytest.mark.fault(66), needs_mounts]),
        pytest.param("not writable", "right to write", marks=[pytest.mark.fault(66), as_user]),
        pytest.param("of a later version", "version is 99", marks=pytest.mark.fault(63)),
    ],
)
def test_nothing_runs_that_can_not_be_remembered_and_nothing_is_forgotten(
    tmp_path: Path, fault: str, words: str
) -> None:
    within = MOUNTS if fault in ("full", "read-only") else ()
    *warned, problem, after = run_app(BROKEN, str(tmp_path), fault, within=within)
    # Where the registry can be read, it is the record that fails, and whether it stays.
    assert all(line.startswith("the record of other: the registry ") for line in warned)
    assert problem.startswith("the registry ")
    assert words in problem
    assert problem.endswith(". 1"), "there was a start"
    assert "spawned 2" == after


@pytest.mark.fault(62)
async def test_a_daemon_at_a_port_of_its_own_is_found_although_the_database_was_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, registry = daemon(tmp_path, port=free_port()), SQLiteRegistry()
    one = await DaemonLifecycle(config, registry=registry).ensure_running()
    registry.close()
    registry.path.write_bytes(b"damaged" * 1000)

    other = await DaemonLifecycle(config).ensure_running()

    assert ("adopted", one.pid) == (other.origin, other.pid)
    (aside,) = registry.path.parent.glob("*.bad-*")
    assert b"damaged" * 1000 == aside.read_bytes()
    assert "was set aside" in caplog.text
    assert one.pid == (await attach("daemon")).pid
    await other.stop()
    assert 1 == len(starts(tmp_path))
