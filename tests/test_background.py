"""Programs that put themselves into the background: their start fails, and leaves nothing."""

import sys
from pathlib import Path

import pytest

from tests.support import QUICK_PYTHON, free_port, lives
from tests.trace import Trace
from trio_lifecycle import (
    DaemonLifecycle,
    DiedBeforeReadyError,
    HealthCheck,
    LifecycleConfig,
)

# As daemon(3) does it; the one that stays says which it is.
IN_THE_BACKGROUND = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(sys.argv[1] + "+", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + "+", sys.argv[1])
time.sleep(1000)
"""

# Ends when the other has said which it is.
WAITS_FOR_IT = """
import os, subprocess, sys, time
subprocess.run([sys.executable, *sys.argv[1:]])
while not os.path.exists(sys.argv[-1]):
    time.sleep(0.01)
"""


@pytest.mark.fault(100)
@pytest.mark.parametrize("detach", [True, False])
async def test_what_has_gone_to_the_background_is_ended_when_the_start_has_failed(
    detach: bool, tmp_path: Path
) -> None:
    said = tmp_path / "pid"
    config = LifecycleConfig(
        sys.executable,
        args=[*QUICK_PYTHON, WAITS_FOR_IT, *QUICK_PYTHON, IN_THE_BACKGROUND, said],
        name="daemon",
        ready_mode=HealthCheck(f"http://127.0.0.1:{free_port()}/"),
        detach=detach,
    )
    trace = Trace()
    lifecycle = DaemonLifecycle(config, observer=trace.observe)

    with pytest.raises(DiedBeforeReadyError, match="in the foreground"):
        await (lifecycle.ensure_running if detach else lifecycle.run)()

    assert not lives(int(said.read_text()))
    if detach:
        assert ["stopping", "stopped"] == trace.kinds[-3:-1]
