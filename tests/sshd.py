"""A real OpenSSH server on loopback, with keys of its own."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.plugins._processes import MARKER
from tests.plugins.needs import find_program
from trio_lifecycle import SSHSpawner
from trio_lifecycle._ssh._target import SSHTarget

PLAIN_USERS = ("postgres",)


@dataclass(frozen=True)
class Server:
    """An SSH server that listens."""

    port: int
    host_key: str
    key: Path
    user: str
    directory: Path
    pid: int
    host: str = "127.0.0.1"

    def target(self, **changes: Any) -> SSHTarget:
        """The server, with nothing of the user's own."""
        return SSHTarget(**{"host": self.host, **self._how, **changes})

    def spawner(self, **changes: Any) -> SSHSpawner:
        """The spawner of it, with nothing of the user's own."""
        return SSHSpawner(self.host, **{**self._how, **changes})

    @property
    def _how(self) -> dict[str, Any]:
        return {
            "user": self.user,
            "port": self.port,
            "config": None,
            "agent": None,
            "client_keys": self.key,
            "host_key": self.host_key,
        }


def make_key(path: Path, *options: str) -> Path:
    """Make a pair of keys that nothing unlocks, unless the options say otherwise."""
    unlocked = () if "-N" in options else ("-N", "")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", *unlocked, *options, "-f", path], check=True
    )
    return path


def plain_user() -> str | None:
    """An ordinary user with a shell whom root may log in as; None if there is none."""
    for name in PLAIN_USERS:
        try:
            if pwd.getpwnam(name).pw_shell.endswith("sh"):
                return name
        except KeyError:
            continue
    return None


def me() -> str:
    """Who runs the tests."""
    return pwd.getpwuid(os.getuid()).pw_name


@contextmanager
def running_sshd(
    user: str | None = None,
    *,
    host: Any = "127.0.0.1",
    within: Any = (),
    **options: str | int,
) -> Iterator[Server]:
    """Run sshd; the options are lines of its sshd_config.

    Args:
        user: Who logs in; whoever runs the tests if left out.
        host: Where it is reached.
        within: What stands before its command, to have it run elsewhere.
    """
    directory = Path(tempfile.mkdtemp(prefix="sshd-"))
    try:
        # An ordinary user reads his authorized keys himself.
        directory.chmod(0o755)
        host_key, key = make_key(directory / "host"), make_key(directory / "key")
        shutil.copy(f"{key}.pub", directory / "authorized_keys")
        port = free_port()
        settings = {"Port": port, "HostKey": host_key, **_SETTINGS, **options}
        settings["AuthorizedKeysFile"] = directory / "authorized_keys"
        if set_there := _environment(directory, options, own_home=user is None):
            settings["SetEnv"] = set_there
        config = directory / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        process = _start(directory, within)
        try:
            public = Path(f"{host_key}.pub").read_text()
            yield Server(port, public, key, user or me(), directory, process.pid, host)
        finally:
            _end(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _environment(directory: Path, options: Mapping[str, str | int], *, own_home: bool) -> str:
    """Say what is set for each login. Of several such lines sshd would take the first."""
    mark = os.environ.get(MARKER)
    # Sshd hands on nothing by itself.
    set_there = [f"{MARKER}={mark}"] if mark else []
    set_there += [_home(directory)] if own_home else []
    set_there += [str(options["SetEnv"])] if "SetEnv" in options else []
    return " ".join(set_there)


def _home(directory: Path) -> str:
    """Give an empty home directory.

    What a shell reads in the user's own may take long at each login, or wait for good for a lock
    that a login has left behind when a test killed it.
    """
    home = directory / "home"
    home.mkdir()
    return f"HOME={home}"


_SETTINGS: Mapping[str, object] = {
    "ListenAddress": "127.0.0.1",
    "PidFile": "none",
    "StrictModes": "no",
    "UsePAM": "no",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PrintMotd": "no",
    "UseDNS": "no",
    "MaxStartups": "100:30:200",
    "Subsystem": "sftp internal-sftp",
    "LogLevel": "VERBOSE",
}


def _start(directory: Path, within: Sequence[str]) -> "subprocess.Popen[bytes]":
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    program = find_program("sshd")
    assert program is not None
    log = directory / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            # sshd asks for an absolute path, to run itself again.
            [*within, program, "-D", "-e", "-f", directory / "sshd_config"],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    limit = time.monotonic() + 20
    while "Server listening" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.01)
    return process


def start_again(server: Server, within: Sequence[str] = ()) -> None:
    """Start one that was killed; who has killed it ends this one, too."""
    process = _start(server.directory, within)
    # It is ended by another hand, so this program is not to miss it.
    process.returncode = 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def sshd() -> Iterator[Server]:
    """An sshd for all tests of a module, which log in as who runs them."""
    with running_sshd() as server:
        yield server
