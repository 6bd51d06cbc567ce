"""llm-worker-rbee: loads a model, calls back, and continues texts."""

import argparse
import codecs
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

import trio

from trio_lifecycle.demo._asking import Asker
from trio_lifecycle.demo._language import WordModel, words_of
from trio_lifecycle.demo._models import PYDOC
from trio_lifecycle.demo._serving import (
    HOST,
    JSONResponse,
    RefusedError,
    Request,
    Response,
    Route,
    Stream,
    asked_to_stop,
    json_of,
    memory_mib,
    serving,
    stop_signals,
)

# How often loading says how far it is.
_STEPS: Final = 10

# As fast as it is nice to watch. A word model would be done before one could look.
_SECONDS_A_WORD: Final = 0.02

_MOST_WORDS: Final = 2_000


class LoadError(Exception):
    """The model can't be loaded; the text says why."""


def load(source: str) -> WordModel:
    """Learn a text, and say on standard output how far that is.

    Args:
        source: The file of a text, or "pydoc", which is Python's own help.

    Raises:
        LoadError: There is no such text, or it is none.
    """
    raw = _read(source)
    model, rest = WordModel(), ""
    # A character of several bytes may stand across two parts.
    decoder = codecs.getincrementaldecoder("utf-8")()
    for step in range(1, _STEPS + 1):
        begin, end = len(raw) * (step - 1) // _STEPS, len(raw) * step // _STEPS
        kept, _ = decoder.getstate()
        try:
            part = decoder.decode(raw[begin:end], final=step == _STEPS)
        except UnicodeDecodeError as error:
            at = begin - len(kept) + error.start
            where = f"byte {at:,}, {100 * (step - 1) // _STEPS} % loaded"
            raise LoadError(f"{source} is no text in UTF-8 ({where})") from error
        # And so may a word.
        whole, _, rest = (rest + part).rpartition(" ")
        model.learn(words_of(whole))
        print(f"loading {source}: {100 * step // _STEPS} %", flush=True)
    model.learn(words_of(rest))
    if not len(model):
        raise LoadError(f"{source} has no words")
    return model


def _read(source: str) -> bytes:
    if source == PYDOC:
        # Half a megabyte of text, which is not needed before.
        from pydoc_data.topics import topics

        return "\n\n".join(topics.values()).encode()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise LoadError(f"{source} can't be read: {error.strerror}") from error


class Work(Protocol):
    """What a worker can do."""

    @property
    def routes(self) -> list[Route]:
        """What it serves."""
        ...


def main() -> int:
    """Load, call back, and serve until SIGTERM.

    Returns:
        The exit status: 1 when the model can't be loaded.
    """
    return run_worker("llm-worker-rbee", __doc__, lambda source: Words(load(source)))


def run_worker(program: str, about: str | None, prepare: Callable[[str], Work]) -> int:
    """Be a worker: have it prepared, call back, and serve until SIGTERM.

    Args:
        program: What it is called.
        about: What it does.
        prepare: Makes what does the work, from the model's source.

    Returns:
        The exit status: 1 when the model can't be loaded.
    """
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("--model", required=True, help="a file, or the name of what is built in")
    parser.add_argument("--port", type=int, required=True, help="where it serves, on 127.0.0.1")
    parser.add_argument("--callback-url", help="where it says that it is ready")
    options = parser.parse_args()
    try:
        work = prepare(options.model)
    except (LoadError, MemoryError) as error:
        print(f"{error}" or f"{options.model} takes more memory than there is", file=sys.stderr)
        return 1
    trio.run(_serve, work, options)
    return 0


class Words:
    """Answers requests by a word model."""

    def __init__(self, model: WordModel) -> None:
        self._model = model

    @property
    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route("/v1/completions", self.complete, methods=["POST"])]

    async def complete(self, request: Request) -> Response:
        """Continue a text, a word at a time."""
        body = await json_of(request)
        prompt, most = body.get("prompt", ""), body.get("max_tokens", 40)
        if not isinstance(prompt, str) or type(most) is not int or most < 1:
            raise RefusedError("prompt must be a text, and max_tokens a number of 1 or more")
        seed = body.get("seed")
        chosen = seed if isinstance(seed, int) else None
        words = self._model.go_on(prompt, min(most, _MOST_WORDS), chosen)
        if body.get("stream"):
            return Stream(self._streamed(words), media_type="text/event-stream")
        return JSONResponse({"choices": [{"text": "".join(words)}]})

    async def _streamed(self, words: Iterable[str]) -> AsyncGenerator[bytes]:
        for word in words:
            yield f"data: {json.dumps({'choices': [{'text': word}]})}\n\n".encode()
            await trio.sleep(_SECONDS_A_WORD)
        yield b"data: [DONE]\n\n"


async def _serve(work: Work, options: argparse.Namespace) -> None:
    routes = (Route("/health", _health), *work.routes)
    with stop_signals() as signals:
        async with serving(options.port, *routes), trio.open_nursery() as tasks:
            if options.callback_url:
                tasks.start_soon(_call_back, options)
            await asked_to_stop(signals)
            tasks.cancel_scope.cancel()


# A plain function would run in a thread.
async def _health(_request: Request) -> JSONResponse:  # noqa: ASYNC124
    return JSONResponse({"pid": os.getpid(), "memory_mib": memory_mib()})


async def _call_back(options: argparse.Namespace) -> None:
    facts = {
        "instance_id": os.environ.get("TRIO_LIFECYCLE_INSTANCE", ""),
        "url": f"http://{HOST}:{options.port}",
        "pid": os.getpid(),
        "model": options.model,
        "memory_mib": memory_mib(),
    }
    async with Asker() as asker:
        await asker.post(options.callback_url, facts)


if __name__ == "__main__":
    sys.exit(main())
