"""The two messages of gRPC's health check, and what the answer means.

The service is grpc.health.v1.Health of grpc/health/v1/health.proto (grpc-proto)::

    message HealthCheckRequest { string service = 1; }
    message HealthCheckResponse { ServingStatus status = 1; }
    enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }

A call is a POST over HTTP/2 whose body is one message: a byte that says whether it is compressed,
its length in four bytes, the message (gRPC over HTTP2, "Length-Prefixed-Message"). A failed one has
``grpc-status`` among its headers, if there was no body to come before it.
"""

from collections.abc import Mapping
from typing import Final

PATH: Final = "/grpc.health.v1.Health/Check"

HEADERS: Final = (("content-type", "application/grpc"), ("te", "trailers"))

# The answer has some 7 bytes; a server may add fields that are not known yet.
MOST_ANSWER_BYTES: Final = 1024

SERVING: Final = 1
NOT_SERVING: Final = 2
_STATUSES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")

# Of google.rpc.Code: what a server says that has no such service, or no such method.
_CODES: Final = {
    "5": "5, NOT_FOUND: it has no service of this name",
    "7": "7, PERMISSION_DENIED",
    "12": "12, UNIMPLEMENTED: it has no health service",
    "14": "14, UNAVAILABLE",
    "16": "16, UNAUTHENTICATED",
}

_PREFIX_BYTES: Final = 5

# protobuf.dev/programming-guides/encoding: the number of the field, and how its value is written.
_SERVICE_TAG: Final = 1 << 3 | 2
_STATUS_TAG: Final = 1 << 3 | 0


def encode_request(service: str) -> bytes:
    """Write the question for one service; an empty name is the whole server."""
    name = service.encode()
    message = bytes([_SERVICE_TAG]) + _varint(len(name)) + name if name else b""
    return _framed(message)


def encode_response(status: int) -> bytes:
    """Write an answer."""
    return _framed(bytes([_STATUS_TAG]) + _varint(status) if status else b"")


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4) + message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def explain(headers: Mapping[str, str], body: bytes) -> tuple[bool, str]:
    """Say whether an answer is that of a healthy server, and what it said."""
    code = headers.get("grpc-status", "0")
    if code != "0":
        return False, f"answered with gRPC status {_CODES.get(code, code)}"
    if not headers.get("content-type", "").startswith("application/grpc"):
        return False, "answered, but not by gRPC"
    try:
        status = _decode_response(body)
    except (IndexError, ValueError):
        return False, "answered with no message that can be read"
    shown = _STATUSES[status] if status < len(_STATUSES) else str(status)
    return status == SERVING, f"answered {shown}"


def _decode_response(body: bytes) -> int:
    if body[0]:
        raise ValueError("compressed, which was not asked for")
    size = int.from_bytes(body[1:_PREFIX_BYTES])
    message = body[_PREFIX_BYTES : _PREFIX_BYTES + size]
    if len(body) < _PREFIX_BYTES or len(message) < size:
        raise ValueError("cut off")
    status = at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        value, at = _read_value(message, at, tag & 7)
        if tag == _STATUS_TAG:
            status = value
    return status


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for index in range(10):
        byte = message[at + index]
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, at + index + 1
    raise ValueError("a number without an end")


def _read_value(message: bytes, at: int, way: int) -> tuple[int, int]:
    """Read a value and give where the next field begins; what is no number is passed over."""
    if way == 0:
        return _read_varint(message, at)
    if way == 2:
        size, at = _read_varint(message, at)
        return 0, at + size
    if way in (1, 5):
        return 0, at + (8 if way == 1 else 4)
    raise ValueError("a way to write values that is no more in use")
