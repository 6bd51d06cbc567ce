"""Sockets as the kernel lists them: over netlink (sock_diag(7)), or in a table of text.

Nothing here needs a privilege. What is listed is the network namespace of the calling thread.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

# include/net/tcp_states.h
LISTEN: Final = 10

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, linux/unix_diag.h; socket has no names for
# them.
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 0x001
_NLM_F_DUMP: Final = 0x300
_INET_DIAG_SKV6ONLY: Final = 11
_UDIAG_SHOW_VFS: Final = 0x2
_UNIX_DIAG_VFS: Final = 1
_NO_COOKIE: Final = 0xFFFF_FFFF
_ALL_STATES: Final = 0xFFFF_FFFF

# nlmsghdr: length, type, flags, sequence number, port id.
_HEADER: Final = struct.Struct("=IHHII")
# inet_diag_req_v2: family, protocol, extensions, padding, states, then inet_diag_sockid: ports,
# addresses, interface, cookie.
_REQUEST: Final = struct.Struct("=BBBxI 2s2s 16s16s III")
# inet_diag_msg: family, state, timer, retransmits, a sockid, expiry, two queues, user, inode.
_ANSWER: Final = struct.Struct("=BBBB 2s2s 16s16s III IIIII")
# unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
_UNIX_REQUEST: Final = struct.Struct("=BBxxI II II")
# unix_diag_msg: family, type, state, padding, inode, cookie.
_UNIX_ANSWER: Final = struct.Struct("=BBBxI II")
_ATTRIBUTE: Final = struct.Struct("=HH")
# unix_diag_vfs: inode and device of the file that the socket is bound to.
_FILE: Final = struct.Struct("=II")

# A dump comes in messages of at most 32 KiB (netlink_dump in net/netlink/af_netlink.c).
_BUFFER_BYTES: Final = 65_536


class TCPSocket(NamedTuple):
    """One TCP socket.

    Attributes:
        state: As include/net/tcp_states.h counts: 1 is established, 10 listens.
        local: Its own address and port.
        remote: The other end's.
        uid: The user who made it.
        inode: What links in /proc/PID/fd call it; 0 when no process holds it any more.
        interface: The index of the network interface that it is bound to, or 0.
        ipv6_only: True for an IPv6 socket that takes no IPv4 connections. False also where that
            can't be seen.
    """

    state: int
    local: tuple[str, int]
    remote: tuple[str, int]
    uid: int
    inode: int
    interface: int = 0
    ipv6_only: bool = False


def listening_sockets(family: socket.AddressFamily, port: int) -> list[TCPSocket]:
    """List the sockets of a family that listen on a port.

    Raises:
        OSError: The kernel does not answer such questions here.
    """
    found = map(_parse, _ask(_dump_request(family, port)))
    return [each for each in found if each.state == LISTEN]


def find_connection(local: tuple[str, int], remote: tuple[str, int]) -> TCPSocket | None:
    """Find the socket of one connection by both its ends, without a walk through the table.

    Returns:
        The socket whose own end is ``local``, or None where only a listening socket would match.

    Raises:
        OSError: There is none (ENOENT), or the kernel does not answer such questions here.
    """
    (found,) = map(_parse, _ask(_exact_request(local, remote)))
    # Without a connection the kernel offers the listening socket of the port instead (inet_lookup).
    return None if found.state == LISTEN else found


def listening_at_file(path: str) -> list[int]:
    """List the sockets that listen at the file of a UNIX socket, by their inodes.

    By whatever name they were bound to it; one whose file was replaced is not among them. None also
    where that can't be told: some file systems number a file otherwise for the kernel than for us.
    """
    with suppress(OSError):
        wanted = _number_of(os.stat(path))  # noqa: PTH116
        found = map(_parse_unix, _ask(_unix_dump_request()))
        return [inode for inode, number in found if number == wanted]
    return []


def _number_of(file: os.stat_result) -> bytes:
    # MKDEV of linux/kdev_t.h, and of the inode's number the lower half.
    device = os.major(file.st_dev) << 20 | os.minor(file.st_dev)
    return _FILE.pack(file.st_ino & 0xFFFF_FFFF, device & 0xFFFF_FFFF)


def _dump_request(family: int, port: int) -> bytes:
    return _question(family, _NLM_F_DUMP, 1 << LISTEN, (b"", port), (b"", 0))


def _exact_request(local: tuple[str, int], remote: tuple[str, int]) -> bytes:
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    own, other = ((socket.inet_pton(family, host), port) for host, port in (local, remote))
    return _question(family, 0, _ALL_STATES, own, other)


def _unix_dump_request() -> bytes:
    asked = (0, _UDIAG_SHOW_VFS, _NO_COOKIE, _NO_COOKIE)
    return _framed(_NLM_F_DUMP, _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 1 << LISTEN, *asked))


def _question(
    family: int, flags: int, states: int, own: tuple[bytes, int], other: tuple[bytes, int]
) -> bytes:
    body = _REQUEST.pack(
        family,
        socket.IPPROTO_TCP,
        0,
        states,
        own[1].to_bytes(2),
        other[1].to_bytes(2),
        own[0],
        other[0],
        0,
        _NO_COOKIE,
        _NO_COOKIE,
    )
    return _framed(flags, body)


def _framed(flags: int, body: bytes) -> bytes:
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | flags, 1, 0) + body


def _ask(question: bytes) -> list[bytes]:
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, "sock_diag is Linux's")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        # The kernel writes its answer before send() returns. What can't be received at once never
        # comes, for a sandbox swallowed the question; the event loop must not hang on it.
        kernel.setblocking(False)
        return list(_answers(kernel, question))


def _answers(kernel: socket.socket, question: bytes) -> Iterator[bytes]:
    is_dump = bool(_HEADER.unpack_from(question)[2] & _NLM_F_DUMP)
    kernel.sendto(question, (0, 0))
    while True:
        for kind, body in _messages(kernel.recv(_BUFFER_BYTES)):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                number = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                raise OSError(number, os.strerror(number))
            yield body
        if not is_dump:
            return


def _messages(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut a buffer into its messages: type and body."""
    start = 0
    while start + _HEADER.size <= len(buffer):
        length, kind, *_ = _HEADER.unpack_from(buffer, start)
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, "a netlink message shorter than its header")
        yield kind, buffer[start + _HEADER.size : start + length]
        start += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _parse(body: bytes) -> TCPSocket:
    fields = _ANSWER.unpack_from(body)
    family, state, _, _, sport, dport, src, dst, interface, *_, uid, inode = fields
    return TCPSocket(
        state=state,
        local=(_address(family, src), int.from_bytes(sport)),
        remote=(_address(family, dst), int.from_bytes(dport)),
        uid=uid,
        inode=inode,
        interface=interface,
        ipv6_only=_is_ipv6_only(body[_ANSWER.size :]),
    )


