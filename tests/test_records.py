"""What is remembered of a daemon, and that nothing else is taken for it."""

import copy
import json
import pickle
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.registries import record
from trio_lifecycle import ConfigError
from trio_lifecycle._names import check_name
from trio_lifecycle.abc import DaemonRecord, Identity
from trio_lifecycle.registry._rows import Row, decode, encode

LONG = 2**63


def test_a_record_tells_whom_it_is_about() -> None:
    about = record(host="m", boot_id="b", pid=77, start_time=5, pid_namespace=9).identity
    assert Identity("m", "b", 77, 5, 9) == about


@pytest.mark.fault(65)
@pytest.mark.parametrize("pid", [0, 1, -1, 2**22 + 1, LONG, True, 7.0, "7", None])
def test_a_pid_that_is_nobodys_or_everybodys_is_refused(pid: object) -> None:
    with pytest.raises(ConfigError, match="is no number of a daemon's process"):
        record(pid=pid)


WRONG: dict[str, list[Any]] = {
    "name": ["", "..", "a/b", "a\0", "x" * 201, 7, None],
    "instance_id": [None, 7, b"x", "a\0b"],
    "host": [None, 7, "\0"],
    "boot_id": [None, 7, "b\0"],
    "start_time": [-1, LONG, True, 1.5, "1", None],
    "pid_namespace": [-1, LONG, True, None],
    "url": [7, b"x", "http://a/\0"],
    "port": [0, -1, 65_536, True, 80.0, "80"],
    "state": ["", "READY", None, [], "gone"],
    "log_file": [7, b"x", "/a\0.log"],
    "fingerprint": [None, 7, "\0"],
    "stop_ladder": [
        *(7, [7], [(1,)], [(None, 1.0)], [(float("inf"), 1)]),
        *([(signum, 1.0)] for signum in (-1, 0, 65, 999)),
        *([(15, 1.0), (2, seconds)] for seconds in (-0.5, float("nan"), float("inf"))),
    ],
    "report": [None, [], "x", {"a": object()}, {"a": {1, 2}}],
    "started_at": [-1.0, float("nan"), float("inf"), True, "1", None],
    "heartbeat_at": [-1.0, float("nan"), 1e30, None],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_value_that_can_not_be_meant_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        record(**{field: value})
    assert field in caught.value.field


def test_a_report_that_goes_too_deep_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match="can't be written as JSON"):
        record(report={"deep": deep})


def test_a_report_is_a_copy_of_what_was_given() -> None:
    report = {"a": [1]}
    kept = record(report=report)
    report["a"].append(2)
    assert {"a": [1]} == kept.report


def test_a_record_can_be_copied_and_pickled() -> None:
    kept = record(report={"a": [1]})
    assert kept == copy.deepcopy(kept) == pickle.loads(pickle.dumps(kept))


def test_records_with_reports_compare_and_can_be_members_of_sets() -> None:
    assert record(report={"a": 1}) == record(report={"a": 1})
    assert record(report={"a": 1}) != record(report={"a": 2})
    assert 2 == len({record(), record(), record(pid=77)})


# --- as they are stored ---


def _is_name(name: str) -> bool:
    try:
        check_name("name", name)
    except ConfigError:
        return False
    return True


names = st.text(min_size=1, max_size=50).filter(_is_name)
texts = st.text(st.characters(exclude_categories=(), exclude_characters="\0"), max_size=30)
counts = st.integers(0, LONG - 1)
times = st.floats(0, 2**53) | st.integers(0, 2**53)
report_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
records = st.builds(
    DaemonRecord,
    name=names,
    instance_id=texts,
    host=texts,
    boot_id=texts,
    pid=st.integers(2, 2**22),
    start_time=counts,
    pid_namespace=counts,
    url=st.none() | texts,
    port=st.none() | st.integers(1, 65_535),
    state=st.sampled_from(["starting", "ready", "stopping"]),
    log_file=st.none() | texts,
    fingerprint=texts,
    stop_ladder=st.lists(st.tuples(st.integers(1, 64), st.floats(0, 1e6)), max_size=3).map(tuple),
    report=st.dictionaries(texts, report_values, max_size=3),
    started_at=times,
    heartbeat_at=times,
)


@given(records)
def test_every_record_comes_back_as_it_was_stored(kept: DaemonRecord) -> None:
    text = encode(kept)
    assert (kept, ()) == decode(Row(1, kept.name.encode(), text.encode("ascii")))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_refused_in_an_expected_way(found: bytes) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError, RecursionError)):
        decode(Row(1, b"queen", found))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json.loads(encode(record())))), json_values)
def test_any_json_in_a_field_is_a_record_or_refused_in_an_expected_way(
    field: str, value: object
) -> None:
    fields = json.loads(encode(record())) | {field: value}
    try:
        found, lost = decode(Row(1, b"queen", json.dumps(fields).encode()))
    except (ValueError, TypeError, OverflowError, RecursionError):
        assert field in ("name", "host", "boot_id", "pid", "start_time")
        return
    assert found == evolve(found)
    assert "queen" == found.name
    assert lost in ((), (field,))


@given(st.lists(st.sampled_from(sorted(json.loads(encode(record()))))), json_values)
def test_a_record_that_tells_its_process_is_read_whatever_else_it_lacks(
    without: list[str], extra: object
) -> None:
    full = record(host="m", boot_id="b", pid=77, start_time=5)
    fields = {"extra": extra, **json.loads(encode(full))}
    for field in without:
        if field not in ("name", "host", "boot_id", "pid", "start_time"):
            fields.pop(field, None)
    found, _ = decode(Row(1, b"queen", json.dumps(fields).encode()))
    assert full.identity == found.identity
