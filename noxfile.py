"""Each check of the project by one name: nox -s tests, types, lint, docs, faults, bench, chaos."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

# Nobody's build may fetch an interpreter; uv would, through a variable of its own.
os.environ["UV_PYTHON_DOWNLOADS"] = "never"
nox.options.download_python = "never"
nox.options.default_venv_backend = "virtualenv"
# Last the tests, so that a run ends with what pytest says. Those that name a fault are among them;
# the table alone is for when it is wanted.
nox.options.sessions = ["lint", "types", "docs", "tests"]

SUPPORTED = ["3.11", "3.12", "3.13"]
# An interpreter that is named here must be there; any other that is missing is skipped aloud.
DEMANDED = [v for v in os.environ.get("TRIO_LIFECYCLE_PYTHONS", "").replace(",", " ").split() if v]
nox.options.error_on_missing_interpreters = bool(DEMANDED)

GROUPS = nox.project.load_toml("pyproject.toml")
CODE = [
    "trio_lifecycle",
    "tests",
    "noxfile.py",
    "docs/conf.py",
    "docs/guarantee_picture.py",
    "docs/state_picture.py",
]

# ASYNC9 is off by default, and naming others replaces that. ASYNC127 wants httpx2 for httpx, which
# is the dependency we chose; in the package only _http.py says its name, so it can be exchanged.
FLAKE8_ASYNC_OFF = ["ASYNC9", "ASYNC127"]

PROCESSORS = min(8, len(os.sched_getaffinity(0)))


def install(session: nox.Session, *groups: str, extras: str = "cli,ssh,demo") -> None:
    """Install groups and the package; editable, so that coverage sees the checkout."""
    session.install(*nox.project.dependency_groups(GROUPS, *groups), "-e", f".[{extras}]")


def python_files(path: Path) -> list[Path]:
    """The file itself, or all below a folder."""
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def flake8_async(session: nox.Session, paths: list[str], *disabled: str) -> None:
    """Look for slips with Trio; it takes files only, and one processor where there are several."""
    files = [str(file) for path in paths for file in python_files(Path(path))]
    command = ("flake8-async", f"--disable={','.join((*FLAKE8_ASYNC_OFF, *disabled))}")
    shares = [files[at::PROCESSORS] for at in range(PROCESSORS)]
    with ThreadPoolExecutor(PROCESSORS) as pool:
        for done in [pool.submit(session.run, *command, *share) for share in shares]:
            done.result()


# The whole suite is shared out among as many workers as there are processors, up to where all would
# wait for the longest file.
EVERYTHING = ["-n", str(PROCESSORS)]


@nox.session(python=DEMANDED or SUPPORTED)
def tests(session: nox.Session) -> None:
    """Run the tests and measure what they cover, subprocesses too; arguments go to pytest."""
    install(session, "tests")
    session.env["COVERAGE_FILE"] = f"{session.create_tmp()}/coverage"
    # Some hundred tests start a Python; each would compile the package where no bytecode is kept.
    session.env["PYTHONPYCACHEPREFIX"] = f"{session.create_tmp()}/bytecode"
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    # Nox would have temporary files below here, where paths are too long for a UNIX socket.
    session.env["TMPDIR"] = tempfile.gettempdir()
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or EVERYTHING))
    session.run("coverage", "combine", "--quiet")
    # A part of the tests covers a part of the code.
    session.run("coverage", "report", *(["--fail-under=0"] if session.posargs else []))


@nox.session
def types(session: nox.Session) -> None:
    """Check the package's own types, and that users see all of them."""
    install(session, "bench", "types")
    session.run("mypy", "trio_lifecycle", "tests")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "trio_lifecycle")


@nox.session
def lint(session: nox.Session) -> None:
    """Look for what can be seen without running: style, and slips with Trio."""
    session.install(*nox.project.dependency_groups(GROUPS, "lint"))
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)
    flake8_async(session, [path for path in CODE if path != "tests"])
    # ASYNC124: a test's async function may have nothing to wait for; whoever is handed it awaits.
    flake8_async(session, ["tests"], "ASYNC124")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning or a dead reference is an error."""
    install(session, "docs")
    session.run(
        "sphinx-build", "-W", "-n", "--keep-going", "-b", "html", "docs", "docs/_build/html"
    )


@nox.session
def faults(session: nox.Session) -> None:
    """Print the table of faults: number, fault, the tests that name it, result."""
    install(session, "tests")
    report = f"{session.create_tmp()}/faults.json"
    # 1: a test failed, 5: no test names a fault. Both are for the table to say.
    pytest = ["python", "-m", "pytest", "-q", "-m", "fault", f"--faults-report={report}"]
    session.run(*pytest, *session.posargs, success_codes=[0, 1, 5])
    session.run("python", "-m", "tests.faults_table", report)


@nox.session
def bench(session: nox.Session) -> None:
    """Print the benchmarks' tables of ratios."""
    install(session, "bench")
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Strike 500 applications at random instants; arguments, --rounds 20 say, come on top."""
    install(session, "tests")
    much = ("--rounds", "500", "--ensure", "50", "--cycles", "10000", "--idle", "30")
    session.run("python", "-m", "tests.chaos", *much, *session.posargs)
