"""Whether a port of another machine can be had, as its tables of sockets tell it."""

import errno
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from trio_lifecycle._proc import LONGEST_COMMAND_CHARS
from trio_lifecycle._texts import on_one_line
from trio_lifecycle.preflight._elsewhere import Told

_CAP_NET_BIND_SERVICE: Final = 10

_WILDCARDS: Final = ("0.0.0.0", "::")


class Holder(NamedTuple):
    """Who listens at the port.

    Attributes:
        address: Where.
        pid: The process; 0 where it can't be seen.
    """

    address: str
    pid: int


def look_for(port: int, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Give the function of ``elsewhere.sh`` that asks, and its arguments."""
    return ("port", f"{port:04X}", *map(local_form, addresses))


def local_form(address: str) -> str:
    """Write an address as the tables of a machine's own addresses do.

    fib_trie has dots, and if_inet6 has digits only. Where there is IPv6 at all, there is its
    loopback address, so that stands for the wildcard.
    """
    read = ip_address("::1" if address == "::" else address)
    return str(read) if isinstance(read, IPv4Address) else read.packed.hex()


def find_refusal(told: Told, address: str, port: int) -> int:
    """Say with which error a bind(2) there would fail, with SO_REUSEADDR; 0 if with none.

    A socket that does not listen is not seen, nor whether one at ``::`` leaves IPv4 to others; it
    is taken to have both, as is usual.
    """
    if not _is_local(told, address):
        return errno.EADDRNOTAVAIL
    capabilities = int(told.get("capabilities") or "0", 16)
    is_privileged = port < int(told.get("unprivileged") or 1024)
    if is_privileged and not capabilities >> _CAP_NET_BIND_SERVICE & 1:
        return errno.EACCES
    return errno.EADDRINUSE if _holders_of(told, address) else 0


def _is_local(told: Told, address: str) -> bool:
    own = told.every("address")
    if ":" in address:
        return local_form(address) in own
    if address == "0.0.0.0" or address.startswith("127."):
        return True
    return address in own or "known" not in own


def describe_holder(told: Told, address: str) -> str:
    """Say who has a port there that can't be had: pid and command, as far as they are told."""
    rows = (line.partition(" ") for line in told.every("command"))
    commands = {pid: command for pid, _, command in rows}
    for holder in _holders_of(told, address):
        if holder.pid:
            command = commands.get(str(holder.pid), "").strip().encode(errors="surrogateescape")
            shown = command.decode(errors="backslashreplace")
            return f"process {holder.pid} ({on_one_line(shown, LONGEST_COMMAND_CHARS)})"
    return "a process that can't be seen from here"


def _holders_of(told: Told, address: str) -> list[Holder]:
    """Give those who are in the way of a bind to an address."""
    return [holder for holder in _holders(told) if _collide(holder.address, address)]


def _collide(listening: str, wanted: str) -> bool:
    if wanted == "::":
        return True
    if ":" in wanted:
        return listening in (wanted, "::")
    return listening in (wanted, *_WILDCARDS) or (wanted == "0.0.0.0" and ":" not in listening)


def _holders(told: Told) -> Iterator[Holder]:
    for line in told.every("listener"):
        family, digits, pid = line.split(" ")
        yield Holder(_read_address(family, digits), int(pid))


def _read_address(family: str, digits: str) -> str:
    """Read an address of proc_net(5): words of 32 bits, each written from its last byte on.

    So it is on little-endian processors: all that Linux is made for today but s390x.
    """
    raw = bytes.fromhex(digits)
    packed = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = IPv4Address(packed) if family == "4" else IPv6Address(packed)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address if mapped is None else mapped)
