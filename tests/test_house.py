"""The floors of the house: who may import whom, read from the source without running it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "trio_lifecycle"
NAME = "trio_lifecycle"

# Lowest first. A room is a file, or a folder with all that is in it.
FLOORS: dict[str, tuple[str, ...]] = {
    "letters": ("_status", "_version", "_groups"),
    "words": ("_errors", "_events", "_reports", "_markers"),
    "complaints": ("_record_errors", "_ssh_errors"),
    "rules": (
        "_states",
        "_ladder",
        "_polling",
        "_framing",
        "_destination",
        "_environment",
        "_urls",
        "_names",
        "_restarts",
        "_listeners",
        "_limits",
        "_guarantee",
        "_fingerprint",
        "_taken_port",
        "_secrets",
        "_waits",
        "_clocks",
        "_seconds",
        "_renumbering",
        "_listen_socket",
        "_texts",
        "_grpc_health",
    ),
    "requests": ("_requests", "_records", "_questions"),
    "process": (
        "_process_contract",
        "_registry_contract",
        "_way_back_contract",
        "_inbox_contract",
    ),
    "prober": ("_prober_contract",),
    "start": ("_start",),
    "armed": ("_armed_contract",),
    "readiness": ("_ready_contract",),
    "contracts": ("abc",),
    "values": ("_config",),
    "instruments": (
        "_connecting",
        "_sock_diag",
        "_stat",
        "_executable",
        "_procfs",
        "_paths",
        "_logs",
        "_inotify",
        "_streamed_http",
    ),
    "tools": (
        "_binary",
        "_ports",
        "_proc",
        "_http",
        "_loopback_http",
        "_contacts",
        "_output",
        "_posix_spawn",
        "_passed_sockets",
        "_state_dir",
        "_receiver",
        "_diary",
        "_machine",
        "_sight",
        "_hierarchy",
        "_checks",
    ),
    "lookout": ("_strays", "_memory", "_recovery", "_ssh"),
    "holders": ("_holders",),
    "means": (
        "spawner",
        "ready",
        "registry",
        "preflight",
        "observe",
        "_stop",
        "_liveness",
        "_following",
    ),
    "handle": ("_handle",),
    "entry": ("_entry", "_preparation", "_run_away"),
    "search": ("_search",),
    "known": ("_known", "_ready_wait"),
    "launch": ("_launch",),
    "keeper": ("_keeper", "_attempt"),
    "heart": ("_lifecycle", "_attach"),
    "household": ("_nursery",),
    "roof": ("__init__", "testing"),
    "show": ("demo",),
    "counter": ("_cli",),
    "doorstep": ("__main__",),
}
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS.values()) for room in rooms}
THINKING = {room for name in ("letters", "words", "complaints", "rules") for room in FLOORS[name]}

# What decides needs no clock, no input or output, and no scheduler.
IMPURE = {
    *("asyncio", "httpx", "io", "logging", "multiprocessing", "random", "select", "selectors"),
    *("shutil", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "trio"),
}
# What of os only looks at its arguments.
PURE_OS = {"PathLike", "fsdecode", "fsencode", "fspath", "path", "pathsep", "sep", "strerror"}

# The only files that may say the name of a library, so that it can be exchanged in one place. The
# demo has its own, for it is a user of the package.
ONLY_IN: dict[str, set[tuple[str, ...]]] = {
    "httpx": {("_http",), ("demo", "_asking")},
    "asyncssh": {("_ssh", "_login")},
    "trio_asyncio": {("_ssh", "_bridge")},
    "pynvml": {("preflight", "_gpus")},
    "starlette": {("demo", "_serving")},
    "hypercorn": {("demo", "_serving")},
}
# The reaper, and the guard on other machines, run by themselves, with nothing of the package but
# what is handed to them, so they do what others leave to _proc.
OTHER_PROGRAM = {
    *(("spawner", part) for part in ("_reaper", "_family", "_kernel", "_table")),
    *(("_ssh", part) for part in ("guard", "guard_child", "guard_inner")),
    *(("_ssh", part) for part in ("guard_kin", "guard_channel", "guard_letters")),
}
HANDED_OVER = OTHER_PROGRAM | {("_renumbering",)}
# Of the room ready those that touch this machine, because daemons report to it. All others ask the
# prober and the process, for the daemon may run on another machine.
EARS = {
    ("ready", part)
    for part in ("_callback", "_callback_server", "_newline", "_notify_socket", "_way_here")
}
# What asks this machine; but for _paths, which a path that a user wrote down is completed by.
OF_THIS_MACHINE = {
    room for floor in ("instruments", "tools", "lookout", "holders") for room in FLOORS[floor]
} - {"_paths"}
LOOKS = {
    *("exists", "is_dir", "is_file", "is_socket", "iterdir", "lstat", "read_bytes", "read_text"),
    *("resolve", "stat", "unlink"),
}
# Costly to import, so imported where they are used.
LATE = (
    *("httpx", "asyncssh", "trio_asyncio", "h11", "h2", "httpcore", "hypothesis", "pynvml"),
    *("starlette", "hypercorn", "cyclopts", "rich", f"{NAME}.demo", f"{NAME}._cli"),
)
# What the demo may know of the package: what its users know.
FOR_USERS = {("__init__",), ("abc",)}

Module = tuple[str, ...]


def modules() -> dict[Module, Path]:
    """Every file of the package by its dotted name, without the package's own."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {path.relative_to(PACKAGE).with_suffix("").parts: path for path in paths}