def _address(family: int, packed: bytes) -> str:
    return socket.inet_ntop(family, packed[:4] if family == socket.AF_INET else packed)


def _is_ipv6_only(attributes: bytes) -> bool:
    found = _attribute(attributes, _INET_DIAG_SKV6ONLY)
    return bool(found and found[0])


def _parse_unix(body: bytes) -> tuple[int, bytes | None]:
    _, _, _, inode, *_ = _UNIX_ANSWER.unpack_from(body)
    return inode, _attribute(body[_UNIX_ANSWER.size :], _UNIX_DIAG_VFS)


def _attribute(attributes: bytes, wanted: int) -> bytes | None:
    start = 0
    while start + _ATTRIBUTE.size < len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, start)
        if kind == wanted:
            return attributes[start + _ATTRIBUTE.size : start + length]
        start += max(_aligned(length), _ATTRIBUTE.size)
    return None


def parse_row(line: str) -> TCPSocket:
    """Read one row of the table that proc_pid_net(5) describes, the one for IPv6 included."""
    _, local, remote, state, _, _, _, uid, _, inode, *_ = line.split()
    return TCPSocket(int(state, 16), _parse_end(local), _parse_end(remote), int(uid), int(inode))


def _parse_end(text: str) -> tuple[str, int]:
    # The address is printed as words in this machine's byte order, the port as a number.
    digits, port = text.split(":")
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
