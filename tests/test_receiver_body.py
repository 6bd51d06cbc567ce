"""What a callback says: which bodies are taken, and what is said of others."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.receivers import accept_all, post, receiver
from trio_lifecycle._receiver import Reply
from trio_lifecycle._receiver._body import parse_body


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b"", {}),
        (b" \r\n", {}),
        (b"{}", {}),
        (b'{"url": null, "port": null, "pid": null, "instance_id": null}', ...),
        (b'{"url": "https://[::1]:8443/v1", "port": 8443, "pid": 7, "instance_id": "a"}', ...),
        ('{"wörker": ["ü", 1.5, null, true]}'.encode(), ...),
        (b'{"worker_id": "7", "port": 65535}', ...),
        (b'{"a":' * 31 + b"{}" + b"}" * 31, ...),
    ],
)
def test_a_good_body_is_given_as_it_is(body: bytes, facts: object) -> None:
    assert (json.loads(body) if facts is ... else facts) == parse_body(body)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe\xfa", "no JSON"),
        (b'{"a": "\xc3"}', "no JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": [-1e999]}', "-1e999 is beyond"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[" * 30_000, "nested deeper"),
        (b'{"a":' * 30_000, "nested deeper"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper"),
        (b"[]", "no JSON object"),
        (b'"port"', "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"url": 1}', "url must be a URL"),
        (b'{"url": ""}', "url must begin with http"),
        (b'{"url": "unix:///run/x"}', "url must begin with http"),
        (b'{"url": "http://me:secret@a/"}', "url carries a user or password"),
        (b'{"url": "http://a:0/"}', "url has port 0"),
        (b'{"url": "http://a b/"}', "url contains a space"),
        (b'{"url": "http://a:\\u0000FREE_PORT\\u0000/"}', "url contains a NUL"),
        (b'{"url": "http://a/\\ud800"}', "url"),
        (b'{"port": "80"}', "port must be a number"),
        (b'{"port": true}', "port must be a number"),
        (b'{"port": 80.0}', "port must be a number"),
        (b'{"port": 0}', "port must be a number"),
        (b'{"port": 65536}', "port must be a number"),
        (b'{"pid": "1"}', "pid must be a number"),
        (b'{"pid": 0}', "pid must be a number"),
        (b'{"pid": -1}', "pid must be a number"),
        (b'{"pid": false}', "pid must be a number"),
        (b'{"instance_id": 5}', "instance_id must be a string"),
    ],
    ids=lambda value: repr(value[:30]),
)
async def test_a_wrong_body_is_refused_with_a_sentence(body: bytes, part: str) -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await post(router, expectation, body)
    assert 422 == reply.status
    assert part in reply.problem
    assert "secret" not in reply.problem
    assert part in expectation.last_refusal
    assert 200 == (await post(router, expectation)).status


@given(st.binary() | st.text().map(str.encode))
def test_a_body_is_an_object_or_a_value_error(body: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parse_body(body), dict)


def test_a_long_problem_is_cut_off() -> None:
    assert 203 == len(Reply(422, "x" * 100_000).problem)
