"""What another machine has answered, read: by the answers that real ones give."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trio_lifecycle import ConfigError, DiskSpace, FileExists, FreeMemory, FreeVRAM, LocalSpawner
from trio_lifecycle.abc import Prober
from trio_lifecycle.preflight._elsewhere import Elsewhere, Told, asked_by, parse
from trio_lifecycle.preflight._failure import CheckFailed
from trio_lifecycle.preflight._gpus import GPU
from trio_lifecycle.preflight._gpus_told import gpus_told
from trio_lifecycle.preflight._port_told import describe_holder, find_refusal, look_for

GIB = 2**30
MIB = 2**20


def told(*lines: str) -> Told:
    """An answer with these lines."""
    answer = parse("".join(f"={line}\n" for line in (*lines, "end")).encode())
    assert answer is not None
    return answer


def verdict_of(check: Any, *lines: str) -> str | None:
    """What a check says to an answer; None when it passes."""
    elsewhere = check.at(LocalSpawner().open_prober())
    assert isinstance(elsewhere, Elsewhere)
    return said_by(lambda: elsewhere.judge(told(*lines)))


def said_by(judge: Callable[[], object]) -> str | None:
    """What is said by what fails."""
    try:
        judge()
    except CheckFailed as failure:
        return str(failure)
    return None


# --- the answer -----------------------------------------------------------------------------------


def test_what_a_login_or_a_tool_prints_besides_is_no_answer() -> None:
    output = b"Welcome!\n=host gpu-2\nls: cannot access\n=place /a b\n=place /c\n=end\n"
    answer = parse(output)
    assert answer is not None
    assert ("gpu-2", "/a b") == (answer.host, answer.get("place"))
    assert ["/a b", "/c"] == answer.every("place")
    assert answer.get("df") is None


@pytest.mark.parametrize("output", [b"", b"sh: not found\n", b"=host a\n", b"=end of\n=host a\n"])
def test_what_was_cut_short_is_no_answer(output: bytes) -> None:
    assert parse(output) is None


def test_bytes_that_are_no_text_are_kept() -> None:
    answer = parse(b"=place /\xff\n=end\n")
    assert answer is not None
    assert Path("/\udcff") == Path(answer.get("place") or "")


def test_a_prober_that_can_run_nothing_is_told_by_its_name() -> None:
    prober = LocalSpawner().open_prober()

    def ask() -> None:
        with asked_by(prober, "whether it is there"):
            raise ConfigError("ready_mode", "can't")

    assert (
        "whether it is there could not be asked where the daemon will run: "
        "LocalProber can't ask for that"
    ) == said_by(ask)


def test_a_prober_is_here_unless_it_says_otherwise() -> None:
    prober: Prober = LocalSpawner().open_prober()
    assert prober.is_here


# --- files and disks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["kind file", "size 3"], None),
        (["kind file", "size 2"], "/m has 2 bytes, and should have 3 at least"),
        (["kind directory"], "/m is a directory"),
        (["kind other"], "/m is no regular file"),
        (["kind absent", "parent /", "nearest /"], "/m is missing: put it there"),
        (["kind absent", "parent /a", "nearest /"], "of its path there is only /"),
        (["kind absent", "link /n"], "/m is a link to /n, which is missing"),
        (["uid 7", "problem Permission denied"], "/m may not be read by user 7"),
        (["problem Stale file handle"], "/m can't be read: Stale file handle"),
        ([], "/m can't be read: no reason is given"),
    ],
)
def test_a_file_is_judged_by_what_was_found(lines: list[str], said: str | None) -> None:
    verdict = verdict_of(FileExists("/m", min_bytes=3), *lines)
    assert said is None if verdict is None else said and said in verdict


@pytest.mark.parametrize(
    "row",
    [
        "/dev/vda         264212084 35687260  2097152      34% /",
        "my server:/a b/c   264212084 35687260  2097152      34% /mnt/with 5 6 7 8% blanks",
        "overlay  1 2 2097152 100% /",
        "odd  - - 2097152 - /proc/x",
    ],
)
def test_what_df_calls_available_counts(row: str) -> None:
    assert verdict_of(DiskSpace("/a", gib=2), "place /", f"df {row}") is None
    verdict = verdict_of(DiskSpace("/a", gib=2.1), "place /", f"df {row}")
    assert verdict is not None
    assert verdict.startswith("the file system of / has 2.00 GiB free, and 2.10 GiB are needed")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["problem Permission denied"], "Permission denied"),
        (["place /", "df autofs - - - - /net"], "df does not say"),
        (["place /"], "df does not say"),
    ],
)
def test_a_disk_that_can_not_be_told_fails(lines: list[str], why: str) -> None:
    verdict = verdict_of(DiskSpace("/a", gib=1), *lines)
    assert f"how much is free at /a can't be told: {why}" == verdict


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"available {4 * 2**20}"], None),
        ([f"available {2 * 2**20}"], "the machine has 2.00 GiB of memory"),
        (
            [f"available {4 * 2**20}", f"group {3 * GIB} max {GIB} 0 /cg/a b"],
            "the limit of /cg/a b leaves 2.00 GiB of memory, and 3.00 GiB are needed: raise its",
        ),
        ([f"available {4 * 2**20}", f"group max {4 * GIB} {2 * GIB} {GIB} /cg/a"], None),
        ([], "how much memory is free can't be told"),
    ],
)
def test_memory_is_what_the_tightest_leaves(lines: list[str], said: str | None) -> None:
    verdict = verdict_of(FreeMemory(3), *lines)
    assert said is None if verdict is None else said and verdict.startswith(said)


# --- ports ----------------------------------------------------------------------------------------

USUAL = ("capabilities 0000000000000000", "unprivileged 1024", "address known")
V4, V4_ANY, V4_OTHER = "4 0100007F", "4 00000000", "4 0200007F"
V6, V6_ANY = "6 00000000000000000000000001000000", "6 00000000000000000000000000000000"
MAPPED = "6 0000000000000000FFFF00000100007F"


@pytest.mark.parametrize(
    ("address", "in_the_way"),
    [
        ("127.0.0.1", {V4, V4_ANY, V6_ANY, MAPPED}),
        ("0.0.0.0", {V4, V4_ANY, V4_OTHER, V6_ANY, MAPPED}),
        ("::1", {V6, V6_ANY}),
        ("::", {V4, V4_ANY, V4_OTHER, V6, V6_ANY, MAPPED}),
    ],
)
def test_who_listens_at_the_address_or_everywhere_is_in_the_way(
    address: str, in_the_way: set[str]
) -> None:
    own = "address 00000000000000000000000000000001"
    for listener in (V4, V4_ANY, V4_OTHER, V6, V6_ANY, MAPPED):
        answer = told(*USUAL, own, f"listener {listener} 7", "command 7 redis-server *:80 ")
        expected = errno.EADDRINUSE if listener in in_the_way else 0
        assert expected == find_refusal(answer, address, 8080)
        if expected:
            assert "process 7 (redis-server *:80)" == describe_holder(answer, address)


def test_a_holder_that_is_not_seen_is_no_mystery() -> None:
    answer = told(*USUAL, f"listener {V4} 0")
    assert "a process that can't be seen from here" == describe_holder(answer, "127.0.0.1")
    assert "process 7 ()" == describe_holder(told(*USUAL, f"listener {V4} 7"), "127.0.0.1")
    odd = "é\x07" + "x" * 300
    shown = describe_holder(told(f"listener {V4} 7", f"command 7 {odd}"), "127.0.0.1")
    assert f"process 7 (é?{'x' * 195}...)" == shown


@pytest.mark.parametrize(
    ("address", "lines", "number"),
    [
        ("10.0.0.1", ["address known", "address 10.0.0.1"], 0),
        ("10.0.0.1", ["address known"], errno.EADDRNOTAVAIL),
        # Where the tables can't be read nothing is known of it.
        ("10.0.0.1", [], 0),
        ("127.8.8.8", ["address known"], 0),
        ("0.0.0.0", ["address known"], 0),
        ("::", ["address known"], errno.EADDRNOTAVAIL),
        ("::1", ["address 00000000000000000000000000000001"], 0),
        ("fe80::1", ["address 00000000000000000000000000000001"], errno.EADDRNOTAVAIL),
    ],
)
def test_only_what_is_an_address_of_the_machine_can_be_had(
    address: str, lines: list[str], number: int
) -> None:
    assert number == find_refusal(told(*lines), address, 8080)


@pytest.mark.parametrize(
    ("capabilities", "lowest", "number"),
    [
        ("0000000000000000", "1024", errno.EACCES),
        ("0000000000000400", "1024", 0),
        ("000001ffffffffff", "1024", 0),
        ("0000000000000000", "80", 0),
    ],
)
def test_low_ports_are_for_those_who_may(capabilities: str, lowest: str, number: int) -> None:
    answer = told(f"capabilities {capabilities}", f"unprivileged {lowest}")
    assert number == find_refusal(answer, "127.0.0.1", 80)


def test_the_question_has_addresses_as_the_tables_do() -> None:
    assert ("port", "0050", "127.0.0.1", "0" * 31 + "1") == look_for(80, ("127.0.0.1", "::1"))
    assert ("port", "1F90", "0" * 31 + "1") == look_for(8080, ("::",))


# --- GPUs -----------------------------------------------------------------------------------------

H100 = "gpu 0, GPU-a, NVIDIA H100 80GB HBM3, 80995, 81559"
MIG_IS_NOT_TOLD = (
    "what is free of MIG-a can't be told: nvidia-smi gives that of whole GPUs only; "
    "name the GPU, or use a check of your own"
)
SHARED = "gpu 1, GPU-b, NVIDIA GB10, [N/A], [N/A]"


def test_gpus_are_read_in_mib() -> None:
    expected = GPU("GPU 0 (NVIDIA H100 80GB HBM3)", 80995 * MIB, 81559 * MIB)
    assert [expected] == gpus_told(told("status 0", H100), None)
    assert [expected] == gpus_told(told("status 0", H100, SHARED), None)
    assert [expected] == gpus_told(told("status 0", SHARED, H100), 0)
    (by_uuid,) = gpus_told(told("status 0", H100), "GPU-a")
    assert "GPU GPU-a (NVIDIA H100 80GB HBM3)" == by_uuid.name


def test_a_gpu_that_is_lost_leaves_the_others() -> None:
    lost = (
        "gpu Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU"
    )
    assert 1 == len(gpus_told(told("status 15", H100, lost), None))


@pytest.mark.parametrize(
    ("lines", "device", "said"),
    [
        (
            ["missing nvidia-smi"],
            None,
            "no GPU: the NVIDIA driver is not installed here: there is no nvidia-smi",
        ),
        (
            [
                "status 9",
                "gpu NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
            ],
            None,
            "no GPU: the NVIDIA driver is not loaded",
        ),
        (["status 4"], None, "no GPU: this user may not use the NVIDIA driver"),
        (
            ["status 12", "gpu NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."],
            None,
            "no GPU: the NVIDIA driver is not installed here",
        ),
        (
            ["status 0", "gpu No devices were found"],
            None,
            "no GPU: the NVIDIA driver is there, and sees none",
        ),
        (
            [
                "status 18",
                "gpu Failed to initialize NVML:",
                "gpu  mismatch",
            ],
            None,
            "no GPU: nvidia-smi ended with 18 and said: Failed to initialize NVML: mismatch",
        ),
        (
            ["status 0", SHARED],
            None,
            "GPU 1 can't be asked: nvidia-smi gives [N/A] for memory",
        ),
        (["status 0", H100], 2, "no GPU 2: this machine has 1; nvidia-smi -L lists them"),
        (["status 0", H100], "GPU-c", "no GPU GPU-c: this machine has 1; nvidia-smi -L lists them"),
        (
            ["status 0", H100],
            "MIG-a",
            MIG_IS_NOT_TOLD,
        ),
    ],
)
def test_what_is_no_gpu_says_why(lines: list[str], device: int | str | None, said: str) -> None:
    assert said == verdict_of(FreeVRAM(1, device), *lines)
