"""A daemon's user and group: whom it runs as, and what is said when it may not."""

import errno
import grp
import os
import pwd
from pathlib import Path

import pytest

from tests.stepping import DAEMON, look, only_root, python_for_all, refused, start, unknown
from tests.support import UNMEASURED, permitted, request, run_app
from trio_lifecycle.spawner._identity import identity_of

ordinary = pytest.mark.skipif(os.getuid() == 0, reason="root may do all that is refused here")

OTHER_GROUP = grp.getgrnam("sys")
# Nobody has this one, and no group does.
NO_ID = 54_321_987


@only_root
@pytest.mark.parametrize("user", [DAEMON.pw_name, DAEMON.pw_uid])
async def test_a_user_comes_with_his_groups_and_his_home(user: str | int) -> None:
    found = await look(user=user, env={"HOME": "/root", "USER": "root"})
    assert [DAEMON.pw_uid] * 3 == found["uids"]
    assert [DAEMON.pw_gid] * 3 == found["gids"]
    assert sorted(set(os.getgrouplist(DAEMON.pw_name, DAEMON.pw_gid))) == found["groups"]
    names = (found["env"]["HOME"], found["env"]["USER"], found["env"]["LOGNAME"])
    assert (DAEMON.pw_dir, "daemon", "daemon") == names


@only_root
async def test_the_command_id_agrees() -> None:
    assert "daemon\n" == await start(request("/usr/bin/id", "-un", user="daemon"))


@only_root
@pytest.mark.parametrize("group", [OTHER_GROUP.gr_name, OTHER_GROUP.gr_gid])
async def test_a_group_beside_a_user_is_his_main_one(group: str | int) -> None:
    found = await look(user="daemon", group=group)
    assert [DAEMON.pw_uid] * 3 == found["uids"]
    assert [OTHER_GROUP.gr_gid] * 3 == found["gids"]
    assert sorted({DAEMON.pw_gid, OTHER_GROUP.gr_gid}) == found["groups"]


@only_root
async def test_a_group_without_a_user_is_the_only_group() -> None:
    found = await look(group="sys")
    assert list(os.getresuid()) == found["uids"]
    assert [OTHER_GROUP.gr_gid] * 3 == found["gids"]
    assert [OTHER_GROUP.gr_gid] == found["groups"]


@only_root
async def test_an_id_that_nobody_has_gets_no_variables_of_somebody_else() -> None:
    env = {"HOME": "/root", "USER": "root", "LOGNAME": "root"}
    found = await look(user=NO_ID, group=NO_ID, env=env)
    assert ([NO_ID] * 3, [NO_ID] * 3) == (found["uids"], found["gids"])
    assert [NO_ID] == found["groups"]
    assert not set(env) & set(found["env"])


@only_root
async def test_an_id_that_nobody_has_keeps_the_group_of_this_program() -> None:
    found = await look(user=NO_ID)
    assert [NO_ID] * 3 == found["uids"]
    assert list(os.getresgid()) == found["gids"]
    assert [os.getgid()] == found["groups"]


async def test_who_asks_for_himself_keeps_his_groups() -> None:
    myself = pwd.getpwuid(os.getuid())
    found = await look(user=myself.pw_name, env={})
    assert sorted(os.getgroups()) == found["groups"]
    assert myself.pw_dir == found["env"]["HOME"]


RAISED = """
import resource
from tests.stepping import look

async def main():
    found = await look(user="daemon", limits={"nofile": (700, 700)})
    print(found["nofile"], found["uids"])

resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
trio.run(main)
"""


@only_root
def test_root_raises_a_limit_before_it_becomes_another_user() -> None:
    if not permitted("sh", "-c", "ulimit -Hn 500 && ulimit -Hn 700"):
        pytest.skip("root has no right to raise limits here (CAP_SYS_RESOURCE)")
    assert [f"[700, 700] {[DAEMON.pw_uid] * 3}"] == run_app(RAISED)


def test_a_user_or_group_that_is_not_known_here_is_said_before_a_start() -> None:
    assert "there is no user 'no-such-bee' on this machine" == unknown(user="no-such-bee").problem
    assert "there is no group 'no-such' on this machine" == unknown(group="no-such").problem
    assert (None, False) == (unknown(user="no-such-bee").errno, unknown(user="x-y").retryable)


@only_root
async def test_a_program_that_the_user_may_not_run_is_eacces(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    error = await refused(request(str(script), user="daemon"))
    assert (f"{script}: Permission denied", errno.EACCES) == (error.problem, error.errno)


AS_ANOTHER = """
import resource
from tests.stepping import DAEMON, refused, start

async def main():
    for given in (
        {"user": "sys"}, {"user": "sys", "group": "sys"}, {"group": "sys"},
        {"limits": {"nofile": (5, 1000)}},
    ):
        error = await refused(request("/bin/true", **given))
        print(error.errno, error.retryable, error.problem)
    print(await start(request("/bin/echo", "is himself", user="daemon")))

resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
os.setgroups([])
os.setgid(DAEMON.pw_gid)
os.setuid(DAEMON.pw_uid)
sys.executable = sys.argv[1]
trio.run(main)
"""


@only_root
def test_an_ordinary_user_is_refused_what_only_root_may() -> None:
    only, pair = "Operation not permitted; only root may", "5 (soft) and 1000 (hard)"
    assert [
        f"1 False it may not become user 'sys': {only}",
        f"1 False it may not take the group 'sys': {only}",
        f"1 False it may not take the group 'sys': {only}",
        f"1 False its limit nofile can't be set to {pair}: {only} raise a hard limit",
        "is himself",
        "",
    ] == run_app(AS_ANOTHER, python_for_all(), env=UNMEASURED)


@ordinary
async def test_an_ordinary_user_may_not_become_root() -> None:
    error = await refused(request("/bin/true", user="root"))
    assert "it may not become user 'root': Operation not permitted; only root may" == error.problem


def test_who_is_somebody_else_is_told_apart_by_all_three_of_his_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getresuid", lambda: (1, 0, 1))
    monkeypatch.setattr(os, "getresgid", lambda: (DAEMON.pw_gid,) * 3)
    assert DAEMON.pw_uid == identity_of(request("/bin/true", user="daemon")).uid
