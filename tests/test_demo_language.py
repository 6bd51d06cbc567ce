"""The demo's language model: it says what it has read, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle.demo._language import WordModel, words_of
from trio_lifecycle.demo.embedding_worker import DIMENSIONS, embed

TEXT = "the cat sat on the mat and the cat ran"


def read(text: str, order: int = 3) -> WordModel:
    model = WordModel(order)
    model.learn(words_of(text))
    return model


def test_a_text_goes_on_as_it_did_before() -> None:
    assert [" on", " the", " mat"] == list(read(TEXT).go_on("The cat sat", 3, seed=1))


def test_what_was_never_seen_is_continued_by_less_of_it() -> None:
    (word,) = read(TEXT).go_on("a dog and the", 1, seed=1)
    assert word in {" cat", " mat"}


@given(text=st.text(min_size=1), prompt=st.text(), seed=st.integers())
def test_only_words_of_the_text_are_said(text: str, prompt: str, seed: int) -> None:
    said = list(read(text).go_on(prompt, 5, seed))
    assert set(said) <= {*words_of(text), " ..."}
    assert 5 == len(said)


@given(st.integers())
def test_the_same_seed_says_the_same(seed: int) -> None:
    model = read(TEXT)
    assert list(model.go_on("the", 20, seed)) == list(model.go_on("the", 20, seed))


@given(parts=st.lists(st.text(alphabet="ab \n"), min_size=1))
def test_a_text_read_in_parts_is_the_same_text(parts: list[str]) -> None:
    whole = WordModel()
    for part in parts:
        whole.learn(words_of(part))
    at_once = WordModel()
    at_once.learn(word for part in parts for word in words_of(part))
    assert list(at_once.go_on("a", 9, 1)) == list(whole.go_on("a", 9, 1))


@pytest.mark.parametrize("text", ["", "  ", "a", "one two", "one two " * 9])
def test_a_vector_has_the_length_one_or_none(text: str) -> None:
    vector = embed(text)
    assert DIMENSIONS == len(vector)
    assert pytest.approx(float(bool(text.split()))) == sum(part * part for part in vector)


def test_texts_with_the_same_words_are_near_each_other() -> None:
    def likeness(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))

    assert likeness("a b c", "c b a") == pytest.approx(1.0)
    assert likeness("a b c", "a b d") > likeness("a b c", "x y z")
