"""Which URLs are taken, and what they mean."""

import httpx
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import CALLBACK_URL, FREE_PORT, fill
from trio_lifecycle._urls import check_url, host_of, loopback_addresses, port_of, with_host

GOOD = [
    "http://127.0.0.1:8080/health",
    "https://example.org",
    "http://localhost",
    "http://localhost./x?a=b&c",
    "http://web_1:80/",
    "http://[::1]:8080/",
    "http://[::ffff:127.0.0.1]/",
    "http://xn--bcher-kva.example/",
    "http://h:65535/",
    "http://h:00080/",
    "http://h?q",
    "http://10x5/",
    "http://queen.1/",
    'http://h/%20%zz/{}|\\^`"<>',
    f"http://{'a' * 63}.example/",
    f"http://127.0.0.1:{FREE_PORT}/",
    f"http://127.0.0.1:80/{FREE_PORT}",
]

BAD = [
    ("", "http://"),
    ("localhost:8080", "must begin with http://"),
    ("127.0.0.1:8080/health", "must begin with http://"),
    ("//host/", "must begin with http://"),
    ("ftp://host/", "must begin with http://"),
    ("unix:///run/x.sock", "must begin with http://"),
    ("HTTPS://host/", "must begin with http://"),
    ("http:/host/", "must begin with http://"),
    ("http://", "has no valid host"),
    ("http:///path", "has no valid host"),
    ("http://:80/", "has no valid host"),
    ("http://h:0/", "has port 0"),
    ("http://h:000/", "has port 0"),
    ("http://h:65536/", "is no URL: Port out of range"),
    ("http://h:-1/", "is no URL"),
    ("http://h:8o/", "is no URL"),
    ("http://h:+80/", "is no URL"),
    ("http://h:" + "1" * 5000, "is no URL"),
    ("http://h:/", "has a colon without a port"),
    ("http://h:80:80/", "is no URL"),
    (f"http://h:8{FREE_PORT}/", "is no URL: Port out of range"),
    (f"http://127.0.0.{FREE_PORT}/", "has no valid host"),
    ("http://user:pass@h/", "carries a user or password"),
    ("http://user@h/", "carries a user or password"),
    ("http://@h/", "carries a user or password"),
    ("http://h/#part", "has a fragment"),
    ("http://h/#", "has a fragment"),
    ("http://h /", "contains a space"),
    (" http://h/", "contains a space"),
    ("http://h/\n", "contains a space"),
    ("http://h/a\tb", "contains a space"),
    ("http://h/\x7f", "contains a space"),
    ("http://h/\u2028", "contains a space"),
    ("http://h/\0", "contains a NUL"),
    (f"http://h/{CALLBACK_URL}", "no other marker than FREE_PORT"),
    ("http://h/é", "is not ASCII"),
    ("http://bücher.example/", "is not ASCII"),
    ("http://h\u2460/", "is not ASCII"),
    ("http://xn--a/", "has no valid host"),
    ("http://a.xn--a/", "has no valid host"),
    ("http://xn--bcher-kva.a_b/", "has no valid host"),
    ("http://[::1/", "has no valid host"),
    ("http://::1]/", "has no valid host"),
    ("http://::1/", "is no URL"),
    ("http://[::g]/", ""),
    ("http://[127.0.0.1]/", ""),
    ("http://[v1.a]/", "has no valid host"),
    ("http://[fe80::1%25eth0]/", "has no valid host"),
    ("http://x[::1]/", "has no valid host"),
    ("http://[::1]x/", "has no valid host"),
    (f"http://{'a' * 64}/", "has no valid host"),
    (f"http://{'.'.join(['a' * 63] * 4)}/", "has no valid host"),
    ("http://a..b/", "has no valid host"),
    ("http://.a/", "has no valid host"),
    ("http://./", "has no valid host"),
    ("http://-a/", "has no valid host"),
    ("http://a-/", "has no valid host"),
    ("http://a%20b/", "has no valid host"),
    ("http://a\\b/", "has no valid host"),
    ("http://a,b/", "has no valid host"),
    ("http://*.example/", "has no valid host"),
    ("http://999.1.1.1/", "has no valid host"),
    ("http://1.1/", "has no valid host"),
    ("http://127.0.0.01/", "has no valid host"),
    ("http://2130706433/", "has no valid host"),
    ("http://0x7f000001/", "has no valid host"),
    ("http://0X7F.1/", "has no valid host"),
    ("http://1.2.3.4./", "has no valid host"),
    ("http://h/" + "a" * 8000, "is longer than 8000 characters"),
]


@pytest.mark.parametrize("url", GOOD)
def test_a_url_that_can_be_probed_is_taken_as_it_is(url: str) -> None:
    assert url == check_url("url", url)


@pytest.mark.fault(92)
@pytest.mark.parametrize(("url", "problem"), BAD, ids=[ascii(url)[:40] for url, _ in BAD])
def test_a_url_that_can_not_be_probed_is_refused_with_the_reason(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=r"^url: ") as caught:
        check_url("url", url)
    assert "url" == caught.value.field
    assert problem in caught.value.problem


