"""``trio-lifecycle status``: what is recorded, what of it runs, and what the shell is told."""

import json
import math
import os
import pty
import re
import signal
import time
from pathlib import Path

import pytest
from attrs import evolve

from tests import cli
from tests.cli import HEALTH, SERVER, Ask, Run, call, ensured, forget, record_elsewhere
from trio_lifecycle import DaemonRecord
from trio_lifecycle._cli._codes import DAEMON_EXIT_STATUSES, table
from trio_lifecycle._cli._json_lines import json_line
from trio_lifecycle._cli._status import Finding, State, as_table, exit_status
from trio_lifecycle._machine import host_name

pytestmark = pytest.mark.usefixtures("all_stopped")

all_stopped, ask, handlers = cli.all_stopped, cli.ask, cli.handlers

WEB = ("--name", "web", *HEALTH, "--", *SERVER)
KEYS = ["name", "state", "pid", "url", "port", "instance_id", "host", "started_at", "log_file"]
KEYS += ["age_s", "stop_ladder", "problem"]


def test_nothing_recorded_exits_0_and_makes_no_files() -> None:
    done = call("status")
    assert (0, "") == (done.process.returncode, done.out)
    assert "trio-lifecycle: no daemon is recorded\n" == done.err
    assert not Path(os.environ["XDG_STATE_HOME"]).exists()


def test_a_table_shows_what_runs_and_where() -> None:
    web, sleep = ensured(*WEB), ensured("--", "sleep", "600")
    done = call("status")
    assert (0, "") == (done.process.returncode, done.err)
    header, *rows = done.out.splitlines()
    assert ["daemon", "state", "process", "age", "where"] == header.split()
    assert ["sleep", "web"] == [row.split()[0] for row in rows]
    assert re.search(rf"^sleep +running +{sleep['pid']} +\d+ s$", done.out, re.MULTILINE)
    where = re.escape(web["url"])
    assert re.search(rf"^web +running +{web['pid']} +\d+ s +{where}$", done.out, re.MULTILINE)
    assert "\x1b" not in done.out


def test_json_has_all_facts_a_line_each() -> None:
    web = ensured(*WEB)
    ensured("--name", "other", "--stop-timeout", "3", "--", "sleep", "600")
    other, found = call("status", "--json").events()
    assert [KEYS, KEYS] == [list(other), list(found)]
    assert ("running", [["SIGTERM", 3.0]]) == (other["state"], other["stop_ladder"])
    same = ("name", "pid", "url", "port", "instance_id")
    assert [web[key] for key in same] == [found[key] for key in same]
    assert found["log_file"].endswith("/logs/web.log")
    assert 0 <= found["age_s"]
    assert found["problem"] is None


@pytest.mark.fault(89)
def test_one_that_was_killed_is_never_shown_as_running_and_stays_recorded() -> None:
    pid = ensured("--name", "dead", "--", "sleep", "600")["pid"]
    ensured("--", "sleep", "600")
    os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        done = call("status")
        assert 3 == done.process.returncode
        assert re.search(rf"^dead +gone +{pid}$", done.out, re.MULTILINE)
    assert 0 == call("status", "sleep").process.returncode
    assert 3 == call("status", "sleep", "dead").process.returncode
    assert ["gone"] == [fact["state"] for fact in call("status", "--json", "dead").events()]


def test_one_that_is_not_recorded_is_not_running_and_a_slip_is_told() -> None:
    ensured(*WEB)
    done = call("status", "wbe")
    assert (3, "") == (done.process.returncode, done.out)
    said = "trio-lifecycle: wbe is not running: nothing of that name is recorded; did you mean web?"
    assert f"{said}\n" == done.err
    (facts,) = call("status", "--json", "wbe").events()
    assert KEYS == list(facts)
    assert ("wbe", "gone", None) == (facts["name"], facts["state"], facts["pid"])


def test_one_that_is_being_started_counts_as_running() -> None:
    with Run("ensure", "--json", *HEALTH, "--", "sleep", "600") as starting:
        pid = starting.event("spawned")["pid"]
        done = call("status", "sleep")
        assert 0 == done.process.returncode
        assert re.search(rf"^sleep +starting +{pid} ", done.out, re.MULTILINE)
        starting.interrupt()


def test_what_can_not_be_told_exits_4_and_says_why() -> None:
    record_elsewhere("far", pid=12)
    done = call("status")
    facts = call("status", "--json", "far", "near").events()
    both = call("status", "far", "near")
    forget("far")
    assert [4, 4] == [done.process.returncode, both.process.returncode]
    assert re.search(r"^far +unknown +12 .* elsewhere", done.out, re.MULTILINE)
    said = "trio-lifecycle: the state of far is unknown: it is recorded as running on machine else"
    assert done.err.startswith(said)
    assert ["unknown", "gone"] == [fact["state"] for fact in facts]
    assert "machine elsewhere" in facts[0]["problem"]


