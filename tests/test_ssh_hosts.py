"""Daemons on machines that are not as the good case has them."""

import shutil
from pathlib import Path

import pytest
import trio

from tests.odd_hosts import (
    MOUNTABLE,
    USUAL_PATH,
    OddHost,
    file_systems,
    odd_host,
    odd_server,
    run_all,
    run_detached,
    run_owned,
    usual_pythons,
)
from tests.sshd import plain_user
from trio_lifecycle import (
    ConfigError,
    GuaranteeError,
    NewlineOnFD,
    Notify,
    SpawnError,
    SSHConnectError,
)

__all__ = ["odd_host", "odd_server"]

pytestmark = pytest.mark.needs("sshd")

NOISE = 'echo out; echo err >&2; printf "no end"; echo " " >&2'

SHELLS = {
    "dash": "",
    "bash": ".bashrc",
    "zsh": ".zshenv",
    "fish": ".config/fish/config.fish",
    "tcsh": ".cshrc",
}


@pytest.mark.fault(75, 76)
@pytest.mark.parametrize(
    "shell", [pytest.param(name, marks=pytest.mark.needs(name)) for name in SHELLS]
)
async def test_any_login_shell_that_is_noisy_and_slow_will_do(
    odd_host: OddHost, tmp_path: Path, shell: str
) -> None:
    if SHELLS[shell]:
        noise = NOISE if shell != "tcsh" else "echo out; sh -c 'echo err >&2; printf end'"
        odd_host.write(SHELLS[shell], f"{noise}\nsleep 0.1\ntouch $HOME/read\n")
    odd_host.become(shell)
    await run_all(odd_host, tmp_path)
    assert bool(SHELLS[shell]) == (odd_host.home / "read").exists()


TOOLS = ("cat", "kill", "ls", "awk", "readlink", "mkdir", "sleep", "read", "printf", "wait", "test")
FUNCTIONS = "; ".join(f"{name}() {{ echo wrong; }}; export -f {name}" for name in TOOLS)
OPTIONS = "export SHELLOPTS BASHOPTS; shopt -s nullglob; set -aeuf -o xtrace -o noclobber"
VARIABLES = """\
export CDPATH=/tmp:/usr PS4='$(echo x)' IFS=x BASH_ENV=/etc/passwd ENV=/x LS_COLORS=x
export LANG=de_DE.UTF-8 LC_CTYPE=POSIX LANGUAGE=de POSIXLY_CORRECT=1 GREP_OPTIONS=--color=always
export XDG_STATE_HOME=relative
"""


@pytest.mark.fault(75, 76)
@pytest.mark.parametrize(
    ("sh", "change"),
    [
        ("bash", FUNCTIONS),
        ("bash", OPTIONS),
        ("bash", f"{VARIABLES}umask 777"),
        ("dash", f"{VARIABLES}umask 000"),
        ("busybox", f"{FUNCTIONS}; {VARIABLES}{OPTIONS}"),
    ],
    ids=["functions", "options", "umask 777", "umask 000", "all"],
)
async def test_what_a_login_changes_of_its_shell_does_no_harm(
    odd_host: OddHost, tmp_path: Path, sh: str, change: str
) -> None:
    found = shutil.which(sh)
    if found is None:
        pytest.skip(f"{sh} is not installed")
    tools = odd_host.home / "bin"
    tools.mkdir()
    (tools / "sh").symlink_to(found)
    odd_host.write(".bashrc", f"export PATH={tools}:$PATH; {change}\n")
    await run_all(odd_host, tmp_path)


async def test_without_a_home_only_what_stays_asks_for_a_log_file(
    odd_host: OddHost, tmp_path: Path
) -> None:
    odd_host.become("dash", environment={"HOME": None, "USER": None, "SHELL": None})
    await run_owned(odd_host.spawner(guarantee="guarded"), "guarded")
    await run_owned(odd_host.spawner(guarantee="scoped"), "scoped")
    await run_detached(odd_host.spawner(), tmp_path, tmp_path / "log")
    with pytest.raises(SpawnError, match=r"no home directory for its log; .*output\.to"):
        await run_detached(odd_host.spawner(), tmp_path)


