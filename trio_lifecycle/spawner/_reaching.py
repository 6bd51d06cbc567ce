"""Reaching what a daemon serves at a loopback address of another machine."""

import trio
from attrs import evolve

from trio_lifecycle._ssh._forward import Forward
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._urls import host_of, loopback_addresses, port_of, with_address
from trio_lifecycle.abc import Process, Report
from trio_lifecycle.spawner._remote_process import RemoteProcess


async def reach(
    machine: Machine, report: Report, nursery: trio.Nursery | None, process: Process
) -> Report:
    """Give url and port of a forward, where the daemon serves at a loopback address.

    Args:
        machine: Where the daemon runs.
        report: What it is known by there.
        nursery: The owner's; None where nobody owns it: the forward then lasts as long as the run,
            or until the daemon was stopped by all handles that have it.
        process: The daemon's.

    Raises:
        SSHConnectError: This program can't listen here.
    """
    await trio.lowlevel.checkpoint()
    hosts: tuple[str, ...] = ("127.0.0.1", "::1")
    if report.url is not None:
        hosts = loopback_addresses(host_of(report.url))
    port = report.port if report.url is None else port_of(report.url)
    if not hosts or port is None:
        return report
    forward = _forward(machine, hosts, port, nursery)
    if nursery is None:
        _hold(machine, (hosts, port), process)
    url = None if report.url is None else _forwarded(report.url, hosts[0], forward.port)
    # A daemon may have another port beside the one of its URL.
    own_port = report.port if report.port != port else forward.port
    return evolve(report, url=url, port=own_port)


def _forwarded(url: str, host: str, port: int) -> str:
    # A certificate is for the name that was given; without one, digits leave no doubt.
    return with_address(url, host_of(url) if url.startswith("https:") else host, port)


def _forward(
    machine: Machine, hosts: tuple[str, ...], port: int, nursery: trio.Nursery | None
) -> Forward:
    known = machine.forwards.get((hosts, port))
    if nursery is None and known is not None:
        return known

    async def open_there() -> trio.abc.HalfCloseableStream:
        try:
            return await open_one_of(machine, hosts, port)
        except LostError as error:
            raise machine.failure("connecting to the daemon", error) from error

    try:
        forward = Forward(hosts[0], open_there)
    except OSError as error:
        raise machine.failure("listening here, to lead to the daemon there", error) from error
    name = f"forward to {machine.host}:{port}"
    if nursery is None:
        machine.forwards[hosts, port] = forward
        trio.lowlevel.spawn_system_task(forward.run, name=name)
    else:
        nursery.start_soon(forward.run, name=name)
    return forward


def _hold(machine: Machine, key: tuple[tuple[str, ...], int], process: Process) -> None:
    """Keep a forward that nobody owns until the last process behind it is closed."""
    forward = machine.forwards[key]
    if not isinstance(process, RemoteProcess):
        return  # it can't be told when it ends

    def let_go() -> None:
        forward.users -= 1
        if forward.users == 0:
            del machine.forwards[key]
            forward.end()

    forward.users += 1
    process.hold(let_go)


async def open_one_of(
    machine: Machine, hosts: tuple[str, ...], port: int
) -> trio.abc.HalfCloseableStream:
    """Connect to the first of some addresses of the other machine that takes the connection.

    Raises:
        OSError: None does.
        LostError: The connection was lost meanwhile.
        SSHConnectError: The machine can't be reached.
    """
    failure: OSError = ConnectionRefusedError()
    for host in hosts:
        try:
            return await (await machine.transport()).open_tcp(host, port)
        except OSError as error:
            failure = error
    raise failure
