"""Control groups: where they may be made, and that nothing gets out of them."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import PATIENCE_S, QUICK_PYTHON, lives
from trio_lifecycle import _hierarchy
from trio_lifecycle._hierarchy import Mount, group_in, mounts_in
from trio_lifecycle.spawner._cgroup import Cgroup, CgroupUnavailable, find_parent

# --- what the kernel writes -----------------------------------------------------------------------

HYBRID = """\
31 28 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:39 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
"""
SYSTEMD = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER = r"99 98 0:26 /docker/4\0401 /a\040b\134c ro,nosuid - cgroup2 cgroup rw" + "\n"


def test_mounts_are_those_of_version_2() -> None:
    assert [Mount("/", Path("/sys/fs/cgroup/unified"))] == mounts_in(HYBRID)
    assert [Mount("/", Path("/sys/fs/cgroup"))] == mounts_in(SYSTEMD)
    assert [] == mounts_in("")
    assert [] == mounts_in("30 23 0:26 / /cgroup2 rw - tmpfs cgroup2 rw\n")


def test_mounts_may_have_spaces_and_a_root_of_their_own() -> None:
    assert [Mount("/docker/4 1", Path("/a b\\c"))] == mounts_in(CONTAINER)


def test_group_is_that_of_version_2() -> None:
    assert "/" == group_in("9:name=systemd:/a\n4:memory:/b\n0::/\n")
    assert "/user.slice/x::y.scope" == group_in("0::/user.slice/x::y.scope\n")
    assert None is group_in("9:name=systemd:/a\n")
    assert None is group_in("")


DIRECTORIES = [
    ("/", "/", "/m"),
    ("/", "/user.slice/a.scope", "/m/user.slice/a.scope"),
    ("/docker/1", "/docker/1", "/m"),
    ("/docker/1", "/docker/1/a", "/m/a"),
    ("/docker/1", "/docker/11", None),
    ("/docker/1", "/docker", None),
    ("/docker/1", "/", None),
    # What a cgroup namespace says of a group that lies outside of it: cgroup_namespaces(7).
    ("/", "/../other", None),
    ("/..", "/../other", None),
]


@pytest.mark.parametrize(("root", "group", "directory"), DIRECTORIES)
def test_directory_of_a_group_is_below_what_the_mount_shows(
    root: str, group: str, directory: str | None
) -> None:
    expected = None if directory is None else Path(directory)
    assert expected == Mount(root, Path("/m")).directory_of(group)


# --- where there is none --------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy that is only files, with this program in the group /own."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "cgroup.procs").touch()
    texts = {
        "mountinfo": f"30 23 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n".encode(),
        "cgroup": b"0::/own\n",
    }
    monkeypatch.setattr(_hierarchy, "read_about", lambda _pid, name: texts.get(name))
    return own


def fill_new_groups(monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """Have every new directory filled, as the kernel does; and emptied again."""
    mkdir, rmdir = Path.mkdir, Path.rmdir

    def make(path: Path) -> None:
        mkdir(path)
        for name, content in files.items():
            (path / f"cgroup.{name}").write_text(content)

    def remove(path: Path) -> None:
        for name in files:
            (path / f"cgroup.{name}").unlink()
        rmdir(path)

    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(Path, "rmdir", remove)


def reason() -> str:
    with pytest.raises(CgroupUnavailable) as refusal:
        find_parent()
    assert str(refusal.value) == refusal.value.reason
    return refusal.value.reason


def test_parent_is_our_own_group(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_new_groups(monkeypatch, kill="", procs="", type="domain\n")
    assert machine == find_parent()
    assert ["cgroup.procs"] == [file.name for file in machine.iterdir()]


def test_old_kernel_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_new_groups(monkeypatch, procs="", type="domain\n")
    assert f"groups in {machine} have no cgroup.kill: the kernel is older than 5.14" == reason()
    assert ["cgroup.procs"] == [file.name for file in machine.iterdir()]


def test_threaded_group_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_new_groups(monkeypatch, kill="", procs="", type="domain invalid\n")
    assert "are threaded (domain invalid); start this program in another one" in reason()


def test_what_is_not_writable_is_named_with_the_cure(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_new_groups(monkeypatch, kill="", procs="", type="domain\n")
    forbidden = machine / "cgroup.procs"
    monkeypatch.setattr(os, "access", lambda file, _mode: file != forbidden)
    cure = "run below: systemd-run --user --scope -p Delegate=yes"
    assert f"{forbidden} is not writable; {cure}" == reason()


ERRORS = {
    "EACCES": "; run below: systemd-run --user --scope -p Delegate=yes",
    "EROFS": " is mounted read-only; mount the cgroup hierarchy writable",
    "EAGAIN": " (cgroup.max.descendants or .depth)",
    "ENOSPC": ": No space left on device",
}


@pytest.mark.parametrize("name", ERRORS)
def test_group_that_can_not_be_made_is_named(
    name: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def refuse(_path: Path) -> None:
        number = getattr(errno, name)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    said = reason()
    assert str(machine) in said
    assert said.endswith(ERRORS[name])
    with pytest.raises(CgroupUnavailable, match=str(machine)):
        Cgroup.make(machine, "x")


def test_machine_without_a_hierarchy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hierarchy, "read_about", lambda _pid, _name: None)
    assert "no cgroup v2 hierarchy is mounted" == reason()


def test_group_out_of_sight_is_named(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        "mountinfo": f"30 23 0:26 /docker {tmp_path} rw - cgroup2 cgroup2 rw\n".encode(),
        "cgroup": b"0::/own\n",
    }
    monkeypatch.setattr(_hierarchy, "read_about", lambda _pid, name: texts.get(name))
    assert f"our group /own is not to be seen at {tmp_path}" == reason()


# --- real groups ----------------------------------------------------------------------------------

HOPPER = """if 1:
    import os, time
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()
        time.sleep(0.002)
