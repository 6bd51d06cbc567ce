"""``trio-lifecycle ... --host``: the same on another machine, over SSH."""

import json
import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import cli
from tests.cli import Ask, Run, change_record, forget, on_terminal, record_elsewhere
from tests.plugins.needs import find_program
from tests.ssh_server import running_server
from tests.sshd import Server, free_port, make_key, running_sshd
from trio_lifecycle import (
    ConfigError,
    DaemonStateUnknownError,
    MemoryRegistry,
    SSHAuthError,
    SSHConnectError,
    SSHHostKeyError,
)
from trio_lifecycle._cli import _connect
from trio_lifecycle._cli._codes import status_beside_command, status_of_error
from trio_lifecycle._cli._cure import cure_of
from trio_lifecycle._cli._machine_options import HERE, MachineOptions
from trio_lifecycle._ssh_errors import RemoteBinaryNotFoundError

all_stopped, ask, handlers = cli.all_stopped, cli.ask, cli.handlers

# The other machine is this one, so what was left running there can be killed from here.
pytestmark = pytest.mark.usefixtures("all_stopped")

# Says where it is, and is quickly there.
ECHO = ("sh", "-c", "echo one; echo two; exec sleep 600")
SERVER = ("--health", "http://127.0.0.1:{port}/", "--", "python3", "-u", "-m", "http.server")
WEB = (*SERVER, "--bind", "127.0.0.1", "{port}")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An SSH server whose logins keep their files apart from the user's own."""
    state = tmp_path_factory.mktemp("there")
    found = find_program("sshd") is not None and find_program("ssh-keygen") is not None
    with running_sshd(SetEnv=f"XDG_STATE_HOME={state}") if found else running_server() as server:
        yield server


@pytest.fixture
def host(there: Server, tmp_path: Path) -> tuple[str, ...]:
    """The words that mean the other machine, with nothing of the user's own."""
    (tmp_path / "host.pub").write_text(f"# of the machine\n{there.host_key}")
    return words(there, "--identity", str(there.key), "--host-key", str(tmp_path / "host.pub"))


def words(server: Server, *more: str) -> tuple[str, ...]:
    """Name a server, and how it is reached."""
    address = f"{server.user}@127.0.0.1:{server.port}"
    return ("--host", address, "--no-agent", "--ssh-config", "none", "--jump", "none", *more)


def facts(text: str) -> list[dict[str, Any]]:
    """Read what was said to machines."""
    return [json.loads(line) for line in text.splitlines()]


def wait_gone(pidfd: int) -> None:
    """Wait for the end of a process, wherever it comes from."""
    ended = select.select([pidfd], [], [], cli.PATIENCE_S)[0]
    os.close(pidfd)
    assert [pidfd] == ended


# --- a daemon that is left running ----------------------------------------------------------------


def test_one_that_is_left_running_there_is_found_shown_and_stopped_by_its_name(
    host: tuple[str, ...], ask: Ask
) -> None:
    done = ask("ensure", *host, "--name", "d", "--log", "two", "--", *ECHO)
    assert 0 == done.status, done.err
    assert re.fullmatch(r"process \d+ on 127\.0\.0\.1, spawned\n", done.out)
    again = ask("ensure", *host, "--json", "--name", "d", "--log", "two", "--", *ECHO)
    told = facts(again.out)[-1]
    assert ("adopted", "127.0.0.1") == (told["origin"], told["machine"])
    assert done.out.startswith(f"process {told['pid']} ")
    shown = ask("status", *host)
    assert (0, "") == (shown.status, shown.err)
    assert re.search(rf"^d +running +{told['pid']} ", shown.out, re.MULTILINE)
    assert (0, "two\n") == ask("logs", *host, "d", "-n", "1")[:2]
    stopped = ask("stop", *host, "--all", "--json")
    assert (0, told["pid"], "SIGTERM") == (
        stopped.status,
        *(facts(stopped.out)[0][key] for key in ("pid", "rung")),
    )
    assert (3, "") == ask("status", *host, "d")[:2]
    # Its log stays, also when it is recorded no more.
    assert (0, "one\ntwo\n") == ask("logs", *host, "d")[:2]
    assert "nor is it recorded" in ask("logs", *host, "another").err