MODULES = modules()


def resolve(parts: Module) -> Module | None:
    """The file that an import of this dotted name loads, if it is one."""
    return next((m for m in (parts, (*parts, "__init__")) if m in MODULES), None)


def imports(module: Module) -> Iterator[tuple[Module, int]]:
    """What a file imports of the package, those for type checkers included, with line numbers."""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == NAME:
                    yield target_of(alias.name.split(".")[1:], None), node.lineno
        elif isinstance(node, ast.ImportFrom):
            start = [NAME, *module][: -node.level] if node.level else []
            base = [*start, *filter(None, (node.module or "").split("."))]
            if base[0] == NAME:
                for alias in node.names:
                    yield target_of(base[1:], alias.name), node.lineno


def target_of(base: list[str], name: str | None) -> Module:
    """The file behind `import base`, or behind `from base import name`."""
    # The latter means the module of that name where there is one.
    found = resolve((*base, name)) if name else None
    target = found or resolve(tuple(base))
    assert target is not None, f"there is no {'.'.join([NAME, *base])}"
    return target


def foreign_imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The top-level packages from elsewhere that a file imports, with line numbers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0], node.lineno


def parse(module: Module) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(MODULES[module].read_text(), filename=str(MODULES[module]))


def show(module: Module) -> str:
    """The file's name as a reader would look it up."""
    return "/".join((NAME, *module)) + ".py"


def offence(module: Module, target: Module) -> str | None:
    """Why a file may not import another, or None if it may."""
    here, there = module[0], target[0]
    if here == there:  # a room's own files; test_no_import_goes_in_a_circle minds those
        return None
    if there == "__init__" and FLOOR_OF[here] >= FLOOR_OF["__init__"]:
        return None
    if FLOOR_OF[there] < FLOOR_OF[here]:
        return None
    what = "a floor above" if FLOOR_OF[there] > FLOOR_OF[here] else "a neighbour on its floor"
    return f"imports {show(target)}, {what}"


each_module = pytest.mark.parametrize("module", MODULES, ids=show)


@each_module
def test_every_file_has_a_floor(module: Module) -> None:
    assert module[0] in FLOOR_OF, (
        f"{show(module)} stands on no floor. Say what its one noun is, find the lowest floor of "
        "FLOORS in tests/test_house.py that lies above everything it imports, and add it there."
    )


