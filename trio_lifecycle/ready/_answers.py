"""Which answers of a daemon count."""

import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

from trio_lifecycle._errors import ConfigError
from trio_lifecycle.abc import Answer
from trio_lifecycle.ready._polled import Outcome, Reply

_log: Final = logging.getLogger("trio_lifecycle")

# What an answer says of who gives it, and how he is, stands at its beginning.
MOST_BODY_BYTES: Final = 65_536

Expectation = Callable[[Answer], object]
Body = Expectation | str | re.Pattern[str] | re.Pattern[bytes]


def check_body(body: Body | None) -> Body | None:
    """Return what the body must be like.

    Raises:
        ConfigError: It can't be looked for.
    """
    value: object = body
    if value is None or callable(value) or isinstance(value, re.Pattern):
        return body
    if isinstance(value, str) and value:
        return body
    raise ConfigError(
        "body", f"must be a text, a compiled pattern, or take an answer, not {value!r}"
    )


def check_expect(expect: Expectation | None) -> Expectation | None:
    """Return who is expected before the spawn.

    Raises:
        ConfigError: It can't be asked.
    """
    if expect is not None and not callable(expect):
        raise ConfigError("expect", f"must be a callable that takes an answer, not {expect!r}")
    return expect


class Judge:
    """Says what an answer means.

    Args:
        statuses: With which a daemon is up.
        fatal: With which it will never be.
        body: What the body of a daemon that is up is like.
    """

    def __init__(self, statuses: frozenset[int], fatal: frozenset[int], body: Body | None) -> None:
        self._statuses = statuses
        self._fatal = fatal
        self._body = body
        self._has_logged = False

    def __call__(self, answer: Answer) -> Reply:
        """Judge it.

        Raises:
            TypeError, NameError: The callable is wrong.
        """
        outcome, text = Outcome.NOT_YET, str(answer)
        if answer.status in self._fatal:
            outcome = Outcome.NEVER
        elif answer.status in self._statuses:
            if self._body is None or self._is_good(answer):
                outcome = Outcome.UP
            else:
                text += ", with another body"
        return Reply(outcome, text, answer.absent, answer)

    def _is_good(self, answer: Answer) -> bool:
        body = self._body
        if isinstance(body, str):
            return body.encode() in answer.body
        if isinstance(body, re.Pattern):
            return _is_found(body, answer.body)
        assert body is not None
        try:
            return bool(_at_once("body", body(answer)))
        except (ConfigError, TypeError, NameError):
            # A mistake in the program, which no answer will mend.
            raise
        except Exception as error:
            if not self._has_logged:
                self._has_logged = True
                # A text: the error would keep all frames.
                _log.warning("body failed at an answer, which counts as a no: %s", repr(error))
            return False


def _is_found(pattern: re.Pattern[Any], body: bytes) -> bool:
    text = body if isinstance(pattern.pattern, bytes) else body.decode(errors="replace")
    return pattern.search(text) is not None


def accepts(expect: Expectation, answer: Answer) -> bool:
    """Say whether who gives an answer is the one that is expected."""
    try:
        said = expect(answer)
    except Exception as error:
        # Most of them can't read what a stranger answers. A text: the error would keep all frames.
        _log.warning("expect failed at an answer, which counts as a no: %s", repr(error))
        return False
    return bool(_at_once("expect", said))


def _at_once(field: str, said: object) -> object:
    if isinstance(said, Coroutine):
        said.close()
        raise ConfigError(field, "must say it at once; an async function can't be asked")
    return said
