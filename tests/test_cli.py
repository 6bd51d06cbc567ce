"""The command line, as a shell sees it: exit statuses, words, the command of --then."""

import errno
import json
import os
import re
import sys
from pathlib import Path

import pytest

import trio_lifecycle
from tests import cli, test_cli_ensure, test_cli_status
from tests.cli import COMMAND, HEALTH, PAGE, SERVER, Ask, Run, call, finish, is_alive, run
from tests.support import UNMEASURED
from trio_lifecycle._cli._app import COMMANDS
from trio_lifecycle._cli._codes import status_beside_command, table
from trio_lifecycle._cli._fill import with_markers
from trio_lifecycle._cli._sentences import sentence_of

ask, handlers = cli.ask, cli.handlers

SLEEP = ("sleep", "600")


# --- exit statuses --------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_then_gives_its_exit_status_and_stops_the_daemon(command: str, status: int) -> None:
    done = finish("--then", command, "--", *SLEEP)
    assert status == done.process.returncode
    assert "sleep: stopped after" in done.err


WRONG_USE = {
    "no program": ((), "PROGRAM is missing; write: trio-lifecycle run"),
    "a wait for nothing": (
        ("--callback", "--manual", "--", *SLEEP),
        "--manual: means that nothing is waited for; leave it out",
    ),
    "no end of no wait": (
        ("--fatal-log", "failed", "--", *SLEEP),
        "--fatal-log: needs a way to be ready, such as --log or --tcp",
    ),
    "no TCP port": (("--tcp", "x", "--", *SLEEP), "--tcp: must be a number from 1 to 65535 or {po"),
    "no pattern": (("--log", "(", "--", *SLEEP), "--log: '(' is no regular expression: missing"),
    "no fatal pattern": (
        ("--manual", "--tcp", "1", "--fatal-log", "[", "--", *SLEEP),
        "--manual: means that nothing",
    ),
    "no descriptor": (("--fd", "x", "--", *SLEEP), "--fd: wants the number of a descriptor, 3 or"),
    "a standard stream": (("--fd", "2", "--", *SLEEP), "--fd: must be"),
    "no socket": (("--unix", "", "--", *SLEEP), "--unix: "),
    "no file": (("--file", "", "--", *SLEEP), "--file: "),
    "no silence": (("--stall-timeout", "0", "--", *SLEEP), "--stall-timeout: must be more than 0"),
    "a command that is empty": (
        ("--exec", " ", "--", *SLEEP),
        "--exec: is empty, as of a variable",
    ),
    "a pattern of every line": (("--log", "", "--", *SLEEP), "--log: is empty, as of a variable"),
    "an end at every line": (
        ("--fd", "3", "--fatal-log", "", "--", *SLEEP),
        "--fatal-log: is empty, as of a variable",
    ),
    "no time to hold": (
        ("--fd", "3", "--stable-for", "-1", "--", *SLEEP),
        "--stable-for: must be more than 0 seconds",
    ),
    "a prefix of two lines": (("--prefix", "a\nb", "--", *SLEEP), "--prefix: must be within one"),
    "no user's number": (("--user", "9" * 11, "--", *SLEEP), "--user: an id is from 0 to"),
    "a secret that is none": (
        ("--env", "PATH=x", "--secret-env", "PATH", "--", *SLEEP),
        "--secret-env: 'PATH' is in env, too",
    ),
    "less than it has": (
        ("--max-timeout", "1", "--", *SLEEP),
        "--max-timeout: 1.0 s is shorter than the --timeout of 30.0 s",
    ),
    "too long to hold": (
        ("--stable-for", "60", "--", *SLEEP),
        "--timeout: 30.0 s is too short for Manual().stable_for(60.0)",
    ),
    "quiet and verbose": (("-q", "-v", "--", *SLEEP), "--quiet and --verbose: exclude each other"),
    "a slip": (
        ("--heath", "x", "--", *SLEEP),
        "Unknown option: --heath. Did you mean --health?\nMore",
    ),
    "no number": (("--timeout", "soon", "--", *SLEEP), "--timeout: wants a number of seconds, not"),
    "a number below 0": (("--timeout", "-1", "--", *SLEEP), "seconds and finite, not -1\n"),
    "a number that is none": (("--timeout", "nan", "--", *SLEEP), "--timeout: must be more than 0"),
    "a negative patience": (("--stop-timeout", "-1", "--", *SLEEP), "--stop-timeout: the seconds"),
    "no port": (("--listen", "x:", "--", *SLEEP), "--listen: wants [HOST:]PORT, such as"),
    "no port there is": (("--listen", "0", "--", *SLEEP), "--listen: port must be {port} or"),
    "no address": (("--listen", "a.b:80", "--", *SLEEP), "--listen: host must be an address"),
    "two free ports": (
        ("--listen", "{port}", "--listen", "[::1]:{port}", "--", *SLEEP),
        "--listen: {port} is one port",
    ),
    "a port for a path": (
        ("--listen-unix", "/tmp/{port}", "--", *SLEEP),
        "--listen-unix: can hold neither {port} nor",
    ),
    "no path": (("--listen-unix", "", "--", *SLEEP), "--listen-unix: unix must be the path"),
    "no URL": (("--health", "localhost", "--", *SLEEP), "--health: 'localhost' must begin with"),
    "port 0": (("--health", "http://a:0/", "--", *SLEEP), "port 0; {port} finds a free one"),
    "no such directory": (("--cwd", "/no/where", "--", *SLEEP), "--cwd: '/no/where' is no"),
    "no KEY=VALUE": (("--env", "SECRET", "--", *SLEEP), "--env: wants K=V"),
    "two variables": (("--env", "A=1", "B=2", "--", *SLEEP), "--env: takes one K=V; write --env"),
    "an option of the program": (
        ("uvicorn", "app:app", "--port", "1"),
        "Unknown option: --port.\nWhat belongs to the program goes behind --: trio-lifecycle run",
    ),
    "an option like none of ours": (("--zone", "x", "--", *SLEEP), "--zone.\nMore"),
    "no callback": (("--", "echo", "{callback_url}"), "{callback_url}: has a value only with"),
    "no name": (("--name", "a/b", "--", *SLEEP), "--name: 'a/b' can't be a file name"),
}


