"""rbee-keeper: the command line of the four programs."""

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import trio

from trio_lifecycle import (
    DaemonHandle,
    DaemonNotRunningError,
    LifecycleError,
    attach,
)
from trio_lifecycle.abc import Observer
from trio_lifecycle.demo._asking import (
    Asker,
    AskingError,
    NoAnswerError,
    address,
    why_silent,
    words_in,
)
from trio_lifecycle.demo._hive_registry import HiveRegistry, HiveRegistryError
from trio_lifecycle.demo._models import HASHING, PYDOC
from trio_lifecycle.demo._options import count, seconds
from trio_lifecycle.demo._programs import absolute, state_folder
from trio_lifecycle.demo._sentences import sentence_of
from trio_lifecycle.demo.keeper_lifecycle import ensure_queen_running

QUEEN: Final = "queen-rbee"

# How the queen is she knows without asking anybody.
_ANSWER_S: Final = 5.0

_INTERRUPTED: Final = 130
_NOT_READ: Final = 141


class Keeper:
    """What a person asks of the programs.

    Args:
        database: Where the queen remembers her hives.
        words: What else she is started with, where she does not run.
        observer: Hears what happens to her.

    Attributes:
        used: The queen that was had up last; None before the first.
    """

    def __init__(
        self, database: Path, words: Sequence[str] = (), observer: Observer | None = None
    ) -> None:
        self._database = database
        self._args = ["--database", str(database), *words]
        self._observer = observer
        self._asker = Asker()
        self.used: DaemonHandle | None = None

    async def queen(self) -> DaemonHandle:
        """Have the queen up."""
        if self.used is None:
            self.used = await ensure_queen_running(self._args, self._observer)
        elif await self.used.check() != "running":
            self.used = await self._next(self.used)
        return self.used

    async def _next(self, before: DaemonHandle) -> DaemonHandle:
        # One that was killed just now may not be seen to be gone yet, but does not answer.
        queen = await ensure_queen_running(self._args, self._observer)
        if queen.instance_id == before.instance_id:
            # It was slow, and is still the one that was started here, if it was.
            return before
        # Whoever observes hears that she has died.
        await before.stop()
        return queen

    async def infer(self, text: str, model: str, words: int, show: Callable[[str], object]) -> None:
        """Have a text continued.

        Args:
            text: The text.
            model: By which model.
            words: How many words at most.
            show: Is given each bit, as it comes.
        """
        body = {"model": model, "prompt": text, "max_tokens": words, "stream": True}
        async with self._asked(await self.queen()) as queen:
            url = address(queen, "/v1/completions")
            asked = self._asker.stream("POST", url, body)
            async with asked as bits, aclosing(words_in(bits)) as words_said:
                async for word in words_said:
                    show(word)

    async def embed(self, text: str) -> list[float]:
        """Turn a text into a vector."""
        async with self._asked(await self.queen()) as queen:
            url = address(queen, "/v1/embeddings")
            answer = await self._asker.post(url, {"model": HASHING, "input": text})
        vector: list[float] = answer["data"][0]["embedding"]
        return vector

    async def add_hive(self, host: str) -> dict[str, Any]:
        """Have a hive on a machine."""
        return await self._post("/hives", {"host": host})

    async def forget_hive(self, host: str) -> None:
        """Have a machine forgotten whose hive is gone."""
        await self._post("/forget", {"host": host})

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._asked(await self.queen()) as queen:
            return await self._asker.post(address(queen, path), body)
        # A type checker can't know that the block lets no error out of sight.
        raise AssertionError

    async def status(self) -> dict[str, Any] | None:
        """Say how all of it is; None where no queen runs. Nothing is started."""
        if (running := await self._running()) is None:
            return None
        with trio.move_on_after(_ANSWER_S):
            async with self._asked(running) as queen:
                return await self._asker.get(address(queen, "/health"))
        raise AskingError(f"{QUEEN}, process {running.pid}, gave no answer within {_ANSWER_S:g} s")

    @asynccontextmanager
    async def _asked(self, queen: DaemonHandle) -> AsyncIterator[DaemonHandle]:
        """Ask the queen something; where she breaks off, say why."""
        try:
            yield queen
        except NoAnswerError as error:
            raise AskingError(await why_silent(queen, error)) from error

    async def _running(self) -> DaemonHandle | None:
        try:
            return await attach(QUEEN)
        except DaemonNotRunningError:
            return None

    async def stop(self) -> list[dict[str, Any]] | None:
        """Stop all hives with their workers, and then the queen; None where nothing runs.

        A queen that was killed is started again for that, if she has left hives: only she can tell
        how they are.
        """
        if await self._running() is None and not await self._has_hives():
            return None
        async with self._asked(await self.queen()) as queen:
            told = await self._asker.post(address(queen, "/stop"), {})
        await queen.stop()
        hives: list[dict[str, Any]] = told["hives"]
        return hives

    async def _has_hives(self) -> bool:
        """Whether the queen has left hives that were not seen to be gone."""
        if not self._database.exists():
            return False
        hives = await HiveRegistry(self._database).hives()
        return any(hive.state != "offline" for hive in hives)


