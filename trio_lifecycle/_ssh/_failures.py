"""What goes wrong on the way to another machine, and what to do then."""

import errno
import os
import socket
from typing import Any, Final

from attrs import define

from trio_lifecycle._ssh_errors import SSHAuthError, SSHConnectError, SSHHostKeyError


@define(eq=False)
class Progress:
    """How far a connection has come, and what was seen on the way."""

    host: str
    user: str | None = None
    port: int | None = None
    address: str | None = None
    phase: str = "connecting"
    files: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    is_pinned: bool = False
    knows_others: bool = False
    shown_key: str | None = None
    connection: Any = None

    @property
    def has_greeted(self) -> bool:
        """Whether an SSH server has said that it is one."""
        connection = self.connection
        return connection is not None and bool(connection.get_extra_info("server_version"))

    def fail(
        self, kind: type[SSHConnectError], problem: str, cure: str = "", phase: str | None = None
    ) -> SSHConnectError:
        """Make an error of what is known."""
        return kind(
            host=self.host,
            user=self.user,
            port=self.port,
            phase=phase or self.phase,
            problem=problem.rstrip("."),
            cure=cure,
        )


CONNECTING: Final = "connecting"
CHECKING: Final = "checking the host key"
LOGGING_IN: Final = "logging in"

_CLOSED: Final = "Read what the server logs ('journalctl -u ssh', or /var/log/auth.log there)."


def explain(error: Exception, progress: Progress) -> SSHConnectError:
    """Say what an error on the way to a connection means."""
    name = type(error).__name__
    if isinstance(error, SSHConnectError):
        return error
    if name == "HostKeyNotVerifiable":
        return _host_key(error, progress)
    if name == "PermissionDenied":
        return _denied(progress)
    if "authentication failures" in str(error):
        return progress.fail(
            SSHAuthError,
            "the server has ended it, for too many keys were offered",
            "Name the one key with client_keys=, and leave the agent out with agent=None.",
            LOGGING_IN,
        )
    if name == "KeyExchangeFailed":
        return _no_agreement(error, progress)
    if isinstance(error, ValueError):
        return explain_setting(error, progress)
    if isinstance(error, OSError):
        return _system(error, progress)
    return _cut_off(error, progress)


