"""What a process holds: descriptors, threads, memory, children that nobody has waited for."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from attrs import frozen

from tests.chaos.survey import PROC, everything

# Trio keeps an idle worker thread for 10 s.
KEPT_THREADS: Final = 1

# The kernel counts these; the number says nothing.
_NUMBER: Final = re.compile(r"\[\d+\]")


@frozen
class Vitals:
    """What one process holds at one moment.

    Attributes:
        descriptors: What they lead to, and how many lead there.
        threads: How many it has.
        private_kb: Memory that it shares with nobody and has written to.
        zombies: Ended children that it has not waited for.
    """

    descriptors: "Counter[str]"
    threads: int
    private_kb: int
    zombies: int

    def __str__(self) -> str:
        return (
            f"{self.descriptors.total()} descriptors, {self.threads} threads, "
            f"{self.private_kb} kB, {self.zombies} zombies"
        )

    def worse_than(self, before: "Vitals", growth_kb: int) -> Iterator[str]:
        """Say what has become more; of memory, by more than that."""
        for target, count in (self.descriptors - before.descriptors).items():
            yield f"{count} descriptors more: {target}"
        if self.threads > before.threads + KEPT_THREADS:
            yield f"{self.threads - before.threads} threads more"
        if self.zombies:
            yield f"{self.zombies} zombies"
        if self.private_kb - before.private_kb > growth_kb:
            yield f"{self.private_kb - before.private_kb} kB of memory more"


def take(pid: int) -> Vitals:
    """Look at a process."""
    status = (PROC / str(pid) / "status").read_text()
    rollup = (PROC / str(pid) / "smaps_rollup").read_text()
    return Vitals(
        descriptors=Counter(_descriptors(pid)),
        threads=_figure("Threads", status),
        private_kb=_figure("Private_Dirty", rollup),
        zombies=sum(seen.dead and seen.parent == pid for seen in everything()),
    )


def _descriptors(pid: int) -> Iterator[str]:
    for entry in (PROC / str(pid) / "fd").iterdir():
        try:
            target = os.readlink(entry)  # noqa: PTH115 - targets are no paths
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if not target.endswith(f"/{pid}/fd"):
            yield _NUMBER.sub("", target)


def _figure(name: str, text: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert found is not None, f"no {name} in /proc"
    return int(found[1])