async def test_a_path_with_nothing_but_sh_does_no_harm(odd_host: OddHost, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    odd_host.become("/bin/sh", environment={"PATH": f"{tmp_path}"})
    await run_all(odd_host, tmp_path)


async def test_a_path_with_odd_places_does_no_harm(odd_host: OddHost, tmp_path: Path) -> None:
    odd_host.write("unreadable/cat", "", 0o000).parent.chmod(0)
    path = f"{odd_host.home}/unreadable:.::/no/such/place:/etc/passwd:/bin"
    odd_host.become("/bin/sh", environment={"PATH": path})
    await run_all(odd_host, tmp_path)


async def test_tools_that_are_none_are_told_of(odd_host: OddHost) -> None:
    for tool in ("cat", "ls", "awk", "readlink", "sleep", "stat", "id", "grep", "od", "kill"):
        odd_host.write(f"bin/{tool}", "#!/bin/sh\nexit 1\n", 0o755)
    odd_host.become("/bin/sh", environment={"PATH": f"{odd_host.home}/bin:{USUAL_PATH}"})
    with pytest.raises(SSHConnectError, match=r"`id -u` there says '' .* PATH of the login"):
        await run_owned(odd_host.spawner(), "guarded")


async def test_a_path_without_sh_is_told_of(odd_host: OddHost) -> None:
    odd_host.become("/bin/sh", environment={"PATH": "/no/such/place"})
    with pytest.raises(SSHConnectError, match="sh: not found"):
        await run_owned(odd_host.spawner(), "guarded")


@pytest.mark.skipif(not MOUNTABLE, reason="nothing may be mounted")
@pytest.mark.parametrize(
    ("what", "problem"),
    [("full", "No space left on device"), ("ro", "Read-only file system"), ("noexec", None)],
)
async def test_a_disk_that_takes_nothing_is_told_by_its_place(
    odd_host: OddHost, tmp_path: Path, what: str, problem: str | None
) -> None:
    state = odd_host.home / ".local/state/trio-lifecycle/logs"
    fill = f"cat /dev/zero >{odd_host.home}/zeros 2>/dev/null || :"
    mounts = [
        f"mount -t tmpfs -o size=64k,mode=700 none {odd_host.home}",
        f"mkdir -p {state} && chmod -R 700 {odd_host.home}",
        fill if what == "full" else f"mount -o remount,{what} {odd_host.home}",
    ]
    with file_systems(*mounts) as within:
        odd_host.become("dash", within=within, environment={"TMPDIR": str(odd_host.home)})
        await run_owned(odd_host.spawner(guarantee="guarded"), "guarded")
        if problem is None:
            await run_owned(odd_host.spawner(guarantee="scoped"), "scoped")
            await run_detached(odd_host.spawner(), tmp_path)
            return
        if what == "ro":
            await run_owned(odd_host.spawner(guarantee="scoped"), "scoped")
        else:
            with pytest.raises(SpawnError, match=f"{odd_host.home}.*{problem}"):
                await run_owned(odd_host.spawner(guarantee="scoped"), "scoped")
        with pytest.raises(SpawnError, match=f"{odd_host.home}.*{problem}"):
            await run_detached(odd_host.spawner(), tmp_path)


# --- machines that lack something -----------------------------------------------------------------


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    "python",
    [
        "exit 127",
        # What such a version answers to the question for 3.7.
        "exit 0",
        "echo garbage /usr/bin/python3; echo garbage >&2",
        "exec sleep 1000",
    ],
    ids=["absent", "too old", "garbage", "hangs"],
)
@pytest.mark.skipif(not MOUNTABLE, reason="nothing may be mounted")
async def test_without_python_there_a_daemon_is_scoped_and_what_needs_more_is_refused(
    odd_host: OddHost, python: str
) -> None:
    fake = odd_host.write("python3", f"#!/bin/sh\n{python}\n", 0o755)
    with file_systems(*(f"mount --bind {fake} {python}" for python in usual_pythons())) as within:
        odd_host.become("dash", within=within)
        await run_owned(odd_host.spawner(), "scoped")
        with pytest.raises(GuaranteeError, match=r"no python3 of at least 3\.7 that works"):
            await run_owned(odd_host.spawner(guarantee="guarded"), "guarded")
        for mode in (Notify(), NewlineOnFD(3)):
            with pytest.raises(
                (SpawnError, ConfigError, GuaranteeError), match=r"python3|notifications"
            ):
                await run_owned(odd_host.spawner(), "scoped", ready_mode=mode)


@pytest.mark.fault(75)
@pytest.mark.skipif(not MOUNTABLE, reason="nothing may be mounted")
@pytest.mark.parametrize(
    ("lacking", "mount", "error", "problem"),
    [
        ("setsid", "mount --bind /dev/null /usr/bin/setsid", SpawnError, "no setsid"),
        ("/proc", "mount -t tmpfs none /proc", GuaranteeError, "has no /proc"),
    ],
)
async def test_a_machine_that_lacks_what_can_not_be_done_without_is_told_of(
    odd_host: OddHost,
    tmp_path: Path,
    lacking: str,
    mount: str,
    error: type[Exception],
    problem: str,
) -> None:
    with file_systems(mount) as within, trio.fail_after(10):
        odd_host.become("dash", within=within)
        if lacking == "setsid":
            await run_owned(odd_host.spawner(), "guarded")
        else:
            with pytest.raises(error, match=problem):
                await run_owned(odd_host.spawner(), "guarded")
        with pytest.raises(error, match=problem):
            await run_owned(odd_host.spawner(guarantee="scoped"), "scoped")
        with pytest.raises(error, match=problem):
            await run_detached(odd_host.spawner(), tmp_path)


@pytest.mark.skipif(not MOUNTABLE, reason="nothing may be mounted")
async def test_a_machine_that_hides_the_processes_of_others_will_do(
    odd_host: OddHost, tmp_path: Path
) -> None:
    user = plain_user()
    if user is None:
        pytest.skip("there is no ordinary user")
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(0o755)
    odd_host.home.chmod(0o777)
    with file_systems("mount -t proc -o hidepid=2 none /proc") as within:
        become = ("setpriv", "--reuid", user, "--regid", user, "--clear-groups")
        odd_host.become("dash", within=(*within, *become))
        await run_all(odd_host, tmp_path)
