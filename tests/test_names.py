"""Names: what can be a file name, a table row and the prefix of a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._names import LONGEST_NAME_BYTES, check_name


@pytest.mark.parametrize(
    "name",
    ["queen", "q-1.2_3", "nid d'abeilles", "女王", ".hidden", "...", "-x", "a" * 200, "é" * 100],
)
def test_a_printable_name_is_taken_as_it_is(name: str) -> None:
    assert name == check_name("name", name)


@pytest.mark.fault(93)
@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "a/b",
        "../up",
        "a\0b",
        "a\nb",
        "a\x1b[31m",
        "a\u202eb",
        "\udc80",
        "a" * 201,
        "é" * 101,
    ],
    ids=ascii,
)
def test_a_name_that_can_be_no_file_or_row_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^daemon: "):
        check_name("daemon", name)


@pytest.mark.parametrize("name", [None, 1, b"queen", ["queen"]], ids=repr)
def test_a_name_that_is_no_string_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match=r"^name: must be a string, not "):
        check_name("name", name)


@pytest.mark.fault(93)
@given(st.text(min_size=1, max_size=250))
def test_every_name_that_is_taken_is_one_file_name_with_room_for_an_ending(text: str) -> None:
    try:
        name = check_name("name", text)
    except ConfigError:
        return
    assert "/" not in name
    assert name not in (".", "..")
    assert "\0" not in name
    assert len(name.encode()) <= LONGEST_NAME_BYTES
    assert 1 == len(f"{name} | line".splitlines())
