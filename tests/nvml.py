"""A stand-in for pynvml where there is no GPU: NVML's functions, errors and counting of users.

What it does is written in the reference of NVML (nvmlInit_v2, nvmlDeviceGetHandleByIndex_v2,
nvmlDeviceGetHandleByUUID, nvmlDeviceGetMemoryInfo), and in nvidia-ml-py for the errors' text.
"""

from types import ModuleType
from typing import Any, NamedTuple

NAMES = {
    1: "Uninitialized",
    2: "Invalid Argument",
    4: "Insufficient Permissions",
    6: "Not Found",
    9: "Driver Not Loaded",
    12: "NVML Shared Library Not Found",
    15: "GPU is lost",
    18: "RM has detected an NVML/RM version mismatch.",
}


class NVMLError(Exception):
    """What every function raises but the library's absence."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return NAMES[self.value]


class Memory(NamedTuple):
    """What nvmlDeviceGetMemoryInfo fills in, in bytes."""

    total: int
    free: int
    used: int


class Driver(ModuleType):
    """The module, with the GPUs that it sees: by UUID, the free and the total bytes of each."""

    NVMLError = NVMLError
    NVML_ERROR_INVALID_ARGUMENT = 2
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12

    def __init__(self, gpus: dict[str, tuple[int, int]], refuses: int = 0) -> None:
        super().__init__("pynvml")
        self.gpus = gpus
        self.refuses = refuses
        self.lost: set[str] = set()
        self.users = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.refuses:
            raise NVMLError(self.refuses)
        self.users += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._insist_on_init()
        self.users -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._insist_on_init()
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        self._insist_on_init()
        if not 0 <= index < len(self.gpus):
            raise NVMLError(self.NVML_ERROR_INVALID_ARGUMENT)
        return list(self.gpus)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._insist_on_init()
        if uuid not in self.gpus:
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        self._insist_on_init()
        return "NVIDIA H100"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Memory:  # noqa: N802
        self._insist_on_init()
        if handle in self.lost:
            raise NVMLError(15)
        free, total = self.gpus[handle]
        return Memory(total, free, total - free)

    def _insist_on_init(self) -> None:
        if not self.users:
            raise NVMLError(1)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"NVML has no {name} that is known here")
