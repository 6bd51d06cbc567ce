"""Asking over HTTP: whatever a server does, there is an answer."""

import pytest
import trio

from tests.servers import OK, Ask, answer_to, ask_anywhere, ask_loopback, get, saying, server
from tests.support import free_port, permitted, run_app
from trio_lifecycle.abc import Answer


@pytest.fixture(params=[ask_loopback, ask_anywhere])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each of the two ways to ask; whichever is taken, the answer is the same."""
    way: Ask = request.param
    return way


# --- what counts ----------------------------------------------------------------------------------


@pytest.mark.fault(21)
@pytest.mark.parametrize("status", [200, 204, 301, 307, 401, 404, 500, 503, 599, 999])
async def test_the_status_is_the_servers_own(ask: Ask, status: int) -> None:
    reply = f"HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    assert Answer(status) == await answer_to(ask, saying(reply.encode()))


@pytest.mark.fault(21)
async def test_a_redirect_is_not_followed(ask: Ask) -> None:
    asked = []

    async def note(stream: trio.abc.Stream) -> None:
        asked.append(await stream.receive_some(65_536))
        await stream.send_all(OK)

    async with server(note) as target:
        redirect = f"HTTP/1.1 302 Found\r\nlocation: http://{target}/\r\n\r\n"
        assert Answer(302) == await answer_to(ask, saying(redirect.encode()))
    assert [] == asked


async def test_each_question_is_one_get_on_a_connection_of_its_own(ask: Ask) -> None:
    asked = []

    async def note(stream: trio.abc.Stream) -> None:
        asked.append(bytes(await stream.receive_some(65_536)).lower().splitlines())
        await stream.send_all(OK)
        assert b"" == await stream.receive_some(1)

    async with server(note) as address:
        for _ in range(3):
            assert Answer(200) == await ask(f"http://{address}/health?a=b")
    assert 3 == len(asked)
    assert {b"get /health?a=b http/1.1"} == {lines[0] for lines in asked}
    for header in (b"connection: close", f"host: {address}".encode()):
        assert all(header in lines for lines in asked)


async def test_informational_answers_are_passed_over(ask: Ask) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000
    assert Answer(200) == await answer_to(ask, saying(early, OK))


async def test_questions_may_be_asked_all_at_once(ask: Ask) -> None:
    answers = []

    async def note(url: str) -> None:
        answers.append(await ask(url))

    async with server(saying(OK)) as address, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(note, f"http://{address}/")
    assert [Answer(200)] * 50 == answers


PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.mark.fault(20)
async def test_a_proxy_in_the_environment_is_never_asked(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server(saying(OK)) as proxy:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, f"http://{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        answer = await get(ask, f"127.0.0.1:{free_port()}")
    assert (None, True) == (answer.status, answer.absent)


# --- nothing there --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "127.3.2.1"])
async def test_a_refused_connection_means_that_nothing_is_there(ask: Ask, host: str) -> None:
    answer = await get(ask, f"{host}:{free_port()}")
    assert (None, True) == (answer.status, answer.absent)
    assert "refused" in answer.problem


async def test_an_unreachable_address_means_that_nothing_is_there() -> None:
    # No route leads to this one: RFC 919 section 7.
    answer = await get(ask_anywhere, "255.255.255.255:80")
    assert answer.absent
    assert answer.problem.startswith("could not be connected to (")


@pytest.mark.parametrize(
    ("number", "absent"), [(-2, True), (-5, True), (-3, False), (-4, False)], ids=str
)
async def test_a_host_without_address_is_absent_only_when_the_resolver_is_sure(
    number: int, absent: bool
) -> None:
    """EAI_NONAME and EAI_NODATA are answers; EAI_AGAIN and EAI_FAIL mean that nobody knows."""
    trio.socket.set_custom_hostname_resolver(Resolver(number))
    answer = await get(ask_anywhere, "service.example:80")
    assert absent == answer.absent
    assert "has a host that can't be resolved (as the test says)" == answer.problem


class Resolver(trio.abc.HostnameResolver):
    """A name server that finds nothing."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def getaddrinfo(self, *args: object, **kwargs: object) -> list[object]:  # type: ignore[override]  # it gives none
        raise trio.socket.gaierror(self._number, "as the test says")

    async def getnameinfo(self, *args: object, **kwargs: object) -> tuple[str, str]:
        raise AssertionError("not asked for")


