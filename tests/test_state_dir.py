"""Where state is kept, and that nobody else had a hand in it."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._state_dir import log_path, make_private, state_dir


@pytest.fixture(params=[0o022, 0o000, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_state_is_kept_below_xdg_state_home() -> None:
    assert Path("/x/trio-lifecycle") == state_dir({"XDG_STATE_HOME": "/x", "HOME": "/home/q"})


@pytest.mark.parametrize("given", [{}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative/x"}])
def test_state_is_kept_at_home_without_an_absolute_xdg_state_home(given: dict[str, str]) -> None:
    expected = Path("/home/q/.local/state/trio-lifecycle")
    assert expected == state_dir({**given, "HOME": "/home/q"})


@pytest.mark.parametrize("given", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_home_is_asked_of_the_system_when_the_environment_does_not_say(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    assert home / ".local/state/trio-lifecycle" == state_dir(given)


def test_a_user_without_a_home_is_told_to_name_a_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)
    with pytest.raises(ConfigError, match="no home directory; set XDG_STATE_HOME"):
        state_dir({"HOME": "relative"})
    assert Path("/x/trio-lifecycle") == state_dir({"XDG_STATE_HOME": "/x"})


def test_a_log_is_named_after_its_daemon() -> None:
    expected = Path("/x/trio-lifecycle/logs/queen.log")
    assert expected == log_path({"XDG_STATE_HOME": "/x"}, "queen")


def test_a_new_directory_and_its_new_parents_are_private(tmp_path: Path, umask: int) -> None:
    make_private(tmp_path / "a" / "b" / "c")
    assert [0o700] * 3 == [mode_of(tmp_path / part) for part in ("a", "a/b", "a/b/c")]


def test_a_private_directory_that_is_there_is_fine(tmp_path: Path) -> None:
    make_private(tmp_path / "a")
    make_private(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_a_directory_that_others_can_read_but_not_write_is_fine(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert 0o755 == mode_of(tmp_path)


@pytest.mark.fault(64)
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777], ids=oct)
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match="can be written by others; make it yours and mode 0700"):
        make_private(tmp_path)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.fault(64)
@pytest.mark.parametrize("there", [True, False], ids=["there", "to be made"])
@pytest.mark.parametrize("below", ["a", "a/b/c"])
def test_a_directory_that_anybody_could_exchange_is_refused(
    tmp_path: Path, below: str, there: bool
) -> None:
    anybodys = tmp_path / "anybodys"
    (anybodys / below if there else anybodys).mkdir(mode=0o700, parents=True)
    anybodys.chmod(0o777)
    before = list(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=f"{anybodys} can be written by all; chmod o-w"):
        make_private(anybodys / below)
    assert before == list(tmp_path.rglob("*"))


@pytest.mark.fault(64)
def test_a_directory_that_anybody_could_exchange_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "anybodys" / "home").mkdir(parents=True)
    (tmp_path / "anybodys").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "anybodys" / "home")
    with pytest.raises(ConfigError, match=f"{tmp_path / 'anybodys'} can be written by all"):
        make_private(tmp_path / "link" / "state")


@pytest.mark.parametrize("mode", [0o1777, 0o775, 0o711], ids=oct)
def test_a_directory_below_one_of_many_users_is_fine(tmp_path: Path, mode: int) -> None:
    (tmp_path / "many").mkdir()
    (tmp_path / "many").chmod(mode)
    make_private(tmp_path / "many" / "mine" / "state")
    assert 0o700 == mode_of(tmp_path / "many" / "mine" / "state")


@pytest.mark.fault(64)
def test_a_directory_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=f"{tmp_path} belongs to somebody else"):
        make_private(tmp_path)


@pytest.mark.fault(64)
@pytest.mark.parametrize("there", [True, False], ids=["to a directory", "to nothing"])
def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "target"
    if there:
        target.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ConfigError, match="link is a link or no directory; remove it"):
        make_private(tmp_path / "link")
    assert there == target.exists()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a link or no directory; remove it"):
        make_private(tmp_path / "file")


def test_a_directory_that_can_not_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        make_private(tmp_path / "file" / "below")
