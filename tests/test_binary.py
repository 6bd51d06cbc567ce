"""Where a program is found, and which names and places are refused."""

import sys
import sysconfig
from pathlib import Path

import pytest

from tests import program_files
from tests.program_files import Write
from trio_lifecycle._binary import find_binary
from trio_lifecycle._errors import BinaryNotFoundError, ConfigError

write = program_files.write

# --- the order ------------------------------------------------------------------------------------


def test_program_is_found_in_path_when_only_path_has_it(write: Write) -> None:
    tool = write("bin/tool")
    assert str(tool) == find_binary("tool", path=f"/nonexistent:{tool.parent}")


def test_path_of_the_environment_is_used_when_none_is_given(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = write("bin/tool")
    monkeypatch.setenv("PATH", str(tool.parent))
    assert str(tool) == find_binary("tool")


def test_search_path_wins_in_its_order_over_path(write: Write) -> None:
    first, second, third = (write(f"{place}/tool") for place in "abc")
    found = find_binary("tool", [first.parent, str(second.parent)], path=str(third.parent))
    assert str(first) == found


def test_interpreters_own_scripts_are_found_when_path_does_not_name_them() -> None:
    scripts = sysconfig.get_path("scripts")
    assert f"{scripts}/coverage" == find_binary("coverage", path="")


def test_directory_of_the_interpreter_is_used_when_its_scripts_lie_elsewhere(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = write("elsewhere/tool")
    monkeypatch.setattr(sys, "executable", str(tool.parent / "python"))
    assert str(tool) == find_binary("tool", path="")


def test_interpreter_of_unknown_place_is_no_hindrance(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = write("bin/tool")
    monkeypatch.setattr(sys, "executable", "")
    assert str(tool) == find_binary("tool", path=str(tool.parent))


def test_near_miss_does_not_stop_the_search_when_a_later_directory_has_the_program(
    write: Write,
) -> None:
    write("a/tool", mode=0o644)
    tool = write("b/tool")
    assert str(tool) == find_binary("tool", [tool.parents[1] / "a", tool.parent], path="")


def test_symbolic_links_stay_in_the_result(write: Write, tmp_path: Path) -> None:
    box = write("box")
    link = tmp_path / "bin" / "tool"
    link.parent.mkdir()
    link.symlink_to(box)
    assert str(link) == find_binary("tool", [link.parent])


# --- names that are paths -------------------------------------------------------------------------


def test_name_with_a_slash_counts_from_the_current_directory(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = write("bin/tool")
    monkeypatch.chdir(tmp_path)
    assert str(tool) == find_binary("bin/tool", path="")
    assert str(tool) == find_binary("./bin/tool", path="")


def test_relative_search_path_counts_from_the_current_directory(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = write("bin/tool")
    monkeypatch.chdir(tmp_path)
    assert str(tool) == find_binary("tool", ["bin"], path="")


# --- places that are not trusted ------------------------------------------------------------------


@pytest.mark.fault(3)
@pytest.mark.parametrize("path", ["", ".", ":", "bin:", "./bin", "bin"])
def test_path_entry_that_means_the_current_directory_is_not_used(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    write("tool")
    write("bin/tool")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BinaryNotFoundError) as caught:
        find_binary("tool", path=path)
    assert () == caught.value.near_misses


@pytest.mark.fault(3)
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_path_directory_that_anyone_can_write_in_is_a_near_miss_unless_asked_for(
    write: Write, mode: int
) -> None:
    tool = write("open/tool")
    tool.parent.chmod(mode)
    with pytest.raises(BinaryNotFoundError) as caught:
        find_binary("tool", path=str(tool.parent))
    assert (f"{tool} is in a directory that anyone can write in",) == caught.value.near_misses
    assert str(tool) == find_binary("tool", [tool.parent], path=str(tool.parent))
    assert str(tool) == find_binary(str(tool))


def test_open_directory_is_no_near_miss_when_the_program_is_not_in_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BinaryNotFoundError) as caught:
        find_binary("no-such-tool", path=str(tmp_path))
    assert () == caught.value.near_misses


# --- nothing there --------------------------------------------------------------------------------


@pytest.mark.fault(1)
def test_missing_program_says_every_place_that_was_looked_at(write: Write, tmp_path: Path) -> None:
    file = write("file")
    with pytest.raises(BinaryNotFoundError) as caught:
        find_binary("no-such-tool", [tmp_path], path=f"/usr/bin:{tmp_path}:{file}")
    searched = caught.value.searched
    assert f"{tmp_path}/no-such-tool" == searched[0]
    assert ("/usr/bin/no-such-tool", f"{file}/no-such-tool") == searched[-2:]
    assert len(set(searched)) == len(searched)
    assert "Looked at:\n  " + "\n  ".join(searched) in str(caught.value)


@pytest.mark.parametrize("name", ["", "to\0ol", "/bin/\0", 7, None, b"tool"])
def test_name_that_can_be_no_program_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_binary(name)
    assert "binary_name" == caught.value.field


@pytest.mark.parametrize("search_path", ["/usr/bin", b"/bin", 7, [""], ["a\0"], [b"/bin"], [7]])
def test_search_path_that_is_no_list_of_directories_is_refused(search_path: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        find_binary("tool", search_path)
    assert "search_path" == caught.value.field
