"""The GPUs of another machine, as its nvidia-smi tells of them."""

from collections.abc import Iterator
from typing import Final

from trio_lifecycle.preflight._elsewhere import Told
from trio_lifecycle.preflight._failure import CheckFailed
from trio_lifecycle.preflight._gpus import GPU

_BYTES_PER_MIB: Final = 2**20

# What it ends with: "RETURN VALUE" of its manual page. The numbers are those of NVML's errors.
_REASONS: Final = {
    4: "this user may not use the NVIDIA driver",
    6: "the NVIDIA driver is there, and sees none",
    9: "the NVIDIA driver is not loaded",
    12: "the NVIDIA driver is not installed here",
}
_NONE_FOUND: Final = "No devices were found"


def gpus_told(told: Told, device: int | str | None) -> list[GPU]:
    """Read one GPU, or all.

    Raises:
        CheckFailed: There is none, or what it has can't be told.
    """
    if told.get("missing") is not None:
        raise CheckFailed("no GPU: the NVIDIA driver is not installed here: there is no nvidia-smi")
    if isinstance(device, str) and device.startswith("MIG-"):
        raise CheckFailed(
            f"what is free of {device} can't be told: nvidia-smi gives that of whole GPUs only; "
            "name the GPU, or use a check of your own"
        )
    rows = list(_rows(told))
    if not rows:
        raise CheckFailed(f"no GPU: {_reason(told)}")
    return _all_of(rows) if device is None else [_one_of(rows, device)]


def _rows(told: Told) -> Iterator[tuple[str, str, str, str, str]]:
    """Read its lines: index, UUID, name, and in MiB what is free and what there is."""
    for line in told.every("gpu"):
        fields = tuple(field.strip() for field in line.split(", "))
        if len(fields) == 5 and fields[0].isdecimal():
            index, uuid, name, free, total = fields
            yield index, uuid, name, free, total


def _reason(told: Told) -> str:
    said = " ".join(line.strip() for line in told.every("gpu") if line.strip())
    status = int(told.get("status") or 0)
    if said.startswith(_NONE_FOUND):
        return _REASONS[6]
    return _REASONS.get(status) or f"nvidia-smi ended with {status} and said: {said[:300]}"


def _all_of(rows: list[tuple[str, str, str, str, str]]) -> list[GPU]:
    """Read all that can be; one that has failed is no reason not to use another."""
    found, failures = [], []
    for row in rows:
        try:
            found.append(_gpu(row, row[0]))
        except CheckFailed as failure:
            failures.append(str(failure))
    if not found:
        raise CheckFailed("; ".join(failures))
    return found


def _one_of(rows: list[tuple[str, str, str, str, str]], device: int | str) -> GPU:
    for row in rows:
        if str(device) in row[:2]:
            return _gpu(row, str(device))
    raise CheckFailed(f"no GPU {device}: this machine has {len(rows)}; nvidia-smi -L lists them")


def _gpu(row: tuple[str, str, str, str, str], device: str) -> GPU:
    *_, name, free, total = row
    # "[N/A]" where GPU and processor share one memory, "[GPU is lost]", "[Unknown Error]".
    for figure in (free, total):
        if not figure.isdecimal():
            raise CheckFailed(f"GPU {device} can't be asked: nvidia-smi gives {figure} for memory")
    return GPU(f"GPU {device} ({name})", int(free) * _BYTES_PER_MIB, int(total) * _BYTES_PER_MIB)
