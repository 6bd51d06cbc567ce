"""What a health check says besides its URL: method, headers, TLS."""

import re
from collections.abc import Mapping
from typing import Final

from trio_lifecycle._errors import ConfigError
from trio_lifecycle.abc import TLS

Headers = tuple[tuple[str, str], ...]

# RFC 9110 section 5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# RFC 9110 section 5.5, without what lies outside of ASCII.
_VALUE: Final = re.compile(r"[!-~]([ \t!-~]*[!-~])?|")

# What the probe says itself, for the connection's sake.
_OWN: Final = frozenset(
    {
        *("connection", "content-length", "expect", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)

# A header whose name holds one of these has a value that is nobody's business.
_SECRET_WORDS: Final = ("auth", "cookie", "key", "pass", "secret", "session", "signature", "token")


def check_method(method: str) -> str:
    """Return a method, in capitals as it is sent.

    Raises:
        ConfigError: It is none.
    """
    value: object = method
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ConfigError("method", f"must be such as 'GET' or 'HEAD', not {value!r}")
    if value.upper() == "CONNECT":
        raise ConfigError("method", "CONNECT asks a proxy, and none is asked here")
    return value.upper()


def check_headers(headers: Mapping[str, str] | Headers) -> Headers:
    """Return headers as pairs. Their values, which may be secret, stand in no error.

    Raises:
        ConfigError: One can't be sent.
    """
    value: object = dict(headers) if isinstance(headers, tuple) else headers
    if not isinstance(value, Mapping):
        raise ConfigError(
            "headers", f'must be a mapping such as {{"X-Probe": "1"}}, not {type(value).__name__}'
        )
    found: dict[str, str] = {}
    for name, text in value.items():
        _check_header(name, text)
        if name.lower() in found:
            raise ConfigError("headers", f"{name!r} is there twice; small letters are the same")
        found[name.lower()] = text
    return tuple(found.items())


def _check_header(name: object, text: object) -> None:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ConfigError("headers", f"{name!r} can't be the name of a header")
    if name.lower() in _OWN:
        raise ConfigError("headers", f"{name!r} belongs to the connection; leave it out")
    if not isinstance(text, str) or not _VALUE.fullmatch(text):
        problem = "must be printable ASCII, without a space at either end"
        raise ConfigError(f"headers[{name!r}]", problem)


def secrets_in(headers: Headers) -> tuple[str, ...]:
    """Give the values that are secret, and of ``Bearer abc`` also ``abc`` alone."""
    values = [
        value for name, value in headers if value and any(word in name for word in _SECRET_WORDS)
    ]
    parts = [value.partition(" ")[2].strip() for value in values]
    return tuple(dict.fromkeys(filter(None, [*values, *parts])))


def check_tls(tls: TLS | None) -> TLS | None:
    """Return how TLS is spoken.

    Raises:
        ConfigError: It is something else.
    """
    value: object = tls
    if value is not None and not isinstance(value, TLS):
        raise ConfigError("tls", f'must be such as TLS(ca_file="ca.pem"), not {value!r}')
    return tls
