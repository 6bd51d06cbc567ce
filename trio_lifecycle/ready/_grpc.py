"""Ready when the daemon's gRPC health service says that it serves."""

from attrs import field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._grpc_health import (
    HEADERS,
    MOST_ANSWER_BYTES,
    PATH,
    encode_request,
    explain,
)
from trio_lifecycle._markers import fill, markers_in, show
from trio_lifecycle._texts import check_text
from trio_lifecycle._urls import check_url, has_port, port_of
from trio_lifecycle.abc import TLS, Answer, Prober, Question, ReadyMode, Report, Sighting, Start
from trio_lifecycle.ready._filled import port_values
from trio_lifecycle.ready._http_places import http_places
from trio_lifecycle.ready._options import check_tls
from trio_lifecycle.ready._polled import (
    DEFAULT_INTERVAL_S,
    DEFAULT_PROBE_TIMEOUT_S,
    ArmedPolled,
    Outcome,
    Reply,
    check_interval,
    check_probe_timeout,
    find_there,
)


def _address(address: str) -> str:
    value: object = address
    if not isinstance(value, str) or any(char in value for char in "/?#"):
        raise ConfigError("address", f"must be such as '127.0.0.1:50051', not {value!r}")
    if not has_port(check_url("address", f"http://{value}")):
        raise ConfigError("address", f"{show(value)!r} has no port; write host:port")
    return value


def _service(service: str) -> str:
    text = check_text("service", service)
    if markers_in([text]):
        raise ConfigError("service", "can hold no marker")
    return text


@frozen(repr=False)
class GRPCHealth(ReadyMode):
    """Ready when the daemon answers SERVING by gRPC's own health check, grpc.health.v1.Health.

    Needs the package h2: ``pip install 'trio-lifecycle[grpc]'``. Whose the answer is, and how
    ``localhost`` is meant, is as with ``HealthCheck``.

    Attributes:
        address: The host and port, such as ``"127.0.0.1:50051"``. It may hold FREE_PORT.
        service: Which of the server's services is asked for. Defaults to an empty name: the server
            as a whole. A server that does not know the name is never ready.
        tls: How TLS is spoken. Defaults to None: not at all.
        interval: Seconds between two probes at most. Defaults to 0.1; the pause grows up to it from
            1 ms. Above 1 the news of readiness is late.
        probe_timeout: Seconds that one probe may take. Defaults to 1. One that is too short never
            sees a slow daemon succeed.
    """

    address: str = field(converter=_address)
    service: str = field(default="", converter=_service)
    tls: TLS | None = field(default=None, converter=check_tls)
    interval: float = field(default=DEFAULT_INTERVAL_S, converter=check_interval, kw_only=True)
    probe_timeout: float = field(
        default=DEFAULT_PROBE_TIMEOUT_S, converter=check_probe_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        service = f"service={self.service!r}, " if self.service else ""
        tls = f"tls={self.tls!r}, " if self.tls else ""
        limits = f"interval={self.interval}, probe_timeout={self.probe_timeout}"
        return f"GRPCHealth({show(self.address)!r}, {service}{tls}{limits})"

    @property
    def texts(self) -> tuple[str, ...]:
        """The address."""
        return (self.address,)

    @property
    def longest_interval_s(self) -> float:
        """The interval."""
        return self.interval

    async def arm(self, start: Start) -> ArmedPolled:
        """Load what HTTP/2 needs.

        Raises:
            ConfigError: h2 is not installed, or a file for TLS is not what it should be.
        """
        question = self._question(fill(self.address, port_values(start)))
        await start.prober.prepare(question)
        report = Report(None, port_of(question.url))
        places = http_places(start.prober, question, self.probe_timeout, judge, start.queue_at)
        return ArmedPolled(start, _shown(question), places, report, self.interval)

    async def arm_again(self, start: Start) -> ArmedPolled:
        """Ask the same address, with the port that the daemon has."""
        return await self.arm(start)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Ask once, if the address is known before the spawn."""
        if markers_in([self.address]):
            return None
        question = self._question(self.address)
        report = Report(None, port_of(question.url))
        places = http_places(prober, question, self.probe_timeout, judge)
        return await find_there(places, _shown(question), report)

    def _question(self, address: str) -> Question:
        return Question(
            f"{'https' if self.tls else 'http'}://{address}{PATH}",
            method="POST",
            headers=HEADERS,
            body=encode_request(self.service),
            body_bytes=MOST_ANSWER_BYTES,
            tls=self.tls,
            http2=True,
        )


def _shown(question: Question) -> str:
    return question.url.partition("//")[2].removesuffix(PATH)


def judge(answer: Answer) -> Reply:
    """Say what an answer means."""
    if answer.status != 200:
        return Reply(Outcome.NOT_YET, str(answer), answer.absent, answer)
    serves, said = explain(answer.headers, answer.body)
    return Reply(Outcome.UP if serves else Outcome.NOT_YET, said, answer=answer)
