"""Contacts: whether an address takes a connection."""

import os
import socket

import trio

from trio_lifecycle._connecting import (
    REFUSED,
    Address,
    connect_now,
    explain,
    explain_here,
    listener_pid,
    new_socket,
    reaches_itself,
)
from trio_lifecycle._questions import Contact
from trio_lifecycle._urls import loopback_addresses


async def connect(host: str, port: int) -> Contact:
    """Make a TCP connection to anywhere, and close it again."""
    here = loopback_addresses(host)
    if len(here) == 1:
        return await _connect_here((here[0], port))
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        problem, absent = explain(error)
        return Contact(False, problem, absent)
    is_alone = reaches_itself(stream.socket)
    await trio.aclose_forcefully(stream)
    return Contact(False, REFUSED, absent=True) if is_alone else Contact(True)


async def connect_unix(path: str) -> Contact:
    """Make a connection to a UNIX socket, and close it again; say who listens there."""
    return await _connect_here(path)


async def _connect_here(address: Address) -> Contact:
    await trio.lowlevel.checkpoint()
    try:
        with new_socket(address) as sock:
            error = connect_now(sock, address)
            if not error and not _is_connected(sock):
                await trio.lowlevel.wait_writable(sock)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            return Contact(True, pid=listener_pid(sock) if isinstance(address, str) else None)
    except OSError as error:
        if error.errno is None:  # a path that is too long has no number
            return Contact(False, f"could not be connected to ({error})")
        return Contact(False, *explain_here(address, error.errno))


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
