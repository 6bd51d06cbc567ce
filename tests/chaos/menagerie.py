"""The wild daemons: python -I -S menagerie.py KIND; each says "up" once it is what it is.

It imports little, so that five of them are up in a moment. None lives for ever, so that what a
failing round lets slip haunts nobody.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

# Longer than a long campaign, in which the bystanders live.
LIFE_S = 7200.0
# Those that need the machine, or can hardly be caught from outside; longer than a round even so.
BUSY_LIFE_S = 60.0
BORN_AT = time.monotonic()

STORM_CHILDREN = 200
# A storm blows for more than half a second, so that most hits fall into it.
STORM_GAP_S = 0.003
STORM_CHILD_S = 0.1

# Long enough for a sweep to see a hopper at all, short enough that it misses most.
HOP_S = 0.001

CHAIN_LINKS = 5


def live() -> NoReturn:
    """Do nothing for the rest of the life, whatever signals do not end it."""
    while time.monotonic() < BORN_AT + LIFE_S:
        time.sleep(1.0)
    os._exit(0)


def up() -> None:
    """Say it on the standard output; what is open elsewhere, too, has it."""
    os.write(1, b"up\n")


def forked(*deeds: Callable[[], None]) -> None:
    """Do one thing after the other in a child; it ends with the last."""
    if os.fork() == 0:
        try:
            for do in deeds:
                do()
        finally:
            os._exit(0)


def plain() -> None:
    """One process, and nothing else."""
    up()


def forking() -> None:
    """Three children, each with a child."""
    for _ in range(3):
        forked(lambda: forked(live), live)
    up()


def setsid() -> None:
    """A child in a session of its own."""
    forked(os.setsid, up, live)


def double() -> None:
    """A daemon as of old: forked twice, in a session of its own, its parent gone."""

    def first() -> None:
        os.setsid()
        forked(lambda: os.chdir("/"), up, live)

    forked(first)
    os.wait()


def deaf() -> None:
    """It and its child ignore what asks politely."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    forked(live)
    up()


def storm() -> None:
    """Children that come quickly and go quickly, each new one while others still live."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    up()
    for _ in range(STORM_CHILDREN):
        forked(lambda: time.sleep(STORM_CHILD_S))
        time.sleep(STORM_GAP_S)


def stand_still() -> None:
    """Stop until SIGCONT comes."""
    os.kill(os.getpid(), signal.SIGSTOP)


def stopped() -> None:
    """It and its child stand still, as after Ctrl-Z."""
    forked(stand_still, live)
    os.waitpid(-1, os.WUNTRACED)
    up()
    stand_still()


def flood() -> None:
    """It writes as fast as it is read, and goes on to live when nobody reads any more."""
    up()
    line = b"x" * 79 + b"\n"
    while time.monotonic() < BORN_AT + BUSY_LIFE_S:
        try:
            os.write(1, line * 50)
        except OSError:
            return


def emptied() -> None:
    """A program in a session of its own, started with an empty environment."""

    def become() -> None:
        os.setsid()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:-1], "emptied-child"], {})

    forked(become)


def emptied_child() -> None:
    """What `emptied` starts."""
    up()


def hopper() -> None:
    """A child that forks, leads a session and ends, for ever: its number is never the same."""

    def hop() -> None:
        while time.monotonic() < BORN_AT + BUSY_LIFE_S:
            os.setsid()
            time.sleep(HOP_S)
            if os.fork():
                return

    forked(hop)
    os.wait()
    up()


def chain() -> None:
    """A child in a new session, whose child is in a new session, and so on; all live."""

    def link(left: int) -> None:
        os.setsid()
        if left:
            forked(lambda: link(left - 1))
        else:
            up()
        live()

    forked(lambda: link(CHAIN_LINKS - 1))


def server() -> None:
    """It answers any request of HTTP with success; its port is the second argument."""
    with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener:
        up()
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


KINDS: dict[str, Callable[[], None]] = {
    "plain": plain,
    "forking": forking,
    "setsid": setsid,
    "double": double,
    "deaf": deaf,
    "storm": storm,
    "stopped": stopped,
    "flood": flood,
    "emptied": emptied,
    "hopper": hopper,
    "chain": chain,
    "server": server,
}
PARTS = {"emptied-child": emptied_child}

if __name__ == "__main__":
    (KINDS | PARTS)[sys.argv[1]]()
    live()
