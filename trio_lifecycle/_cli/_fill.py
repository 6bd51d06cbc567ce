"""Words in braces: what a shell can write for the markers."""

from typing import Final

from trio_lifecycle._markers import CALLBACK_URL, FREE_PORT, Marker

WORDS: Final[dict[str, Marker]] = {"{port}": FREE_PORT, "{callback_url}": CALLBACK_URL}


def with_markers(text: str) -> str:
    """Put markers in the place of exactly these words; all other braces stay as they are."""
    for word, marker in WORDS.items():
        text = text.replace(word, marker)
    return text
