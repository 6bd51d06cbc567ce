"""Secrets, times and prefixes on the command line."""

import os
import re
import sys

import pytest

from tests import cli
from tests.cli import Ask, call, ensured, finish, run
from trio_lifecycle import FREE_PORT, AllOf, Exec, HealthCheck, TCPPort
from trio_lifecycle._cli._watch import Watched
from trio_lifecycle.abc import ReadyMode

all_stopped, ask, handlers = cli.all_stopped, cli.ask, cli.handlers

SECRET = "hunter2-and-more"
# Answers every path with 200.
ANSWERS = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


def knows() -> dict[str, dict[str, str]]:
    """The environment of this very test, with the secret.

    Not once for all: only a test's own has its mark and its state directory, so what is started
    with another is neither stopped nor missed.
    """
    return {"env": {**os.environ, "TOKEN": SECRET}}


def test_a_secret_of_our_environment_reaches_the_daemon_and_no_reader() -> None:
    script = 'echo "it is $TOKEN, ${#TOKEN} long"; exit 3'
    words = ("--secret-env", "TOKEN", "--health", "http://127.0.0.1:{port}/", "-v", "--json")
    done = finish(*words, "--", "sh", "-c", script, **knows())
    assert "sh | it is ***, 16 long\n" in done.err
    assert SECRET not in done.err + done.out
    quiet = finish("-q", *words[:4], "--", "sh", "-c", script, **knows())
    assert "  | it is ***, 16 long\n" in quiet.err


def test_what_was_seen_last_is_shown_without_the_secret() -> None:
    # In the path of the URL it is the user's own doing, and still not repeated.
    words = ("--secret-env", "TOKEN", "--health", f"http://127.0.0.1:{{port}}/{SECRET}", "-v")
    done = finish(*words, "--timeout", "0.3", "--", "sleep", "600", **knows())
    assert re.search(r"sleep: waiting \(0 s\) for http://127.0.0.1:\d+/\*\*\*", done.err)
    assert SECRET not in done.err


@pytest.mark.usefixtures("all_stopped")
def test_the_line_that_says_where_a_daemon_is_is_without_the_secret() -> None:
    words = ["--secret-env", "TOKEN", "--name", "web", "--health"]
    words += [f"http://127.0.0.1:{{port}}/{SECRET}", "--", sys.executable, "-c", ANSWERS, "{port}"]
    said = call("ensure", *words, **knows())
    assert re.match(r"http://127.0.0.1:\d+/\*\*\* \(process \d+, spawned\)\n", said.out), said.err
    assert ensured(*words, **knows())["url"].endswith("/***")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("NOT_THERE", "'NOT_THERE' is not set in the environment of trio-lifecycle; set it there"),
        ("BLANK", "'BLANK' is empty in the environment of trio-lifecycle; set it there"),
        (SECRET, "takes the name of a variable, not its value"),
        (f"TOKEN={SECRET}", "takes a name only; set the variable where trio-lifecycle is called"),
    ],
)
def test_a_secret_that_is_not_there_is_refused(
    name: str, problem: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLANK", " ")
    done = ask("run", "--secret-env", name, "--", "sleep", "600")
    assert (2, "", f"trio-lifecycle: --secret-env: {problem}\n") == done


def test_lines_are_shown_with_their_time_and_another_beginning() -> None:
    with run(
        "--timestamps", "--prefix", "db: ", "--", "sh", "-c", "echo hello; exec sleep 600"
    ) as it:
        line = it.line("hello")
        assert re.fullmatch(rf"db: {STAMP} hello\n", line.group())
        assert 130 == it.interrupt()
    assert "sh: ready" in it.err


@pytest.mark.parametrize(
    "wrong",
    [("--tcp", SECRET), ("--log", f"({SECRET}"), ("--cwd", SECRET), ("--timeout", SECRET)],
)
def test_what_is_wrong_with_an_option_is_told_without_the_secret(
    wrong: tuple[str, ...], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    for command in ("run", "ensure"):
        done = ask(command, "--secret-env", "TOKEN", *wrong, "--", "sleep", "600")
        assert (2, True, False) == (done.status, "***" in done.err, SECRET in done.err)


@pytest.mark.parametrize("option", ["--timestamps", "--prefix=x"])
def test_what_is_not_shown_has_no_beginning(option: str, ask: Ask) -> None:
    done = ask("run", "-q", option, "--", "sleep", "600")
    name = option.partition("=")[0]
    assert f"--quiet and {name}: exclude each other; give one of them" in done.err


@pytest.mark.parametrize(
    "mode",
    [
        HealthCheck(f"http://127.0.0.1:{FREE_PORT}/"),
        Exec(["redis-cli", "-a", SECRET, "ping"]),
        AllOf(TCPPort(80), Exec(["redis-cli", "-a", SECRET, "ping"])),
    ],
)
def test_nothing_is_waited_for_before_it_is_known_what(mode: ReadyMode) -> None:
    watched = Watched(mode)
    assert ("", "") == (watched.awaited, watched.last_seen)
