"""Where output can be told to go, and what is refused."""

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import name_of
from trio_lifecycle._destination import DEFAULT_KEPT_FILES, DEFAULT_TAIL_BYTES, Output, Rotate
from trio_lifecycle._errors import ConfigError


class Bare:
    """A stream that can do no more than write."""

    def write(self, chunk: bytes) -> int:
        return len(chunk)


def test_output_is_kept_to_64_kib_and_goes_nowhere_else_by_default() -> None:
    assert (DEFAULT_TAIL_BYTES, None) == (Output().tail_bytes, Output().to)
    assert 65_536 == DEFAULT_TAIL_BYTES


@pytest.mark.parametrize("to", ["logs/q.log", Path("logs/q.log")], ids=repr)
def test_a_string_and_a_path_mean_a_file(to: "str | Path") -> None:
    output = Output(to=to)
    assert Path("logs/q.log") == output.to
    assert Output(to=Path("logs/q.log")) == output


@pytest.mark.parametrize(
    "to", [sys.stderr, io.BytesIO(), io.StringIO(), Bare(), print, [].append, Output], ids=name_of
)
def test_a_stream_and_a_callable_are_kept_as_they_are(to: Any) -> None:
    assert to is Output(to=to).to


@pytest.mark.parametrize(
    "to", ["", "a\0b", b"/bytes", Path("a\0b"), 1, True, ["q.log"], object()], ids=name_of
)
def test_what_can_take_no_output_is_refused(to: Any) -> None:
    with pytest.raises(ConfigError, match=r"^output\.to: must be None, a path, a stream or"):
        Output(to=to)


@pytest.mark.fault(91)
@pytest.mark.parametrize("size", [-1, True, 1.5, "1", None, float("inf")], ids=repr)
def test_a_tail_that_is_no_number_of_bytes_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=r"^output\.tail_bytes: must be a number of bytes"):
        Output(size)


def test_a_tail_of_nothing_is_fine() -> None:
    assert 0 == Output(0).tail_bytes


def test_outputs_compare_hash_and_pickle() -> None:
    one, two = Output(10, "q.log"), Output(10, Path("q.log"))
    assert one == two
    assert hash(one) == hash(two)
    assert one == pickle.loads(pickle.dumps(one))
    assert one != Output(11, Path("q.log"))


# --- what is done on the way ----------------------------------------------------------------------


def test_nothing_is_added_and_no_file_rotated_by_default() -> None:
    output = Output(to="q.log")
    assert (False, "", None) == (output.timestamps, output.prefix, output.rotate)


def test_five_files_are_kept_by_default() -> None:
    assert 5 == Rotate(1).keep == DEFAULT_KEPT_FILES


def test_what_is_done_on_the_way_is_part_of_the_value() -> None:
    one = Output(to="q.log", timestamps=True, prefix="q: ", rotate=Rotate(1000, 2))
    assert one == pickle.loads(pickle.dumps(one))
    assert one != Output(to="q.log", timestamps=True, prefix="q: ", rotate=Rotate(1000, 3))
    assert "timestamps=True, prefix='q: ', rotate=Rotate(max_bytes=1000, keep=2)" in repr(one)
    assert 1 == len({one, one})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"timestamps": 1}, r"output\.timestamps: must be True or False, not 1"),
        ({"prefix": b"q"}, r"output\.prefix: must be a text such as \"db: \", not b'q'"),
        ({"prefix": None}, r"output\.prefix: must be a text"),
        ({"prefix": "a\nb"}, r"output\.prefix: must be within one line"),
        ({"prefix": "\ud800"}, r"output\.prefix: .* can't be encoded"),
        ({"rotate": 1000}, r"output\.rotate: must be a Rotate\(max_bytes\) or None, not 1000"),
    ],
    ids=repr,
)
def test_what_can_not_be_done_on_the_way_is_refused(settings: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^{problem}"):
        Output(to="q.log", **settings)


@pytest.mark.parametrize("to", [None, sys.stderr, print], ids=repr)
def test_only_a_file_is_rotated(to: Any) -> None:
    with pytest.raises(ConfigError, match=r"^output\.rotate: is for a file only; give its path"):
        Output(to=to, rotate=Rotate(1000))


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "1", None], ids=repr)
def test_a_rotation_by_no_number_is_refused(number: Any) -> None:
    with pytest.raises(ConfigError, match=r"^output\.rotate\.max_bytes: must be a number of bytes"):
        Rotate(number)
    with pytest.raises(
        ConfigError, match=r"^output\.rotate\.keep: must be a number of files, 1 or"
    ):
        Rotate(1, number)