@pytest.mark.fault(91, 92, 93)
@pytest.mark.parametrize("wrong", WRONG_USE)
def test_wrong_use_exits_2_and_says_what_is_wrong(wrong: str, ask: Ask) -> None:
    words, said = WRONG_USE[wrong]
    done = ask("run", *words)
    assert (2, "") == (done.status, done.out)
    assert said in done.err


@pytest.mark.fault(96)
def test_a_value_that_may_be_secret_is_not_repeated(ask: Ask) -> None:
    for words in [("--env", "hunter2"), ("--evn=hunter2",), ("--env", "A=1", "B=hunter2")]:
        done = ask("run", *words, "--", *SLEEP)
        assert 2 == done.status
        assert "hunter2" not in done.err


@pytest.mark.fault(16)
def test_a_daemon_that_is_not_ready_in_time_exits_124() -> None:
    done = finish(*HEALTH, "--timeout", "0.3", "--", *SLEEP)
    assert 124 == done.process.returncode
    assert re.search(r"sleep was not ready after 0\.\d+ s .* raise --timeout", done.err)


@pytest.mark.fault(15)
def test_a_daemon_that_dies_before_it_is_ready_exits_125_at_once() -> None:
    done = finish(*HEALTH, "--", "sh", "-c", "echo no such model; exit 3")
    assert 125 == done.process.returncode
    assert re.search(r"sh exited with status 3 after [0-9.]+ s, before it was ready", done.err)
    assert 1 == done.err.count("no such model"), "shown once, as output"


@pytest.mark.parametrize("program", ["exit 0", "exit 3", "kill -9 $$"])
def test_a_daemon_that_ends_by_itself_exits_125_whatever_its_status(program: str) -> None:
    done = finish("--", "sh", "-c", program)
    assert 125 == done.process.returncode
    assert "before it was ready" in done.err or "while it was still needed" in done.err