@each_module
def test_a_file_imports_only_lower_floors(module: Module) -> None:
    if module[0] not in FLOOR_OF:
        pytest.skip("stands on no floor, which another test says")
    if module in OTHER_PROGRAM:
        foreign = {show(target) for target, _ in imports(module)} - {*map(show, HANDED_OVER)}
        assert set() == foreign
        return
    offences = [
        f"line {line} {why}"
        for target, line in imports(module)
        if target[0] in FLOOR_OF and (why := offence(module, target))
    ]
    assert [] == offences


def test_no_import_goes_in_a_circle() -> None:
    graph = {module: {target for target, _ in imports(module)} - {module} for module in MODULES}
    done: set[Module] = set()

    def visit(module: Module, trail: list[Module]) -> None:
        circle = [show(m) for m in trail[trail.index(module) :]] if module in trail else []
        assert [] == circle
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, [*trail, module])
            done.add(module)

    for module in graph:
        visit(module, [])


@each_module
def test_a_file_has_fewer_than_400_lines(module: Module) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines < 400, f"{show(module)} has {lines} lines: it holds more than one noun"


@each_module
def test_a_file_says_in_its_first_line_what_it_is(module: Module) -> None:
    assert ast.get_docstring(parse(module))


@each_module
def test_a_library_is_named_in_its_own_file_only(module: Module) -> None:
    offences = [
        f"line {line} imports {package}, which only {' and '.join(map(show, allowed))} may"
        for package, line in foreign_imports(parse(module))
        if module not in (allowed := sorted(ONLY_IN.get(package, {module})))
    ]
    assert [] == offences


@pytest.mark.parametrize("module", [m for m in MODULES if m[0] == "demo"], ids=show)
def test_the_demo_knows_of_the_package_what_its_users_know(module: Module) -> None:
    offences = [
        f"line {line} imports {show(target)}"
        for target, line in imports(module)
        if target[0] != "demo" and target not in FOR_USERS
    ]
    assert [] == offences


@each_module
def test_proc_is_read_in_its_own_file_only(module: Module) -> None:
    if module in {("_proc",), ("_procfs",)} | OTHER_PROGRAM:
        return
    offences = [
        f"line {node.lineno} says {node.value!r}, which only {show(('_proc',))} may"
        for node in ast.walk(parse(module))
        if isinstance(node, ast.Constant)
        if isinstance(node.value, str) and node.value.startswith("/proc")
    ]
    assert [] == offences


@pytest.mark.parametrize("module", [m for m in MODULES if m[0] in THINKING], ids=show)
def test_what_decides_has_no_clock_and_does_no_input_or_output(module: Module) -> None:
    tree = parse(module)
    offences = [f"line {line} imports {p}" for p, line in foreign_imports(tree) if p in IMPURE]
    offences += [
        f"line {line} uses os.{name}" for name, line in _of_os(tree) if name not in PURE_OS
    ]
    assert [] == offences


@pytest.mark.parametrize("module", [m for m in MODULES if m[0] == "ready"], ids=show)
def test_a_ready_mode_looks_at_no_machine_by_itself(module: Module) -> None:
    if module in EARS:
        return
    tree = parse(module)
    asked = (IMPURE - {"trio", "logging"}) | {"fcntl", "grp", "platform", "pwd", "resource"}
    offences = [f"line {line} imports {p}" for p, line in foreign_imports(tree) if p in asked]
    offences += [
        f"line {line} imports {show(target)}"
        for target, line in imports(module)
        if target[0] in OF_THIS_MACHINE
    ]
    offences += [
        f"line {line} uses os.{name}"
        for name, line in _of_os(tree)
        if name not in PURE_OS | {"fsencode"}
    ]
    offences += [
        f"line {node.lineno} looks by {node.attr}()"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in LOOKS
    ]
    assert [] == offences


def _of_os(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os":
                yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from ((alias.name, node.lineno) for alias in node.names)


def test_importing_the_package_loads_nothing_costly() -> None:
    code = f"import sys, {NAME}; print(*(name for name in {LATE!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "" == done.stdout.strip()