@pytest.mark.parametrize("url", [None, b"http://h/", 80, ["http://h/"]], ids=repr)
def test_a_url_that_is_no_string_is_refused_with_an_example(url: object) -> None:
    with pytest.raises(ConfigError, match=r"^health: must be a URL such as"):
        check_url("health", url)


def test_a_refused_url_shows_its_markers_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'ftp://h:\{FREE_PORT\}/' must begin with"):
        check_url("url", f"ftp://h:{FREE_PORT}/")


# --- whatever is taken, a probe does not trip over ------------------------------------------------

PIECES = [
    *(
        "http://",
        "https://",
        "HTTP://",
        "//",
        "/",
        "?",
        "#",
        ":",
        "@",
        "[",
        "]",
        ".",
        "-",
        "_",
        "%",
    ),
    *(
        "[::1]",
        "::1",
        "127.0.0.1",
        "999.1.1.1",
        "localhost",
        "xn--",
        "xn--bcher-kva",
        "v1.a",
        "%2f",
    ),
    *(
        "a",
        "A",
        "1",
        "80",
        "0",
        "0x7f",
        "\\",
        "é",
        "\u3002",
        " ",
        "&",
        "=",
        ";",
        "!",
        "~",
        FREE_PORT,
    ),
    *("a" * 63, "1" * 9),
]
URLS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["http://", "https://", ""]),
        st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join),
    ),
)
PORTS = st.integers(1, 65535).map(str)


@pytest.mark.fault(92)
@given(URLS | st.from_regex(r"https?://[!-~]{1,20}", fullmatch=True), PORTS)
@example("http://[v1.a]/", "1")
@example("http://[::1]x/", "1")
@example(f"http://h:8{FREE_PORT}/", "65535")
@example("http://h/" + "a" * 70_000, "1")
def test_no_url_that_is_taken_makes_httpx_or_trio_raise(text: str, port: str) -> None:
    try:
        url = fill(check_url("url", text), {FREE_PORT: port})
    except ConfigError:
        return
    parsed = httpx.URL(url)
    request = httpx.Request("GET", url)
    assert request.url.raw_host.decode() == host_of(url)
    assert host_of(url)
    assert 1 <= port_of(url) <= 65535
    assert port_of(url) == (parsed.port or {"http": 80, "https": 443}[parsed.scheme])
    assert [] == resolved(host_of(url))
    assert host_of(with_host(url, "::1")) == "::1"
    check_url("url", with_host(url, "127.0.0.1"))


class Nowhere(trio.abc.HostnameResolver):
    """Knows no name, and asks nobody."""

    async def getaddrinfo(self, *args: object) -> list[object]:  # type: ignore[override]
        return []

    async def getnameinfo(self, *args: object) -> tuple[str, str]:
        raise NotImplementedError


def resolved(host: str) -> list[object]:
    """What Trio gives for a host when nobody knows it; [] for an address, too."""

    async def ask() -> list[object]:
        trio.socket.set_custom_hostname_resolver(Nowhere())
        found = await trio.socket.getaddrinfo(host, 80)
        return [entry for entry in found if entry[4][0] != host]

    return trio.run(ask)


# --- what a URL means -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://h/", "h", 80),
        ("https://h/", "h", 443),
        ("http://H.Example:8080/", "h.example", 8080),
        ("http://[::1]:81/", "::1", 81),
    ],
)
def test_a_url_leads_to_a_host_and_a_port(url: str, host: str, port: int) -> None:
    assert (host, port) == (host_of(url), port_of(url))


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("localhost", ("127.0.0.1", "::1")),
        ("localhost.", ("127.0.0.1", "::1")),
        ("127.0.0.1", ("127.0.0.1",)),
        ("127.8.9.10", ("127.8.9.10",)),
        ("::1", ("::1",)),
        ("::ffff:127.0.0.1", ("127.0.0.1",)),
        ("0.0.0.0", ("127.0.0.1",)),
        ("::", ("::1",)),
        ("10.0.0.1", ()),
        ("::2", ()),
        ("::ffff:10.0.0.1", ()),
        ("example.org", ()),
        ("localhost.example.org", ()),
    ],
)
@pytest.mark.fault(92)
def test_a_host_means_these_addresses_of_this_machine(
    host: str, addresses: tuple[str, ...]
) -> None:
    assert addresses == loopback_addresses(host)


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("http://localhost/", "127.0.0.1", "http://127.0.0.1/"),
        ("http://localhost:80/a?b=c", "127.0.0.1", "http://127.0.0.1:80/a?b=c"),
        ("https://localhost:443/a", "::1", "https://[::1]:443/a"),
        ("http://[::1]:8080", "127.0.0.1", "http://127.0.0.1:8080"),
    ],
)
def test_another_host_leaves_the_rest_of_a_url_as_it_was(
    url: str, host: str, expected: str
) -> None:
    assert expected == with_host(url, host)


@pytest.mark.parametrize(
    "secret", ["hunter2", "hun@ter2", "hunter2/more", "hunter2:x", "hunter2?#"]
)
def test_a_password_in_a_url_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url("url", f"http://ada:{secret}@h/")
    assert "'http://***@h/'" in str(caught.value)
    assert "hun" not in str(caught.value)
