"""The sockets of a guard for messages, without its process: what is taken, and from whom."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trio_lifecycle._ssh.guard_letters import (
    MOST_PER_TURN,
    MOST_UNDER_WAY,
    Letters,
    ancestors_of,
    expected_users,
    users_of,
)

# Higher than Linux lets a process's number be.
NOBODY = 5_000_000


class Guarded:
    """Letters with what they say."""

    def __init__(self) -> None:
        self.said: list[tuple[dict[str, Any], bytes]] = []
        self.letters = Letters(lambda message, raw=b"": self.said.append((message, raw)))

    def listen(self, address: str, user: object = None) -> Any:
        """Ask for a socket; give the answer."""
        order = {"do": "listen", "id": 7, "ask": 8, "address": address, "most": 10, "user": user}
        self.letters.obey(order)
        return self.said.pop()[0]["value"]

    def take(self) -> list[tuple[dict[str, Any], bytes]]:
        """Let one turn of the guard pass; give what it says."""
        for fd in self.letters.wanted():
            self.letters.take(fd)
        said, self.said[:] = [*self.said], []
        return said


@pytest.fixture
def guard() -> Iterator[Guarded]:
    it = Guarded()
    yield it
    it.letters.close()


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it:
        it.setblocking(False)
        yield it


def test_a_message_is_passed_on_with_who_sent_it(guard: Guarded, sender: socket.socket) -> None:
    name = f"@trio-lifecycle/test-{os.getpid()}"
    assert {"uids": sorted({0, os.getuid(), NOBODY})} == guard.listen(name, NOBODY)
    sender.connect("\0" + name[1:])
    sender.send(b"READY=1")
    sender.send(b"longer than ten")
    sender.send(b"")
    who = {
        "letter": 7,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "ancestors": ancestors_of(os.getpid()),
    }
    assert [
        ({**who, "cut": False, "n": 7}, b"READY=1"),
        ({**who, "cut": True, "n": 10}, b"longer tha"),
        ({**who, "cut": False, "n": 0}, b""),
    ] == guard.take()


def test_a_descriptor_that_comes_along_is_closed(
    guard: Guarded, sender: socket.socket, tmp_path: Path
) -> None:
    guard.listen(str(tmp_path / "box"))
    sender.connect(str(tmp_path / "box"))
    read_end, write_end = os.pipe()
    socket.send_fds(sender, [b"BARRIER=1"], [write_end])
    os.close(write_end)
    assert [b"BARRIER=1"] == [raw for _, raw in guard.take()]
    # What the sender of a barrier waits for.
    assert b"" == os.read(read_end, 1)
    os.close(read_end)


def test_only_so_much_is_taken_in_a_turn_and_before_it_is_taken_on(
    guard: Guarded, sender: socket.socket, tmp_path: Path
) -> None:
    guard.listen(str(tmp_path / "box"))
    sender.connect(str(tmp_path / "box"))
    taken, sent = [], 0
    for _ in range(2 * MOST_UNDER_WAY):
        try:
            sent += sender.send(b"x")
        except BlockingIOError:
            taken.append(len(guard.take()))
    assert MOST_UNDER_WAY == sum(taken)
    assert max(taken) <= MOST_PER_TURN
    assert sent > MOST_UNDER_WAY
    assert [] == guard.letters.wanted()
    guard.letters.obey({"do": "taken", "id": 7, "count": 2})
    assert 2 == len(guard.take())


def test_a_socket_in_a_directory_may_be_used_by_all_and_is_removed(
    guard: Guarded, tmp_path: Path
) -> None:
    path = tmp_path / "box"
    guard.listen(str(path))
    assert 0o666 == path.stat().st_mode & 0o777
    guard.letters.obey({"do": "unlisten", "id": 7})
    assert not path.exists()
    assert {} == guard.letters.boxes
    guard.listen(str(path))
    path.unlink()
    guard.letters.close()
    assert {} == guard.letters.boxes


def test_one_that_cant_be_made_is_an_error_and_nothing_is_left(
    guard: Guarded, tmp_path: Path
) -> None:
    assert {"errno": errno.ENOENT} == guard.listen(str(tmp_path / "none" / "box"))
    assert {} == guard.letters.boxes


def test_users_are_told_of_those_who_live(guard: Guarded) -> None:
    guard.letters.obey({"do": "users", "ask": 3, "pid": os.getpid()})
    assert [({"answer": 3, "value": [*os.getresuid(), os.getuid()]}, b"")] == guard.said
    assert ([], []) == (users_of(NOBODY), ancestors_of(NOBODY))


@pytest.mark.parametrize(
    ("user", "more"), [(None, []), ("root", []), ("no such", []), (NOBODY, [NOBODY])]
)
def test_root_and_the_login_are_expected_besides(user: object, more: list[int]) -> None:
    assert sorted({0, os.getuid(), *more}) == expected_users(user)
