"""``trio-lifecycle timeline``: a page from events, and what the shell is told."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests import cli
from tests.cli import HEALTH, SERVER, Ask, call
from trio_lifecycle._cli._codes import TIMELINE_EXIT_STATUSES, table
from trio_lifecycle._cli._timeline_page import Scale, page, seconds
from trio_lifecycle.observe._phases import lives

ask, handlers = cli.ask, cli.handlers

WHO = {"name": "queen", "instance_id": "a1", "pid": 7}
KINDS = ("starting", "found", "spawned", "ready", "stopping", "stopped")
LIFE = [{"event": kind, "time": 100.0 + at, **WHO} for at, kind in enumerate(KINDS)]


def written(path: Path, events: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    return str(path)


class Read(HTMLParser):
    """What a browser finds: the bars, the text, and whatever it would have to fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.bars: list[tuple[str, float, float]] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.fetched += [tag] * (tag in ("script", "link", "img", "iframe"))
        self.fetched += [key for key in found if key in ("src", "href") or key.startswith("on")]
        kind, _, phase = found.get("class", "").partition(" ")
        if kind == "bar":
            left, width = map(float, re.findall(r"([\d.]+)%", found["style"]))
            self.bars.append((phase, left, width))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_run_has_printed_becomes_a_page(tmp_path: Path) -> None:
    done = call("run", "--json", "--name", "web", *HEALTH, "--then", "true", "--", *SERVER)
    events = tmp_path / "events.jsonl"
    events.write_text(done.out)
    drawn = call("timeline", str(events), "-o", str(tmp_path / "page.html"))
    assert (0, "", "") == (drawn.process.returncode, drawn.out, drawn.err)
    found = Read((tmp_path / "page.html").read_text())
    assert ["find", "spawn", "wait", "ready", "stop"] == [phase for phase, _, _ in found.bars]
    assert "web" in found.text
    assert ["events.jsonl", "page.html"] == sorted(path.name for path in tmp_path.iterdir())


def test_bars_stand_where_their_time_was_and_nothing_is_fetched() -> None:
    found = Read(page(lives(LIFE)))
    names = ["find", "spawn", "wait", "ready", "stop"]
    assert [(name, 20.0 * at, 20.0) for at, name in enumerate(names)] == found.bars
    assert [] == found.fetched
    assert [] == found.open
    assert "1 daemon, 1 start, 5.00 s from 1970-01-01 00:01:40 UTC" in found.text


def test_what_events_say_is_text_and_no_markup() -> None:
    evil = "<script>alert('x')</script>\"&"
    events = [{**event, "name": evil, "by": evil, "host": evil, "reason": evil} for event in LIFE]
    found = Read(page(lives(events)))
    assert [] == found.fetched
    assert 4 <= found.text.count(evil)


def test_daemons_are_grouped_by_who_started_them() -> None:
    events = [{**event, "by": "keeper"} for event in LIFE]
    events += [{**event, "by": "queen", "host": "gpu-2", "name": "hive"} for event in LIFE]
    text = Read(page(lives(events))).text
    assert re.search(
        r"started by keeper\s*queen.*started by queen\s*hive 7 on gpu-2", text, re.DOTALL
    )
    assert "started by" not in Read(page(lives(LIFE))).text


def test_a_bar_that_goes_on_has_an_open_end_and_a_failure_says_why() -> None:
    assert "ready open" == Read(page(lives(LIFE[:4]))).bars[-1][0]
    failed = {"event": "failed", "time": 103.0, "reason": "no memory", "error": "SpawnError", **WHO}
    drawn = page(lives([*LIFE[:2], failed]))
    assert "did not start: no memory" in Read(drawn).text
    assert 'left:min(100.0000%, 100% - 1.3rem)" title="did not start: no memory">✕<' in drawn


@pytest.mark.parametrize("span", [0.0, 0.001, 0.7, 1, 9.99, 60, 3600, 1e7])
def test_the_axis_has_a_handful_of_marks_whatever_the_span(span: float) -> None:
    events = [{**LIFE[0]}, {**LIFE[1], "time": 100.0 + span}]
    marks = Scale(lives(events)).marks()
    assert marks[0] == 0
    assert 2 <= len(marks) <= 9


def test_a_time_that_no_calendar_has_is_shown_as_a_number() -> None:
    assert "from second 1e+300" in page(lives([{**LIFE[0], "time": 1e300}]))


