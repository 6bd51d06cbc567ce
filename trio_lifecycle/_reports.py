"""What is found out about a daemon: reports, sightings, answers, verdicts."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from attrs import field, frozen


@frozen
class Report:
    """What a daemon was found to be when it became ready.

    Attributes:
        url: Where it can be reached, or None.
        port: Its port, or None.
        facts: Whatever else it said of itself.
    """

    url: str | None = None
    port: int | None = None
    facts: Mapping[str, Any] = field(factory=dict)


@frozen
class Progress:
    """What a daemon said of itself by itself, on its way or while it runs.

    Attributes:
        topic: What it is about: ``"status"``, ``"reloading"``, ``"stopping"``, ``"watchdog"``, or a
            mode's own word.
        text: What it said, for people; empty when it only showed a sign of life.
        extend_s: How many seconds from now it asks for until it is ready; None when it does not.
    """

    topic: str
    text: str = ""
    extend_s: float | None = None


class Sighting(NamedTuple):
    """What was found where a daemon would answer, before anything is spawned.

    Attributes:
        report: What is known of the daemon, if what answers is up; None when it is there but not as
            it should be.
        detail: What it said, as a part of a sentence.
        address: Its host, as digits, and port; None where that is a name. The path of a UNIX socket
            stands in the place of a host, with port 0.
        accepted: True when what answers was said to be the right one, whoever it is; None when that
            will be said once it is up.
        place: Where it was asked, for people.
        refused: True when what answers was said not to be the right one, whatever it runs.
        others: What answers in further places, where the same daemon must be.
    """

    report: Report | None
    detail: str
    address: tuple[str, int] | None = None
    accepted: bool | None = False
    place: str = "its address"
    refused: bool = False
    others: "tuple[Sighting, ...]" = ()


class Verdict(Enum):
    """Whose a listening socket is."""

    OURS = "ours"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"


class Answer(NamedTuple):
    """What came back from asking a URL once.

    Attributes:
        status: The HTTP status; None when no answer came.
        problem: Why none came, as a part of a sentence; empty when one came.
        absent: True when nothing listens there at all: the connection was refused, or there is no
            such place.
        headers: The headers, by their names in lower case.
        body: The beginning of the body, as much as was asked for; as it came, not decompressed.
    """

    status: int | None = None
    problem: str = ""
    absent: bool = False
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""

    def __str__(self) -> str:
        return self.problem if self.status is None else f"answered {self.status}"