"""


@pytest.fixture
def parent() -> Path:
    """Where groups may be made."""
    try:
        return find_parent()
    except CgroupUnavailable as refusal:
        pytest.skip(f"needs a cgroup v2 hierarchy: {refusal.reason}")


@pytest.fixture
def group(parent: Path) -> Iterator[Cgroup]:
    """A group; what is left in it is killed when the test is over."""
    made = Cgroup.make(parent, f"test-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        yield made
    finally:
        made.kill()
        wait_until_empty(made)
        assert made.remove()


def wait_until_empty(group: Cgroup) -> None:
    with suppress(FileNotFoundError), (group.path / "cgroup.events").open() as events:
        news = select.poll()
        news.register(events, select.POLLPRI)
        while "populated 1" in events.read():
            assert news.poll(PATIENCE_S * 1000)
            events.seek(0)


def start_in(group: Cgroup, *command: str) -> "subprocess.Popen[str]":
    """Start a program that is in the group before its first instruction."""
    script = 'echo 0 > "$1"; shift; exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", group.procs_file, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def echo(cat: "subprocess.Popen[str]") -> None:
    """Wait until it has become ``cat``, and so is in its group."""
    assert cat.stdin is not None
    assert cat.stdout is not None
    cat.stdin.write("here\n")
    cat.stdin.flush()
    assert "here\n" == cat.stdout.readline()


def test_parent_is_left_as_it_was(parent: Path) -> None:
    before = {path.name for path in parent.iterdir() if path.name.startswith("trio-lifecycle-")}
    assert parent == find_parent()
    after = {path.name for path in parent.iterdir() if path.name.startswith("trio-lifecycle-probe")}
    assert after <= before


def test_new_group_is_empty_and_named_after_the_instance(group: Cgroup) -> None:
    assert group.path.name.startswith(f"trio-lifecycle-test-{os.getpid()}-")
    assert not group.populated
    assert [] == group.pids()
    with pytest.raises(CgroupUnavailable, match="File exists"):
        Cgroup.make(group.path.parent, group.path.name.removeprefix("trio-lifecycle-"))


def test_members_are_listed_and_killed_also_those_below(group: Cgroup) -> None:
    below = Cgroup(group.path / "of_the_daemon")
    below.path.mkdir()
    with start_in(group, "cat") as upper, start_in(below, "cat") as lower:
        echo(upper)
        echo(lower)
        assert [upper.pid, lower.pid] == group.pids()
        assert [lower.pid] == below.pids()
        assert group.populated
        assert not group.remove()
        group.kill()
    assert [-9, -9] == [upper.returncode, lower.returncode]
    wait_until_empty(group)
    assert not group.populated


def test_what_forks_and_leaves_its_session_all_the_time_is_killed(group: Cgroup) -> None:
    with start_in(group, sys.executable, *QUICK_PYTHON, HOPPER) as hopper:
        hopper.wait()
        assert group.populated
        group.kill()
        wait_until_empty(group)
    assert [] == group.pids()


def test_zombie_does_not_keep_a_group(group: Cgroup) -> None:
    with start_in(group, "cat") as process:
        echo(process)
        group.kill()
        wait_until_empty(group)
        assert not lives(process.pid)
        assert group.remove()


def test_group_that_is_gone_is_empty_and_can_be_removed_again(group: Cgroup) -> None:
    assert group.remove()
    assert group.remove()
    assert not group.populated
    assert [] == group.pids()
    group.kill()
