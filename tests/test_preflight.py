"""Checks before a start: what their fields take, how they read, and how long they may take."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs.exceptions import FrozenInstanceError

from tests.simulated import in_simulated_time
from tests.support import PATIENCE_S
from tests.trace import Trace
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    Callback,
    ConfigError,
    DaemonLifecycle,
    DiskSpace,
    Event,
    Executable,
    Failed,
    FileExists,
    FreeMemory,
    FreePort,
    FreeVRAM,
    LifecycleConfig,
    LocalSpawner,
    PreflightError,
    Reachable,
)
from trio_lifecycle._checks import DEFAULT_CHECK_TIMEOUT_S, check_all
from trio_lifecycle.abc import Preflight, Recovering
from trio_lifecycle.preflight._thread import in_thread
from trio_lifecycle.testing import SimulatedDaemon

Check = Callable[..., Any]

CHECKS: list[tuple[Any, str]] = [
    (FreePort(8080), "FreePort(port=8080)"),
    (
        FreePort(80, "::", wait_for_recovery=5, check_timeout=1),
        "FreePort(port=80, host='::', wait_for_recovery=5.0, check_timeout=1.0)",
    ),
    (FileExists("/m.gguf"), "FileExists(path='/m.gguf')"),
    (FileExists(Path("m"), min_bytes=3), "FileExists(path='m', min_bytes=3)"),
    (DiskSpace("/data", gib=40), "DiskSpace(path='/data', gib=40.0)"),
    (FreeMemory(gib=0.5), "FreeMemory(gib=0.5)"),
    (FreeVRAM(gib=24), "FreeVRAM(gib=24.0)"),
    (FreeVRAM(24, device=1, wait_for_recovery=0), "FreeVRAM(gib=24.0, device=1)"),
    (FreeVRAM(24, "GPU-0a"), "FreeVRAM(gib=24.0, device='GPU-0a')"),
    (Executable("git"), "Executable(name='git')"),
    (
        Executable("git", search_path=["/opt", Path("bin")]),
        "Executable(name='git', search_path=['/opt', 'bin'])",
    ),
    (Reachable("http://db/"), "Reachable(url='http://db/')"),
    (
        Reachable("tcp://[::1]:80", check_timeout=9),
        "Reachable(url='tcp://[::1]:80', check_timeout=9.0)",
    ),
]

TIMED: list[tuple[Check, tuple[Any, ...]]] = [
    (FreePort, (80,)),
    (FileExists, ("a",)),
    (DiskSpace, ("/", 1)),
    (FreeMemory, (1,)),
    (FreeVRAM, (1,)),
    (Executable, ("a",)),
    (Reachable, ("http://a",)),
]

WRONG: list[tuple[str, Check, tuple[Any, ...], dict[str, Any]]] = [
    *(("port", FreePort, (port,), {}) for port in (0, -1, 65_536, "80", 80.0, True, FREE_PORT)),
    *(("host", FreePort, (80, host), {}) for host in ("", "example.org", None, "127.0.0.1:80")),
    *(("path", FileExists, (path,), {}) for path in ("", "a\0b", b"a", None, 3)),
    *(("min_bytes", FileExists, ("a", number), {}) for number in (-1, 1.5, "1", True, None)),
    ("path", DiskSpace, ("", 1), {}),
    *(("gib", DiskSpace, ("/", gib), {}) for gib in (0, -1, "1", True, None)),
    *(("gib", kind, (gib,), {}) for kind in (FreeMemory, FreeVRAM) for gib in (0, "24", 1e999)),
    ("gib", FreeMemory, (10**400,), {}),
    *(("device", FreeVRAM, (1, device), {}) for device in (-1, True, "0", "", 1.0, "GPU-ü")),
    *(("name", Executable, (name,), {}) for name in ("", "a\0", "bin/", None)),
    ("search_path", Executable, ("git", "/opt"), {}),
    ("search_path[1]", Executable, ("git", ["/opt", ""]), {}),
    *(
        ("url", Reachable, (url,), {})
        for url in (
            *(
                "",
                None,
                "ftp://h/",
                "tcp://h",
                "tcp://[::1]",
                "tcp://h:80/",
                "tcp://h:80?",
                "tcp://",
            ),
            *("tcp://h:0", f"http://h:{FREE_PORT}/", f"tcp://h:{FREE_PORT}", CALLBACK_URL),
        )
    ),
    *(
        ("check_timeout", kind, args, {"check_timeout": seconds})
        for kind, args in TIMED
        for seconds in (0, -1, "5", True)
    ),
    *(
        ("wait_for_recovery", kind, (80,), {"wait_for_recovery": seconds})
        for kind in (FreePort, FreeVRAM)
        for seconds in (-1, "5", True, False, 1e999)
    ),
]


@pytest.mark.parametrize(("check", "shown"), CHECKS, ids=[shown for _, shown in CHECKS])
def test_a_check_shows_what_it_was_given(check: object, shown: str) -> None:
    assert shown == repr(check)


@pytest.mark.parametrize("check", [check for check, _ in CHECKS], ids=repr)
def test_a_check_compares_and_can_not_be_changed(check: Any) -> None:
    assert check in {check}
    with pytest.raises(FrozenInstanceError):
        check.check_timeout = 1.0


@pytest.mark.parametrize(("field", "kind", "args", "options"), WRONG)
def test_a_value_that_can_not_be_meant_names_its_field(
    field: str, kind: Check, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(*args, **options)
    assert field == caught.value.field


def test_only_what_comes_back_late_can_be_waited_for() -> None:
    kinds = {type(check) for check, _ in CHECKS if isinstance(check, Recovering)}
    assert {FreePort, FreeVRAM} == kinds


def test_the_sketch_of_a_checked_worker_can_be_written() -> None:
    model = "/models/llama.gguf"
    worker = DaemonLifecycle(
        LifecycleConfig(
            binary_name="llm-worker-rbee",
            args=["--model", model, "--port", FREE_PORT, "--callback-url", CALLBACK_URL],
            ready_mode=Callback(),
            ready_timeout=300,
        ),
        preflight=[FileExists(model), FreeVRAM(gib=24)],
    )
    assert "llm-worker-rbee" == worker.config.name


# --- limits ---------------------------------------------------------------------------------------


async def hangs() -> None:
    """A check that never ends."""
    await trio.sleep_forever()


async def fails() -> None:
    """A check that fails."""
    raise ValueError("the disk is full")


class Bounded:
    """A check that never ends, with a limit of its own."""

    check_timeout = 2.5

    def __repr__(self) -> str:
        return "Bounded()"

    async def __call__(self) -> None:
        await hangs()


async def failures_of(*checks: Preflight) -> tuple[str, ...]:
    """What is reported of some checks."""
    with pytest.raises(PreflightError) as caught:
        await check_all("daemon", checks, LocalSpawner().open_prober())
    return caught.value.failures


@in_simulated_time
async def test_a_check_that_takes_too_long_fails_and_the_others_are_reported_with_it() -> None:
    began = trio.current_time()
    late, said = await failures_of(Bounded(), fails)
    assert 2.5 == pytest.approx(trio.current_time() - began)
    assert "Bounded() took longer than its check_timeout of 2.5 s" in late
    assert "the disk is full" == said


@in_simulated_time
async def test_a_plain_callable_has_a_limit_too() -> None:
    began = trio.current_time()
    (late,) = await failures_of(hangs)
    assert late.startswith("hangs took longer than its check_timeout of 600 s")
    assert DEFAULT_CHECK_TIMEOUT_S == pytest.approx(trio.current_time() - began)


@in_simulated_time
async def test_a_plain_callable_may_be_given_a_limit() -> None:
    check = partial(hangs)
    check.check_timeout = 1.0  # type: ignore[attr-defined]
    (late,) = await failures_of(check)
    assert "its check_timeout of 1 s" in late


@in_simulated_time
async def test_nothing_is_spawned_when_a_check_takes_too_long() -> None:
    simulated = SimulatedDaemon()
    with pytest.raises(PreflightError, match="took longer"):
        await simulated.lifecycle(preflight=[Bounded()]).run()
    assert 0 == simulated.spawned


@in_simulated_time
async def test_the_event_of_a_start_that_failed_says_what_was_found() -> None:
    events: list[Event] = []
    lifecycle = SimulatedDaemon().lifecycle(preflight=[fails, fails], observer=events.append)
    with pytest.raises(PreflightError):
        await lifecycle.run()
    assert isinstance(events[-1], Failed)
    assert events[-1].reason.endswith("preflight failed: the disk is full; the disk is full")


async def passes() -> None:
    """A check that finds all well."""


@in_simulated_time
@pytest.mark.parametrize(
    ("checks", "between"), [([], []), ([passes], ["checked"]), ([passes] * 3, ["checked"])]
)
async def test_checks_that_have_passed_are_told_before_the_spawn(
    checks: list[Preflight], between: list[str]
) -> None:
    trace = Trace()
    async with SimulatedDaemon().lifecycle(preflight=checks, observer=trace.observe).running():
        assert ["starting", "found", *between, "spawned", "ready"] == trace.kinds
    assert [len(checks)] * bool(checks) == [
        event.checks for event in trace.events if event.kind == "checked"
    ]


@in_simulated_time
async def test_a_check_that_is_cancelled_with_its_start_is_no_failure() -> None:
    with trio.move_on_after(1.0) as patience:
        await check_all("daemon", [hangs], LocalSpawner().open_prober())
    assert patience.cancelled_caught


async def has_tasks() -> None:
    """A check that looks at two things at once, and one of these at two."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails)
        async with trio.open_nursery() as inner:
            inner.start_soon(fails)
            inner.start_soon(fails)


