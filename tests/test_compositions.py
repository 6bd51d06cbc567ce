"""Several ready modes as one: all of them, or any."""

import pickle
from math import inf
from typing import Any

import pytest
import trio

from tests.planned import ALWAYS, NEVER, Planned
from tests.simulated import in_simulated_time
from tests.support import python_daemon, shell_daemon
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    AnyOf,
    Callback,
    ConfigError,
    DaemonLifecycle,
    Event,
    ForeignDaemonError,
    HealthCheck,
    LifecycleConfig,
    LogLine,
    Manual,
    NewlineOnFD,
    Notify,
    ReadyError,
    ReadyTimeoutError,
    Said,
)
from trio_lifecycle.abc import (
    ArmedReady,
    Process,
    Progress,
    ReadyMode,
    Report,
    Start,
)
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner
from trio_lifecycle.testing._spawner import SimulatedProcess

BROKEN = ReadyError("simulated", "it has failed", "a last line")
FOREIGN = ForeignDaemonError("simulated", "127.0.0.1:80", "process 7 (nginx)")


def start() -> Start:
    """What a mode is told before the spawn."""
    prober = SimulatedSpawner(SimulatedDaemon()).open_prober()
    return Start(name="simulated", instance_id="instance", port=8080, prober=prober)


async def armed(mode: ReadyMode) -> tuple[ArmedReady, Process]:
    """A mode at work, and a process that has just been spawned."""
    at_work = await mode.arm(start())
    process = SimulatedProcess(SimulatedDaemon().start())
    at_work.begin(process)
    return at_work, process


async def waited(mode: ReadyMode, limit_s: float = 100.0) -> tuple[float, Report | None]:
    """How long it waits, and what comes of it."""
    at_work, process = await armed(mode)
    began, report = trio.current_time(), None
    with trio.move_on_after(limit_s):
        report = await at_work.wait(process)
    await at_work.disarm()
    return trio.current_time() - began, report


# --- values ---------------------------------------------------------------------------------------

each_kind = pytest.mark.parametrize("kind", [AllOf, AnyOf])


@each_kind
def test_compositions_compare_pickle_and_print_as_they_were_written(kind: type[AllOf]) -> None:
    mode = kind(HealthCheck("http://127.0.0.1:8080/"), kind(Manual().stable_for(2.0), Callback()))
    assert mode == pickle.loads(pickle.dumps(mode))
    assert hash(mode) == hash(pickle.loads(pickle.dumps(mode)))
    assert mode != kind(*reversed(mode.modes))
    assert mode != (AnyOf if kind is AllOf else AllOf)(*mode.modes)
    assert f"{kind.__name__}(HealthCheck('http://127.0.0.1:8080/', " in repr(mode)
    assert f"{kind.__name__}(Manual().stable_for(2.0), Callback(" in repr(mode)
    with pytest.raises(AttributeError):
        mode.modes = ()  # type: ignore[misc]


@each_kind
def test_a_composition_is_what_its_modes_are(kind: type[AllOf]) -> None:
    health = HealthCheck("http://127.0.0.1:8080/", 0.5)
    mode = kind(Manual().stable_for(2.0), health, Callback().stable_for(5.0))
    assert f"{kind.__name__}(Manual, HealthCheck, Callback)" == mode.kind
    assert (health.url,) == mode.texts
    assert Callback().markers == mode.markers
    assert 0.5 == mode.longest_interval_s
    assert (5.0 if kind is AllOf else 0.0) == mode.shortest_wait_s
    assert {"a", "b"} == kind(*(Planned(takes_channels=frozenset(name)) for name in "ab")).channels


@each_kind
def test_other_members_are_another_configuration(kind: type[AllOf]) -> None:
    modes = [Manual(), kind(Manual()), kind(Planned("a")), kind(Planned("b"))]
    prints = [LifecycleConfig("daemon", ready_mode=mode).fingerprint for mode in modes]
    assert len(modes) == len(set(prints))


