"""A language model of words: what came after the last few words, in the text that it has read."""

import random
from collections.abc import Iterable, Iterator
from typing import Final

# With two words before it, the next one is guessed well enough to be funny. With more, a text of
# this size is only repeated.
DEFAULT_ORDER: Final = 3

Context = tuple[str, ...]


class WordModel:
    """Guesses the next word by the words before it.

    Args:
        order: How many words count, the one to be guessed among them.
    """

    def __init__(self, order: int = DEFAULT_ORDER) -> None:
        self.order = order
        self._after: dict[Context, list[str]] = {}
        self._last: list[str] = []

    def __len__(self) -> int:
        """How many contexts it knows."""
        return len(self._after)

    def learn(self, words: Iterable[str]) -> None:
        """Read on in a text, a part of it at a time."""
        for word in words:
            for length in range(len(self._last) + 1):
                context = tuple(self._last[len(self._last) - length :])
                self._after.setdefault(context, []).append(word)
            self._last = [*self._last, _bare(word)][-(self.order - 1) :]

    def go_on(self, prompt: str, most_words: int, seed: int | None = None) -> Iterator[str]:
        """Continue a text, a word at a time.

        Args:
            prompt: The text.
            most_words: After how many words it ends.
            seed: The same seed gives the same words; None gives others each time.
        """
        dice = random.Random(seed)  # no secret is made of it
        last = [_bare(word) for word in words_of(prompt)][-(self.order - 1) :]
        for _ in range(most_words):
            word = dice.choice(self._known_after(last))
            yield word
            last = [*last, _bare(word)][-(self.order - 1) :]

    def _known_after(self, last: list[str]) -> list[str]:
        """Give what came after as many of the last words as were ever seen together."""
        for length in range(len(last), -1, -1):
            if found := self._after.get(tuple(last[len(last) - length :])):
                return found
        return [" ..."]


def words_of(text: str) -> list[str]:
    """Take a text apart into its words, each with a space before it; lines are of no interest."""
    return [f" {word}" for word in text.split()]


def _bare(word: str) -> str:
    return word.strip().lower()