def test_the_address_of_one_that_is_left_running_is_its_own(
    host: tuple[str, ...], ask: Ask
) -> None:
    done = ask("ensure", *host, "--json", "--name", "web", *WEB)
    assert 0 == done.status, done.err
    ready, told = facts(done.out)[-2:]
    (record,) = facts(ask("status", *host, "--json").out)
    assert record["url"] == ready["url"] == told["url"]
    with socket.create_connection(("127.0.0.1", record["port"])):
        pass


def test_its_log_is_followed_until_its_end_and_who_waits_is_told(
    host: tuple[str, ...], tmp_path: Path, ask: Ask
) -> None:
    os.mkfifo(tmp_path / "to")
    pipe = os.open(tmp_path / "to", os.O_RDWR)
    try:
        script = f"echo begin; exec < {tmp_path / 'to'}; read line; echo $line; read line"
        assert 0 == ask("ensure", *host, "--name", "d", "--", "sh", "-c", script).status
        with Run("logs", *host, "-f", "d") as following, Run("wait", *host, "d") as waiting:
            following.line("^begin$", "stdout")
            os.write(pipe, b"more\n")
            following.line("^more$", "stdout")
            os.write(pipe, b"enough\n")
            assert 0 == following.end() == waiting.end()
    finally:
        os.close(pipe)
    assert ("begin\nmore\n", "d: has ended\n") == (following.out, following.err)
    # Whether it had begun to wait by then nobody can see.
    assert re.fullmatch(r"d: (has ended|is not running: process \d+ is gone.*)\n", waiting.err)


def test_one_whose_output_could_not_be_kept_there_is_said_to_have_no_log(
    host: tuple[str, ...], tmp_path: Path, ask: Ask
) -> None:
    assert 0 == ask("ensure", *host, "--name", "d", "--", *ECHO).status
    change_record("d", log_file=str(tmp_path / "nowhere"))
    assert (1, f"trio-lifecycle: d: has no log: {tmp_path}/nowhere is not there\n") == ask(
        "logs", *host, "d"
    )[::2]
    change_record("d", log_file=str(tmp_path))
    done = ask("logs", *host, "d")
    assert (125, True) == (done.status, "its log can't be read" in done.err)


def test_one_that_runs_there_can_be_forgotten(host: tuple[str, ...], ask: Ask) -> None:
    pid = facts(ask("ensure", *host, "--json", "--", "sleep", "600").out)[-1]["pid"]
    done = ask("stop", *host, "--forget", "sleep")
    os.kill(pid, signal.SIGKILL)
    assert 0 == done.status
    assert f"sleep runs on, and is known to nobody any more: process {pid} of" in done.err
    assert f"end it with: kill {pid} (on 127.0.0.1)\n" in done.err


# --- a daemon for a command -----------------------------------------------------------------------


def test_one_with_an_owner_here_is_reached_at_an_address_of_this_machine(
    host: tuple[str, ...], ask: Ask
) -> None:
    then = 'echo "$TRIO_LIFECYCLE_URL"; exec 3<>/dev/tcp/127.0.0.1/"$TRIO_LIFECYCLE_PORT"'
    done = ask("run", *host, "--name", "web", "--then", f"exec bash -c '{then}'", *WEB)
    assert 0 == done.status, done.err
    (own,) = re.findall(r"web \| Serving HTTP on 127\.0\.0\.1 port (\d+)", done.err)
    (here,) = re.findall(r"^http://127\.0\.0\.1:(\d+)/\n", done.out)
    assert own != here
    assert re.search(rf"^web: ready at http://127.0.0.1:{here}/, process \d+ on 127", done.err, 8)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(own)))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_one_with_an_owner_here_goes_with_it(host: tuple[str, ...], signum: int) -> None:
    # A child that has left its session goes, too.
    script = "setsid sleep 600 & echo child $!; sleep 600"
    with Run("run", *host, "--name", "d", "--log", "child", "--", "sh", "-c", script) as running:
        child = int(running.line(r"^d \| child (\d+)$")[1])
        main = int(running.line(r"^d: ready, process (\d+) on 127")[1])
        pidfds = [os.pidfd_open(pid) for pid in (child, main)]
        running.signal(signum)
        status = running.end()
    assert (130 if signum == signal.SIGINT else -signal.SIGKILL) == status
    for pidfd in pidfds:
        wait_gone(pidfd)


