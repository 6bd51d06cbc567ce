"""The check of a GPU's memory against what nvidia-smi says, on a machine with a GPU.

It needs no more than trio, attrs, httpx and nvidia-ml-py beside pytest, so that it can be run
where little is installed:

    PYTHONPATH=. python -m pytest -c /dev/null --rootdir=. --noconftest tests/test_vram_real.py
"""

import csv
import os
import shutil
import subprocess
import sys

import pytest
import trio

from trio_lifecycle import DaemonLifecycle, FreeVRAM, LifecycleConfig, Manual, PreflightError
from trio_lifecycle.preflight._failure import CheckFailed

# Not the marker `needs`: that one is never to be skipped where CI installs what it names.
pytestmark = pytest.mark.skipif(
    shutil.which("nvidia-smi") is None, reason="needs nvidia-smi, which is not installed"
)

# nvidia-smi itself, and what other programs do between two looks, in MiB.
SLACK_MIB = 64

# How much of a GPU the daemon takes, in GiB, beside some 500 MiB for its context.
TAKEN_GIB = 2

# A daemon that takes memory of GPU 0: cuMemAlloc of the CUDA driver API, by the driver's library.
TAKES_MEMORY = f"""
import ctypes, time
cuda = ctypes.CDLL("libcuda.so.1")
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
assert 0 == cuda.cuInit(0)
assert 0 == cuda.cuDeviceGet(ctypes.byref(device), 0)
assert 0 == cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device)
assert 0 == cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t({TAKEN_GIB} << 30))
open(__import__("sys").argv[1], "w").close()
time.sleep(1000)
"""


def figures() -> list[tuple[int, str, int]]:
    """What nvidia-smi says of each GPU: its index, its UUID, and the MiB that are free."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
    rows = csv.reader(
        subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    )
    return [(int(index), uuid.strip(), int(free)) for index, uuid, free in rows]


def passes(check: FreeVRAM) -> bool:
    """Whether a check passes; that it fails is said with the word GPU."""
    try:
        trio.run(check)
    except CheckFailed:
        return False
    return True


def test_a_check_passes_just_below_what_nvidia_smi_says_and_fails_just_above() -> None:
    for index, uuid, free in figures():
        for device in (index, uuid):
            assert passes(FreeVRAM((free - SLACK_MIB) / 1024, device))
            assert not passes(FreeVRAM((free + SLACK_MIB) / 1024, device))


def test_any_gpu_is_the_one_with_most_free() -> None:
    most = max(free for _, _, free in figures())
    assert passes(FreeVRAM((most - SLACK_MIB) / 1024))
    assert not passes(FreeVRAM((most + SLACK_MIB) / 1024))


def test_a_gpu_that_is_not_there_is_told() -> None:
    for device in (len(figures()), "GPU-00000000-0000-0000-0000-000000000000"):
        with pytest.raises(
            CheckFailed, match=f"no GPU {device}: this machine has {len(figures())}"
        ):
            trio.run(FreeVRAM(0.1, device))


def test_a_machine_with_too_little_starts_nothing_and_says_what_it_has() -> None:
    config = LifecycleConfig("sleep", args=["1000"], ready_mode=Manual())
    lifecycle = DaemonLifecycle(config, preflight=[FreeVRAM(10_000)])
    with pytest.raises(PreflightError, match=r"GPU 0 .* GiB of "):
        trio.run(lifecycle.run)


def test_a_stop_returns_when_the_memory_of_its_daemon_is_free_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    taken = tmp_path_factory.mktemp("gpu") / "taken"
    events: list[str] = []
    before = figures()[0][2]
    # All of what is free now: nothing of the daemon's may be missing after the stop, but the
    # tolerance that the check allows itself.
    check = FreeVRAM((before - SLACK_MIB) / 1024, 0, wait_for_recovery=30.0)
    config = LifecycleConfig(
        sys.executable,
        args=["-c", TAKES_MEMORY, taken],
        env={"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        ready_mode=Manual(),
    )

    async def main() -> int:
        lifecycle = DaemonLifecycle(
            config, preflight=[check], observer=lambda event: events.append(str(event))
        )
        async with lifecycle.running() as daemon:
            with trio.fail_after(60.0):
                while not taken.exists():
                    assert not daemon.output_tail, daemon.output_tail
                    await trio.sleep(0.05)
            return await trio.to_thread.run_sync(lambda: figures()[0][2])

    during = trio.run(main)
    after = figures()[0][2]
    print(f"free, MiB: before {before}, during {during}, after {after}", *events, sep="\n")
    assert before - during >= TAKEN_GIB * 1024
    assert after >= before - 512 - SLACK_MIB
    assert not any("later not all of it is free" in event for event in events)


if __name__ == "__main__":
    sys.exit(pytest.main(["-s", "-c", os.devnull, "--noconftest", __file__]))
