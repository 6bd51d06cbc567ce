"""Asking another service: JSON, and answers that come bit by bit."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Self
from urllib.parse import urljoin

import httpx
import trio

from trio_lifecycle import DaemonHandle

# A service of this machine takes the connection at once, or is not there.
_CONNECT_S: Final = 5.0
# A connection may break before it is known that the process behind it has died.
DEATH_KNOWN_S: Final = 1.0
_BAD_GATEWAY: Final = 502

# A service that is not told may keep for seconds what was closed here: a descriptor a request.
_HEADERS: Final = {"Content-Type": "application/json", "Connection": "close"}


def address(daemon: DaemonHandle, path: str) -> str:
    """Say where a service has something; its own URL may be that of its health check."""
    return urljoin(daemon.url or "", path)


class AskingError(Exception):
    """A service refused, or could not be asked; the text is its sentence, or says why.

    Args:
        sentence: What went wrong.
        status: The HTTP status; 502 where there was none.
    """

    def __init__(self, sentence: str, status: int = _BAD_GATEWAY) -> None:
        super().__init__(sentence)
        self.status = status


class NoAnswerError(AskingError):
    """A service gave no answer, or broke off; one behind it that did so is another matter."""


class Asker:
    """Asks services; nothing of the environment, such as a proxy, has a say.

    A model may take its time, so only the way to a service has a limit. Where its answer needs one,
    use a cancel scope.
    """

    def __init__(self) -> None:
        patience = httpx.Timeout(None, connect=_CONNECT_S)
        # A connection that is kept holds up a service that is to end.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(trust_env=False, timeout=patience, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, url: str) -> dict[str, Any]:
        """Ask for a JSON object.

        Raises:
            AskingError: It was refused, or nobody answers.
        """
        async with self._asked("GET", url, None) as answer:
            return await _object(answer)

    async def post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a JSON object, and get one.

        Raises:
            AskingError: It was refused, or nobody answers.
        """
        async with self._asked("POST", url, body) as answer:
            return await _object(answer)

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Get an answer bit by bit.

        Raises:
            AskingError: It was refused, nobody answers, or the answer breaks off.
        """
        asked = self._asked(method, url, body)
        async with asked as answer, aclosing(_bits(answer)) as bits:
            yield bits

    @asynccontextmanager
    async def _asked(
        self, method: str, url: str, body: dict[str, Any] | None
    ) -> AsyncIterator[httpx.Response]:
        # Not by httpx, which refuses what JSON allows: half a surrogate pair, say.
        content = None if body is None else json.dumps(body).encode()
        asked = self._client.stream(method, url, content=content, headers=_HEADERS)
        try:
            async with asked as answer:
                if answer.is_error:
                    await answer.aread()
                    raise AskingError(_sentence_in(answer), answer.status_code)
                yield answer
        except httpx.HTTPError as error:
            raise _broken(url, error) from error


def _broken(url: object, error: httpx.HTTPError) -> NoAnswerError:
    return NoAnswerError(f"{url} can't be asked: {str(error) or type(error).__name__}")


async def why_silent(daemon: DaemonHandle, error: NoAnswerError) -> str:
    """Say why a service gave no answer, or half of one: it has ended, most often."""
    with trio.move_on_after(DEATH_KNOWN_S):
        await daemon.wait_exit()
        return f"{daemon.name} has ended while it answered; ask again to have it started anew"
    return f"{daemon.name} is out of reach, but was not seen to end; ask again ({error})"


async def _bits(answer: httpx.Response) -> AsyncGenerator[bytes]:
    try:
        async for bit in answer.aiter_bytes():
            yield bit
    except httpx.HTTPError as error:
        # Here, too: whoever reads is to meet no error of httpx.
        raise _broken(answer.url, error) from error


async def _object(answer: httpx.Response) -> dict[str, Any]:
    await answer.aread()
    try:
        value = answer.json()
    except ValueError as error:
        raise AskingError(f"{answer.url} gave no JSON") from error
    if not isinstance(value, dict):
        raise AskingError(f"{answer.url} gave no JSON object")
    return value


def _sentence_in(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"{answer.url} answered with status {answer.status_code}"


async def lines_of(bits: AsyncIterator[bytes]) -> AsyncGenerator[str]:
    """Put bits of an answer together to lines."""
    rest = b""
    async for bit in bits:
        *lines, rest = (rest + bit).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


async def words_in(bits: AsyncIterator[bytes]) -> AsyncGenerator[str]:
    """Read the words out of a completion's events (server-sent events, as of OpenAI's API).

    Raises:
        AskingError: The answer tells of an error, or breaks off before its end.
    """
    problem: str | None = "the answer broke off before its end"
    # To the end, also when nothing follows that matters: httpx does not tidy up otherwise.
    async for line in lines_of(bits):
        text = line.removeprefix("data:").strip()
        if text == "[DONE]":
            problem = None
        elif line.startswith("data:") and text:
            word, told = _read(text)
            problem = told or problem
            if word:
                yield word
    if problem is not None:
        raise AskingError(problem)


def _read(text: str) -> tuple[str, str | None]:
    """Read an event: a word, or what went wrong."""
    try:
        entry = json.loads(text)
        if "error" in entry:
            return "", str(entry["error"]["message"])
        return str(entry["choices"][0]["text"]), None
    except (ValueError, LookupError, TypeError):
        return "", f"the answer has a part that is no completion: {text[:80]}"
