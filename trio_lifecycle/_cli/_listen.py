"""Sockets as a shell writes them: ``--listen [HOST:]PORT`` and ``--listen-unix PATH``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from trio_lifecycle._cli._fill import with_markers
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._listen_socket import DEFAULT_HOST, ListenSocket
from trio_lifecycle._markers import FREE_PORT, markers_in

_PORT: Final = "--listen"
_PATH: Final = "--listen-unix"


def read_sockets(ports: Iterable[str], paths: Iterable[str]) -> list[ListenSocket]:
    """Give the sockets, those with a port first.

    Raises:
        ConfigError: One can't be meant; it names the option.
    """
    return [*map(_at_port, ports), *map(_at_path, paths)]


def _at_port(text: str) -> ListenSocket:
    host, _, port = with_markers(text).rpartition(":")
    if port != FREE_PORT and not (port.isascii() and port.isdecimal()):
        raise ConfigError(_PORT, f"wants [HOST:]PORT, such as 127.0.0.1:8080, not {text!r}")
    number = FREE_PORT if port == FREE_PORT else int(port)
    try:
        return ListenSocket(host.removeprefix("[").removesuffix("]") or DEFAULT_HOST, number)
    except ConfigError as error:
        raise ConfigError(_PORT, error.problem) from error


def _at_path(text: str) -> ListenSocket:
    if markers_in([with_markers(text)]):
        raise ConfigError(
            _PATH, f"can hold neither {{port}} nor {{callback_url}}, as {text!r} does"
        )
    try:
        # Another shell may mean another directory by the same words.
        return ListenSocket(unix=Path(text).absolute() if text else text)
    except ConfigError as error:
        raise ConfigError(_PATH, error.problem) from error
