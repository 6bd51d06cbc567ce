"""Lines out of chunks, however the chunks fall."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_lifecycle._framing import CUT_MARK, LONGEST_LINE_BYTES, ByteFramer, LineFramer

# Few different bytes, so that endings, bounds and halves of characters meet often.
BYTES = st.lists(
    st.sampled_from([b"a", b"\n", b"\r", b"\r\n", "é".encode(), b"\xff", b"abcd"])
).map(b"".join)
ASCII = st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n", b"abcd"])).map(b"".join)
LONGEST = st.integers(1, 9)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


def lines_of(chunks: list[bytes], longest: int = LONGEST_LINE_BYTES) -> list[str]:
    """All lines that a framer makes of these chunks."""
    framer = LineFramer(longest)
    return [line for chunk in chunks for line in framer.feed(chunk)] + framer.close()


@given(BYTES, st.lists(st.integers(0, 1000)), LONGEST)
@example(b"abcd\r\n", [5], 4)
@example(b"abcd\r\r\n", [5, 6], 4)
@example(b"\xc3\xa9\n", [1], 9)
def test_any_chunks_give_the_same_lines_as_one_chunk(
    data: bytes, cuts: list[int], longest: int
) -> None:
    assert lines_of([data], longest) == lines_of(cut(data, cuts), longest)


@given(BYTES, LONGEST)
def test_bytes_one_by_one_give_the_same_lines_as_one_chunk(data: bytes, longest: int) -> None:
    assert lines_of([data], longest) == lines_of(
        [data[i : i + 1] for i in range(len(data))], longest
    )


@given(st.text(), st.lists(st.integers(0, 1000)))
def test_short_lines_are_those_that_splitting_at_newlines_gives(text: str, cuts: list[int]) -> None:
    expected = text.split("\n")
    whole = [line.removesuffix("\r") for line in expected[:-1]] + [
        line for line in expected[-1:] if line
    ]
    assert whole == lines_of(cut(text.encode(), cuts))


@given(ASCII, st.lists(st.integers(0, 1000)), LONGEST)
def test_no_line_is_over_the_bound_and_no_byte_but_endings_is_lost(
    data: bytes, cuts: list[int], longest: int
) -> None:
    lines = [line.removesuffix(CUT_MARK) for line in lines_of(cut(data, cuts), longest)]
    assert all(len(line) <= longest for line in lines)
    assert data.replace(b"\r\n", b"\n").replace(b"\n", b"").decode() == "".join(lines)


@given(BYTES, st.lists(st.integers(0, 1000)), LONGEST)
def test_lines_put_together_again_at_their_marks_are_the_bytes_that_came(
    data: bytes, cuts: list[int], longest: int
) -> None:
    framer = ByteFramer(longest)
    lines = [line for chunk in cut(data, cuts) for line in framer.feed(chunk)]
    whole = b"".join(line + b"\n" for line in lines)
    joined = whole.replace(CUT_MARK.encode() + b"\n", b"") + framer_rest(framer)
    assert data == joined


def framer_rest(framer: ByteFramer) -> bytes:
    """What a framer gives at its end, put together."""
    return b"".join(line.removesuffix(CUT_MARK.encode()) for line in framer.close())


def test_a_line_over_the_bound_comes_in_parts_of_which_all_but_the_last_say_so() -> None:
    parts = ["abcd [...]", "efgh [...]", "i", "next"]
    assert parts == lines_of([b"abcdefghi\nnext\n"], 4)


def test_a_line_without_an_end_comes_in_parts_as_it_grows() -> None:
    framer = LineFramer(4)
    assert [] == framer.feed(b"abcd")
    assert ["abcd [...]"] == framer.feed(b"e")
    assert ["e"] == framer.close()


@pytest.mark.parametrize("text", ["aéb", "abé", "a€b", "😀b", "a😀"], ids=ascii)
def test_a_line_is_cut_between_characters(text: str) -> None:
    (part, *_) = parts = lines_of([text.encode() * 3 + b"\n"], 4)
    assert text * 3 == "".join(line.removesuffix(CUT_MARK) for line in parts)
    assert part.endswith(CUT_MARK)


def test_bytes_that_begin_no_character_are_cut_at_the_bound() -> None:
    assert ["\\x80" * 4 + " [...]", "\\x80"] == lines_of([b"\x80" * 5], 4)


def test_a_framer_of_bytes_keeps_all_but_the_newline() -> None:
    framer = ByteFramer(4)
    assert [b"a\xff\r", b"abcd\r", b"abcd [...]", b"e\r"] == framer.feed(
        b"a\xff\r\nabcd\r\nabcde\r\nrest"
    )
    assert [b"rest"] == framer.close()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_of_just_the_bound_stays_whole(ending: bytes) -> None:
    assert ["abcd"] == lines_of([b"abcd" + ending], 4)


def test_a_carriage_return_before_the_newline_is_dropped_when_it_came_in_another_chunk() -> None:
    assert ["a", "b"] == lines_of([b"a\r", b"\nb\r", b"\n"])


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\rb\n", ["a\rb"]),
        (b"a\r\r\n", ["a\r"]),
        (b"50%\r", ["50%\r"]),
        (b"abc\rX\n", ["abc\r [...]", "X"]),
        (b"abcd\r", ["abcd [...]", "\r"]),
    ],
    ids=repr,
)
def test_a_carriage_return_elsewhere_is_kept(data: bytes, lines: list[str]) -> None:
    assert lines == lines_of([data], 4)


def test_bytes_that_are_no_utf_8_are_kept_as_escapes() -> None:
    assert ["caf\\xe9 \\xff"] == lines_of([b"caf\xe9 \xff\n"])


def test_a_character_in_two_chunks_is_one_character() -> None:
    assert ["é"] == lines_of([b"\xc3", b"\xa9\n"])


def test_blank_lines_are_lines() -> None:
    assert ["", "", "a"] == lines_of([b"\n\r\na\n"])


def test_closing_gives_nothing_when_the_last_line_was_complete() -> None:
    framer = LineFramer()
    assert ["a"] == framer.feed(b"a\n")
    assert [] == framer.close()


def test_closing_again_gives_nothing() -> None:
    framer = LineFramer()
    framer.feed(b"a")
    assert ["a"] == framer.close()
    assert [] == framer.close()


# --- lines that nobody wants ----------------------------------------------------------------------


def test_a_line_that_began_while_nobody_wanted_it_comes_whole() -> None:
    framer = LineFramer()
    framer.skip(b"unwanted\nwan")
    framer.skip(b"te")
    assert ["wanted"] == framer.feed(b"d\n")


def test_a_line_that_was_begun_before_the_skipped_chunk_is_forgotten_at_its_newline() -> None:
    framer = LineFramer()
    framer.feed(b"begun")
    framer.skip(b" and ended\n")
    assert ["new"] == framer.feed(b"new\n")


@given(st.lists(ASCII), LONGEST)
def test_a_framer_that_skips_keeps_no_more_than_the_bound(
    chunks: list[bytes], longest: int
) -> None:
    framer = LineFramer(longest)
    for chunk in chunks:
        framer.skip(chunk)
    begun = b"".join(chunks).rpartition(b"\n")[2]
    assert begun[-longest:].decode() == "".join(framer.close())


@given(st.lists(BYTES), BYTES)
def test_skipping_and_then_feeding_gives_the_lines_that_end_in_what_is_fed(
    skipped: list[bytes], fed: bytes
) -> None:
    framer = LineFramer()
    for chunk in skipped:
        framer.skip(chunk)
    begun = b"".join(skipped).rpartition(b"\n")[2]
    assert lines_of([begun + fed]) == framer.feed(fed) + framer.close()