def test_a_program_and_its_directory_are_looked_for_there(
    host: tuple[str, ...], tmp_path: Path, ask: Ask
) -> None:
    (tmp_path / "data").touch()
    missing = ask("run", *host, "--", "./nowhere")
    assert (127, True) == (missing.status, "On 127.0.0.1: ./nowhere was not found" in missing.err)
    mere = ask("ensure", *host, "--", str(tmp_path / "data"))
    assert (126, True) == (mere.status, "On 127.0.0.1: " in mere.err)
    lost = ask("run", *host, "--cwd", "no/where", "--", "sleep", "1")
    assert (125, True) == (lost.status, "no/where" in lost.err)


# --- records of other machines --------------------------------------------------------------------


def test_one_of_another_machine_is_unknown_until_that_is_named(
    host: tuple[str, ...], ask: Ask
) -> None:
    record_elsewhere("far", log_file="/nowhere/far.log")
    shown = ask("status")
    assert 4 == shown.status
    assert re.search(r"^daemon .* machine ", shown.out)
    assert re.search(r"^far .* elsewhere", shown.out, re.MULTILINE)
    assert "; ask elsewhere with --host\n" in shown.err
    # No other than the machine that was named is asked, and its daemons alone are shown.
    none = ask("status", *host)
    assert "" == none.out
    assert f"no daemon is recorded as running on {host[1]}\n" in none.err
    for command in ("status", "stop", "logs"):
        done = ask(command, *host, "far")
        assert 4 == done.status
        both = f"machine elsewhere, and 127.0.0.1 is {socket.gethostname()}"
        assert both in done.err
    assert "it may be on elsewhere: ask with --host\n" in ask("logs", "far").err
    cure = "stop --forget far\nIf elsewhere can be reached over SSH, name it by --host.\n"
    assert cure in ask("stop", "far").err
    forget("far")


def test_on_a_narrow_terminal_the_machine_stands_behind_the_process() -> None:
    record_elsewhere("far" * 20)
    with on_terminal("status", COLUMNS="40") as shown:
        shown.end()
    assert "unknown\x1b[0m, process 4711 on elsewhere" in shown.text("terminal")
    forget("far" * 20)


# --- a machine that can't be reached --------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "ensure", "status", "stop", "logs", "wait"])
def test_a_machine_that_can_not_be_reached_is_an_error_of_its_own(
    command: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_connect, "_SILENCE_S", 0.0)
    at = f"127.0.0.1:{free_port()}"
    done = ask(command, "--host", f"ada@{at}", "--ssh-config", "none", "sleep")
    assert (125 if command == "run" else 4, "") == (done.status, done.out)
    assert f"trio-lifecycle: ada@{at}: connecting failed: nothing listens there" in done.err
    assert (command == "status") is ("trio-lifecycle: connecting to 127.0.0.1\n" in done.err)


def test_a_key_that_is_not_known_or_does_not_fit_is_refused(
    there: Server, host: tuple[str, ...], tmp_path: Path, ask: Ask
) -> None:
    (tmp_path / "known").touch()
    done = ask("status", *words(there, "--known-hosts", str(tmp_path / "known")))
    assert (4, True) == (done.status, "checking the host key failed" in done.err)
    assert "pin it with --host-key, or 'ssh-keyscan" in done.err
    other = make_key(tmp_path / "other")
    done = ask("status", *words(there, "--identity", str(other), "--host-key", there.host_key))
    assert (4, True) == (done.status, "logging in failed" in done.err)
    assert "private one with --identity. A key locked by a passphrase is used by way" in done.err
    pinned = ask("status", *words(there, "--host-key", Path(f"{other}.pub").read_text()))
    assert "is not the one given as --host-key. On the machine itself" in pinned.err


def test_the_wait_for_a_connection_is_shown() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        on_terminal("ensure", "--host", f"127.0.0.1:{silent.getsockname()[1]}", "x") as shown,
    ):
        shown.wait_for(
            lambda: "x: connecting to 127.0.0.1 (" in shown.text("terminal") or None, "wait"
        )
        assert 130 == shown.interrupt()


