"""The table of faults: number, fault, the tests that name it, result.

python -m tests.faults_table REPORT.json, with what `pytest --faults-report` wrote.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

FAULTS_PAGE = Path(__file__).resolve().parents[1] / "docs" / "faults.md"
ROW = re.compile(r"\| *(\d+) *\| *(.+?) *\| *(.+?) *\|")


def read_faults(page: str) -> dict[int, str]:
    """Number and name of every fault that the page lists."""
    rows = (ROW.fullmatch(line) for line in page.splitlines())
    return {int(row[1]): row[2] for row in rows if row}


def result(outcomes: list[str]) -> str:
    """What the tests of one fault say together: the worst of them, or that there are none."""
    if not outcomes:
        return "gap"
    if "failed" in outcomes:
        return "fail"
    return "pass" if "passed" in outcomes else "skipped"


def print_table(faults: dict[int, str], tests: list[dict[str, Any]]) -> int:
    """Print one line for each fault, the tests below it, and the sums; 1 if a test failed."""
    by_fault = defaultdict(list)
    for test in tests:
        for number in test["faults"]:
            by_fault[number].append(test)
    sums: defaultdict[str, int] = defaultdict(int)
    for number, fault in sorted(faults.items()):
        said = result([test["outcome"] for test in by_fault[number]])
        sums[said] += 1
        print(f"{number:>3}  {said:<7}  {fault}")
        for test in by_fault[number]:
            mark = "" if test["outcome"] == "passed" else f"  [{test['outcome']}]"
            print(f"{'':14}{test['nodeid']}{mark}")
    print(", ".join(f"{count} {said}" for said, count in sorted(sums.items())))
    return 1 if sums["fail"] else 0


def main() -> int:
    """Print the table for the report that the command line names."""
    tests = json.loads(Path(sys.argv[1]).read_text())
    return print_table(read_faults(FAULTS_PAGE.read_text()), tests)


if __name__ == "__main__":
    sys.exit(main())
