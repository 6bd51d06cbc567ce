"""Old logs: a few are kept, and nothing that is not ours is touched."""

import os
from pathlib import Path

import pytest

from trio_lifecycle._logs import KEPT_LOGS, rotate


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the log is that is about to be written anew."""
    return tmp_path / "daemon.log"


def numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def texts(log: Path) -> dict[str, str]:
    """All files beside the log, with what is in them."""
    return {path.name: path.read_text() for path in log.parent.iterdir()}


def test_each_log_moves_up_by_one_and_the_oldest_goes(log: Path) -> None:
    for run in range(8):
        rotate(log)
        assert not log.exists()
        log.write_text(f"run {run}")
    assert 5 == KEPT_LOGS
    expected = {f"daemon.log.{number}": f"run {7 - number}" for number in (1, 2, 3, 4)}
    assert {"daemon.log": "run 7", **expected} == texts(log)


def test_a_missing_log_or_an_empty_one_stays_as_it_is(log: Path) -> None:
    rotate(log)
    log.touch()
    numbered(log, 1).write_text("old")
    rotate(log)
    assert {"daemon.log": "", "daemon.log.1": "old"} == texts(log)


def test_no_log_moves_further_than_to_the_next_gap(log: Path) -> None:
    log.write_text("new")
    numbered(log, 1).write_text("one")
    numbered(log, 3).write_text("three")
    rotate(log)
    assert {"daemon.log.1": "new", "daemon.log.2": "one", "daemon.log.3": "three"} == texts(log)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_fewer_can_be_kept_also_when_there_are_more(log: Path, keep: int) -> None:
    for number in range(1, 5):
        numbered(log, number).write_text(f"{number}")
    log.write_text("0")
    rotate(log, keep)
    assert {f"daemon.log.{number}": f"{number - 1}" for number in range(1, keep)} == texts(log)


def test_the_mode_of_a_log_stays(log: Path) -> None:
    log.write_text("new")
    log.chmod(0o600)
    rotate(log)
    assert 0o100600 == numbered(log, 1).stat().st_mode


@pytest.mark.parametrize("kind", ["link", "FIFO", "directory"])
def test_what_is_no_file_in_the_place_of_the_log_is_left_alone(log: Path, kind: str) -> None:
    target = put(log, kind)
    rotate(log)
    assert os.path.lexists(log)
    assert not numbered(log, 1).exists()
    assert "secret" == target.read_text()


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("kind", ["link", "FIFO", "directory"])
def test_what_is_no_file_in_the_place_of_an_old_log_is_an_error_and_left_alone(
    log: Path, kind: str, number: int
) -> None:
    for other in {1, 2, 3, 4} - {number}:
        numbered(log, other).write_text("old")
    log.write_text("new")
    target = put(numbered(log, number), kind)
    with pytest.raises(FileExistsError) as caught:
        rotate(log)
    assert str(numbered(log, number)) == caught.value.filename
    assert "secret" == target.read_text()
    assert "new" == log.read_text()


def put(place: Path, kind: str) -> Path:
    """Put something somewhere; give the file that it could lead to."""
    target = place.parent / "secret"
    target.write_text("secret")
    if kind == "link":
        place.symlink_to(target)
    elif kind == "FIFO":
        os.mkfifo(place)
    else:
        place.mkdir()
    return target


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_the_log_of_another_user_is_left_alone(log: Path) -> None:
    log.write_text("theirs")
    os.chown(log, 1, 1)
    rotate(log)
    assert {"daemon.log": "theirs"} == texts(log)


def test_one_that_another_program_has_moved_meanwhile_is_no_trouble(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_text("new")

    def rename(source: Path, target: Path) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "rename", rename)
    rotate(log)