async def test_a_connection_that_is_not_answered_in_time_is_not_called_absent(ask: Ask) -> None:
    """A listener whose queue is full drops what comes: only the caller's deadline ends it."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        filling = [trio.socket.socket() for _ in range(2)]
        try:
            for sock in filling:
                with trio.move_on_after(0.2):
                    await sock.connect(address)
            with trio.move_on_after(0.3) as scope:
                await ask(f"http://127.0.0.1:{address[1]}/")
            assert scope.cancelled_caught
        finally:
            for sock in filling:
                sock.close()


# A network of its own, with a loopback that knows IPv4 only.
NO_IPV6 = (
    *("unshare", "--net", "sh", "-c"),
    'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 && ip link set lo up && exec "$@"',
    "sh",
)

WITHOUT_IPV6 = """
from trio_lifecycle._http import HTTPClient
from trio_lifecycle.abc import Question

async def main():
    question, prober = Question("http://[::1]:8080/"), LocalSpawner().open_prober()
    for answer in [await HTTPClient().ask(question), await prober.ask(question)]:
        print(answer.absent)
    print(await HealthCheck("http://localhost:8080/").find_running(prober))

trio.run(main)
"""


@pytest.mark.fault(92)
@pytest.mark.skipif(not permitted(*NO_IPV6, "true"), reason="no network may be made here")
def test_an_address_of_ipv6_is_absent_on_a_machine_that_has_none() -> None:
    """So is the second address of localhost. Most containers are such machines."""
    assert ["True", "True", "None"] == run_app(WITHOUT_IPV6, within=NO_IPV6)


# --- what is no HTTP ------------------------------------------------------------------------------

NO_HTTP = {
    "an ssh server": [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"],
    "nothing": [b""],
    "half a status line": [b"HTTP/1.1 20"],
    "headers that break off": [b"HTTP/1.1 200 OK\r\ncontent-le"],
    "binary": [bytes(range(256)) * 10],
    "TLS": [b"\x15\x03\x01\x00\x02\x02\x28"],
    "status 99": [b"HTTP/1.1 099 X\r\n\r\n"],
    "two lengths": [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"],
    "a header of 1 MB": [b"HTTP/1.1 200 OK\r\nx: ", *[b"y" * 10_000] * 100],
    "a line that never ends": [*[b"z" * 10_000] * 100],
    "no status": [b"HTTP/1.1\r\n\r\n"],
    "UTF-16": ["HTTP/1.1 200 OK\r\n\r\n".encode("utf-16")],
    "another protocol": [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"],
}


@pytest.mark.fault(23)
@pytest.mark.parametrize("chunks", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_no_http_is_a_problem_and_no_exception(ask: Ask, chunks: list[bytes]) -> None:
    answer = await answer_to(ask, saying(*chunks))
    assert (None, False) == (answer.status, answer.absent)
    assert answer.problem


@pytest.mark.fault(23)
async def test_a_connection_that_is_reset_is_a_problem(ask: Ask) -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        # Closing with bytes unread sends RST.
        await trio.lowlevel.wait_readable(stream.socket)

    answer = await answer_to(ask, reset)
    assert (None, False) == (answer.status, answer.absent)
    assert answer.problem


@pytest.mark.fault(23)
async def test_a_body_that_breaks_the_rules_is_nobodys_business(ask: Ask) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nNO SIZE\r\n"
    assert Answer(200) == await answer_to(ask, saying(chunked))
    gzipped = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nplain"
    assert Answer(200) == await answer_to(ask, saying(gzipped))


@pytest.mark.fault(23)
async def test_https_to_a_server_without_tls_is_a_problem() -> None:
    async with server(saying(OK)) as address:
        answer = await get(ask_anywhere, address, "https")
    assert (None, False) == (answer.status, answer.absent)
    assert answer.problem.startswith("could not be connected to (")