FAILURES = {
    "no machine": (SSHConnectError("gpu-2", None, None, "connecting", "no"), 4, 125),
    "no key": (SSHAuthError("gpu-2", None, None, "logging in", "no"), 4, 125),
    "no proof": (SSHHostKeyError("gpu-2", None, None, "checking the host key", "no"), 4, 125),
    "no program": (RemoteBinaryNotFoundError("x", (), (), "gpu-2"), 127, 127),
    "no file that runs": (RemoteBinaryNotFoundError("x", (), ("/x: no",), "gpu-2"), 126, 126),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_has_an_exit_status(failure: str) -> None:
    error, alone, beside_command = FAILURES[failure]
    assert (alone, beside_command) == (status_of_error(error), status_beside_command(error))


async def test_nothing_is_to_be_forgotten_only_because_its_machine_is_out_of_reach() -> None:
    unreachable = DaemonStateUnknownError("d", "gpu-2 can't be reached")
    unreachable.__cause__ = SSHConnectError("gpu-2", None, None, "connecting", "no")
    assert await cure_of(unreachable, MemoryRegistry(), None, HERE) is None


# --- how it is said -------------------------------------------------------------------------------


WRONG_USE = {
    "no machine": (("--host", ""), "--host: wants [USER@]HOST[:PORT], such as gpu-2 or"),
    "IPv6 without brackets": (("--host", "::1"), "ada@[::1]:2222, not '::1'"),
    "no port": (("--host", "gpu-2:0"), "--host: must be a number from 1 to 65535, not 0"),
    "an option": (("--host=-v@x",), "--host: must be a login name such as 'worker', not '-v'"),
    "no host": (("--identity", "x"), "--identity: is about another machine; name that by --host"),
    "no host, a flag": (("--no-agent",), "--no-agent: is about another machine"),
    "no identity": (("--host", "x", "--identity", "/no"), "--identity: '/no' can't be read: No"),
    "no path": (("--host", "x", "--known-hosts", ""), "--known-hosts: wants the path of a file"),
    "no config": (("--host", "x", "--ssh-config", "/no"), "--ssh-config: '/no' can't be read"),
    "no key": (("--host", "x", "--host-key", "/dev/null"), "--host-key: there is no key in"),
    "no hop": (
        ("--host", "x", "--jump", "a b"),
        "--jump: 'a b' leads nowhere: must be a machine such as 'gpu-2', not 'a b'\n",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_USE)
def test_wrong_use_exits_2_and_says_what_is_wrong(wrong: str, ask: Ask) -> None:
    given, said = WRONG_USE[wrong]
    for command in ("ensure", "status"):
        done = ask(command, *given, "sleep")
        assert (2, "") == (done.status, done.out)
        assert said in done.err


@pytest.mark.parametrize("option", ["--listen", "--listen-unix"])
def test_no_socket_is_passed_to_another_machine(option: str, ask: Ask) -> None:
    done = ask("run", "--host", "gpu-2", option, "8000", "--", "sleep", "1")
    assert (2, True) == (done.status, f"{option} and --host: exclude each other" in done.err)


def test_no_directory_is_none_there_either(ask: Ask) -> None:
    done = ask("run", "--host", "gpu-2", "--cwd", "", "--", "sleep", "1")
    assert (2, "trio-lifecycle: --cwd: '' is no directory\n") == (done.status, done.err)


def test_reap_looks_at_this_machine_only(ask: Ask) -> None:
    done = ask("reap", "--host", "gpu-2")
    assert (2, True) == (done.status, "Unknown option: --host" in done.err)
    assert "Only this machine is looked at" in ask("reap", "--help").out


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("gpu-2", "gpu-2", None, None),
        ("ada@gpu-2:2222", "gpu-2", "ada", 2222),
        ("[::1]:22", "::1", None, 22),
        ("ada@corp@[fe80::1%eth0]", "fe80::1%eth0", "ada@corp", None),
    ],
)
def test_a_machine_is_named_as_for_ssh(
    text: str, host: str, user: str | None, port: int | None
) -> None:
    target = MachineOptions(host=text).elsewhere()._target
    assert (host, user, port) == (target.host, target.user, target.port)


def test_the_words_are_written_again_for_what_may_be_asked_next() -> None:
    assert () == HERE.words()
    said = MachineOptions(host="gpu-2", identity=["a", "b"], no_agent=True, jump="none")
    written = "--host gpu-2 --identity a --identity b --no-agent --jump none"
    assert written == " ".join(said.words())
    with pytest.raises(ConfigError, match="can't be read"):
        said.elsewhere()
