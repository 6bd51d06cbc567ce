"""``trio-lifecycle demo``: four programs that start each other, at work."""

import os
from contextlib import suppress
from pathlib import Path

import trio
from attrs import frozen

from trio_lifecycle._cli._codes import WRONG_USE
from trio_lifecycle._cli._sentences import printable
from trio_lifecycle._cli._speech import say
from trio_lifecycle._cli._timeline import write_page
from trio_lifecycle._cli._timeline_page import page
from trio_lifecycle._errors import ConfigError
from trio_lifecycle.demo._doors import advice, lacks_extra
from trio_lifecycle.observe._phases import lives


@frozen(kw_only=True)
class Wanted:
    """What was asked for.

    Attributes:
        hosts: Machines that get a hive, too.
        keep: Whether the programs are left running.
        json: Whether events are printed, instead of the table.
        timeline: Where a page is written.
    """

    hosts: tuple[str, ...] = ()
    keep: bool = False
    json: bool = False
    timeline: str | None = None


def run_demo(wanted: Wanted) -> int:
    """Run the demo.

    Returns:
        The exit status.
    """
    if lacks_extra(hosts=bool(wanted.hosts)):
        say(advice("cli,demo,ssh" if wanted.hosts else "cli,demo"))
        return WRONG_USE
    # Here, for nothing else needs what they bring.
    from trio_lifecycle._cli._demo_play import Play
    from trio_lifecycle.demo.queen_lifecycle import spawner

    for host in wanted.hosts:
        try:
            spawner(host)
        except ConfigError:
            say(
                f"--hosts must be a machine, such as gpu-2, not {printable(host)!r}; "
                "who logs in there, and how, stands in ~/.ssh/config"
            )
            return WRONG_USE
    if wanted.timeline is not None and (problem := _problem_with(Path(wanted.timeline))):
        say(f"{printable(wanted.timeline)} can't be written: {problem}")
        return WRONG_USE
    try:
        play = Play(wanted.hosts, keep=wanted.keep, json=wanted.json)
    except ConfigError as error:
        say(str(error))
        return WRONG_USE
    status = trio.run(play)
    if wanted.timeline is not None and (found := lives(play.audience.events)):
        status = write_page(wanted.timeline, page(found)) or status
    return status


def _problem_with(page: Path) -> str:
    """Say what can be seen of it before all the work is done; nothing where all seems well."""
    if page.is_dir():
        return "it is a folder"
    with suppress(FileNotFoundError):  # where we are may be gone
        page = page.absolute()
    if not (page.is_absolute() and page.parent.is_dir()):
        return "its folder is not there"
    # A page is written anew beside what is there, and takes its place.
    place = page if page.exists() and not page.is_file() else page.parent
    return "" if os.access(place, os.W_OK) else "that is not allowed"
