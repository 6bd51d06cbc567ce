"""Which URLs can be probed.

Checked when they are written down, so that a probe never trips over one.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, urlsplit

import idna

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import FREE_PORT, fill, has_stray_nul, show

# RFC 1123 section 2.1: labels of 1 to 63 letters, digits and hyphens; underscores occur in
# container names.
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

# What inet_aton(3) reads as part of an address: 0x7f.1 would be 127.0.0.1 by another name.
# To the last @: a password may hold another one, or a slash that nobody has encoded.
_USER: Final = re.compile(r"//.*@", re.DOTALL)

_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")

# RFC 3986 section 3.2, without a user. Parsers disagree about what may stand beside the brackets.
_AUTHORITY: Final = re.compile(r"([^\[\]:]*|\[[^\[\]]*:[^\[\]]*\])(:[0-9]+)?")

# What RFC 9110 section 4.1 asks every server to take; httpx refuses a URL of 65,537.
_LONGEST_URL: Final = 8000

# The highest that FREE_PORT can become: 8{FREE_PORT} is no port.
_SAMPLE_PORT: Final = "65535"

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def check_url(field: str, url: object) -> str:
    """Return the URL if it is one that can be probed.

    Raises:
        ConfigError: It is not; the message names ``field`` and what is wrong.
    """
    if not isinstance(url, str):
        raise ConfigError(
            field, f"must be a URL such as 'http://127.0.0.1:8080/health', not {url!r}"
        )
    problem = _problem(url)
    if problem:
        raise ConfigError(field, f"{show_url(url)!r} {problem}")
    return url


def show_url(url: str) -> str:
    """Write a URL for people, without the user and password that may be in it."""
    return _USER.sub("//***@", show(url))


def _problem(url: str) -> str | None:
    if has_stray_nul(url):
        return "contains a NUL"
    sample = fill(url, {FREE_PORT: _SAMPLE_PORT})
    if "\0" in sample:
        return "can hold no other marker than FREE_PORT"
    if any(char.isspace() or not char.isprintable() for char in sample):
        return "contains a space or control character; write it percent-encoded"
    if len(sample) > _LONGEST_URL:
        return f"is longer than {_LONGEST_URL} characters"
    if not sample.isascii():
        return "is not ASCII; write the host in its xn-- form and the path percent-encoded"
    try:
        parts = urlsplit(sample)
        port = parts.port
    except ValueError as error:
        # Which brackets it minds depends on the version of Python.
        if "[" in sample or "]" in sample:
            return "has no valid host"
        # What is taken for the port may be a password.
        return "is no URL" if "@" in sample else f"is no URL: {error}"
    # In capitals it would be read as well, but not everybody who looks for "https:" would find it.
    if not sample.startswith(("http://", "https://")):
        return "must begin with http:// or https://"
    if "#" in sample:
        return "has a fragment, which is never sent; leave it out"
    return _problem_of_parts(parts, port)


def _problem_of_parts(parts: SplitResult, port: int | None) -> str | None:
    if parts.username is not None or parts.password is not None:
        return "carries a user or password, which would show in logs; leave it out"
    if port == 0:
        return "has port 0; FREE_PORT finds a free one"
    if parts.netloc.endswith(":"):
        return "has a colon without a port"
    if not _AUTHORITY.fullmatch(parts.netloc) or not _is_host(parts.hostname or ""):
        return "has no valid host"
    return None


def check_host(field: str, host: object) -> str:
    """Return the host, a name or an address in digits, if it is one.

    Raises:
        ConfigError: It is not; the message names ``field``.
    """
    if not isinstance(host, str) or not host.isascii() or not _is_host(host):
        raise ConfigError(field, f"must be a host such as '127.0.0.1', not {host!r}")
    return host


def _is_host(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    if ":" in host or all(_NUMBER.fullmatch(label) for label in labels):
        return _read_address(host) is not None and "%" not in host
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and _is_idna(host)


def _is_idna(host: str) -> bool:
    """Say whether the labels of a host that are in xn-- form can be read; httpx reads them all."""
    try:
        return "xn--" not in host or bool(idna.decode(host))
    except idna.IDNAError:
        return False


# Asked at every probe, always for the same few.
@lru_cache(maxsize=1024)
def port_of(url: str) -> int:
    """Give the port that a checked URL, with its markers filled in, leads to."""
    parts = urlsplit(url)
    return parts.port or _DEFAULT_PORTS[parts.scheme]


def has_port(url: str) -> bool:
    """Say whether a checked URL names its port, or has a marker there."""
    return urlsplit(fill(url, {FREE_PORT: _SAMPLE_PORT})).port is not None


@lru_cache(maxsize=1024)
def host_of(url: str) -> str:
    """Give the host of a checked URL, in lower case and without brackets."""
    return urlsplit(url).hostname or ""


@lru_cache(maxsize=1024)
def loopback_addresses(host: str) -> tuple[str, ...]:
    """Give the loopback addresses that a host means on this machine, in the order to try.

    None for any other host.

    ``localhost`` is 127.0.0.1 first: most daemons listen there, and a resolver that says ``::1``
    first has sent many a probe to a stranger. Who connects to the unspecified address, which
    servers print as where they listen, reaches this machine too: ip(7).
    """
    if host in ("localhost", "localhost."):
        return ("127.0.0.1", "::1")
    address = _read_address(host)
    if address is None:
        return ()
    if address.is_unspecified:
        return ("127.0.0.1",) if address.version == 4 else ("::1",)
    return (str(address),) if address.is_loopback else ()


@lru_cache(maxsize=1024)
def addresses(host: str) -> tuple[str, ...]:
    """Give the addresses, as digits, that a host surely means; none for a name but localhost."""
    loopback = loopback_addresses(host)
    if loopback:
        return loopback
    address = _read_address(host)
    return () if address is None else (str(address),)


def _read_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def with_host(url: str, host: str) -> str:
    """Give the URL with another host and everything else unchanged."""
    return _with_authority(url, host, urlsplit(url).port)


def with_address(url: str, host: str, port: int) -> str:
    """Give the URL with another host and port, and everything else unchanged."""
    return _with_authority(url, host, port)


def _with_authority(url: str, host: str, port: int | None) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port is None else f"{bracketed}:{port}"
    return urlsplit(url)._replace(netloc=authority).geturl()
