"""The receiver of callbacks: tokens, who may call, and how it is set up."""

import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from tests.receivers import accept_all, post, receiver
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import FREE_PORT
from trio_lifecycle._receiver import CallbackReceiver, Peer, _router

# --- tokens -----------------------------------------------------------------------------------


async def test_a_callback_with_the_right_token_is_taken() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await post(router, expectation, b'{"model": "tiny"}')
    assert (200, {"ready": True}) == (reply.status, json.loads(reply.body))
    assert {"model": "tiny"} == await expectation.wait()
    assert 0 == router.refused


async def test_the_url_is_the_base_url_and_a_token_that_differs_each_time() -> None:
    router = CallbackReceiver("http://10.0.0.5:8000/lifecycle/")
    urls = {router.expect(accept_all).url for _ in range(100)}
    assert 100 == len(urls)
    assert all(url.startswith("http://10.0.0.5:8000/lifecycle/") for url in urls)
    # 256 bits, in 43 characters that need no quoting in a URL.
    assert {len("http://10.0.0.5:8000/lifecycle/") + 43} == {len(url) for url in urls}


@pytest.mark.fault(80)
@pytest.mark.parametrize(
    "path", ["", "/", "/ready", "/ready/", "/ready/wrong", "/\udcff", "/" + "x" * 9000]
)
async def test_a_callback_without_a_known_token_is_not_found(path: str) -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await router.handle("POST", path, b"{}", None)
    assert 404 == reply.status
    assert expectation.body is None
    assert (1, 1) == (router.refused, expectation.refused)


@pytest.mark.fault(80)
async def test_a_token_is_compared_with_all_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = receiver()
    expectations = [router.expect(accept_all) for _ in range(20)]
    compared: list[bytes] = []

    def compare_digest(ours: bytes, given: bytes) -> bool:
        compared.append(ours)
        return ours == given

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    await post(router, expectations[0])
    assert [e.digest for e in expectations] == compared


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", ""])
async def test_only_a_post_is_a_callback(method: str) -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await router.handle(method, expectation.url, b"{}", None)
    assert 405 == reply.status
    assert (b"allow", b"POST") in reply.headers
    assert expectation.body is None


@pytest.mark.fault(81)
async def test_a_token_is_good_once() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    await post(router, expectation, b'{"n": 1}')
    assert 409 == (await post(router, expectation, b'{"n": 2}')).status
    expectation.close()
    assert 409 == (await post(router, expectation, b'{"n": 3}')).status
    assert {"n": 1} == await expectation.wait()


@pytest.mark.fault(81)
async def test_of_two_callbacks_at_once_one_is_taken() -> None:
    checked = trio.testing.Sequencer()
    router = receiver()

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        async with checked(body["turn"]):
            return None

    expectation = router.expect(verify)
    statuses: dict[int, int] = {}

    async def call(turn: int) -> None:
        statuses[turn] = (await post(router, expectation, b'{"turn": %d}' % turn)).status

    async with trio.open_nursery() as nursery:
        for turn in (1, 0):
            nursery.start_soon(call, turn)
    assert {0: 200, 1: 409} == statuses
    assert {"turn": 0} == expectation.body


@pytest.mark.fault(82)
async def test_a_callback_after_the_end_is_too_late() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    expectation.close()
    expectation.close()
    assert 410 == (await post(router, expectation)).status
    assert expectation.body is None


@pytest.mark.fault(82)
async def test_a_callback_that_is_checked_when_the_wait_ends_is_too_late() -> None:
    router = receiver()

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        expectation.close()
        return None

    expectation = router.expect(verify)
    assert 410 == (await post(router, expectation)).status
    assert expectation.body is None


async def test_a_bounded_number_of_late_tokens_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_router, "_RETIRED_TOKENS", 3)
    router = receiver()
    expectations = [router.expect(accept_all) for _ in range(5)]
    for expectation in expectations:
        expectation.close()
    statuses = [(await post(router, expectation)).status for expectation in expectations]
    assert [404, 404, 410, 410, 410] == statuses


@pytest.mark.fault(96)
async def test_no_token_stands_in_a_repr_or_a_reply() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    replies = [await post(router, expectation, body) for body in (b"[", b"{}", b"{}")]
    shown = repr((router, expectation, replies, expectation.last_refusal))
    assert expectation.token not in shown


# --- who may call -----------------------------------------------------------------------------


async def test_a_callback_that_is_not_the_daemons_is_refused_and_the_next_one_is_taken() -> None:
    router = receiver()
    problems = ["it is another one", None]
    seen: list[object] = []

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        seen.append((body, peer))
        return problems.pop(0)

    expectation = router.expect(verify)
    peer = Peer(("127.0.0.1", 40_000), ("127.0.0.1", 8000))
    reply = await post(router, expectation, b"", peer)
    assert (403, "it is another one") == (reply.status, reply.problem)
    assert "403, it is another one" == expectation.last_refusal
    assert 200 == (await post(router, expectation)).status
    assert ({}, peer) == seen[0]


async def test_a_check_that_takes_too_long_asks_to_try_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = receiver()

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        await trio.sleep_forever()

    expectation = router.expect(verify)
    assert 503 == (await post(router, expectation)).status
    assert 5 == trio.current_time()


async def test_the_news_does_not_wait_for_ever_for_a_server_that_was_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    await router.handle("POST", expectation.url, b'{"port": 1}', None)
    assert {"port": 1} == await expectation.wait()


async def test_refusals_that_may_be_anyones_are_noted_for_all() -> None:
    router = receiver()
    one, other = router.expect(accept_all), router.expect(accept_all)
    await post(router, one, b"[]")
    router.refuse(413, "the body is too long")
    assert (2, 1, 2) == (one.refused, other.refused, router.refused)
    assert "413, the body is too long" == one.last_refusal


# --- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "10.0.0.5", "ftp://a/", "http://a/?b=c", f"http://a:{FREE_PORT}/", None, b"http://a"],
)
def test_a_base_url_that_cant_be_one_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        CallbackReceiver(url)


def test_a_receiver_says_where_it_is() -> None:
    assert "CallbackReceiver('http://127.0.0.1:8000/lifecycle')" == repr(receiver())
