"""A check that a GPU has memory."""

from typing import Final

from attrs import Attribute, evolve, field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle.abc import Preflight, Prober
from trio_lifecycle.preflight import _values
from trio_lifecycle.preflight._elsewhere import Elsewhere
from trio_lifecycle.preflight._failure import CheckFailed
from trio_lifecycle.preflight._gpus import GPU, read_gpus
from trio_lifecycle.preflight._gpus_told import gpus_told
from trio_lifecycle.preflight._thread import in_thread

# Where no program keeps the driver loaded, it is loaded for the question: seconds for each GPU.
DEFAULT_CHECK_TIMEOUT_S: Final = 30.0

# What a display, or another program's context, may have taken since: 250 to 500 MiB for a context.
RECOVERY_TOLERANCE_GIB: Final = 0.5


def _is_device(check: object, attribute: "Attribute[int | str | None]", value: object) -> None:
    is_index = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    is_uuid = isinstance(value, str) and value.startswith(("GPU-", "MIG-")) and value.isascii()
    if value is not None and not is_index and not is_uuid:
        raise ConfigError(
            attribute.name,
            f"must be None, an index from 0 on, or a UUID as nvidia-smi -L lists it, not {value!r}",
        )


@frozen(repr=False)
class FreeVRAM:
    """A single NVIDIA GPU has so much memory free.

    It is asked through NVML, by nvidia-ml-py, which ``pip install 'trio-lifecycle[gpu]'`` brings.
    A machine without GPU or driver fails the check with "no GPU" and the reason. Of a GPU in MIG
    mode, name the part by its UUID.

    Attributes:
        gib: How much must be free, in GiB (1,073,741,824 bytes).
        device: Which GPU: its index as nvidia-smi counts, whatever CUDA_VISIBLE_DEVICES says, or
            its UUID. Defaults to None: any one that has so much.
        wait_for_recovery: Seconds at most that a stop waits until so much is free again, or what
            was free before the spawn less 0.5 GiB where that is less. Defaults to 0: it does not
            wait. A driver frees the memory of a killed program up to some seconds after its end.
        check_timeout: Seconds that the check may take. Defaults to 30. With less than 10, a machine
            of many GPUs whose driver must be loaded first fails.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    gib: float = field(converter=_values.gib)
    device: int | str | None = field(default=None, validator=_is_device)
    wait_for_recovery: float = field(default=0.0, converter=_values.wait_for_recovery, kw_only=True)
    check_timeout: float = field(
        default=DEFAULT_CHECK_TIMEOUT_S, converter=_values.check_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        return _values.brief(self)

    async def __call__(self) -> None:
        """Ask the driver.

        Raises:
            CheckFailed: There is less, or no GPU.
        """
        self._judge(await in_thread(read_gpus, self.device))

    def at(self, prober: Prober) -> Preflight:
        """Give the check of the GPUs of the prober's machine, by ``nvidia-smi``."""
        return Elsewhere(
            self,
            prober,
            ("gpus",),
            "how much GPU memory is free",
            judge=lambda told: self._judge(gpus_told(told, self.device)),
            wait_for_recovery=self.wait_for_recovery,
            until=lambda told: self._wanted_after(gpus_told(told, self.device)).at(prober),
        )

    def _judge(self, gpus: list[GPU]) -> None:
        wanted = self.gib * _values.BYTES_PER_GIB
        if all(gpu.free < wanted for gpu in gpus):
            found = "; ".join(
                f"{gpu.name} has {_values.in_gib(gpu.free)} of {_values.in_gib(gpu.total)}"
                for gpu in gpus
            )
            raise CheckFailed(
                f"{_values.in_gib(wanted)} of GPU memory are needed, and {found} free: end what "
                "uses it (nvidia-smi lists that), or take a smaller model"
            )

    async def recovery(self) -> Preflight:
        """Ask for what is wanted, or for what is free now, less the tolerance, if that is less."""
        return self._wanted_after(await in_thread(read_gpus, self.device))

    def _wanted_after(self, gpus: list[GPU]) -> "FreeVRAM":
        free_gib = max(gpu.free for gpu in gpus) / _values.BYTES_PER_GIB - RECOVERY_TOLERANCE_GIB
        # Of less than the tolerance, half must be back.
        return evolve(self, gib=min(self.gib, max(free_gib, self.gib / 2)))
