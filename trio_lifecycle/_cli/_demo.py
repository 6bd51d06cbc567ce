"""``trio-lifecycle demo``: four programs that start each other, at work."""

from pathlib import Path

import trio
from attrs import frozen

from trio_lifecycle._cli._codes import WRONG_USE
from trio_lifecycle._cli._sentences import printable
from trio_lifecycle._cli._speech import say
from trio_lifecycle._cli._timeline import write_page
from trio_lifecycle._cli._timeline_page import page
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
    if lacks_extra():
        say(advice("cli,demo"))
        return WRONG_USE
    # Here, for nothing else needs what it brings.
    from trio_lifecycle._cli._demo_play import Play

    if wanted.timeline is not None and not Path(wanted.timeline).absolute().parent.is_dir():
        say(f"{printable(wanted.timeline)} can't be written: its folder is not there")
        return WRONG_USE
    play = Play(wanted.hosts, keep=wanted.keep, json=wanted.json)
    status = trio.run(play)
    if wanted.timeline is not None and (found := lives(play.audience.events)):
        status = write_page(wanted.timeline, page(found)) or status
    return status
