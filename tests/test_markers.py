"""Markers: what they survive, where they are found, and how they are filled in."""

import copy
import pickle

import pytest

from trio_lifecycle._markers import (
    CALLBACK_URL,
    FREE_PORT,
    MARKERS,
    Marker,
    fill,
    has_stray_nul,
    markers_in,
    show,
)

each_marker = pytest.mark.parametrize("marker", MARKERS, ids=repr)


@each_marker
def test_a_marker_is_found_and_filled_inside_an_f_string(marker: Marker) -> None:
    text = f"--bind=127.0.0.1:{marker}/x"
    assert frozenset({marker}) == markers_in([text])
    assert "--bind=127.0.0.1:8080/x" == fill(text, {marker: "8080"})


@each_marker
def test_a_marker_is_found_as_an_argument_of_its_own_and_in_a_sum(marker: Marker) -> None:
    assert frozenset({marker}) == markers_in([marker])
    assert "a1b" == fill("a" + marker + "b", {marker: "1"})


def test_every_occurrence_of_every_marker_is_filled() -> None:
    text = f"{FREE_PORT}{FREE_PORT} {CALLBACK_URL}"
    assert "11 http://x" == fill(text, {FREE_PORT: "1", CALLBACK_URL: "http://x"})


def test_a_marker_without_a_value_stays() -> None:
    assert CALLBACK_URL == fill(f"{CALLBACK_URL}", {FREE_PORT: "1"})


def test_the_name_of_a_marker_in_plain_words_is_no_marker() -> None:
    assert frozenset() == markers_in(["FREE_PORT", "{FREE_PORT}", "$CALLBACK_URL"])
    assert "FREE_PORT" == fill("FREE_PORT", {FREE_PORT: "1"})


def test_markers_are_collected_over_several_texts() -> None:
    assert frozenset(MARKERS) == markers_in(["a", f"{FREE_PORT}", f"x{CALLBACK_URL}"])


@each_marker
def test_a_marker_is_shown_as_its_name_in_code(marker: Marker) -> None:
    assert marker.name == repr(marker)
    assert f"http://h:{{{marker.name}}}/" == show(f"http://h:{marker}/")


@each_marker
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_of_a_marker_is_the_same_marker(marker: Marker, duplicate: object) -> None:
    assert callable(duplicate)
    again = duplicate(marker)
    assert Marker is type(again)
    assert (marker, marker.name, hash(marker)) == (again, again.name, hash(again))


@pytest.mark.parametrize(
    "text", ["", "plain", FREE_PORT, f"{FREE_PORT}{CALLBACK_URL}", f"a{FREE_PORT}b"]
)
def test_the_nul_of_a_marker_is_no_stray(text: str) -> None:
    assert not has_stray_nul(text)


@pytest.mark.parametrize(
    "text",
    [
        "\0",
        f"{FREE_PORT}\0",
        "\0OTHER\0",
        FREE_PORT[:-1],
        FREE_PORT + FREE_PORT[1:],
        # Each of these closes up to a marker when the one inside is taken out.
        FREE_PORT[:5] + CALLBACK_URL + FREE_PORT[5:],
        CALLBACK_URL[:5] + FREE_PORT + CALLBACK_URL[5:],
    ],
    ids=repr,
)
def test_a_nul_that_the_user_wrote_is_a_stray(text: str) -> None:
    assert has_stray_nul(text)
