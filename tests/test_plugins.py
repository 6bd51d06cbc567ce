"""The tests' own plugins: what a test needs, which faults it covers, what a document shows."""

import json

import pytest

from tests.faults_table import FAULTS_PAGE, print_table, read_faults
from tests.plugins.documents import commands
from tests.pytests import Run, run_pytest

__all__ = ("run_pytest",)

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
