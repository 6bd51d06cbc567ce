"""What was asked for: the options of ``run`` and ``ensure``, and what they mean for the daemon."""

import os
import re
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, cast

from attrs import field, frozen

from trio_lifecycle._cli._fill import with_markers
from trio_lifecycle._cli._listen import read_sockets
from trio_lifecycle._cli._machine_options import HERE, MachineOptions
from trio_lifecycle._cli._numbers import read_number
from trio_lifecycle._cli._ready_options import NOTHING_SAID, ReadyOptions
from trio_lifecycle._config import LifecycleConfig, OnChange
from trio_lifecycle._destination import Output, check_prefix
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._guarantee import OWNED, Guarantee
from trio_lifecycle._ladder import DEFAULT_STOP_LADDER, StopLadder
from trio_lifecycle._markers import CALLBACK_URL, markers_in
from trio_lifecycle.abc import ReadyMode, Spawner

USAGE: Final = "trio-lifecycle run [OPTIONS] -- PROGRAM [ARGS...]"
ENSURE_USAGE: Final = USAGE.replace("run", "ensure")

# What a shell would take for a variable, so that it is hardly a program.
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*=")

# What a shell can have for a variable's name. Anything else may be a secret itself.
_NAME: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@frozen(kw_only=True)
class Plan:
    """The options as they were written.

    Attributes:
        command: The program and its arguments.
        usage: How that is written.
    """

    command: tuple[str, ...]
    usage: str = USAGE
    name: str | None = None
    ready: ReadyOptions = NOTHING_SAID
    machine: MachineOptions = HERE
    stop_timeout: str | None = None
    env: tuple[str, ...] = field(default=(), repr=False)
    secret_env: tuple[str, ...] = ()
    cwd: str | None = None
    listen: tuple[str, ...] = ()
    listen_unix: tuple[str, ...] = ()
    user: str | None = None
    guarantee: str | None = None
    then: str | None = None
    on_change: str | None = None
    claim_timeout: str | None = None
    registry: str | None = None
    timestamps: bool = False
    prefix: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def verbosity(self) -> int:
        """-1 shows errors only, 1 also small steps."""
        return int(self.verbose) - int(self.quiet)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What ``--secret-env`` names, as far as it is set."""
        return tuple(os.environ[name] for name in self.secret_env if name in os.environ)

    def ready_mode(self) -> ReadyMode:
        """Say what counts as ready: what was asked for, or being started.

        Raises:
            ConfigError: That can't be meant; it names the option.
        """
        return self.ready.ready_mode()

    def config(
        self, ready_mode: ReadyMode, output: Output, *, detach: bool = False
    ) -> LifecycleConfig:
        """Describe the daemon.

        Args:
            ready_mode: What counts as ready.
            output: Where its output goes.
            detach: Whether it is left running.

        Raises:
            ConfigError: A value can't be meant; it names the option.
        """
        _insist_on_one({"--quiet": self.quiet, "--verbose": self.verbose})
        _insist_on_one({"--quiet": self.quiet, "--timestamps": self.timestamps})
        _insist_on_one({"--quiet": self.quiet, "--prefix": self.prefix})
        check_prefix(self.prefix or "")
        program, *args = self._checked_command()
        env = _variables(self.env)
        args = [with_markers(arg) for arg in args]
        self._insist_on_callback([*args, *env.values()])
        self._insist_on_own_sockets()
        return LifecycleConfig(
            _program(program) if self.machine.is_here else program,
            args=args,
            env=env,
            secret_env=_secrets(self.secret_env),
            working_dir=self._directory(),
            user=_user(self.user),
            listen=read_sockets(self.listen, self.listen_unix),
            ready_mode=ready_mode,
            ready_timeout=self.ready.ready_timeout(),
            stall_timeout=self.ready.seconds_of_silence(),
            max_ready_timeout=self.ready.longest_timeout(),
            stop_ladder=self._stop_ladder(),
            output=output,
            detach=detach,
            # Another word is refused by the configuration itself.
            on_change=cast("OnChange", self.on_change or "keep"),
            claim_timeout=self._claim_timeout(),
            name=program.rpartition("/")[2] if self.name is None else self.name,
        )

    def spawner(self, *, forwards: bool = False) -> Spawner:
        """Say where it runs, and what promises are made for its end.

        Args:
            forwards: Whether its address is to be one of this machine, wherever it runs.

        Raises:
            ConfigError: That can't be meant; it names the option.
        """
        if self.guarantee is not None and self.guarantee not in OWNED:
            raise ConfigError("--guarantee", f"is one of {', '.join(OWNED)}")
        guarantee = cast("Guarantee | None", self.guarantee)
        return self.machine.spawner(guarantee, forwards=forwards)

    def _checked_command(self) -> tuple[str, ...]:
        if not self.command:
            raise ConfigError("PROGRAM", f"is missing; write: {self.usage}")
        if self.env and _VARIABLE.match(self.command[0]):
            # Not repeated: it may be secret.
            raise ConfigError("--env", "takes one K=V; write --env before each")
        return self.command

    def _insist_on_callback(self, texts: Iterable[str]) -> None:
        if CALLBACK_URL in markers_in(texts) and not self.ready.callback:
            raise ConfigError("{callback_url}", "has a value only with --callback")

    def _insist_on_own_sockets(self) -> None:
        for option, given in (("--listen", self.listen), ("--listen-unix", self.listen_unix)):
            if given and not self.machine.is_here:
                problem = "exclude each other; no socket can be passed to another machine"
                raise ConfigError(f"{option} and --host", problem)

    def _directory(self) -> Path | None:
        if self.cwd is None or self.machine.is_here:
            return _directory(self.cwd)
        if not self.cwd:
            raise ConfigError("--cwd", "'' is no directory")
        # From the directory of the login there, where it is relative.
        return Path(self.cwd)

    def _claim_timeout(self) -> float | None:
        if self.claim_timeout is None:
            return None
        return read_number("--claim-timeout", self.claim_timeout)

    def _stop_ladder(self) -> StopLadder:
        return read_ladder(self.stop_timeout) or DEFAULT_STOP_LADDER


def read_ladder(seconds: str | None) -> StopLadder | None:
    """Read ``--stop-timeout``; None where it was not given.

    Raises:
        ConfigError: It is no number of seconds.
    """
    if seconds is None:
        return None
    return StopLadder((signal.SIGTERM, read_number("--stop-timeout", seconds)))


def _insist_on_one(options: Mapping[str, object]) -> None:
    given = [option for option, value in options.items() if value not in (None, False)]
    if len(given) > 1:
        raise ConfigError(" and ".join(given), "exclude each other; give one of them")


def _variables(pairs: Iterable[str]) -> Mapping[str, str]:
    variables = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            # Not repeated: what was meant as a value may be secret.
            raise ConfigError("--env", "wants K=V; there is one without '='")
        variables[key] = with_markers(value)
    return variables


def _secrets(names: Iterable[str]) -> Mapping[str, str]:
    """Take variables from our own environment; in a list of processes nobody sees their values."""
    variables = {}
    for name in names:
        if "=" in name:
            # Not repeated: what was meant as a value may be secret.
            problem = "takes a name only; set the variable where trio-lifecycle is called"
            raise ConfigError("--secret-env", problem)
        if not _NAME.fullmatch(name) and name not in os.environ:
            raise ConfigError("--secret-env", "takes the name of a variable, not its value")
        if not os.environ.get(name, "").strip():
            state = "empty" if name in os.environ else "not set"
            problem = f"{name!r} is {state} in the environment of trio-lifecycle; set it there"
            raise ConfigError("--secret-env", problem)
        variables[name] = os.environ[name]
    return variables


def _program(text: str) -> str:
    # Another shell may mean another file by the same path; a mere name is looked for everywhere.
    try:
        return str(Path(text).absolute()) if "/" in text else text
    except FileNotFoundError:
        raise ConfigError(
            "PROGRAM", "is a path from the current directory, which was removed; give it in full"
        ) from None


def _user(name: str | None) -> str | int | None:
    return int(name) if name is not None and name.isdecimal() else name


def _directory(cwd: str | None) -> Path | None:
    # Not the current directory, which is what Path makes of nothing.
    if cwd is not None and not (cwd and Path(cwd).is_dir()):
        raise ConfigError("--cwd", f"{cwd!r} is no directory")
    # Another shell may mean another directory by the same words.
    return None if cwd is None else Path(cwd).absolute()
