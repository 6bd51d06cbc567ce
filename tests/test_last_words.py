"""Daemons whose last word is that they are ready."""

from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.notifying import SAY
from tests.support import PATIENCE_S, python_daemon
from trio_lifecycle import (
    DaemonDiedError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    FileAppears,
    LogLine,
    NewlineOnFD,
    Notify,
)

LAST_WORDS = {
    "a line": (LogLine("ready"), "print('ready', flush=True); raise SystemExit(3)"),
    "a newline": (NewlineOnFD(3), "import os; os.write(3, b'\\n'); os._exit(3)"),
    "a notification": (Notify(), f"{SAY}\nsay('READY=1'); os._exit(3)"),
    "a file": (FileAppears("ready"), "open('ready', 'w').close(); raise SystemExit(3)"),
}


@pytest.mark.fault(26)
@pytest.mark.parametrize("word", LAST_WORDS)
async def test_one_whose_last_word_is_that_it_is_ready_has_died(word: str, tmp_path: Path) -> None:
    mode, code = LAST_WORDS[word]
    config = python_daemon(code, ready_mode=mode, working_dir=tmp_path)
    kinds: list[str] = []
    with (
        trio.fail_after(PATIENCE_S),
        pytest.raises((DiedBeforeReadyError, DaemonDiedError)) as caught,
    ):
        async with DaemonLifecycle(
            config, observer=lambda event: kinds.append(event.kind)
        ).running():
            await trio.sleep_forever()
    assert isinstance(caught.value, (DiedBeforeReadyError, DaemonDiedError))
    assert 3 == caught.value.exit_status
    # Whoever was told that it is ready was told so before it was known to be dead.
    assert "ready" not in kinds[kinds.index("died") :]

    held = evolve(config, ready_mode=mode.stable_for(PATIENCE_S / 2), ready_timeout=PATIENCE_S)
    with pytest.raises(DiedBeforeReadyError, match="exited with status 3"):
        async with DaemonLifecycle(held).running():
            raise AssertionError("it did not hold")
