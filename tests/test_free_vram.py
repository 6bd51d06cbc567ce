"""The check of a GPU's memory, with a stand-in for the driver's library, and without any."""

import sys

import pytest

from tests.nvml import Driver
from trio_lifecycle import FreeVRAM
from trio_lifecycle.preflight._failure import CheckFailed
from trio_lifecycle.preflight._free_vram import RECOVERY_TOLERANCE_GIB

GIB = 2**30


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Two GPUs: one nearly full, one with 40 of 80 GiB free."""
    driver = Driver({"GPU-a": (2 * GIB, 80 * GIB), "GPU-b": (40 * GIB, 80 * GIB)})
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    return driver


async def said_by(check: FreeVRAM) -> str:
    """What a check says that fails."""
    with pytest.raises(CheckFailed) as caught:
        await check()
    return str(caught.value)


@pytest.mark.parametrize("device", [None, 1, "GPU-b"])
async def test_a_gpu_with_so_much_free_passes(driver: Driver, device: int | str | None) -> None:
    await FreeVRAM(40, device)()
    assert 0 == driver.users


async def test_no_gpu_with_so_much_says_what_each_has(driver: Driver) -> None:
    said = await said_by(FreeVRAM(41))
    assert "41.00 GiB of GPU memory are needed" in said
    assert "GPU 0 (NVIDIA H100) has 2.00 GiB of 80.00 GiB" in said
    assert "GPU 1 (NVIDIA H100) has 40.00 GiB of 80.00 GiB" in said
    assert "nvidia-smi lists that" in said


@pytest.mark.parametrize("device", [0, "GPU-a"])
async def test_only_the_device_that_is_named_counts(driver: Driver, device: int | str) -> None:
    said = await said_by(FreeVRAM(24, device))
    assert f"GPU {device} (NVIDIA H100) has 2.00 GiB of 80.00 GiB" in said
    assert "40.00" not in said


@pytest.mark.parametrize("device", [2, "GPU-c"])
async def test_a_device_that_is_not_there_is_told(driver: Driver, device: int | str) -> None:
    said = await said_by(FreeVRAM(1, device))
    assert f"no GPU {device}: this machine has 2; nvidia-smi -L lists them" == said
    assert 0 == driver.users


async def test_a_gpu_that_is_lost_leaves_the_others(driver: Driver) -> None:
    driver.lost.add("GPU-a")
    await FreeVRAM(40)()
    assert "GPU 0 can't be asked: GPU is lost" == await said_by(FreeVRAM(1, 0))
    driver.lost.add("GPU-b")
    said = await said_by(FreeVRAM(1))
    assert "GPU 0 can't be asked: GPU is lost; GPU 1 can't be asked: GPU is lost" == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (12, "no GPU: the NVIDIA driver is not installed here"),
        (9, "no GPU: the NVIDIA driver is not loaded"),
        (4, "no GPU: this user may not use the NVIDIA driver"),
        (18, "no GPU: RM has detected an NVML/RM version mismatch."),
    ],
)
async def test_a_machine_without_a_working_driver_has_no_gpu(
    monkeypatch: pytest.MonkeyPatch, error: int, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver({}, refuses=error))
    assert said == await said_by(FreeVRAM(1))


async def test_a_driver_that_sees_none_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver({}))
    assert "no GPU: the NVIDIA driver is there, and sees none" == await said_by(FreeVRAM(1))


async def test_a_driver_that_fails_under_way_is_told(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise driver.NVMLError(15)

    monkeypatch.setattr(driver, "nvmlDeviceGetCount", fail)
    assert "the NVIDIA driver can't be asked: GPU is lost" == await said_by(FreeVRAM(1))
    assert 0 == driver.users


async def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    said = await said_by(FreeVRAM(24))
    assert said.endswith("which is not installed: pip install 'trio-lifecycle[gpu]'")


async def test_the_real_library_says_no_gpu_where_there_is_no_driver() -> None:
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert (await said_by(FreeVRAM(1))).startswith("no GPU: ")
    else:
        pynvml.nvmlShutdown()
        pytest.skip("there is a driver here: tests/test_vram_real.py is for that")


# --- after the stop -------------------------------------------------------------------------------


async def test_what_was_asked_for_must_come_back(driver: Driver) -> None:
    recovered = await FreeVRAM(24, wait_for_recovery=1).recovery()
    driver.gpus["GPU-b"] = (23 * GIB, 80 * GIB)
    with pytest.raises(CheckFailed):
        await recovered()
    driver.gpus["GPU-b"] = (24 * GIB, 80 * GIB)
    await recovered()


async def test_a_little_that_another_took_meanwhile_is_not_waited_for(driver: Driver) -> None:
    recovered = await FreeVRAM(40, wait_for_recovery=1).recovery()
    driver.gpus["GPU-b"] = (int((40 - RECOVERY_TOLERANCE_GIB) * GIB), 80 * GIB)
    await recovered()
    driver.gpus["GPU-b"] = (int((39.9 - RECOVERY_TOLERANCE_GIB) * GIB), 80 * GIB)
    with pytest.raises(CheckFailed):
        await recovered()


async def test_of_an_amount_below_the_tolerance_half_must_come_back(driver: Driver) -> None:
    driver.gpus["GPU-b"] = (GIB // 4, 80 * GIB)
    recovered = await FreeVRAM(0.25, "GPU-b", wait_for_recovery=1).recovery()
    driver.gpus["GPU-b"] = (GIB // 8, 80 * GIB)
    await recovered()
    driver.gpus["GPU-b"] = (0, 80 * GIB)
    with pytest.raises(CheckFailed):
        await recovered()
