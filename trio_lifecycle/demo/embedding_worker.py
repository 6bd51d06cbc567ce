"""embedding-worker-rbee: turns texts into vectors by hashing their words."""

import hashlib
import math
import sys
from typing import Final

from trio_lifecycle.demo._serving import JSONResponse, RefusedError, Request, Route, json_of
from trio_lifecycle.demo.worker import run_worker

DIMENSIONS: Final = 256


def embed(text: str) -> list[float]:
    """Give the vector of a text: each word adds 1 or -1 at a place that its hash says.

    This is feature hashing (Weinberger et al., 2009). The length of the vector is 1, or 0 without
    any word.
    """
    vector = [0.0] * DIMENSIONS
    for word in text.lower().split():
        number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
        vector[number % DIMENSIONS] += 1.0 if number >> 63 else -1.0
    length = math.sqrt(sum(part * part for part in vector)) or 1.0
    return [part / length for part in vector]


class Embeddings:
    """Answers requests for vectors."""

    @property
    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route("/v1/embeddings", self.embed, methods=["POST"])]

    async def embed(self, request: Request) -> JSONResponse:
        """Give the vectors of one text, or of several."""
        given = (await json_of(request)).get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise RefusedError("input must be a text, or a list of texts")
        data = [{"index": at, "embedding": embed(text)} for at, text in enumerate(texts)]
        return JSONResponse({"data": data})


def main() -> int:
    """Call back, and serve until SIGTERM.

    Returns:
        The exit status.
    """
    return run_worker("embedding-worker-rbee", __doc__, lambda _source: Embeddings())


if __name__ == "__main__":
    sys.exit(main())
