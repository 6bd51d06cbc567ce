"""What the four programs cost in code that starts others, against what they may cost."""

import ast
from pathlib import Path

import pytest

import trio_lifecycle.demo

FOLDER = Path(trio_lifecycle.demo.__file__).parent
BUDGETS = {"keeper": 15, "queen": 40, "hive": 30, "embedding": 5}


def lines_of_code(path: Path) -> int:
    """Count the lines of a file without blank ones, comments, docstrings and imports."""
    text = path.read_text()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and _does_nothing(node):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in skipped
        for number, line in enumerate(text.splitlines(), 1)
    )


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, (ast.Import, ast.ImportFrom))


def test_lines_are_counted_without_what_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(
        '"""Doc\nstring."""\nimport os\n\n# A reason.\nx = (\n    1\n)\n'
    )
    assert 3 == lines_of_code(tmp_path / "x.py")


@pytest.mark.parametrize("program", BUDGETS)
def test_what_starts_a_program_costs_no_more_lines_than_was_promised(program: str) -> None:
    assert lines_of_code(FOLDER / f"{program}_lifecycle.py") <= BUDGETS[program]


def test_nothing_else_of_the_demo_describes_a_daemon() -> None:
    """All lifecycle code is where it is counted."""
    starts = ("DaemonLifecycle(", ".with_health_check(", ".with_callback(")
    words = ("LifecycleConfig(", "SSHSpawner(", *starts)
    others = [path for path in FOLDER.glob("*.py") if not path.stem.endswith("_lifecycle")]
    assert [] == [path.name for path in others if any(word in path.read_text() for word in words)]
