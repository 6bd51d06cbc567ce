"""Which URLs can be probed.

Checked when they are written down, so that a probe never trips over one.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import FREE_PORT, fill, has_stray_nul, show

# RFC 1123 section 2.1: labels of 1 to 63 letters, digits and hyphens; underscores occur in
# container names.
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

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
        raise ConfigError(field, f"{show(url)!r} {problem}")
    return url


def _problem(url: str) -> str | None:
    if has_stray_nul(url):
        return "contains a NUL"
    sample = fill(url, {FREE_PORT: "1"})
    if "\0" in sample:
        return "can hold no other marker than FREE_PORT"
    if any(char.isspace() or not char.isprintable() for char in sample):
        return "contains a space or control character; write it percent-encoded"
    if not sample.isascii():
        return "is not ASCII; write the host in its xn-- form and the path percent-encoded"
    try:
        parts = urlsplit(sample)
        port = parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    return _problem_of_parts(parts, port)


def _problem_of_parts(parts: SplitResult, port: int | None) -> str | None:
    if parts.scheme not in _DEFAULT_PORTS:
        return "must begin with http:// or https://"
    if parts.username is not None or parts.password is not None:
        return "carries a user or password, which would show in logs; leave it out"
    if port == 0:
        return "has port 0; FREE_PORT finds a free one"
    if parts.netloc.endswith(":"):
        return "has a colon without a port"
    if parts.fragment:
        return "has a fragment, which is never sent; leave it out"
    if not _is_host(parts.hostname or ""):
        return "has no valid host"
    return None


def _is_host(host: str) -> bool:
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return "%" not in host
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def port_of(url: str) -> int:
    """Give the port that a checked URL, with its markers filled in, leads to."""
    parts = urlsplit(url)
    return parts.port or _DEFAULT_PORTS[parts.scheme]


def host_of(url: str) -> str:
    """Give the host of a checked URL, in lower case and without brackets."""
    return urlsplit(url).hostname or ""


def loopback_addresses(host: str) -> tuple[str, ...]:
    """Give the loopback addresses that a host means on this machine, in the order to try.

    None for any other host.

    ``localhost`` is 127.0.0.1 first: most daemons listen there, and a resolver that says ``::1``
    first has sent many a probe to a stranger.
    """
    if host in ("localhost", "localhost."):
        return ("127.0.0.1", "::1")
    try:
        return (host,) if ipaddress.ip_address(host).is_loopback else ()
    except ValueError:
        return ()


def with_host(url: str, host: str) -> str:
    """Give the URL with another host and everything else unchanged."""
    parts = urlsplit(url)
    bracketed = f"[{host}]" if ":" in host else host
    port = "" if parts.port is None else f":{parts.port}"
    return parts._replace(netloc=bracketed + port).geturl()
