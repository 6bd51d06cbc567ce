"""Secrets are blotted out, however they come; all else stays as it is."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_lifecycle._errors import (
    ConfigError,
    LifecycleError,
    PreflightError,
    ReadyTimeoutError,
    StopError,
)
from trio_lifecycle._markers import FREE_PORT
from trio_lifecycle._secrets import BLOT, SHORTEST_SECRET, Secrets, TextBlotter

pytestmark = pytest.mark.fault(96)

# Few different letters, so that secrets overlap, repeat themselves and are nearly met.
LETTERS = st.text("ab", min_size=1, max_size=6)
TEXT = st.text("abc", max_size=40)


def blotted(secrets: list[str], pieces: list[str]) -> str:
    blotter = TextBlotter(secrets)
    return "".join([*map(blotter.feed, pieces), blotter.close()])


def expected(secrets: list[str], text: str) -> str:
    """Mark each character that belongs to a secret; those that overlap are one."""
    spans = sorted(
        (start, start + len(secret))
        for secret in secrets
        for start in range(len(text))
        if text.startswith(secret, start)
    )
    shown, done = "", 0
    for start, stop in spans:
        if start >= done:
            shown += text[done:start] + BLOT
        done = max(done, stop)
    return shown + text[done:]


@given(st.lists(LETTERS, max_size=3), st.lists(TEXT, max_size=8))
@example(["aa"], ["aa", ""])
@example(["abab"], ["abababab", "ab"])
@example(["aabb", "bbcc"], ["aabb", "cc"])
def test_any_chunks_give_what_the_whole_text_gives(secrets: list[str], pieces: list[str]) -> None:
    assert expected(secrets, "".join(pieces)) == blotted(secrets, pieces)


@given(st.lists(LETTERS, min_size=1, max_size=3), TEXT)
def test_no_secret_is_left_and_nothing_else_is_lost(secrets: list[str], text: str) -> None:
    shown = blotted(secrets, list(text))
    assert not any(secret in shown for secret in secrets)
    if not any(secret in text for secret in secrets):
        assert text == shown


@given(st.lists(LETTERS, min_size=1), st.lists(TEXT))
def test_less_than_a_secret_is_held_back(secrets: list[str], pieces: list[str]) -> None:
    blotter = TextBlotter(secrets)
    for piece in pieces:
        blotter.feed(piece)
    assert len(blotter.close().replace(BLOT, "?")) < max(map(len, secrets))


def test_a_line_is_not_held_back_once_it_is_whole() -> None:
    blotter = Secrets(["hunter22"]).bytes_blotter()
    assert b"my " == blotter.feed(b"my hunt")
    assert b"hunting\n" == blotter.feed(b"ing\n")


# --- which texts are secrets ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("hunter22", "a hunter22, hunter22.", "a ***, ***."),
        ("-----KEY-----\nabcdef\n\nxyz\n", "KEY: abcdef xyz -----KEY-----", "KEY: *** xyz ***"),
        ("  token  \r\n", "is token!", "is ***!"),
        (f"http://me:pw@h:{FREE_PORT}/key", "http://me:pw@h:80/key", "***80***"),
        ("abc", "abc", "abc"),
        ("tell\\me", repr("tell\\me"), "'***'"),
        ("caf\udce9", "caf\\xe9", "***"),
    ],
    ids=["plain", "lines", "blanks", "markers", "short", "repr", "no UTF-8"],
)
def test_what_is_blotted_out_of_a_text(secret: str, text: str, shown: str) -> None:
    assert shown == Secrets([secret]).blot_out(text)


def test_a_text_of_the_shortest_length_is_blotted_out() -> None:
    assert 4 == SHORTEST_SECRET
    assert BLOT == Secrets(["abcd"]).blot_out("abcd")


def test_secrets_show_nothing_of_themselves() -> None:
    assert "<Secrets: 2>" == repr(Secrets(["first", "second", "first"]))


def test_there_may_be_no_secret() -> None:
    assert not Secrets(["ab"])
    assert "ab" == Secrets(["ab"]).blot_out("ab")


@pytest.mark.parametrize(
    ("tail", "shown"),
    [
        (b"ter22 and hunter22", b"*** and ***"),
        (b"r22 ok", b"r22 ok"),
        (b"hunter22 first", b"*** first"),
        (b"nter22", b"***"),
        (b"", b""),
    ],
    ids=repr,
)
def test_a_tail_that_begins_within_a_secret_shows_nothing_of_it(tail: bytes, shown: bytes) -> None:
    assert shown == Secrets(["hunter22"]).blot_out_tail(tail)


def test_a_tail_that_begins_within_one_of_two_secrets_that_overlap_shows_nothing_of_either() -> (
    None
):
    assert b"***!" == Secrets(["xxabcdef", "efgh"]).blot_out_tail(b"abcdefgh!")


# --- errors ---------------------------------------------------------------------------------------


def same(error: LifecycleError) -> LifecycleError:
    Secrets(["hunter22"]).blot_out_error(error)
    return error


@pytest.mark.parametrize(
    "make",
    [
        lambda text: ReadyTimeoutError("queen", 1.5, f"said {text}", f"tail {text}"),
        lambda text: PreflightError("queen", ("fine", f"no {text}")),
        lambda text: ConfigError("args", f"has {text}"),
    ],
)
def test_every_fact_of_an_error_is_without_secrets(
    make: Callable[[str], LifecycleError],
) -> None:
    error = same(make("hunter22"))
    plain = make("***")
    assert (str(plain), repr(plain), plain.args) == (str(error), repr(error), error.args)


def test_a_daemons_name_stays_although_it_is_the_secret() -> None:
    error = same(ReadyTimeoutError("hunter22", 1.5, "hunter22!"))
    assert isinstance(error, ReadyTimeoutError)
    assert ("hunter22", "***!") == (error.daemon, error.last_seen)


def test_errors_in_a_circle_are_each_taken_once() -> None:
    ours, theirs = StopError("q", 1, "", 1.0), OSError("it has no number")
    ours.__cause__, theirs.__context__ = theirs, ours
    Secrets(["number"]).blot_out_error(ours)
    assert "it has no ***" == str(theirs)


def test_an_error_of_the_users_stays_as_it_is() -> None:
    error = ValueError("hunter22")
    Secrets(["hunter22"]).blot_out_error(error)
    assert ("hunter22",) == error.args