def test_a_daemon_that_dies_ends_the_command_that_needs_it(tmp_path: Path) -> None:
    # The command says where it is by opening the pipe that the daemon reads from.
    os.mkfifo(tmp_path / "go")
    script = "echo $$ > shell; echo go > go; exec sleep 600"
    with run("--then", script, "--", "sh", "-c", "read line < go; exit 0", cwd=tmp_path) as running:
        assert 125 == running.end()
    assert "sh: ended (exited with status 0)\n" in running.err
    assert not is_alive(int((tmp_path / "shell").read_text()))


@pytest.mark.fault(1)
def test_a_program_that_is_nowhere_exits_127_and_names_the_places() -> None:
    done = finish("--", "no-such-program-here")
    assert 127 == done.process.returncode
    assert re.search(r"was not found\. Looked at:\n  /", done.err)
    assert "search_path" not in done.err


@pytest.mark.fault(2)
@pytest.mark.parametrize("mode", [0o600, 0o700])
def test_a_program_that_can_not_be_executed_exits_126(tmp_path: Path, mode: int) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF of another world")
    program.chmod(mode)
    done = finish("--", str(program))
    assert 126 == done.process.returncode
    assert str(program) in done.err


@pytest.mark.fault(7)
def test_statuses_of_errors_that_are_hard_to_meet() -> None:
    refused = trio_lifecycle.SpawnError("web", "/bin/web: Exec format error", errno.ENOEXEC)
    too_big = trio_lifecycle.SpawnError("web", "the arguments are larger", errno.E2BIG)
    no_user = trio_lifecycle.SpawnError("web", "there is no user 'ada' on this machine")
    short = trio_lifecycle.SpawnError("web", "web: Too many", errno.EMFILE, retryable=True)
    foreign = trio_lifecycle.ForeignDaemonError("web", "http://localhost/", "process 5")
    unknown = trio_lifecycle.DaemonStateUnknownError("web", "it answered 503")
    errors = (refused, too_big, no_user, short, foreign, unknown)
    assert [126, 126, 125, 125, 125, 125] == [status_beside_command(error) for error in errors]


def test_an_unknown_command_is_told_and_what_was_meant() -> None:
    done = call("ensrue", "--", *SLEEP)
    assert (2, "") == (done.process.returncode, done.out)
    assert 'Did you mean "ensure"?' in done.err
    assert "More with: trio-lifecycle --help\n" in done.err


def test_the_documented_exit_statuses_are_those_of_the_program() -> None:
    assert "\n".join(table()) in PAGE.read_text()


# Where a command's options are written: in tables, or in lists.
THERE = "On another machine"
SECTIONS = {
    "run": ("When it is ready", "The daemon", "What is shown", THERE),
    "ensure": ("A daemon that is left running",),
    "status": ("Which of them run", THERE),
    "logs": ("What it has written", THERE),
    "wait": ("Until it has ended", THERE),
    "stop": ("When it is no longer wanted", THERE),
    "reap": ("What was left",),
    "timeline": ("What it took",),
    "demo": ("Four programs at work",),
}


def written_options(command: str) -> set[str]:
    """The options of a command, as the page has them."""
    page = PAGE.read_text()
    found = ""
    for title in SECTIONS[command]:
        section = re.split(rf"^##+ {title}$", page, flags=re.MULTILINE)[1]
        section = re.split("^##+ ", section, flags=re.MULTILINE)[0]
        found += " ".join(re.findall(r"^(?:\| |- )(`-.*?)(?: \||:)", section, re.MULTILINE))
    return set(OPTIONS.findall(found))


def offered_options(help_: str) -> set[str]:
    """The options of a command, as its help has them."""
    offered = re.findall(r"^│ (?:\*  )?(.*?)(?:  |$)", help_, re.MULTILINE)
    return set(OPTIONS.findall(" ".join(offered)))


OPTIONS = re.compile(r"--?[a-z-]+")


