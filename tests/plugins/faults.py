"""Which test covers which fault, and how it went: pytest --faults-report=FILE.json."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

# A test has three phases; the worst of them is its outcome.
OUTCOMES = ("not run", "passed", "skipped", "failed")


@dataclass
class Entry:
    """One test, the faults that it names, and its outcome."""

    nodeid: str
    faults: list[int]
    outcome: str = "not run"


class FaultsReport:
    """Collects one entry for every test and writes them when the session ends.

    With pytest-xdist's workers, those collect the tests and the session's own process gets to know
    how they went: each worker sends it the entries as it ends.
    """

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._sent: dict[str, Any] | None = getattr(config, "workeroutput", None)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note the test and its faults."""
        self.entries[item.nodeid] = Entry(item.nodeid, numbers(item))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a phase of the test went."""
        entry = self._entry(report.nodeid)
        entry.outcome = max(entry.outcome, report.outcome, key=OUTCOMES.index)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the entries of a worker; one that was killed has sent none."""
        for nodeid, faults in getattr(node, "workeroutput", {}).get("faults", {}).items():
            self._entry(nodeid).faults = faults

    def pytest_sessionfinish(self) -> None:
        """Write the file, or send what a worker knows."""
        if self._sent is not None:
            self._sent["faults"] = {entry.nodeid: entry.faults for entry in self.entries.values()}
            return
        entries = [asdict(entry) for entry in self.entries.values()]
        self.path.write_text(json.dumps(entries, indent=1) + "\n")

    def _entry(self, nodeid: str) -> Entry:
        return self.entries.setdefault(nodeid, Entry(nodeid, []))


def numbers(item: pytest.Item) -> list[int]:
    """The faults that a test names, in order, each once."""
    named = {number for marker in item.iter_markers("fault") for number in marker.args}
    if not named <= set(range(1, 101)):
        raise pytest.UsageError(f"{item.nodeid}: faults are numbered 1 to 100, not {named}")
    return sorted(named)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --faults-report."""
    parser.addoption(
        "--faults-report",
        metavar="FILE",
        type=Path,
        help="write each test's nodeid, fault numbers and outcome to FILE, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect only where somebody asked for it."""
    path: Path | None = config.getoption("--faults-report")
    if path is not None:
        config.pluginmanager.register(FaultsReport(config, path.absolute()))
