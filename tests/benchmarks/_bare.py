"""Daemons without this package: started, asked and stopped by the standard library alone."""

import socket
import subprocess
import time
from typing import Final

from attrs import field, frozen

_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_OK: Final = b"HTTP/1.1 200 "

# Between two rounds of questions.
_PAUSE_S: Final = 0.001


@frozen
class BareDaemons:
    """Some daemons that run at once."""

    _running: list[subprocess.Popen[bytes]] = field(factory=list)

    def start(self, commands: list[list[str]]) -> None:
        """Spawn all, each in a session of its own, as this package does."""
        for command in commands:
            self._running.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )

    def stop(self) -> None:
        """End all; those that have not even begun to run don't mind."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait()


def wait_for_answers(ports: list[int]) -> None:
    """Ask round robin until every port has answered with success."""
    waiting = ports
    while waiting := [port for port in waiting if not _answers(port)]:
        time.sleep(_PAUSE_S)


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return False
        sock.sendall(_REQUEST)
        return sock.recv(65_536).startswith(_OK)
