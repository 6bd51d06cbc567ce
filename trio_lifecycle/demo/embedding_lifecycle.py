"""How rbee-hive starts the fifth program: what one more daemon costs."""

from trio_lifecycle import DaemonLifecycle
from trio_lifecycle.abc import Observer
from trio_lifecycle.demo._models import Model
from trio_lifecycle.demo.hive_lifecycle import worker


def embedding_worker(model: Model, observer: Observer) -> DaemonLifecycle:
    return worker("embedding-worker-rbee", model, observer)
