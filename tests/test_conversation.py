"""What a daemon says by sd_notify, without any socket: whatever it sends, and in whatever order."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle.abc import Progress
from trio_lifecycle.ready._conversation import Conversation, Message

LIMIT_S = 2.0


def said(*messages: str, watchdog_s: float | None = None) -> Conversation:
    """A conversation of one message a second."""
    conversation = Conversation(watchdog_s)
    for now, message in enumerate(messages):
        conversation.take(Message.read(message.encode()), float(now))
    return conversation


def told(*messages: str, watchdog_s: float | None = None) -> list[Progress]:
    """What there is to be told of the last message."""
    conversation = said(*messages[:-1], watchdog_s=watchdog_s)
    return conversation.take(Message.read(messages[-1].encode()), len(messages) - 1.0)


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datagram", "lines"),
    [
        (b"", ("",)),
        (b"READY=1", ("READY=1",)),
        (b"READY=1\0", ("READY=1",)),
        (b"READY=1\nSTATUS=a=b\n", ("READY=1", "STATUS=a=b", "")),
        (b"STATUS=\xff\xc3\xa4", ("STATUS=\\xffä",)),
    ],
)
def test_a_message_is_lines(datagram: bytes, lines: tuple[str, ...]) -> None:
    assert lines == Message.read(datagram).lines


@pytest.mark.parametrize("datagram", [b"\0READY=1", b"READY\0=1", b"READY=1\0\0", b"\0\0"])
def test_a_nul_is_refused(datagram: bytes) -> None:
    with pytest.raises(ValueError, match="it holds a NUL"):
        Message.read(datagram)


@pytest.mark.parametrize(
    ("text", "number"),
    [("A=7", 7), ("A=7\nA=8", 7), ("A=18446744073709551615", 2**64 - 1), ("A=007", 7)]
    + [
        (text, None)
        for text in ("", "A=", "A", "B=7", "A=-1", "A=1.5", "A=٣", "A=1_0", "A= 7", "A=" + 21 * "9")
    ],
)
def test_a_number_is_digits_of_the_first_that_is_set(text: str, number: int | None) -> None:
    assert number == Message.read(text.encode()).number("A")


# --- readiness ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["READY=1", "STATUS=x\nREADY=1", "RELOADING=1\nREADY=1", "\nREADY=1\n"]
)
def test_it_is_ready_when_it_says_so(text: str) -> None:
    assert said(text).is_up


@pytest.mark.parametrize(
    "text",
    [
        "",
        "READY=0",
        "READY=11",
        " READY=1",
        "READY=1 ",
        "ready=1",
        "XREADY=1",
        "STATUS=READY=1",
        "READY=1\r\n",
        "RELOADING=1",
        "STOPPING=1\nREADY=1",
        "MAINPID=1",
        "WATCHDOG=1",
    ],
)
def test_it_is_not_ready_when_it_says_anything_else(text: str) -> None:
    assert not said(text).is_up


def test_one_that_stops_has_taken_it_back_and_may_give_it_again() -> None:
    assert not said("READY=1", "STOPPING=1").is_up
    assert said("STOPPING=1", "READY=1").is_up
    assert said("READY=1", "STOPPING=1", "READY=1").is_up


def test_one_that_reloads_stays_ready_and_tells_when_it_has() -> None:
    assert said("READY=1", "RELOADING=1\nMONOTONIC_USEC=17").is_up
    assert [Progress("reloading")] == told("READY=1", "RELOADING=1")
    assert [Progress("ready", "it has reloaded")] == told("READY=1", "RELOADING=1", "READY=1")
    assert [] == told("READY=1", "RELOADING=1", "READY=1", "READY=1")
    assert [] == told("RELOADING=1", "READY=1")


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        ("STATUS=loading", Progress("status", "loading")),
        ("STATUS=", Progress("status", "")),
        ("ERRNO=2", Progress("errno", "ENOENT (No such file or directory)")),
        ("ERRNO=4095", Progress("errno", "4095 (Unknown error 4095)")),
        ("EXTEND_TIMEOUT_USEC=1500000", Progress("extend", "1.5 s more", 1.5)),
        ("STOPPING=1", Progress("stopping")),
        ("WATCHDOG=1", Progress("watchdog")),
        ("WATCHDOG=trigger", Progress("watchdog", "it says that it has failed")),
    ],
)
def test_what_it_says_is_passed_on(text: str, progress: Progress) -> None:
    assert [progress] == told(text)


@pytest.mark.parametrize(
    "text",
    [
        "ERRNO=0",
        "ERRNO=4096",
        "ERRNO=x",
        "EXTEND_TIMEOUT_USEC=0",
        "EXTEND_TIMEOUT_USEC=soon",
        "FDSTORE=1\nFDNAME=x",
        "BARRIER=1",
        "BUSERROR=x",
        "X_UNKNOWN=1",
        "no line at all",
    ],
)
def test_what_nobody_knows_is_ignored(text: str) -> None:
    assert [] == told(text)


@pytest.mark.parametrize(
    ("messages", "summary"),
    [
        ((), "it has sent nothing by sd_notify"),
        (("X=1",), "it has not sent READY=1"),
        (("READY=1",), "it has sent READY=1"),
        (("STATUS=a\x1b",), "it has not sent READY=1; its last status was 'a\\x1b'"),
        (("READY=1", "STATUS=a", "STATUS=", "STOPPING=1"), "it says that it is stopping"),
        (("READY=1", "WATCHDOG=trigger"), "its watchdog: it says that it has failed"),
        (("READY=1", "ERRNO=2"), "it reported ENOENT (No such file or directory)"),
    ],
)
def test_what_was_seen_last_is_summed_up(messages: tuple[str, ...], summary: str) -> None:
    assert summary == said(*messages).summary


def test_the_facts_are_what_it_said_of_itself() -> None:
    conversation = said("STATUS=up", "READY=1")
    conversation.main_pid = 17
    assert {"status": "up", "mainpid": 17} == conversation.facts
    assert {} == said("STATUS=up", "STATUS=").facts


# --- the watchdog ---------------------------------------------------------------------------------


def test_it_may_be_silent_until_it_is_ready_or_if_nobody_asked() -> None:
    assert inf == said("STATUS=x", watchdog_s=LIMIT_S).due
    assert inf == said("READY=1").due
    assert LIMIT_S == said("READY=1", watchdog_s=LIMIT_S).due
    assert inf == said("READY=1", "STOPPING=1", watchdog_s=LIMIT_S).due


def test_one_that_is_silent_for_too_long_is_down_until_it_is_heard() -> None:
    conversation = said("READY=1", "WATCHDOG=1", watchdog_s=LIMIT_S)
    assert ([], True) == (conversation.look(2.9), conversation.is_up)
    missed = [Progress("watchdog", "no sign of life for 2 s")]
    assert (missed, False) == (conversation.look(3.0), conversation.is_up)
    assert ([], inf) == (conversation.look(9.0), conversation.due)
    alive = [Progress("watchdog", "alive again")]
    assert alive == conversation.take(Message.read(b"WATCHDOG=1"), 9.0)
    assert (True, 11.0) == (conversation.is_up, conversation.due)


def test_one_that_triggers_is_down_until_it_is_heard() -> None:
    assert not said("READY=1", "WATCHDOG=trigger").is_up
    assert said("READY=1", "WATCHDOG=trigger", "WATCHDOG=1").is_up
    assert said("WATCHDOG=trigger", "READY=1").is_up


def test_that_it_is_ready_again_is_no_sign_of_life() -> None:
    assert LIMIT_S == said("READY=1", "READY=1", watchdog_s=LIMIT_S).due


@pytest.mark.parametrize(
    ("micros", "due"), [("500000", 1.5), ("0", inf), ("18446744073709551615", inf), ("x", 2.0)]
)
def test_it_may_change_the_limit(micros: str, due: float) -> None:
    assert due == said("READY=1", f"WATCHDOG_USEC={micros}", watchdog_s=LIMIT_S).due
    assert inf == said("READY=1", f"WATCHDOG_USEC={micros}").due


# --- whatever comes -------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        "READY=1",
        "READY=0",
        "STOPPING=1",
        "RELOADING=1",
        "STATUS=a",
        "WATCHDOG=1",
        "WATCHDOG=trigger",
        "WATCHDOG_USEC=1",
        "ERRNO=5",
        "EXTEND_TIMEOUT_USEC=7",
        "MAINPID=1",
        "FDSTORE=1",
        "\xff",
        "",
    ]
)
TEXTS = st.lists(LINES).map("\n".join).map(str.encode)
DATAGRAMS = st.one_of(st.binary(), TEXTS, st.tuples(TEXTS, st.binary(max_size=9)).map(b"".join))


@given(st.lists(st.tuples(DATAGRAMS, st.floats(0, 5))), st.sampled_from([None, 1.0]))
def test_nothing_that_is_sent_breaks_it(
    messages: list[tuple[bytes, float]], watchdog_s: float | None
) -> None:
    conversation = Conversation(watchdog_s)
    now, ever = 0.0, False
    for datagram, pause_s in messages:
        now += pause_s
        conversation.look(now)
        try:
            conversation.take(Message.read(datagram), now)
        except ValueError:
            assert b"\0" in datagram
            continue
        lines = datagram.removesuffix(b"\0").split(b"\n")
        ever = ever or (b"READY=1" in lines and b"STOPPING=1" not in lines)
        assert ever == conversation.is_ready
        assert conversation.summary.isprintable()
        assert len(conversation.summary) < 3000
        assert conversation.is_up or inf == conversation.due