def test_statuses_of_several_together() -> None:
    def of(*states: str) -> int:
        return exit_status([Finding("web", state) for state in states])  # type: ignore[arg-type]

    assert [0, 0, 3, 4, 4] == [
        of(),
        of("running", "starting", "stopping"),
        of("running", "gone"),
        of("running", "unknown"),
        of("gone", "unknown", "running"),
    ]


def test_a_registry_that_can_not_be_used_exits_125(tmp_path: Path) -> None:
    done = call("status", "--registry", str(tmp_path))
    assert (125, "") == (done.process.returncode, done.out)
    assert f"the registry {tmp_path} can't be used" in done.err
    nothing = call("status", "--registry", str(tmp_path / "none"))
    assert f"trio-lifecycle: no daemon is recorded in {tmp_path / 'none'}\n" == nothing.err


@pytest.mark.parametrize("words", [("a/b",), ("--yaml",), ("--registry", "")])
def test_wrong_use_exits_2(words: tuple[str, ...], ask: Ask) -> None:
    assert (2, "") == ask("status", *words)[:2]


def test_when_nobody_reads_it_it_exits_141() -> None:
    ensured("--", "sleep", "600")
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = call("status", stdout=write_end)
    os.close(write_end)
    assert (141, "") == (done.process.returncode, done.err)


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_full_disk_is_told_in_one_line(words: tuple[str]) -> None:
    ensured("--", "sleep", "600")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = call("status", *words, stdout=full)
    said = "trio-lifecycle: standard output can't be written to: No space left on device\n"
    assert (125, said) == (done.process.returncode, done.err)


def record(name: str, url: str | None) -> DaemonRecord:
    return DaemonRecord(
        name=name,
        instance_id="1",
        host=host_name(),
        boot_id="now",
        pid=4711,
        start_time=1,
        url=url,
        started_at=time.time() - 7200,
        heartbeat_at=0,
    )


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    odd = record("[bold]x[link]", "http://[::1]:80/")
    with open(os.devnull) as nowhere:  # noqa: PTH123
        rows = as_table([Finding(odd.name, "running", odd)], nowhere.fileno()).splitlines()
    assert "[bold]x[link]  running     4711  2 h  http://[::1]:80/" == rows[1]
    later = evolve(odd, started_at=time.time() + 3600)
    with open(os.devnull) as nowhere:  # noqa: PTH123
        assert " 0 s " in as_table([Finding(odd.name, "running", later)], nowhere.fileno())


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    record_elsewhere("far", url="http://\x1b[2J\u202e/", host="else\x07where")
    done = call("status")
    forget("far")
    assert r"http://\x1b[2J\u202e/" in done.out
    assert r"machine else\x07where" in done.err
    assert done.out.replace("\n", "").isprintable()


def test_json_has_no_number_that_json_has_not() -> None:
    line = json_line({"name": "far", "loads": [math.nan, {"most": math.inf}, -math.inf, 1.5]})

    def refuse(number: str) -> None:
        pytest.fail(number)

    facts = json.loads(line, parse_constant=refuse)
    assert {"name": "far", "loads": [None, {"most": None}, None, 1.5]} == facts


def test_a_long_address_is_never_cut_off() -> None:
    long = record("web", f"http://127.0.0.1/{'x' * 3000}")
    assert f"{long.url}\n" in shown(long, 40)
    with open(os.devnull) as nowhere:  # noqa: PTH123
        rows = as_table([Finding("web", "running", long)], nowhere.fileno()).splitlines()
    assert rows[1].endswith(f"4711  2 h  {long.url}")


def test_a_narrow_terminal_drops_the_ages_and_then_gets_some_lines_each() -> None:
    web = record("web", "http://127.0.0.1:18429/")
    wide = "web     running     4711  2 h  http://127.0.0.1:18429/\n"
    assert shown(web, 54).endswith(wide)
    assert shown(web, 53).endswith(wide.replace("  2 h", ""))
    assert shown(web, 49).endswith(wide.replace("  2 h", ""))
    some = "web\n  running, process 4711, 2 h\n  http://127.0.0.1:18429/\n"
    assert [some, some] == [shown(web, 48), shown(web, 20)]
    assert "web\n  gone, process 4711\n" == shown(record("web", None), 20, "gone")


def shown(record: DaemonRecord, columns: int, state: State = "running") -> str:
    """What a terminal of so many columns gets, without its colours."""
    ours, theirs = pty.openpty()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("NO_COLOR", "1")
            return as_table([Finding(record.name, state, record)], theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_terminal_gets_colours_and_lines_that_fit() -> None:
    ensured("--name", "x" * 40, "--", "sleep", "600")
    with cli.on_terminal("status") as running:
        assert 0 == running.end()
    with cli.on_terminal("status", NO_COLOR="1") as plain:
        assert 0 == plain.end()
    assert "\x1b[32mrunning" in running.text("terminal")
    assert "\x1b" not in plain.text("terminal")
    lines = plain.text("terminal").splitlines()
    assert 2 == len(lines)
    assert max(map(len, lines)) <= 80


def test_the_documented_exit_statuses_are_those_of_the_program() -> None:
    assert "\n".join(table(DAEMON_EXIT_STATUSES)) in cli.PAGE.read_text()
