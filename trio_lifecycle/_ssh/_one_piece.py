"""What is said to a shell in one piece."""

from typing import Final

# It reads as much as it is told by as few calls only where it is not bound to POSIX; a variable of
# the login that binds it would be lost by that. One older than bash 4.1 says that it knows no -N,
# and goes on reading what comes.
_READ: Final = b"""\
if [ -n "${BASH_VERSION-}" ] && [ -z "$(compgen -A export POSIXLY_CORRECT)" ]; then
    set +o posix
    IFS= LC_ALL=C read -r -N %d trio_piece || trio_piece=
    set -o posix
    eval "$trio_piece"
fi
"""


def in_one_piece(text: bytes) -> bytes:
    """Have bash read a text at once: what comes through a pipe it would read byte by byte.

    Other shells read it as they do. Nothing may be sent after it that it does not ask for.
    """
    return _READ % len(text) + text
