"""How rbee-hive starts a worker: checked first, on a free port, ready when it calls back."""

from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    Callback,
    DaemonLifecycle,
    FileExists,
    FreeMemory,
    FreeVRAM,
    HealthCheck,
    LifecycleConfig,
)
from trio_lifecycle.abc import Observer, Preflight
from trio_lifecycle.demo._models import Model
from trio_lifecycle.demo._programs import PROGRAMS, PYTHON


def worker(program: str, model: Model, observer: Observer) -> DaemonLifecycle:
    config = LifecycleConfig(
        program,
        name=f"{program}@{model.name}",
        args=["--model", model.source, "--port", FREE_PORT, "--callback-url", CALLBACK_URL],
        search_path=[PROGRAMS],
        ready_mode=Callback(),
        ready_timeout=300,
    )
    return DaemonLifecycle(config, preflight=checks(model), observer=observer)


def llama_server(model: Model, observer: Observer) -> DaemonLifecycle:
    url = f"http://127.0.0.1:{FREE_PORT}/v1/models"
    args = ["-m", "llama_cpp.server", "--model", model.source, "--port", FREE_PORT]
    name, ready = f"llama_cpp@{model.name}", HealthCheck(url, interval=0.2)
    config = LifecycleConfig(PYTHON, name=name, args=args, ready_mode=ready, ready_timeout=300)
    return DaemonLifecycle(config, preflight=checks(model), observer=observer)


def checks(model: Model) -> list[Preflight]:
    room = FreeVRAM(model.vram_gib) if model.vram_gib else FreeMemory(model.memory_gib)
    return [room] if model.path is None else [room, FileExists(model.path)]
