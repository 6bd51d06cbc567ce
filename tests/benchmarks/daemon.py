"""A daemon that notes the moment at which it became ready.

    python -I -S daemon.py serve START_UP_MS NOTE PORT
    python -I -S daemon.py call START_UP_MS NOTE
    python -I -S daemon.py accept START_UP_MS NOTE
    python -I -S daemon.py notify START_UP_MS NOTE
    python -I -S daemon.py write START_UP_MS NOTE FD

The first answers HTTP on a port of 127.0.0.1, the second reports to the URL in its environment, the
third answers HTTP from the socket that was passed to it, the fourth says READY=1 to the socket in
its environment, the last writes a line to a descriptor. The moment goes into the file NOTE, in
nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share. It imports nothing that is
not needed, so that it is up some 12 ms after its spawn.
"""

import _socket
import posix
import sys
import time

# In one write: an answer in two waits up to 40 ms for the client's acknowledgement (RFC 9293,
# section 3.7.4).
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nup\n"
REPORT = (
    b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
)
BACKLOG = 128
PASSED = 3


def serve(port: int, note: int) -> None:
    """Answer every request with success, one after the other."""
    server = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    server.bind(("127.0.0.1", port))
    server.listen(BACKLOG)
    answer(server, note)


def accept(note: int) -> None:
    """Answer what waits in the socket that was passed, and every request after it."""
    answer(_socket.socket(fileno=PASSED), note)


def answer(server: _socket.socket, note: int) -> None:
    """Answer, from now on."""
    write_moment(note)
    while True:
        number, _ = server._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
        connection = _socket.socket(fileno=number)
        try:
            # Nothing comes from a client that only looked whether somebody listens.
            if connection.recv(65_536):
                connection.send(ANSWER)
        except OSError:  # the client is gone already
            pass
        connection.close()


def call(url: bytes, note: int) -> None:
    """Report once, then stay."""
    place, _, path = url.removeprefix(b"http://").partition(b"/")
    host, _, port = place.decode().rpartition(":")
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    write_moment(note)
    connection.connect((host, int(port)))
    connection.send(REPORT % (b"/" + path, place))
    connection.recv(65_536)
    connection.close()
    stay()


def notify(address: str, note: int) -> None:
    """Say once that it is ready, then stay."""
    sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    write_moment(note)
    sender.sendto(b"READY=1", "\0" + address[1:])
    stay()


def write(fd: int, note: int) -> None:
    """Write one line, then stay."""
    write_moment(note)
    posix.write(fd, b"ready\n")
    stay()


def stay() -> None:
    """Do nothing more."""
    while True:
        time.sleep(3600)


def write_moment(note: int) -> None:
    """Write down that it is now."""
    posix.write(note, b"%d" % time.monotonic_ns())


def main(way: str, start_up_ms: str, path: str, number: str = "") -> None:
    """Start up for as long as asked, then be ready."""
    # Opened before, so that after the moment nothing is left but one write.
    note = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    if int(start_up_ms):
        time.sleep(int(start_up_ms) / 1000)
    if way == "serve":
        serve(int(number), note)
    elif way == "accept":
        accept(note)
    elif way == "notify":
        notify(posix.environ[b"NOTIFY_SOCKET"].decode(), note)
    elif way == "write":
        write(int(number), note)
    else:
        call(posix.environ[b"TRIO_LIFECYCLE_CALLBACK_URL"], note)


if __name__ == "__main__":
    main(*sys.argv[1:])
