"""The GPUs of this machine: the only file that says pynvml."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from trio_lifecycle.preflight._failure import CheckFailed

_MISSING: Final = (
    "FreeVRAM needs nvidia-ml-py, which is not installed: pip install 'trio-lifecycle[gpu]'"
)


class GPU(NamedTuple):
    """One GPU, or one part of a GPU in MIG mode.

    Attributes:
        name: For people: which one, and what it is.
        free: Bytes of its memory that are free.
        total: Bytes of its memory.
    """

    name: str
    free: int
    total: int


def read_gpus(device: int | str | None) -> list[GPU]:
    """Ask the driver for one GPU, or for all. It blocks, for seconds at times.

    Raises:
        CheckFailed: There is none, or it can't be asked.
    """
    with _nvml() as nvml:
        count = nvml.nvmlDeviceGetCount()
        if not count:
            raise CheckFailed("no GPU: the NVIDIA driver is there, and sees none")
        if device is None:
            return _read_all(nvml, count)
        try:
            return [_read(nvml, device)]
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT):
                raise CheckFailed(
                    f"no GPU {device}: this machine has {count}; nvidia-smi -L lists them"
                ) from None
            raise CheckFailed(f"GPU {device} can't be asked: {error}") from None


def _read_all(nvml: Any, count: int) -> list[GPU]:
    """Read all that can be; one that has failed is no reason not to use another."""
    found, failures = [], []
    for index in range(count):
        try:
            found.append(_read(nvml, index))
        except nvml.NVMLError as error:
            failures.append(f"GPU {index} can't be asked: {error}")
    if not found:
        raise CheckFailed("; ".join(failures))
    return found


def _read(nvml: Any, device: int | str) -> GPU:
    by = nvml.nvmlDeviceGetHandleByUUID
    handle = by(device) if isinstance(device, str) else nvml.nvmlDeviceGetHandleByIndex(device)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = f"GPU {device} ({nvml.nvmlDeviceGetName(handle)})"
    return GPU(name, int(memory.free), int(memory.total))


@contextmanager
def _nvml() -> Iterator[Any]:
    """Have the library at work. NVML counts who uses it, so others of this program may, too."""
    try:
        # Not at the top: it takes 30 ms, and only who asks for a GPU has it.
        import pynvml
    except ImportError:
        raise CheckFailed(_MISSING) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise CheckFailed(f"no GPU: {_explain(pynvml, error)}") from None
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise CheckFailed(f"the NVIDIA driver can't be asked: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def _explain(nvml: Any, error: Any) -> str:
    reasons = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "the NVIDIA driver is not installed here",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
        nvml.NVML_ERROR_NO_PERMISSION: "this user may not use the NVIDIA driver",
    }
    return reasons.get(error.value, str(error))
