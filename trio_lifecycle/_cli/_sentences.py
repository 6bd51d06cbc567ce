"""Errors as a shell user reads them: options instead of fields, and no output that stands above."""

import re
from typing import Final

from trio_lifecycle._errors import ConfigError, LifecycleError

# What has another name on the command line.
_WORDS: Final = {
    "ready_timeout": "--timeout",
    "stall_timeout": "--stall-timeout",
    "max_ready_timeout": "--max-timeout",
    "stop_ladder": "--stop-timeout",
    "working_dir": "--cwd",
    "on_change": "--on-change",
    "claim_timeout": "--claim-timeout",
    "search_path": "PATH",
    "binary_name": "PROGRAM",
    "FREE_PORT": "{port}",
    "CALLBACK_URL": "{callback_url}",
    "ready_mode": "way to be ready",
}
_FIELDS: Final = {
    "url": "--health",
    "env": "--env",
    "secret_env": "--secret-env",
    "name": "--name",
    "user": "--user",
    "listen": "--listen",
    "output.prefix": "--prefix",
    "host": "--host",
    "host_key": "--host-key",
}
_ANY_WORD: Final = re.compile(r"\{(FREE_PORT|CALLBACK_URL)\}|\b(" + "|".join(_WORDS) + r")\b")

# What Python writes in other words, and what a shell does.
_PHRASES: Final = (
    (re.compile(r"\b(on_change)='(\w+)' or '(\w+)'"), r"\1 \2 or \3"),
    (re.compile(r"\bname='(\w+)'"), r"\1"),
    (re.compile(r"\bLocalSpawner\(guarantee='(\w+)'\)"), r"--guarantee \1"),
    (re.compile(r"\bSSHSpawner\(\.\.\., user=\.\.\.\)"), "--host USER@HOST"),
    (re.compile(r"\bclient_keys="), "--identity"),
    (re.compile(r"\bagent=None\b"), "--no-agent"),
    (re.compile(r"\bconfig=None\b"), "--ssh-config none"),
    (re.compile(r"\bhost_key=|(?<=given as )host_key\b"), "--host-key"),
    # No passphrase is taken: others could read it in the list of processes.
    (re.compile(r", or with passphrase="), ""),
    (re.compile(r"\bGive what unlocks it as passphrase=, or have"), "Have"),
    (re.compile(r" \(connect_timeout\)"), ""),
    (re.compile(r"; who logs in there is user=.* is tunnel=$"), ""),
)

# What errors put before the end of a daemon's output.
_HEADING: Final = "\nIts last output:\n"


def sentence_of(error: LifecycleError, *, with_output: bool) -> str:
    """Say what an error says.

    Args:
        error: What happened.
        with_output: Whether to repeat the end of the daemon's output; not where it was shown.
    """
    if isinstance(error, ConfigError):
        field, _, rest = error.field.partition("[")
        where = f"{_FIELDS.get(field, field)}[{rest}" if rest else _FIELDS.get(field, field)
        # A problem that begins with a verb makes a sentence with its field.
        colon = "" if error.problem.startswith("is missing") else ":"
        return _shown(in_shell_words(f"{where}{colon} {error.problem}"))
    sentence, heading, output = str(error).partition(_HEADING)
    return _shown(in_shell_words(sentence)) + (heading + output if with_output else "")


def unwritten(why: str) -> str:
    """Say that standard output did not take what was to be written."""
    return f"standard output can't be written to: {why}"


def printable(text: str) -> str:
    """Spell out what a terminal would obey: a record is data that others may have written."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _shown(sentence: str) -> str:
    return "\n".join(map(printable, sentence.split("\n")))


def in_shell_words(text: str) -> str:
    """Name options where the library names fields."""
    for phrase, words in _PHRASES:
        text = phrase.sub(words, text)
    return _ANY_WORD.sub(lambda found: _WORDS[found[1] or found[2]], text)
