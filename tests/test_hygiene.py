"""What a test leaves behind is found, ended and reported."""

import os

import pytest

from tests.pytests import Run, run_pytest

__all__ = ("run_pytest",)

# What a test leaves, and what it is told then.
LEAKS = {
    "subprocess.Popen(['sleep', '601'])": "process * (sleep 601)",
    "os.system('setsid sleep 602 &')": "process * (sleep 602)",
    "os.posix_spawn('/bin/true', ['true'], os.environ)": "zombie child *",
    "subprocess.Popen(['sleep', '603'], env={})": "process * (sleep 603)",
    "kept.append(os.pipe())": "descriptor * (pipe:*",
    "kept.append(os.pidfd_open(os.getpid()))": "descriptor * (*pidfd*",
    "kept.append(os.open(__file__, os.O_RDONLY))": "descriptor * (*.py)",
    "kept.append(socket.create_server(('127.0.0.1', 0)))": "descriptor * listening on TCP port *",
    "threading.Thread(target=threading.Event().wait, daemon=True).start()": "thread *",
}


@pytest.mark.fault(97)
def test_a_leak_of_any_kind_fails_its_own_test_and_no_other(run_pytest: Run) -> None:
    source = f"""
        import os, socket, subprocess, threading
        import pytest

        subprocess.Popen.__del__ = lambda self: None  # its warning would come before our finding
        kept = []

        @pytest.mark.parametrize("leak", {list(LEAKS)!r})
        def test_that_leaks(leak):
            exec(leak)

        def test_after_them():
            pass
    """
    done = run_pytest(source, "-o", "hygiene_grace=0.4")
    done.assert_outcomes(passed=len(LEAKS) + 1, errors=len(LEAKS))
    done.stdout.fnmatch_lines([f"  *{said}*" for said in LEAKS.values()])


@pytest.mark.fault(97, 98)
def test_what_is_gone_in_a_moment_is_no_leak(run_pytest: Run) -> None:
    source = """
        import os, subprocess

        def test_that_leaves_a_short_lived_stray():
            os.system("setsid sleep 0.2 &")

        def test_that_leaves_an_orphaned_zombie_to_the_system():
            # The parent does not wait for its child: a marked zombie that is not ours.
            os.system("setsid sh -c 'true & exec sleep 0.2' &")
    """
    run_pytest(source).assert_outcomes(passed=2)


@pytest.mark.fault(98)
def test_a_bystander_with_the_same_command_line_lives(run_pytest: Run) -> None:
    source = """
        import subprocess
        import pytest

        @pytest.fixture(scope="module")
        def bystander():
            process = subprocess.Popen(["sleep", "600"])
            yield process
            process.kill()
            process.wait()

        def test_that_leaks(bystander):
            subprocess.Popen(["sleep", "600"], start_new_session=True)

        def test_the_bystander(bystander):
            assert bystander.poll() is None
    """
    done = run_pytest(source, "-W", "ignore", "-o", "hygiene_grace=0.4")
    done.assert_outcomes(passed=2, errors=1)


HAS_A_PROCESS = """
    import socket, subprocess

    def test_that_has_much_while_another_test_ends():
        with (
            socket.create_server(("127.0.0.1", 0)),
            open("up", "w") as up,
            subprocess.Popen(["sleep", "600"]) as process,
        ):
            up.close()
            open("over").close()
            assert process.poll() is None
            process.kill()
"""

ENDS_MEANWHILE = """
    def test_that_ends():
        open("up").close()

    def test_after_it():
        open("over", "w").close()
"""


def test_what_another_workers_test_has_is_no_leak_of_this_one(
    run_pytest: Run, pytester: pytest.Pytester
) -> None:
    # Each waits at a fifo until the other has opened it, too.
    for name in ("up", "over"):
        os.mkfifo(pytester.path / name)
    pytester.makepyfile(test_other=HAS_A_PROCESS)
    done = run_pytest(ENDS_MEANWHILE, "-n", "2", "--dist", "loadfile")
    done.assert_outcomes(passed=3)


KEPT = """
    import os, subprocess

    KEPT = dict(os.environ)

    def test_that_leaks():
        subprocess.run(["sh", "-c", "setsid sleep 604 &"], env=KEPT, check=True)

    def test_after_it():
        pass
"""


@pytest.mark.fault(97)
def test_what_has_an_environment_from_before_the_test_is_found(run_pytest: Run) -> None:
    done = run_pytest(KEPT, "-o", "hygiene_grace=0.4")
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(["*of test_that_leaks *", "*by the test:", "  *(sleep 604)*"])


FILES_OWN = """
    import subprocess
    import pytest

    @pytest.fixture(scope="module")
    def server():
        program = ["sh", "-c", "read line; sleep 605 & echo up; wait"]
        with subprocess.Popen(program, stdin=-1, stdout=-1) as process:
            yield process
            process.kill()

    def test_that_has_the_server_start_something(server):
        server.stdin.write(b"go\\n")
        server.stdin.flush()
        assert b"up\\n" == server.stdout.readline()

    def test_after_it(server):
        pass
"""


@pytest.mark.fault(97, 98)
def test_what_a_server_of_the_file_starts_is_no_leak_of_a_test_but_of_the_file(
    run_pytest: Run,
) -> None:
    done = run_pytest(FILES_OWN, "-o", "hygiene_grace=0.4")
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(["*of test_after_it *", "*by the file:", "  *(sleep 605)*"])


OVER_SSH = """
    import pytest, trio
    from {module} import {name}
    from trio_lifecycle._ssh._machine import machine
    from trio_lifecycle._ssh._target import SSHTarget

    @pytest.fixture(scope="module")
    def target():
        with {name}() as server:
            yield server.target() if server else SSHTarget(host="gpu-2")

    # It leaves its session, its parent and its input, as a daemon that is to stay.
    LEAK = b"setsid sleep 606 </dev/null >/dev/null 2>&1 & exit\\n"

    async def leak(target):
        session = await machine(target).open_session()
        await session.send(LEAK)
        await session.wait_end()
        await (await machine(target).transport()).close()

    async def look(target):
        assert "/" == (await machine(target).facts()).home[:1]

    def test_before(target):
        trio.run(look, target)

    def test_that_leaks(target):
        trio.run(leak, target)

    def test_after(target):
        pass
"""


@pytest.mark.fault(97)
@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param("tests.sshd", "running_sshd", marks=pytest.mark.needs("sshd")),
        ("tests.ssh_server", "running_server"),
    ],
)
def test_what_is_left_behind_on_another_machine_is_found(
    run_pytest: Run, module: str, name: str
) -> None:
    source = OVER_SSH.format(module=module, name=name)
    done = run_pytest(source, "-o", "hygiene_grace=0.4", "-W", "ignore")
    done.assert_outcomes(passed=3, errors=1)
    done.stdout.fnmatch_lines(["*of test_that_leaks *", "*by the test:", "  *(sleep 606)*"])


def test_each_test_has_a_word_of_its_own_in_the_environment() -> None:
    assert os.environ["TRIO_LIFECYCLE_TEST"]