@pytest.mark.parametrize("command", SECTIONS)
def test_the_documented_options_are_those_of_the_program(
    command: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    written = written_options(command)
    if command == "ensure":
        of_owners = {"--then", "--guarantee", "--timestamps", "--prefix"}
        written |= written_options("run") - of_owners
    assert written == offered_options(ask(command, "--help").out)


def test_the_page_names_each_command() -> None:
    page = PAGE.read_text()
    assert list(SECTIONS) == list(COMMANDS) == re.findall(r"^\| \[`(\w+)`\]", page, re.MULTILINE)


@pytest.mark.parametrize(
    ("object_", "keys"),
    [("ensured", test_cli_ensure.KEYS), ("running", test_cli_status.KEYS)],
)
def test_the_page_shows_the_keys_of_the_objects(object_: str, keys: list[str]) -> None:
    blocks = re.findall(r"^```text\n(\{.*?\})\n```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (shown,) = [block for block in blocks if f'"{object_}"' in block]
    assert keys == list(json.loads(shown))


def test_the_first_command_of_the_page_does_what_the_page_says() -> None:
    script = PAGE.read_text().partition("```bash\n")[2].partition("```")[0]
    with Run(command=("sh", "-c", script.replace("trio-lifecycle", " ".join(COMMAND)))) as done:
        assert 0 == done.end()
    assert re.fullmatch(r"http://127.0.0.1:\d+/\n", done.out)
    assert re.fullmatch(
        r"(web \| .*\n)*web: ready at .*\n(web \| .*\n)*web: stopped after .*\n", done.err
    )


# --- words ----------------------------------------------------------------------------------------


def test_only_two_words_in_braces_are_replaced() -> None:
    text = 'a{port}b{callback_url} {} {{port}} {PORT} {"x": 1}'
    port, url = trio_lifecycle.FREE_PORT, trio_lifecycle.CALLBACK_URL
    assert f'a{port}b{url} {{}} {{{port}}} {{PORT}} {{"x": 1}}' == with_markers(text)


def test_errors_speak_of_options_and_leave_output_as_it_is() -> None:
    error = trio_lifecycle.ReadyTimeoutError("web", 1.0, "no answer", "set ready_timeout\n")
    assert sentence_of(error, with_output=False).endswith("raise --timeout.")
    assert sentence_of(error, with_output=True).endswith("| set ready_timeout")


def test_the_port_is_the_same_in_arguments_environment_and_url() -> None:
    script = 'echo "$1 $PORT {} {PORT} $2"; exec python3 -m http.server --bind 127.0.0.1 $1'
    words = (*HEALTH, "--env", "PORT={port}", "--", "sh", "-c", script, "{port}", "{port}", "a=b")
    with run(*words) as running:
        port = running.line(r"ready at http://127.0.0.1:(\d+)/, process \d+, after [0-9.]+ s")[1]
        assert f"sh | {port} {port} {{}} {{PORT}} a=b\n" in running.err
        assert 130 == running.interrupt()


def test_what_stands_after_the_dashes_belongs_to_the_program() -> None:
    done = finish("--then", "exit 0", "--", "echo", "--help", "--", "-q", "--name=x")
    assert "echo | --help -- -q --name=x\n" in done.err


def test_a_program_may_stand_without_dashes_and_have_a_name_and_a_directory(tmp_path: Path) -> None:
    words = ("--name", "queen", "--cwd", str(tmp_path), "--env", "BEE=a=b")
    assert "queen | a=b\n" in finish(*words, "printenv", "BEE").err
    assert f"queen | {tmp_path}\n" in finish(*words, "pwd").err


def test_help_and_version_are_given() -> None:
    for words, said in {
        ("--version",): "trio-lifecycle " + trio_lifecycle.__version__,
        ("--help",): "Start a daemon",
        ("run", "--help"): "trio-lifecycle run [OPTIONS] -- PROGRAM [ARGS...]",
    }.items():
        with Run(*words) as done:
            assert 0 == done.end()
        assert said in done.out


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("run", "--help")])
def test_help_that_can_not_be_written_is_told(words: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = call(*words, stdout=full)
    said = "trio-lifecycle: standard output can't be written to: No space left on device\n"
    assert (125, said) == (done.process.returncode, done.err)


def test_help_says_what_an_option_takes(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    taken = dict(re.findall(r"^│ --([a-z-]+) ([A-Z=]+) ", ask("run", "--help").out, re.MULTILINE))
    assert {
        "health": "URL",
        "unix": "PATH",
        "log": "REGEX",
        "fd": "N",
        "exec": "COMMAND",
        "file": "PATH",
        "fatal-log": "REGEX",
        "stable-for": "S",
        "timeout": "S",
        "stall-timeout": "S",
        "max-timeout": "S",
        "name": "N",
        "env": "K=V",
        "secret-env": "NAME",
        "cwd": "DIR",
        "stop-timeout": "S",
        "guarantee": "LEVEL",
        "user": "USER",
        "then": "COMMAND",
        "prefix": "TEXT",
        "listen-unix": "PATH",
        "identity": "FILE",
        "known-hosts": "FILE",
        "host-key": "KEY",
        "ssh-config": "FILE",
    } == taken


def test_each_env_takes_one_value() -> None:
    words = ("--env", "A=1", "--env", "B=2", "printenv", "A", "B")
    assert "printenv | 1\nprintenv | 2\n" in finish(*words).err


def test_an_early_ctrl_c_exits_130_without_a_word() -> None:
    # As in the import system, whose callbacks lose exceptions, or show them and go on.
    code = (
        "import importlib.util as util, os, signal, sys\n"
        "class Callback:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda *words: Callback() and find(*words)\n"
        "from trio_lifecycle.__main__ import main\n"
        "sys.argv[1:] = ['status']\n"
        "sys.exit(main())"
    )
    # What measures coverage looks for modules, too, and before.
    with Run(command=(sys.executable, "-c", code), env={**os.environ, **UNMEASURED}) as done:
        assert 130 == done.end()
    assert ("", "") == (done.out, done.err)


def test_without_the_extra_it_is_said_how_to_get_it() -> None:
    code = (
        "import sys, importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'cyclopts' else find(name, *rest)\n"
        "from trio_lifecycle.__main__ import main\n"
        "assert 'cyclopts' not in sys.modules\n"
        "sys.exit(main())"
    )
    with Run(command=(sys.executable, "-c", code)) as done:
        assert 2 == done.end()
    assert f"{sys.executable} -m pip install 'trio-lifecycle[cli]'" in done.err


# --- the command ----------------------------------------------------------------------------------


def test_the_command_finds_the_daemon_in_its_environment() -> None:
    script = "env | grep ^TRIO_LIFECYCLE_[UP] | sort"
    done = finish(*HEALTH, "--then", script, "--", *SERVER)
    pid, port, url = done.out.splitlines()
    assert f"TRIO_LIFECYCLE_URL=http://127.0.0.1:{port.partition('=')[2]}/" == url
    assert f"process {pid.partition('=')[2]}, after" in done.err
    assert 0 == done.process.returncode


def test_the_command_is_told_nothing_that_is_unknown() -> None:
    outer = {**os.environ, "TRIO_LIFECYCLE_URL": "http://outer/", "TRIO_LIFECYCLE_PORT": "1"}
    done = finish("--then", "env | grep ^TRIO_LIFECYCLE_[UP]", "--", *SLEEP, env=outer)
    assert re.fullmatch(r"TRIO_LIFECYCLE_PID=\d+\n", done.out)


def test_the_command_has_our_standard_input(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("from a file\n")
    with (tmp_path / "words").open() as words:
        assert "from a file\n" == finish("--then", "cat", "--", *SLEEP, stdin=words).out


# --- sockets that are passed ----------------------------------------------------------------------

PASSED = """
import os, socket
print(os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"] == str(os.getpid()), flush=True)
server = socket.socket(fileno=3)
while True:
    connection, _ = server.accept()
    connection.recv(65536)
    connection.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    connection.close()
"""


def test_a_program_is_passed_its_sockets(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    words = ("--name", "web", "--listen", "localhost:{port}", "--listen-unix", str(path))
    done = finish(*words, *HEALTH, "--then", f"test -S {path}", "--", sys.executable, "-c", PASSED)
    assert 0 == done.process.returncode
    assert "web | 2 True\n" in done.err
    assert not path.exists()
