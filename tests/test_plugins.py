"""The tests' own plugins: what a test leaves behind is found, ended and reported."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults_table import FAULTS_PAGE, print_table, read_faults
from tests.plugins.documents import commands

ROOT = Path(__file__).resolve().parents[1]

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run_pytest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file in a pytest of its own, with our plugins but not our settings."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        names = ("hygiene", "needs", "faults")
        plugins = [word for name in names for word in ("-p", f"tests.plugins.{name}")]
        return pytester.runpytest_subprocess(*plugins, *arguments)

    return run


# What a test leaves, and what it is told then.
LEAKS = {
    "subprocess.Popen(['sleep', '601'])": "process * (sleep 601)",
    "os.system('setsid sleep 602 &')": "process * (sleep 602)",
    "os.posix_spawn('/bin/true', ['true'], os.environ)": "zombie child *",
    "subprocess.Popen(['sleep', '603'], env={})": "process * (sleep 603)",
    "kept.append(os.pipe())": "descriptor * (pipe:*",
    "kept.append(os.pidfd_open(os.getpid()))": "descriptor * (*pidfd*",
    "kept.append(os.open(__file__, os.O_RDONLY))": "descriptor * (*.py)",
    "kept.append(socket.create_server(('127.0.0.1', 0)))": "descriptor * listening on TCP port *",
    "threading.Thread(target=threading.Event().wait, daemon=True).start()": "thread *",
}


@pytest.mark.fault(97)
def test_a_leak_of_any_kind_fails_its_own_test_and_no_other(run_pytest: Run) -> None:
    source = f"""
        import os, socket, subprocess, threading
        import pytest

        subprocess.Popen.__del__ = lambda self: None  # its warning would come before our finding
        kept = []

        @pytest.mark.parametrize("leak", {list(LEAKS)!r})
        def test_that_leaks(leak):
            exec(leak)

        def test_after_them():
            pass
    """
    done = run_pytest(source, "-o", "hygiene_grace=0.4")
    done.assert_outcomes(passed=len(LEAKS) + 1, errors=len(LEAKS))
    done.stdout.fnmatch_lines([f"  *{said}*" for said in LEAKS.values()])


@pytest.mark.fault(97, 98)
def test_what_is_gone_in_a_moment_is_no_leak(run_pytest: Run) -> None:
    source = """
        import os, subprocess

        def test_that_leaves_a_short_lived_stray():
            os.system("setsid sleep 0.2 &")

        def test_that_leaves_an_orphaned_zombie_to_the_system():
            # The parent does not wait for its child: a marked zombie that is not ours.
            os.system("setsid sh -c 'true & exec sleep 0.2' &")
    """
    run_pytest(source).assert_outcomes(passed=2)


@pytest.mark.fault(98)
def test_a_bystander_with_the_same_command_line_lives(run_pytest: Run) -> None:
    source = """
        import subprocess
        import pytest

        @pytest.fixture(scope="module")
        def bystander():
            process = subprocess.Popen(["sleep", "600"])
            yield process
            process.kill()
            process.wait()

        def test_that_leaks(bystander):
            subprocess.Popen(["sleep", "600"], start_new_session=True)

        def test_the_bystander(bystander):
            assert bystander.poll() is None
    """
    done = run_pytest(source, "-W", "ignore", "-o", "hygiene_grace=0.4")
    done.assert_outcomes(passed=2, errors=1)


HAS_A_PROCESS = """
    import socket, subprocess

    def test_that_has_much_while_another_test_ends():
        with (
            socket.create_server(("127.0.0.1", 0)),
            open("up", "w") as up,
            subprocess.Popen(["sleep", "600"]) as process,
        ):
            up.close()
            open("over").close()
            assert process.poll() is None
            process.kill()
"""

ENDS_MEANWHILE = """
    def test_that_ends():
        open("up").close()

    def test_after_it():
        open("over", "w").close()
"""


def test_what_another_workers_test_has_is_no_leak_of_this_one(
    run_pytest: Run, pytester: pytest.Pytester
) -> None:
    # Each waits at a fifo until the other has opened it, too.
    for name in ("up", "over"):
        os.mkfifo(pytester.path / name)
    pytester.makepyfile(test_other=HAS_A_PROCESS)
    done = run_pytest(ENDS_MEANWHILE, "-n", "2", "--dist", "loadfile")
    done.assert_outcomes(passed=3)


NEEDS = """
    import pytest

    @pytest.mark.needs("sh")
    def test_with_a_shell():
        pass

    @pytest.mark.needs("no-such-program")
    def test_with_what_is_missing():
        pass
"""


def test_a_needed_program_that_is_missing_skips_the_test(
    run_pytest: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRIO_LIFECYCLE_REQUIRE_REAL", raising=False)
    done = run_pytest(NEEDS, "-rs")
    done.assert_outcomes(passed=1, skipped=1)
    done.stdout.fnmatch_lines(["*needs no-such-program, which is not installed"])


def test_a_needed_program_that_is_missing_fails_the_test_where_skipping_is_forbidden(
    run_pytest: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_LIFECYCLE_REQUIRE_REAL", "1")
    run_pytest(NEEDS).assert_outcomes(passed=1, errors=1)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_faults_report_has_every_test_with_its_faults_and_outcome(
    run_pytest: Run, pytester: pytest.Pytester, workers: str
) -> None:
    source = """
        import os
        import pytest

        @pytest.mark.fault(15, 3)
        def test_good(): pass

        @pytest.mark.fault(4)
        def test_bad(): assert False

        def test_that_leaks():
            os.pipe()

        def test_that_is_not_wanted(): pass
    """
    report = "--faults-report=report.json"
    unwanted = "not not_wanted"
    run_pytest(source, report, "-n", workers, "-k", unwanted, "-o", "hygiene_grace=0.4")
    entries = json.loads((pytester.path / "report.json").read_text())
    found = {e["nodeid"].partition("::")[2]: (e["faults"], e["outcome"]) for e in entries}
    assert {
        "test_good": ([3, 15], "passed"),
        "test_bad": ([4], "failed"),
        "test_that_leaks": ([], "failed"),
        "test_that_is_not_wanted": ([], "not run"),
    } == found


def test_the_page_of_faults_numbers_them_from_1_to_100() -> None:
    assert list(range(1, 101)) == list(read_faults(FAULTS_PAGE.read_text()))


def test_the_table_shows_a_fault_without_a_test_as_a_gap(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tests = [{"nodeid": "a.py::b", "faults": [1], "outcome": "passed"}]
    assert 0 == print_table({1: "Missing", 2: "Broken"}, tests)
    assert ["1 gap, 1 pass"] == capsys.readouterr().out.splitlines()[-1:]


def test_the_table_fails_when_a_test_failed(capsys: pytest.CaptureFixture[str]) -> None:
    tests = [{"nodeid": "a.py::b", "faults": [2], "outcome": "failed"}]
    assert 1 == print_table({1: "Missing", 2: "Broken"}, tests)
    assert "  2  fail     Broken" in capsys.readouterr().out


def test_of_a_console_session_only_what_is_typed_is_run() -> None:
    session = "$ echo \\\n> one\none\n$ pwd\n/somewhere\n"
    assert "echo \\\none\npwd\n" == commands(session)


def test_each_test_has_a_word_of_its_own_in_the_environment() -> None:
    assert os.environ["TRIO_LIFECYCLE_TEST"]