def is_key_trouble(error: Exception) -> bool:
    """Say whether an error is about a private key that can't be read."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"KeyImportError", "KeyEncryptionError"})


def explain_setting(error: Exception, progress: Progress) -> SSHConnectError:
    """Say what an error in reading configuration or keys means."""
    if is_key_trouble(error):
        if "bcrypt" in str(error):
            cure = "pip install bcrypt, or have an agent hold the key."
        elif "assphrase" in str(error) or "ecrypt" in str(error):
            cure = "Give what unlocks it as passphrase=, or have an agent hold it."
        else:
            cure = ""
        return progress.fail(
            SSHAuthError,
            f"a private key{_among(progress.keys)} can't be read: {error}",
            cure,
            "reading the keys",
        )
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return progress.fail(SSHConnectError, what, phase="reading configuration and keys")
    return progress.fail(
        SSHConnectError,
        str(error),
        "Correct the file, or leave it out with config=None.",
        "reading the configuration",
    )


def _among(keys: tuple[str, ...]) -> str:
    return f" of client_keys ({', '.join(keys)})" if keys else ""


def was_turned_away(error: Exception, progress: Progress) -> bool:
    """Say whether a server has hung up before it said a word, as a busy one does."""
    if progress.has_greeted or progress.phase != CONNECTING:
        return False
    name = type(error).__name__
    return name == "ConnectionLost" or isinstance(error, (ConnectionResetError, BrokenPipeError))


def too_slow(progress: Progress, waited_s: float, last: SSHConnectError | None) -> SSHConnectError:
    """Say what it means that a connection did not stand in time."""
    limit = f"{waited_s:g} s (connect_timeout)"
    if last is not None:
        return progress.fail(
            type(last), f"{last.problem}, and so it went for {limit}", last.cure, last.phase
        )
    if progress.phase == CONNECTING and not progress.has_greeted:
        return progress.fail(
            SSHConnectError,
            f"no SSH server has answered within {limit}",
            "See whether the machine is up, the port is right and no firewall drops it.",
        )
    return progress.fail(SSHConnectError, f"it was not done within {limit}", "")


def _host_key(error: Exception, progress: Progress) -> SSHConnectError:
    shown = f"its key {progress.shown_key}" if progress.shown_key else "its key"
    files = ", ".join(progress.files) or "no file"
    look = (
        "On the machine itself, 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' shows the right "
        "fingerprint. If it is that one, "
    )
    if "revoked" in str(error):
        problem, cure = (
            f"its key is marked as revoked (known hosts: {files})",
            ("Whoever answers there must not be trusted. Give the machine a new key."),
        )
    elif "Certificate" in str(error):
        problem = f"the certificate of its key is no good ({error})"
        cure = f"Have the key signed anew by the authority that is known (known hosts: {files})."
    elif progress.is_pinned:
        problem, cure = f"{shown} is not the one given as host_key", f"{look}correct host_key=."
    elif progress.knows_others:
        problem, cure = (
            (
                f"{shown} is another one than before (known hosts: {files}). Somebody may be in "
                "the middle, or the machine was set up anew"
            ),
            f"{look}'ssh-keygen -R {_recorded(progress)}' removes the old one.",
        )
    else:
        problem, cure = (
            f"{shown} is not known (known hosts: {files})",
            (
                f"{look}pin it with host_key=, or 'ssh-keyscan {_scanned(progress)}' gives the "
                "line for ~/.ssh/known_hosts."
            ),
        )
    return progress.fail(SSHHostKeyError, problem, cure, CHECKING)


def _denied(progress: Progress) -> SSHConnectError:
    return progress.fail(
        SSHAuthError,
        "the server has accepted none of the keys",
        "See that the public key stands in ~/.ssh/authorized_keys of that user there, and name the "
        "private one with client_keys=. A key locked by a passphrase is used by way of an agent, "
        "or with passphrase=.",
        LOGGING_IN,
    )


def _no_agreement(error: Exception, progress: Progress) -> SSHConnectError:
    if "host key" in str(error).lower():
        problem = "it has no host key of a kind that is known here"
        return progress.fail(SSHHostKeyError, problem, _kinds(progress), CHECKING)
    return progress.fail(SSHConnectError, str(error), "", "agreeing on algorithms")


_SYSTEM: Final = {
    errno.ECONNREFUSED: (
        "nothing listens there (connection refused)",
        "See whether sshd runs there, and on which port.",
    ),
    errno.EHOSTUNREACH: ("there is no route to it", "See whether the machine is up."),
    errno.ENETUNREACH: ("there is no route to its network", "See whether this machine is online."),
    errno.ETIMEDOUT: (
        "it does not answer",
        "See whether the machine is up and no firewall drops it.",
    ),
}


def _system(error: OSError, progress: Progress) -> SSHConnectError:
    if isinstance(error, socket.gaierror):
        return progress.fail(
            SSHConnectError,
            f"its name leads to no address: {error.strerror}",
            "See whether it is spelled right, and whether ~/.ssh/config gives its HostName.",
            "looking up its address",
        )
    if isinstance(error, FileNotFoundError):
        return progress.fail(
            SSHConnectError,
            f"a program of the configuration (ProxyCommand) is not there: {error.filename}",
            "Install it, or correct ~/.ssh/config.",
        )
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return _cut_off(error, progress)
    number = error.errno
    if number is None and "Connect call failed" in str(error):
        number = _common_number(str(error))
    problem, cure = _SYSTEM.get(number or 0, (error.strerror or str(error), ""))
    return progress.fail(SSHConnectError, problem, cure)


def _common_number(text: str) -> int | None:
    """Read the error number out of what asyncio says when several addresses have failed."""
    return next((number for number in _SYSTEM if f"[Errno {number}]" in text), None)


def _cut_off(error: Exception, progress: Progress) -> SSHConnectError:
    if progress.phase == CONNECTING and not progress.has_greeted:
        return progress.fail(
            SSHConnectError,
            f"it has hung up before it spoke SSH ({error})",
            "Either no SSH server listens on this port, or it is too busy (MaxStartups in its "
            "sshd_config) or shuts this machine out.",
        )
    problem = str(error) or type(error).__name__
    if progress.phase == CONNECTING and progress.knows_others:
        # A server that has no key of the kinds that are asked for hangs up without a reason.
        cure = f"It may have no host key of a kind that is known here: {_kinds(progress)} {_CLOSED}"
        return progress.fail(SSHConnectError, problem, cure, "shaking hands")
    return progress.fail(SSHConnectError, problem, _CLOSED)


def _kinds(progress: Progress) -> str:
    return (
        f"'ssh-keyscan {_scanned(progress)}' shows the keys that it has; look on the machine "
        "itself whether they are right."
    )


def _scanned(progress: Progress) -> str:
    """Write what ssh-keyscan is asked for, which does not read the configuration."""
    option = "" if progress.port in (None, 22) else f"-p {progress.port} "
    return option + (progress.address or progress.host)


def _recorded(progress: Progress) -> str:
    """Write the name under which a machine stands in known_hosts: see sshd(8)."""
    name = progress.address or progress.host
    return name if progress.port in (None, 22) else f'"[{name}]:{progress.port}"'


# --- connections over it --------------------------------------------------------------------------

# Why a channel was not opened: RFC 4254 section 5.1. Servers that are not OpenSSH may know no UNIX
# sockets at all.
_FORBIDDEN: Final = frozenset({1, 3})

# What sshd says of a connection that it could not make: strerror(3).
_REFUSALS: Final = {os.strerror(number).lower(): number for number in sorted(errno.errorcode)}

_TCP_CURE: Final = (
    "Allow it by AllowTcpForwarding in its sshd_config (and PermitOpen), without DisableForwarding."
)
UNIX_CURE: Final = (
    "Allow it by AllowStreamLocalForwarding in its sshd_config, without DisableForwarding."
)


def explain_refusal(error: Exception, progress: Progress, where: str) -> Exception:
    """Say what it means that a server has not connected to an address or path there."""
    reason = getattr(error, "reason", str(error))
    if getattr(error, "code", None) in _FORBIDDEN:
        return progress.fail(
            SSHConnectError,
            f"the server forbids it ({reason})",
            UNIX_CURE if where.startswith("/") else _TCP_CURE,
            f"connecting to {where} there",
        )
    number = _REFUSALS.get(reason.lower(), errno.ECONNREFUSED)
    # Python makes the fitting kind of it.
    return OSError(number, f"{where} on {progress.host}: {reason}")
