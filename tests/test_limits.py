"""Limits, umask, user and group of a configuration: what is taken, and what can't be meant."""

import os
import pickle
import resource
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle import ConfigError, LifecycleConfig, Manual
from trio_lifecycle._limits import LIMIT_NAMES, Limits, check_group, check_user, read_limits

LARGEST_LIMIT = 2**63 - 1
LARGEST_ID = 2**32 - 2

one_limit = st.one_of(st.none(), st.integers(0, LARGEST_LIMIT), st.integers(0, 100))


def height(limit: int | None) -> float:
    return float("inf") if limit is None else limit


def config(**given: Any) -> LifecycleConfig:
    """A configuration of which a test says only what it is about."""
    return LifecycleConfig("queen", ready_mode=Manual(), **given)


def problem_of(**given: Any) -> ConfigError:
    """What is said about a configuration that is refused."""
    with pytest.raises(ConfigError) as caught:
        config(**given)
    return caught.value


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIMIT_NAMES)
def test_every_name_stands_for_a_limit_of_the_system(name: str) -> None:
    assert isinstance(getattr(resource, f"RLIMIT_{name.upper()}"), int)


def test_no_limit_of_the_system_is_without_a_name() -> None:
    known = {name.removeprefix("RLIMIT_").lower() for name in dir(resource) if "RLIMIT_" in name}
    # An old name of "nofile".
    assert known - {"ofile"} == set(LIMIT_NAMES)


@given(st.dictionaries(st.sampled_from(LIMIT_NAMES), one_limit))
def test_one_number_is_the_soft_and_the_hard_limit(limits: Mapping[str, int | None]) -> None:
    assert {name: (limit, limit) for name, limit in limits.items()} == read_limits(limits)


@given(st.sampled_from(LIMIT_NAMES), one_limit, one_limit)
def test_a_pair_is_taken_unless_its_soft_limit_is_over_the_hard_one(
    name: str, soft: int | None, hard: int | None
) -> None:
    if height(soft) <= height(hard):
        assert {name: (soft, hard)} == config(limits={name: (soft, hard)}).limits
    else:
        error = problem_of(limits={name: (soft, hard)})
        assert f"limits['{name}']" == error.field
        assert "soft" in error.problem


@given(st.dictionaries(st.sampled_from(LIMIT_NAMES), one_limit))
def test_what_was_read_can_be_read_again(limits: Mapping[str, int | None]) -> None:
    once = read_limits(limits)
    assert once == read_limits(once)
    assert hash(once) == hash(read_limits(once))
    assert once == pickle.loads(pickle.dumps(once))


@pytest.mark.parametrize(
    "value",
    [-1, 2**63, True, False, "1024", 1024.0, (1,), (1, 2, 3), [1, 2], (1, "2"), (None, 5), (-1, 5)],
    ids=repr,
)
def test_a_limit_that_can_not_be_meant_is_refused_by_its_name(value: object) -> None:
    assert "limits['nofile']" == problem_of(limits={"core": 0, "nofile": value}).field


@pytest.mark.parametrize("value", [None, 5, "nofile=5", ["nofile"], [("nofile", 5)]], ids=repr)
def test_what_is_no_mapping_is_refused(value: object) -> None:
    error = problem_of(limits=value)
    assert "limits" == error.field
    assert '{"nofile": 65536}' in error.problem


@pytest.mark.parametrize("name", ["RLIMIT_NOFILE", "NOFILE", "nofiles", "no_file"])
def test_a_name_that_is_nearly_one_gets_the_right_one_as_an_answer(name: str) -> None:
    error = problem_of(limits={name: 5})
    assert "limits" == error.field
    assert "did you mean 'nofile'" in error.problem


@pytest.mark.parametrize("name", ["", "watts", 7, None, b"nofile"], ids=repr)
def test_a_name_that_is_near_to_none_gets_all_as_an_answer(name: object) -> None:
    error = problem_of(limits={name: 5})
    assert "limits" == error.field
    assert ", ".join(LIMIT_NAMES) in error.problem


def test_limits_that_were_passed_in_can_be_changed_without_effect() -> None:
    limits: dict[str, Any] = {"nofile": 5}
    made = config(limits=limits)
    before = hash(made)
    limits["nofile"] = 6
    assert {"nofile": (5, 5)} == made.limits
    assert before == hash(made)
    assert not hasattr(made.limits, "__setitem__")


def test_the_order_of_limits_makes_no_difference() -> None:
    one, other = {"nofile": 5, "core": 0}, {"core": (0, 0), "nofile": (5, 5)}
    assert config(limits=one) == config(limits=other)
    assert 1 == len({config(limits=one), config(limits=other)})


def test_limits_show_what_they_are() -> None:
    assert "{'nofile': (5, None)}" == repr(Limits({"nofile": (5, None)}))
    assert "'nofile': (5, None)" in repr(config(limits={"nofile": (5, None)}))


# --- umask ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, 0o022, 0o777])
def test_a_umask_is_a_number_of_permissions(value: int | None) -> None:
    assert value == config(umask=value).umask


@pytest.mark.parametrize("value", [-1, 0o1000, True, False, "022", 18.0, [0]], ids=repr)
def test_a_umask_that_can_not_be_meant_is_refused(value: object) -> None:
    assert "umask" == problem_of(umask=value).field


# --- user and group -------------------------------------------------------------------------------

ACCOUNTS = ("user", "group")


@pytest.mark.parametrize("field", ACCOUNTS)
@pytest.mark.parametrize("value", [None, "postgres", "web-1.x$", 0, 65534, LARGEST_ID], ids=repr)
def test_a_user_or_group_is_a_name_or_an_id(field: str, value: str | int | None) -> None:
    assert value == getattr(config(**{field: value}), field)


@pytest.mark.parametrize("field", ACCOUNTS)
@pytest.mark.parametrize(
    "value",
    ["", "a:b", "a\0b", "a\n", "\ud800", -1, LARGEST_ID + 1, True, False, 1.0, b"postgres", ("a",)],
    ids=ascii,
)
def test_a_user_or_group_that_can_not_be_meant_is_refused(field: str, value: object) -> None:
    assert field == problem_of(**{field: value}).field


@given(st.one_of(st.text(min_size=1), st.integers()))
def test_a_user_or_group_that_is_taken_fits_into_a_line_of_passwd(value: str | int) -> None:
    for check in (check_user, check_group):
        try:
            taken = check(value)
        except ConfigError:
            continue
        assert value == taken
        line = os.fsencode(f"{taken}:x:")
        assert [os.fsencode(str(value)), b"x", b""] == line.split(b":")
        assert 1 == line.count(b"\n") + 1
