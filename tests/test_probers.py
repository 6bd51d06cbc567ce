"""Probers: the simulated one sees what a simulated daemon does, and one says what it can't do."""

import pytest

from tests.simulated import in_simulated_time
from tests.test_testing import behind_a_gate
from trio_lifecycle import ConfigError
from trio_lifecycle.abc import Answer, Command, Contact, Prober, Process, Question
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner


@in_simulated_time
async def test_what_looks_at_a_simulated_daemon_sees_nothing_before_its_gate_is_open() -> None:
    daemon = SimulatedDaemon(probes=[(0.0, 0)], file_after=0.0, port=1)
    prober = SimulatedSpawner(daemon).open_prober()
    look = Command(name="probe", program="/simulated/look", args=("1",))
    process = await behind_a_gate(daemon)
    assert 1 == (await prober.run(look)).status
    assert await prober.find_file("/any") is None
    assert (await prober.connect("127.0.0.1", 1)).absent
    assert (await prober.connect_unix("/any")).absent
    await process.open_gate()
    assert 0 == (await prober.run(look)).status
    assert await prober.find_file("/any") is not None
    assert (await prober.connect("127.0.0.1", 1)).made
    assert process.pid == (await prober.connect_unix("/any")).pid
    assert process.identity == (await prober.owner_of("/any", 0)).identity
    assert f"process {process.pid} (simulated)" == await prober.describe_owner("/any", 0)


async def test_a_prober_that_can_only_do_http_says_so_of_everything_else() -> None:
    class OnlyHTTP(Prober):
        async def ask(self, question: Question) -> Answer:
            raise AssertionError("not asked for")

        async def connect(self, host: str, port: int) -> Contact:
            raise AssertionError("not asked for")

        async def owner_of(self, host: str, port: int) -> Process:
            raise AssertionError("not asked for")

        async def describe_owner(self, host: str, port: int) -> str:
            raise AssertionError("not asked for")

    prober = OnlyHTTP()
    await prober.prepare(Question("http://127.0.0.1/"))
    for use in (
        prober.connect_unix("/a"),
        prober.find_binary("a"),
        prober.run(Command(name="a", program="/a")),
        prober.find_file("/a"),
        prober.open_inbox(None, None, 4096),
    ):
        with pytest.raises(ConfigError, match=r"OnlyHTTP can't .*; use another ready mode"):
            await use
    with pytest.raises(ConfigError, match=r"OnlyHTTP can't lead calls back .*; use another"):
        prober.open_way_back("127.0.0.1", 1)
    assert prober.is_here