async def says_nothing() -> None:
    """A check that forgets to say what is wrong."""
    raise trio.TooSlowError


async def lacks_a_key() -> None:
    """A check with a mistake in it."""
    raise KeyError("LICENCE")


def is_not_async() -> str:
    """A check that is none."""
    return "well"


async def test_what_the_tasks_of_a_check_have_raised_is_told_one_by_one() -> None:
    assert ("; ".join(["the disk is full"] * 3),) == await failures_of(has_tasks)


async def test_who_says_no_sentence_is_named() -> None:
    said = await failures_of(says_nothing, lacks_a_key, is_not_async)  # type: ignore[arg-type]
    assert (
        "says_nothing raised TooSlowError()",
        "lacks_a_key raised KeyError('LICENCE')",
        "is_not_async is no async callable: it gave 'well'",
    ) == said


def test_a_class_of_checks_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"not of a class: write FreePort\(\.\.\.\)"):
        SimulatedDaemon().lifecycle(preflight=[FreePort])  # type: ignore[list-item]


def test_a_limit_that_is_no_number_of_seconds_is_refused_at_once() -> None:
    check = partial(hangs)
    check.check_timeout = "soon"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError) as caught:
        SimulatedDaemon().lifecycle(preflight=[check])
    assert "check_timeout" == caught.value.field


async def test_work_that_hangs_in_a_thread_is_abandoned_at_the_limit(tmp_path: Path) -> None:
    hanging, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        go_on.wait(PATIENCE_S)

    check = partial(in_thread, hang)
    check.check_timeout = 0.05  # type: ignore[attr-defined]
    late, missing = await failures_of(check, FileExists(tmp_path / "model"))
    assert hanging.wait(PATIENCE_S)
    go_on.set()
    assert "took longer" in late
    assert "is missing" in missing
