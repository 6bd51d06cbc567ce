"""What a daemon is asked, or about it, from where it runs; and what comes back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from attrs import field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._texts import check_plain_path

# --- over HTTP ------------------------------------------------------------------------------------

# RFC 9110 section 8.6: any other method expects a body.
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"})


def _is_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(name, f"must be True or False, not {value!r}")
    return value


def _verify(value: bool) -> bool:
    return _is_flag("tls.verify", value)


def _ca_file(value: str | Path | None) -> str | None:
    return None if value is None else check_plain_path("tls.ca_file", value)


def _certificate(value: str | Path | None) -> str | None:
    return None if value is None else check_plain_path("tls.certificate", value)


def _key(value: str | Path | None) -> str | None:
    return None if value is None else check_plain_path("tls.key", value)


@frozen(kw_only=True)
class TLS:
    """How a daemon is spoken to over TLS: whom to trust, and as whom to come.

    The files are read before each spawn, by this program.

    Attributes:
        verify: Whether the daemon's certificate is checked. Defaults to True. Without, whoever
            stands between this program and the daemon can answer in its place.
        ca_file: A PEM file with the certificates that are trusted. Defaults to None: those that the
            system trusts. A certificate that vouches for itself is given here.
        certificate: A PEM file with the certificate that this program shows, and those that vouch
            for it; for daemons that want one of their clients. Defaults to None: none is shown.
        key: A PEM file with that certificate's key, without a passphrase. Defaults to None: it is
            in ``certificate``.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    verify: bool = field(default=True, converter=_verify)
    ca_file: str | None = field(default=None, converter=_ca_file)
    certificate: str | None = field(default=None, converter=_certificate)
    key: str | None = field(default=None, converter=_key)

    def __attrs_post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ConfigError("tls.key", "has no meaning without a certificate")
        if self.ca_file is not None and not self.verify:
            raise ConfigError("tls.ca_file", "has no meaning with verify=False")


@frozen(cache_hash=True)
class Question:
    """One question over HTTP.

    Attributes:
        url: What to ask.
        method: How, such as ``"GET"``.
        headers: What is said besides, as pairs of name and value; one that every question has
            (Host, User-Agent, Accept) is replaced. The values may be secret.
        body: What is sent.
        body_bytes: How much of the answer's body to read; with 0 the answer has none, nor headers.
        unix_path: The UNIX socket to connect to; None is the URL's host and port.
        tls: How TLS is spoken where the URL is one of https; None is as the system does.
        server_name: Whose the certificate must be; None is the URL's host.
        http2: True for HTTP/2 and nothing else, without asking whether it is spoken.
    """

    url: str
    method: str = field(default="GET", kw_only=True)
    headers: tuple[tuple[str, str], ...] = field(default=(), kw_only=True, repr=False)
    body: bytes = field(default=b"", kw_only=True, repr=False)
    body_bytes: int = field(default=0, kw_only=True)
    unix_path: str | None = field(default=None, kw_only=True)
    tls: TLS | None = field(default=None, kw_only=True)
    server_name: str | None = field(default=None, kw_only=True)
    http2: bool = field(default=False, kw_only=True)

    @property
    def says_length(self) -> bool:
        """Whether it says how long its body is, also where there is none."""
        return bool(self.body) or self.method not in _WITHOUT_BODY


# --- by a connection ------------------------------------------------------------------------------


class Contact(NamedTuple):
    """What came of connecting to an address once.

    Attributes:
        made: True when the connection was taken; it is closed again.
        problem: Why it was not, as a part of a sentence.
        absent: True when nothing listens there at all.
        pid: Who has called listen(2), where that can be told: for UNIX sockets.
    """

    made: bool
    problem: str = ""
    absent: bool = False
    pid: int | None = None

    def __str__(self) -> str:
        return "took the connection" if self.made else self.problem


# --- by a command ---------------------------------------------------------------------------------


@frozen(kw_only=True)
class Command:
    """A program that looks at a daemon, run as the daemon is.

    Attributes:
        name: The daemon's name, for messages.
        program: The program's absolute path.
        args: The arguments after the program's name.
        env: What is changed in the environment: variables to set, and with None to remove.
        working_dir: Where it runs; None is the directory of this program.
        user: Whom it runs as, by name or id; None is this program's user.
        group: Its main group, by name or id; None is the user's, or this program's.
    """

    name: str
    program: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str | None] = field(factory=dict, repr=False)
    working_dir: Path | None = None
    user: str | int | None = None
    group: str | int | None = None


class Ran(NamedTuple):
    """What came of running a command to its end.

    Attributes:
        status: Its exit status as ``subprocess`` counts; None when it could not be run this time.
        output: The end of what it wrote.
        problem: Why it could not be run, as a part of a sentence.
    """

    status: int | None
    output: bytes = b""
    problem: str = ""


# --- by a file ------------------------------------------------------------------------------------


class FileMark(NamedTuple):
    """What tells a file from one that lay there before, or from itself before it was written.

    Attributes:
        device: The file system that it is on.
        inode: Its number there.
        mtime_ns: When it was last written to, in nanoseconds.
        size: How many bytes it has.
    """

    device: int
    inode: int
    mtime_ns: int
    size: int