# --- the command line -----------------------------------------------------------------------------


def main() -> int:
    """Do what the words ask for.

    Returns:
        0 when all went well; 1 when the programs say no, 3 when no queen runs, 125 when one can't
        be had; 130 after Ctrl-C, 141 when nobody reads what is said.
    """
    options = _parser().parse_args()
    # Also words that this terminal can't show are shown somehow.
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    try:
        status: int = trio.run(options.command, _keeper(options), options)
    except (AskingError, HiveRegistryError) as error:
        return _complain(str(error), 1)
    except LifecycleError as error:
        return _complain(sentence_of(error, "there is no queen to ask"), 125)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOT_READ
    return status


def _complain(text: str, status: int) -> int:
    print(f"rbee-keeper: {text}", file=sys.stderr)
    return status


def _keeper(options: argparse.Namespace) -> Keeper:
    words = _words(options)
    if not words and options.database is None:
        # Who names no options takes the queen as she is, and need not be told what hers are.
        logging.getLogger("trio_lifecycle").setLevel(logging.ERROR)
    database = options.database or state_folder() / "queen.sqlite"
    return Keeper(absolute("--database", database), words)


def _words(options: argparse.Namespace) -> list[str]:
    models = options.models
    words = ["--models", str(absolute("--models", models).resolve())] if models else []
    return words + (["--idle", str(options.idle)] if options.idle is not None else [])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rbee-keeper", description=__doc__)
    parser.add_argument("--database", type=Path, help="where the queen remembers hives")
    parser.add_argument("--models", type=Path, help="the folder with models")
    parser.add_argument("--idle", type=seconds, help="seconds until an idle worker ends: 300")
    parser.add_argument("--json", action="store_true", help="print JSON")
    # Also behind the command, where one thinks of it last.
    behind = argparse.ArgumentParser(add_help=False)
    behind.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    infer = commands.add_parser("infer", help="have a text continued")
    infer.add_argument("text")
    infer.add_argument("--model", default=PYDOC, help=f"by which model: {PYDOC}")
    infer.add_argument("--words", type=count, default=40, help="how many words at most: 40")
    infer.set_defaults(command=_infer)
    hives = commands.add_parser("hives", parents=[behind], help="show the hives")
    hives.add_argument("--add", metavar="HOST", help="have a hive on HOST, too, over SSH")
    hives.add_argument("--forget", metavar="HOST", help="forget a machine whose hive is offline")
    hives.set_defaults(command=_hives)
    for name, command, help_ in (
        ("status", _status, "show all that runs"),
        ("stop", _stop, "stop the hives with their workers, and the queen"),
    ):
        chosen = commands.add_parser(name, parents=[behind], help=help_)
        chosen.set_defaults(command=command)
    return parser


async def _infer(keeper: Keeper, options: argparse.Namespace) -> int:
    said = False

    def show(word: str) -> None:
        nonlocal said
        print(word if said else f"{options.text}{word}", end="", flush=True)
        said = True

    try:
        await keeper.infer(options.text, options.model, options.words, show)
    finally:
        if said:
            print()
    return 0


async def _status(keeper: Keeper, options: argparse.Namespace) -> int:
    found = await keeper.status()
    if found is None:
        return _complain("no queen runs", 3)
    if options.json:
        print(json.dumps(found))
        return 0
    print(f"queen-rbee   process {found['pid']}, {found['memory_mib']} MiB")
    if found.get("problem"):
        print(f"  {found['problem']}")
    for hive in found["hives"]:
        print(f"  rbee-hive on {hive['host']}: {_words_of(hive)}")
        for worker in hive["workers"] or ():
            print(f"    {worker['name']}: {_words_of(worker)}")
    return 0


def _words_of(entry: dict[str, Any]) -> str:
    process = "" if entry["pid"] is None else f", process {entry['pid']}"
    memory = "" if entry["memory_mib"] is None else f", {entry['memory_mib']} MiB"
    return f"{entry['state']}{process}{memory}"


async def _hives(keeper: Keeper, options: argparse.Namespace) -> int:
    if options.add is not None:
        await keeper.add_hive(options.add)
    if options.forget is not None:
        await keeper.forget_hive(options.forget)
    found = await keeper.status()
    if found is None:
        return _complain("no queen runs", 3)
    for hive in found["hives"]:
        print(json.dumps(hive) if options.json else f"{hive['host']}: {_words_of(hive)}")
    return 0


async def _stop(keeper: Keeper, options: argparse.Namespace) -> int:
    told = await keeper.stop()
    if told is None:
        print("rbee-keeper: nothing runs", file=sys.stderr)
        return 0
    for each in told:
        print(json.dumps(each) if options.json else _farewell(each))
    return 1 if any("error" in each for each in told) else 0


def _farewell(each: dict[str, Any]) -> str:
    problem = each.get("error")
    return problem or f"rbee-hive on {each['host']} is gone, with its workers"


if __name__ == "__main__":
    sys.exit(main())