@pytest.mark.parametrize(
    ("modes", "complaint"),
    [
        ([], "modes: AllOf.. needs at least one"),
        ([Manual(), "listening"], r"modes\[1\]: must be a ready mode .*, not 'listening'"),
        ([[Manual(), Manual()]], r"modes\[0\]: .*; give them one by one: AllOf\(\*modes\)"),
        ([Callback(), Manual(), Callback().stable_for(1.0)], "Callback and Callback both take CAL"),
        (
            [AnyOf(Callback()), AllOf(Manual(), Callback())],
            r"AnyOf\(Callback\) and AllOf\(Manual, Callback\) both take CALLBACK_URL",
        ),
        (
            [Planned(takes_channels=frozenset(taken)) for taken in [("fd 3", "x"), ("fd 3", "y")]],
            "Planned and Planned both take fd 3 of the daemon for themselves; leave one of them",
        ),
    ],
)
def test_modes_that_can_not_be_composed_are_refused(modes: list[Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        AllOf(*modes)


def test_one_mode_alone_is_a_composition() -> None:
    assert (Manual(),) == AnyOf(Manual()).modes


# --- arming and letting go ------------------------------------------------------------------------


@each_kind
@in_simulated_time
async def test_what_all_modes_give_is_handed_on(kind: type[AllOf]) -> None:
    one = Planned("one", gives={"env": {"A": "1"}, "descriptors": {3: 30}, "secrets": ("x",)})
    two = Planned("two", gives={"env": {"B": "2"}, "descriptors": {4: 40}, "secrets": ("y",)})
    at_work, _ = await armed(kind(one, two, Callback()))
    url = at_work.env["TRIO_LIFECYCLE_CALLBACK_URL"]
    assert {"A": "1", "B": "2", "TRIO_LIFECYCLE_CALLBACK_URL": url} == at_work.env
    assert {3: 30, 4: 40} == at_work.descriptors
    assert [url] == list(at_work.values.values())
    assert ("x", "y") == at_work.secrets[:2]
    assert at_work.secrets[2] in url
    await at_work.disarm()


@pytest.mark.parametrize("gives", [{"env": {"A": "1"}}, {"descriptors": {3: 5}}])
@in_simulated_time
async def test_two_modes_that_set_the_same_thing_are_found_when_they_are_armed(
    gives: dict[str, Any],
) -> None:
    heard: list[str] = []
    modes = [Planned(name, gives=gives, heard=heard) for name in "ab"]
    with pytest.raises(ConfigError, match=r"2 of them set the (environment variable 'A'|descr)"):
        await AllOf(*modes).arm(start())
    assert ["disarmed a", "disarmed b"] == sorted(heard)[-2:]


@pytest.mark.parametrize("trouble", ["", "disarm", "long disarm"])
@in_simulated_time
async def test_when_one_can_not_be_armed_those_before_it_are_let_go(
    trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    modes = [Planned("a", heard=heard, breaks=trouble), Planned("b", heard=heard)]
    with pytest.raises(RuntimeError, match="broken"):
        await AllOf(*modes, Planned("broken", breaks="arm"), Planned("d", heard=heard)).arm(start())
    assert ["armed a", "armed b", "disarmed a", "disarmed b"] == sorted(heard)
    assert (trouble == "disarm") == ("could not let go" in caplog.text)


@in_simulated_time
async def test_a_start_that_is_cancelled_while_it_arms_holds_nothing() -> None:
    heard: list[str] = []
    with trio.move_on_after(5.0) as given_up:
        await AnyOf(AllOf(Planned("a", heard=heard)), Planned("b", breaks="long arm")).arm(start())
    assert given_up.cancelled_caught
    assert ["armed a", "disarmed a"] == heard


@each_kind
@in_simulated_time
async def test_all_are_let_go_also_if_one_fails_or_hangs(kind: type[AllOf]) -> None:
    heard: list[str] = []
    plans = [("a", "disarm"), ("b", "long disarm"), ("c", "")]
    modes = [Planned(name, breaks=trouble, heard=heard) for name, trouble in plans]
    at_work, _ = await armed(kind(*modes))
    heard.clear()
    with trio.move_on_after(1.0) as limit:
        await at_work.disarm()
    assert limit.cancelled_caught
    assert {"disarmed a", "disarmed b", "disarmed c"} == set(heard)
    failing, _ = await armed(kind(modes[0], modes[2]))
    with pytest.raises(RuntimeError, match=r"^a$"):
        await failing.disarm()


@each_kind
@in_simulated_time
async def test_all_begin_at_the_spawn_and_those_that_do_follow(kind: type[AllOf]) -> None:
    events: list[Event] = []
    heard: list[str] = []
    words = {"a": None, "b": Progress("status", "b"), "c": Progress("status", "c")}
    modes = [Planned(name, follows_with=word, heard=heard) for name, word in words.items()]
    lifecycle = SimulatedDaemon().lifecycle(ready_mode=kind(*modes), observer=events.append)
    async with lifecycle.running():
        await trio.sleep(5.0)
        assert {"began a", "began b", "began c"} <= set(heard)
        assert not [line for line in heard if line.startswith("disarmed")]
    assert {"b", "c"} == {event.text for event in events if isinstance(event, Said)}
    assert 3 == len([line for line in heard if line.startswith("disarmed")])


@in_simulated_time
async def test_what_following_raises_leaves_as_it_entered() -> None:
    word = Progress("status", "on")
    modes = [Planned("a", follows_with=word), Planned("b", follows_with=word, breaks="follow")]
    at_work, process = await armed(AllOf(*modes))
    assert at_work.follows
    with pytest.raises(RuntimeError, match=r"^b$"):
        await at_work.follow(process)
    alone, _ = await armed(AllOf(Planned("c")))
    assert not alone.follows


@each_kind
@in_simulated_time
async def test_what_is_waited_for_is_said_in_words(kind: type[AllOf]) -> None:
    at_work, _ = await armed(kind(Planned("a"), Manual(), Planned("b")))
    assert f"a {'and' if kind is AllOf else 'or'} b" == at_work.awaited


# --- all ------------------------------------------------------------------------------------------


@in_simulated_time
async def test_all_of_waits_for_the_last_of_its_modes() -> None:
    modes = [Planned(str(since), ((since, inf),)) for since in (1.0, 7.0, 3.0)]
    took, report = await waited(AllOf(*modes))
    assert (7.0, Report()) == (took, report)


@in_simulated_time
async def test_one_that_failed_before_the_last_was_ready_is_waited_for_again() -> None:
    flapping = Planned("flapping", ((1.0, 2.0), (8.0, inf)))
    slow = Planned("slow", ((5.0, inf),))
    took, report = await waited(AllOf(flapping, slow))
    assert (8.0, Report()) == (took, report)


@in_simulated_time
async def test_all_of_is_never_ready_when_its_modes_never_are_so_together() -> None:
    odd = Planned("odd", tuple((n, n + 0.9) for n in range(1, 100, 2)))
    even = Planned("even", tuple((n, n + 0.9) for n in range(0, 100, 2)))
    _, report = await waited(AllOf(odd, even), 50.0)
    assert report is None


@in_simulated_time
async def test_modes_that_are_ready_and_deny_it_do_not_keep_the_loop_busy() -> None:
    class Fickle(ReadyMode):
        async def arm(self, start: Start) -> "ArmedFickle":
            return ArmedFickle()

    class ArmedFickle(ArmedReady):
        @property
        def last_seen(self) -> str:
            return "fickle"

        async def wait(self, process: Process) -> Report:
            asked.append("wait")
            return Report()

    asked: list[str] = []
    took, report = await waited(AllOf(Fickle(), Fickle()), 30.0)
    assert (30.0, None) == (took, report)
    assert len(asked) < 1000


@in_simulated_time
async def test_the_report_takes_each_thing_from_the_first_mode_that_knows_it() -> None:
    reports = [
        Report(facts={"a": 1}),
        Report(port=80, facts={"a": 2, "b": 2}),
        Report("http://x:90/", 90, {"c": 3}),
    ]
    _, report = await waited(AllOf(*(Planned(str(r), ready=r) for r in reports)))
    assert Report("http://x:90/", 80, {"a": 1, "b": 2, "c": 3}) == report


@pytest.mark.parametrize("error", [BROKEN, FOREIGN, KeyError("x"), KeyboardInterrupt()])
@in_simulated_time
async def test_the_first_failure_ends_the_wait_and_leaves_as_it_entered(
    error: BaseException,
) -> None:
    late = Planned("late", NEVER, fails=(9.0, RuntimeError()))
    mode = AllOf(Planned("so"), late, AllOf(Planned("failing", NEVER, fails=(4.0, error))))
    at_work, process = await armed(mode)
    with pytest.raises(type(error)) as caught:
        await at_work.wait(process)
    assert error is caught.value
    assert 4.0 == trio.current_time() - 0.0
    with pytest.raises(type(error)) as again:
        await at_work.ask(process)
    assert error is again.value


@in_simulated_time
async def test_what_is_seen_names_what_is_missing() -> None:
    plans = {"a": ALWAYS, "b": NEVER, "c": ((3.0, inf),), "d": NEVER}
    mode = AllOf(*(Planned(name, spans) for name, spans in plans.items()))
    at_work, process = await armed(mode)
    assert "a was not so and b was not so and c was not so and d was not so" == at_work.last_seen
    with trio.move_on_after(5.0):
        await at_work.wait(process)
    assert "b was not so and d was not so" == at_work.last_seen
    assert await at_work.ask(process) is None
    with pytest.raises(ReadyTimeoutError, match=r"s and was stopped; b was not so and d was not"):
        async with SimulatedDaemon().lifecycle(ready_mode=mode).running():
            raise AssertionError("entered")


@each_kind
@in_simulated_time
async def test_limits_of_one_question_do_not_add_up(kind: type[AllOf]) -> None:
    modes = [Planned(name, NEVER, takes=2.0, sees=None) for name in "abcde"]
    at_work, process = await armed(kind(*modes))
    assert await at_work.ask(process) is None
    assert 2.0 == trio.current_time()
    assert await kind(*modes).find_running(start().prober) is None
    assert 4.0 == trio.current_time()


@in_simulated_time
async def test_a_daemon_under_all_of_is_checked_by_all_that_can_be_asked() -> None:
    simulated = SimulatedDaemon(health=[(0.0, 200), (10.0, 503), (20.0, 200)])
    mode = AllOf(HealthCheck("http://127.0.0.1:8080/"), Planned("once", is_asked_again=False))
    lifecycle = simulated.lifecycle(ready_mode=mode, detach=True, free_port=False)
    daemon = await lifecycle.ensure_running()
    answers = []
    for _ in range(3):
        answers.append(await daemon.check())
        await trio.sleep(10.0)
    assert ["running", "unknown", "running"] == answers
    await daemon.kill()


@each_kind
@in_simulated_time
async def test_where_none_can_be_asked_again_being_alive_must_do(kind: type[AllOf]) -> None:
    mode = kind(Planned("a", is_asked_again=False), Callback())
    assert await mode.arm_again(start()) is None


@in_simulated_time
async def test_all_of_some_that_must_hold_begins_anew_for_each_that_did_not() -> None:
    # From 3 to 5 for the third time: it has held for 4 s at 9.
    flapping = Planned("flapping", ((0.0, 2.0), (3.0, 4.0), (5.0, inf))).stable_for(4.0)
    took, report = await waited(AllOf(flapping, Planned("b", ((1.0, inf),))))
    assert report is not None
    assert 9.0 <= took <= 9.2


@in_simulated_time
async def test_one_that_held_and_failed_has_to_hold_again_also_at_the_deadline() -> None:
    # It has held at 2, fails at 4, and is so again at 8; the other is ready at 5.
    flapping = Planned("flapping", ((0.0, 4.0), (8.0, inf))).stable_for(2.0)
    at_work, process = await armed(AllOf(flapping, Planned("b", ((5.0, inf),))))
    with trio.move_on_after(9.0):
        await at_work.wait(process)
    assert await at_work.ask(process) is None
    assert "it was ready, but not for 2.0 s on end" in at_work.last_seen


# --- any ------------------------------------------------------------------------------------------


@in_simulated_time
async def test_any_of_is_ready_with_the_first() -> None:
    plans = {9: 9.0, 2: 2.0, 4: 4.0}
    modes = [Planned("", ((since, inf),), ready=Report(port=n)) for n, since in plans.items()]
    took, report = await waited(AnyOf(*modes))
    assert (2.0, Report(port=2)) == (took, report)


@in_simulated_time
async def test_any_of_survives_those_that_fail() -> None:
    failing = [
        Planned(name, NEVER, fails=(1.0, error)) for name, error in [("a", BROKEN), ("b", FOREIGN)]
    ]
    took, report = await waited(AnyOf(*failing, Planned("c", ((5.0, inf),), ready=Report(port=3))))
    assert (5.0, Report(port=3)) == (took, report)


@in_simulated_time
async def test_when_all_have_failed_the_error_has_each_reason() -> None:
    modes = [
        Planned("a", NEVER, fails=(3.0, BROKEN)),
        Planned("b", NEVER, fails=(1.0, FOREIGN)),
        AnyOf(Planned("c", NEVER, fails=(2.0, failed("no more")))),
    ]
    at_work, process = await armed(AnyOf(*modes))
    for _ in range(2):
        with pytest.raises(ReadyError) as caught:
            await at_work.wait(process)
        expected = "it has failed; 127.0.0.1:80 is answered by process 7 (nginx); no more"
        assert f"all of 3 have failed: {expected}" == caught.value.problem
        assert ("simulated", "a last line") == (caught.value.daemon, caught.value.output_tail)
        assert 3.0 == trio.current_time()


def failed(problem: str) -> ReadyError:
    """A mode's last word."""
    return ReadyError("simulated", problem)


@pytest.mark.fault(19)
@in_simulated_time
async def test_when_all_were_strangers_that_is_said() -> None:
    other = ForeignDaemonError("simulated", "127.0.0.1:81", FOREIGN.owner)
    modes = [Planned(e.address, NEVER, fails=(1.0, e)) for e in (FOREIGN, other)]
    at_work, process = await armed(AnyOf(*modes))
    with pytest.raises(ForeignDaemonError) as caught:
        await at_work.wait(process)
    assert "127.0.0.1:80 and 127.0.0.1:81" == caught.value.address
    assert "process 7 (nginx)" == caught.value.owner


@in_simulated_time
async def test_the_only_mode_of_any_of_fails_with_its_own_error() -> None:
    at_work, process = await armed(AnyOf(Planned("a", NEVER, fails=(1.0, FOREIGN))))
    with pytest.raises(ForeignDaemonError) as caught:
        await at_work.wait(process)
    assert FOREIGN is caught.value


@in_simulated_time
async def test_a_failure_that_is_no_word_of_the_daemon_is_not_survived() -> None:
    at_work, process = await armed(
        AnyOf(Planned("a", NEVER), Planned("b", NEVER, fails=(1.0, KeyError("x"))))
    )
    with pytest.raises(KeyError):
        await at_work.wait(process)


@in_simulated_time
async def test_asking_any_of_survives_a_failure_unless_all_fail() -> None:
    failing = Planned("a", NEVER, fails=(1.0, FOREIGN))
    late = Planned("b", ((0.0, 2.0),), fails=(5.0, BROKEN))
    at_work, process = await armed(AnyOf(failing, late))
    answers = []
    for _ in range(4):
        answers.append(await at_work.ask(process))
        await trio.sleep(1.0)
    assert [Report(), Report(), None, None] == answers
    assert "none of 2 was ready: a was not so; b was not so" == at_work.last_seen
    await trio.sleep(1.0)
    with pytest.raises(ReadyError, match="all of 2 have failed"):
        await at_work.ask(process)


@in_simulated_time
async def test_any_of_modes_that_can_not_be_had_here_uses_the_others() -> None:
    nowhere = "/no/such/directory"
    simulated = SimulatedDaemon(says=[(2.0, "up")])
    mode = AnyOf(Notify(path=nowhere), LogLine("up"))
    async with simulated.lifecycle(ready_mode=mode).running() as daemon:
        assert 2.0 == daemon.ready_after_s
        assert "running" == await daemon.check()
    mode = AnyOf(Notify(path=nowhere), LogLine("other"))
    with pytest.raises(ReadyTimeoutError, match=rf"{nowhere}: .*; its last line was 'up'"):
        async with simulated.lifecycle(ready_mode=mode).running():
            pass
    with pytest.raises(ReadyError, match=rf"can't be made in {nowhere}"):
        async with simulated.lifecycle(ready_mode=AnyOf(Notify(path=nowhere))).running():
            pass
    assert 2 == simulated.spawned


@in_simulated_time
async def test_what_any_of_saw_tells_each_mode_or_why_it_failed() -> None:
    mode = AnyOf(Planned("a", NEVER), Planned("b", NEVER, fails=(1.0, BROKEN)))
    with pytest.raises(ReadyTimeoutError, match="; none of 2 was ready: a was not so; it has fail"):
        async with SimulatedDaemon().lifecycle(ready_mode=mode).running():
            raise AssertionError("entered")


# --- a real daemon --------------------------------------------------------------------------------


async def test_a_program_is_ready_when_it_has_said_so_in_each_way() -> None:
    mode = AllOf(LogLine(r"port (?P<port>\d+)"), AnyOf(NewlineOnFD(3), Callback()))
    script = "echo listening on port 80; echo >&3; exec sleep 1000"
    config = shell_daemon(script, ready_mode=mode)
    async with DaemonLifecycle(config).running() as daemon:
        assert (80, {"port": "80"}) == (daemon.port, daemon.report)


async def test_what_a_program_has_not_said_is_named() -> None:
    mode = AllOf(LogLine("listening"), AnyOf(NewlineOnFD(3), LogLine("never", fatal="listening")))
    script = "echo listening; exec sleep 1000"
    config = shell_daemon(script, ready_mode=mode, ready_timeout=0.3)
    with pytest.raises(ReadyTimeoutError, match=r"none of 2 was ready: .* descriptor 3; it wrote"):
        async with DaemonLifecycle(config).running():
            raise AssertionError("entered")


@in_simulated_time
async def test_a_failure_of_one_that_was_ready_first_ends_the_wait_for_the_others() -> None:
    simulated = SimulatedDaemon(ready_after=50.0, says=[(1.0, "up"), (2.0, "FATAL: no disk")])
    health = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/")
    lifecycle = simulated.lifecycle(ready_mode=AllOf(health, LogLine("up", fatal="FATAL")))
    began = trio.current_time()
    with pytest.raises(ReadyError, match="FATAL: no disk"):
        async with lifecycle.running():
            pass
    assert 2.0 <= trio.current_time() - began <= 2.1


async def test_modes_that_wait_in_vain_for_a_while_are_not_asked_meanwhile() -> None:
    # A callback can't be waited for twice at a time; the line comes first, and is asked for again.
    code = """
import os, time, urllib.request
print("up", flush=True)
time.sleep(0.35)
url = os.environ["TRIO_LIFECYCLE_CALLBACK_URL"]
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, b"{}")
time.sleep(1000)
"""
    mode = AllOf(LogLine("up"), Callback())
    async with DaemonLifecycle(python_daemon(code, ready_mode=mode)).running() as daemon:
        assert daemon.ready_after_s >= 0.35