@pytest.mark.parametrize(
    ("number", "shown"), [(0.0, "0.000"), (0.0126, "0.013"), (1.5, "1.50"), (312.4, "312")]
)
def test_seconds_are_as_exact_as_they_are_worth(number: float, shown: str) -> None:
    assert shown == seconds(number)


def test_a_line_that_was_cut_off_is_left_out_and_told(tmp_path: Path, ask: Ask) -> None:
    events = written(tmp_path / "e", LIFE)
    with Path(events).open("a") as file:
        file.write('\n[1]\n{"event": "spaw')
    done = ask("timeline", events, "-o", str(tmp_path / "page"))
    said = f"trio-lifecycle: 2 lines were left out of {events}: no JSON objects\n"
    assert (0, "", said) == (done.status, done.out, done.err)
    assert (tmp_path / "page").exists()


def test_standard_input_becomes_standard_output(tmp_path: Path) -> None:
    written(tmp_path / "e", LIFE)
    with (tmp_path / "e").open() as events:
        done = call("timeline", stdin=events)
    assert (0, "") == (done.process.returncode, done.err)
    assert 5 == len(Read(done.out).bars)


@pytest.mark.parametrize("content", [None, "", "\n", "what run writes to people\n", '{"a": 1}\n'])
def test_without_events_there_is_no_page(content: str | None, tmp_path: Path, ask: Ask) -> None:
    events = tmp_path / "events"
    if content is not None:
        events.write_text(content)
    done = ask("timeline", str(events), "-o", str(tmp_path / "page"))
    assert (1, "") == (done.status, done.out)
    expected = "can't be read: No such file" if content is None else "has no events of daemons"
    assert f"{events} {expected}" in done.err
    assert not (tmp_path / "page").exists()


def test_a_page_without_a_folder_is_told(tmp_path: Path, ask: Ask) -> None:
    events = written(tmp_path / "e", LIFE)
    done = ask("timeline", events, "-o", str(tmp_path / "no" / "page"))
    assert (125, "") == (done.status, done.out)
    assert f"{tmp_path}/no/page can't be written: No such file" in done.err


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, ask: Ask) -> None:
    old = tmp_path / "page"
    old.write_text("old")
    # Where the new one would be written before it takes the place of the old one.
    (tmp_path / f".page.{os.getpid()}").mkdir()
    done = ask("timeline", written(tmp_path / "e", LIFE), "-o", str(old))
    assert (125, "old") == (done.status, old.read_text())


def test_a_page_may_be_a_device(tmp_path: Path, ask: Ask) -> None:
    assert 0 == ask("timeline", written(tmp_path / "e", LIFE), "-o", "/dev/null").status
    assert Path("/dev/null").is_char_device()


def test_an_option_that_is_none_is_named(ask: Ask) -> None:
    done = ask("timeline", "events.jsonl", "--outptu", "x")
    assert (2, "") == (done.status, done.out)
    assert "Did you mean --output?" in done.err


def test_the_documented_exit_statuses_are_those_of_the_program() -> None:
    assert "\n".join(table(TIMELINE_EXIT_STATUSES)) in cli.PAGE.read_text()


def test_the_last_mark_of_the_axis_stays_within_the_page() -> None:
    drawn = page(lives([{**LIFE[0]}, {**LIFE[1], "time": 102.53}]))
    assert '<span style="left:79.0514%">2 s</span>' in drawn
    assert '<span class="late" style="right:1.1858%">2.5 s</span>' in drawn


def test_a_daemon_that_had_to_be_killed_is_shown_so() -> None:
    stopped = {"event": "stopped", "time": 109.0, "rung": "SIGKILL", **WHO}
    assert '<td class="reason">killed</td>' in page(lives([*LIFE[:4], stopped]))


def test_a_page_may_go_into_a_pipe(ask: cli.Ask, tmp_path: Path) -> None:
    events = written(tmp_path / "events", LIFE)
    reader, writer = os.pipe()
    try:
        done = ask("timeline", events, "-o", f"/dev/fd/{writer}")
        assert (0, "", "") == (done.status, done.out, done.err)
        assert os.read(reader, 15) == b"<!DOCTYPE html>"
    finally:
        os.close(reader)
        os.close(writer)
