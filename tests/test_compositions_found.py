"""Several ready modes as one look for a daemon that runs already."""

import pytest
import trio

from tests.planned import Planned
from tests.simulated import in_simulated_time
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    AnyOf,
    Callback,
    DaemonStateUnknownError,
    ForeignDaemonError,
    HealthCheck,
    Manual,
)
from trio_lifecycle.abc import Prober, Report, Sighting
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner

each_kind = pytest.mark.parametrize("kind", [AllOf, AnyOf])


def prober() -> Prober:
    """One that asks nobody."""
    return SimulatedSpawner(SimulatedDaemon()).open_prober()


HERE = ("127.0.0.1", 80)
THERE = ("127.0.0.1", 81)
UP = Sighting(Report("http://127.0.0.1:80/", 80), "80 answered 200", HERE, place="80")
UP_TOO = Sighting(Report(None, 81, {"b": 2}), "81 is open", THERE, place="81")
NOT_UP = Sighting(None, "82 answered 503", ("127.0.0.1", 82), place="82")
NOWHERE = Sighting(Report(facts={"n": 1}), "it looks good")


async def sighted(kind: type[AllOf], *seen: Sighting | None) -> Sighting | None:
    """What a composition sees where its modes see this."""
    modes = [Planned(str(number), sees=sighting) for number, sighting in enumerate(seen)]
    return await kind(*modes, Manual()).find_running(prober())


@in_simulated_time
async def test_all_of_sees_a_daemon_up_where_all_do_that_can_look() -> None:
    seen = await sighted(AllOf, UP, UP_TOO)
    assert seen is not None
    assert Report("http://127.0.0.1:80/", 80, {"b": 2}) == seen.report
    assert (HERE, "80", False, False) == (seen.address, seen.place, seen.accepted, seen.refused)
    assert (UP_TOO,) == seen.others
    assert "80 answered 200 and 81 is open" == seen.detail


@pytest.mark.parametrize(
    ("other", "detail"),
    [(NOT_UP, "82 answered 503 and 80 answered 200"), (None, "1 of its ready modes found nothing")],
)
@in_simulated_time
async def test_all_of_sees_one_that_is_not_up_where_a_mode_does_not(
    other: Sighting | None, detail: str
) -> None:
    seen = await sighted(AllOf, other, UP)
    assert seen is not None
    assert seen.report is None
    assert detail in seen.detail


@each_kind
@in_simulated_time
async def test_nothing_is_there_where_no_mode_sees_anything(kind: type[AllOf]) -> None:
    assert await sighted(kind, None, None) is None
    assert (
        await kind(Manual(), kind(Callback()), Manual().stable_for(1)).find_running(prober())
        is None
    )


@in_simulated_time
async def test_a_mode_that_can_not_look_does_not_keep_all_of_from_seeing_it_up() -> None:
    mode = AllOf(
        HealthCheck("http://127.0.0.1:8080/"),
        HealthCheck(f"http://127.0.0.1:{FREE_PORT}/"),
        AnyOf(Callback()),
        Manual().stable_for(1.0),
    )
    simulated = SimulatedDaemon()
    simulated.start()
    seen = await mode.find_running(SimulatedSpawner(simulated).open_prober())
    assert seen is not None
    assert seen.report is not None


@pytest.mark.parametrize("opinion", [True, None])
@in_simulated_time
async def test_the_first_opinion_on_who_it_is_counts(opinion: bool | None) -> None:
    seen = await sighted(AllOf, NOWHERE, UP, UP_TOO._replace(accepted=opinion))
    assert seen is not None
    assert opinion is seen.accepted
    assert HERE == seen.address
    assert (UP_TOO._replace(accepted=opinion),) == seen.others


@in_simulated_time
async def test_one_refusal_is_enough_for_all_of() -> None:
    refused = UP_TOO._replace(refused=True)
    assert refused == await sighted(AllOf, UP._replace(accepted=True), NOT_UP, refused)


@in_simulated_time
async def test_places_of_compositions_in_compositions_are_all_kept() -> None:
    third = UP._replace(address=("127.0.0.1", 83))
    inner = AllOf(Planned("a", sees=UP_TOO), Planned("b", sees=third))
    seen = await AllOf(Planned("c", sees=UP), inner).find_running(prober())
    assert seen is not None
    assert [THERE, third.address] == [other.address for other in seen.others]
    first = await AllOf(inner, Planned("c", sees=UP)).find_running(prober())
    assert first is not None
    assert [third.address, HERE] == [other.address for other in first.others]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([None, NOT_UP, UP, UP_TOO], UP),
        ([NOT_UP, None], NOT_UP),
        ([UP._replace(refused=True), UP_TOO], UP_TOO),
        ([NOT_UP, UP._replace(refused=True)], UP._replace(refused=True)),
    ],
)
@in_simulated_time
async def test_any_of_sees_what_the_first_does_that_sees_it_up(
    seen: list[Sighting | None], expected: Sighting
) -> None:
    assert expected == await sighted(AnyOf, *seen)  # type: ignore[arg-type]


@each_kind
@in_simulated_time
async def test_a_daemon_that_runs_already_is_adopted(kind: type[AllOf]) -> None:
    simulated = SimulatedDaemon()
    simulated.start()
    mode = kind(HealthCheck("http://127.0.0.1:8080/a"), HealthCheck("http://127.0.0.1:8080/b"))
    lifecycle = simulated.lifecycle(ready_mode=mode, detach=True, free_port=False)
    daemon = await lifecycle.ensure_running()
    assert ("adopted", "http://127.0.0.1:8080/a") == (daemon.origin, daemon.url)
    assert 1 == simulated.spawned
    assert daemon is await lifecycle.ensure_running()
    assert "running" == await daemon.check()


@in_simulated_time
async def test_one_that_is_up_in_one_place_only_gets_its_time_and_nothing_is_started() -> None:
    simulated = SimulatedDaemon()
    simulated.start()
    mode = AllOf(HealthCheck("http://127.0.0.1:8080/"), HealthCheck("http://127.0.0.1:9090/"))
    lifecycle = simulated.lifecycle(ready_mode=mode, free_port=False, ready_timeout=5.0)
    with pytest.raises(DaemonStateUnknownError, match=r"200 and 1 of its ready modes found noth"):
        async with lifecycle.running():
            raise AssertionError("entered")
    assert (1, 5.0) == (simulated.spawned, trio.current_time())


@pytest.mark.fault(19)
@in_simulated_time
async def test_a_stranger_in_the_second_place_is_found() -> None:
    # Two processes: what is right in one place is a stranger's in the other.
    simulated = SimulatedDaemon()
    simulated.start(8080)
    simulated.start(9090)
    urls = [f"http://127.0.0.1:{port}/" for port in (8080, 9090)]
    mode = AllOf(*map(HealthCheck, urls))
    lifecycle = simulated.lifecycle(ready_mode=mode, detach=True, free_port=False)
    with pytest.raises(ForeignDaemonError, match=f"{urls[1]} is answered by process 1001"):
        await lifecycle.ensure_running()
    assert (2, 2) == (simulated.spawned, simulated.alive)


@in_simulated_time
async def test_who_is_accepted_in_the_second_place_may_be_another_process() -> None:
    simulated = SimulatedDaemon()
    simulated.start(8080)
    simulated.start(9090)
    accepts = HealthCheck("http://127.0.0.1:9090/", expect=lambda _: True)
    mode = AllOf(HealthCheck("http://127.0.0.1:8080/"), accepts)
    lifecycle = simulated.lifecycle(ready_mode=mode, detach=True, free_port=False)
    assert "adopted" == (await lifecycle.ensure_running()).origin
