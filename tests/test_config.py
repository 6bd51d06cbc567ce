"""LifecycleConfig: what each field takes and refuses, and that it is a value without secrets."""

import math
import pickle
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, fields, frozen
from attrs.exceptions import FrozenInstanceError

from tests.support import name_of
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    Callback,
    ConfigError,
    HealthCheck,
    LifecycleConfig,
    ListenSocket,
    Manual,
    Output,
    StopLadder,
)
from trio_lifecycle._config import DEFAULT_READY_TIMEOUT_S
from trio_lifecycle._fingerprint import differences
from trio_lifecycle._ladder import DEFAULT_STOP_LADDER
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle.abc import ArmedReady, ReadyMode, Start

SECRET = "hunter2-and-more"


def config(**given: Any) -> LifecycleConfig:
    """A configuration of which a test says only what it is about."""
    needed: dict[str, Any] = {"binary_name": "queen", "ready_mode": Manual()}
    return LifecycleConfig(**(needed | given))


def problem_of(**given: Any) -> ConfigError:
    """What is said about a configuration that is refused."""
    with pytest.raises(ConfigError) as caught:
        config(**given)
    return caught.value


# --- what is taken --------------------------------------------------------------------------------


def test_the_defaults_are_as_documented() -> None:
    made = config()
    assert ((), {}, None, ()) == (made.args, made.env, made.working_dir, made.search_path)
    assert 30.0 == made.ready_timeout == DEFAULT_READY_TIMEOUT_S
    assert (False, "queen") == (made.detach, made.name)
    assert (DEFAULT_STOP_LADDER, Output()) == (made.stop_ladder, made.output)
    assert ({}, None, None, None) == (made.limits, made.umask, made.user, made.group)


@pytest.mark.parametrize(
    ("binary_name", "name"),
    [("queen", "queen"), ("/usr/bin/queen", "queen"), ("./a b", "a b"), (Path("/x/q"), "q")],
)
def test_the_name_is_the_last_part_of_the_program_unless_given(binary_name: Any, name: str) -> None:
    assert name == config(binary_name=binary_name).name
    assert "other" == config(binary_name=binary_name, name="other").name


def test_arguments_and_values_may_be_paths() -> None:
    made = config(args=["-c", Path("/etc/q.conf")], env={"HOME": Path("/h"), "GONE": None})
    assert ("-c", "/etc/q.conf") == made.args
    assert {"HOME": "/h", "GONE": None} == made.env
    assert None is made.env["GONE"]


def test_directories_may_be_strings_or_paths() -> None:
    made = config(working_dir="/w", search_path=["/a", Path("b")])
    assert (Path("/w"), (Path("/a"), Path("b"))) == (made.working_dir, made.search_path)


def test_bytes_that_were_no_utf_8_in_a_file_name_are_taken() -> None:
    assert ("\udcff",) == config(args=["\udcff"]).args


def test_markers_are_found_in_arguments_values_and_the_ready_mode() -> None:
    url = f"http://127.0.0.1:{FREE_PORT}/"
    assert {FREE_PORT} == config(args=[f"--port={FREE_PORT}"]).markers
    assert {FREE_PORT} == config(env={"PORT": FREE_PORT, "GONE": None}).markers
    assert {FREE_PORT} == config(ready_mode=HealthCheck(url)).markers
    assert {CALLBACK_URL} == config(args=[CALLBACK_URL], ready_mode=Callback()).markers
    assert frozenset() == config(args=["FREE_PORT"]).markers


# --- what is refused ------------------------------------------------------------------------------

NO_SECONDS = [-1, 0, -0.0, math.nan, math.inf, -math.inf, True, False, "1", None, 10**400, 1j]

REFUSED: list[tuple[str, list[object]]] = [
    ("binary_name", ["", "bin/", "/", "a\0b", FREE_PORT, None, 1, b"queen", ["queen"], "\ud800"]),
    ("args", ["--port 1", b"x", None, 1, {"a"}, {"a": "b"}, iter(["a"])]),
    ("env", ["A=b", None, ["A"], [("A", "b")]]),
    ("working_dir", ["", "a\0b", f"/{FREE_PORT}", 1, b"/w", "\ud800"]),
    ("ready_mode", [None, "http://h/", Manual, 1]),
    ("detach", [1, 0, None, "yes"]),
    ("name", ["", "..", "a/b", "a\0b", "a" * 201, None, 1]),
    ("stop_ladder", [None, 10.0, (signal.SIGTERM, 10.0), [(15, 1.0)]]),
    ("output", [None, "q.log", 65536]),
    ("search_path", ["/bin", "/bin:/usr/bin", b"/bin", None, {"/bin"}]),
]


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED for value in values], ids=name_of
)
def test_a_value_that_can_not_be_meant_is_refused_by_the_name_of_its_field(
    name: str, value: object
) -> None:
    error = problem_of(**{name: value})
    assert name == error.field
    assert str(error).startswith(f"{name}: ")


@pytest.mark.fault(91)
@pytest.mark.parametrize("value", NO_SECONDS, ids=lambda value: repr(value)[:10])
def test_a_time_limit_that_is_no_positive_number_is_refused(value: Any) -> None:
    assert "ready_timeout" == problem_of(ready_timeout=value).field
    with pytest.raises(ConfigError, match=r"^interval: must be "):
        HealthCheck("http://h/", interval=value)
    with pytest.raises(ConfigError, match=r"^probe_timeout: must be "):
        HealthCheck("http://h/", probe_timeout=value)


@pytest.mark.parametrize("value", [1, 0.001, 10**300], ids=lambda value: str(float(value)))
def test_a_time_limit_becomes_a_float(value: float) -> None:
    assert repr(float(value)) == repr(check_seconds("x", value))


@pytest.mark.fault(91)
def test_an_interval_over_the_ready_timeout_is_refused() -> None:
    mode = HealthCheck("http://h/", interval=2.0)
    error = problem_of(ready_mode=mode, ready_timeout=1.9)
    assert ("ready_timeout", "1.9 s is shorter than the interval of 2.0 s") == error.args
    assert 2.0 == config(ready_mode=mode, ready_timeout=2).ready_timeout


@pytest.mark.fault(94)
@pytest.mark.parametrize(
    ("name", "value"), [("args", "--port 1"), ("search_path", "/bin:/usr/bin"), ("env", "A=b")]
)
def test_a_string_in_the_place_of_a_list_is_not_split_into_characters(
    name: str, value: str
) -> None:
    assert "str" in problem_of(**{name: value}).problem


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    "value", ["a\0b", f"{FREE_PORT}\0", 1, None, b"x", ["x"], "\ud800"], ids=ascii
)
def test_an_argument_that_no_program_can_get_is_refused_by_its_place(value: object) -> None:
    assert "args[1]" == problem_of(args=["ok", value]).field


@pytest.mark.fault(5)
@pytest.mark.parametrize("value", ["a\0b", 1, b"x", ["x"], "\ud800"], ids=ascii)
def test_a_value_that_no_environment_can_hold_is_refused_by_its_variable(value: object) -> None:
    assert "env['KEY']" == problem_of(env={"KEY": value}).field


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    "key", ["", "A=B", "=", "A\0", FREE_PORT, 1, None, b"A", "\ud800"], ids=ascii
)
def test_a_name_that_no_variable_can_have_is_refused(key: object) -> None:
    error = problem_of(env={key: "x"})
    assert "env" == error.field
    assert "can't be the name of a variable" in error.problem


@pytest.mark.parametrize("value", ["", "a\0b", f"/{FREE_PORT}", 1, None], ids=ascii)
def test_a_directory_to_search_that_is_none_is_refused_by_its_place(value: object) -> None:
    assert "search_path[1]" == problem_of(search_path=["/bin", value]).field


@pytest.mark.fault(93)
@pytest.mark.parametrize("binary_name", ["..", "/bin/..", "."])
def test_a_program_whose_last_part_is_no_name_needs_a_name(binary_name: str) -> None:
    assert "name" == problem_of(binary_name=binary_name).field
    assert "queen" == config(binary_name=binary_name, name="queen").name


@frozen
class Elsewhere(ReadyMode):
    """A mode with a text."""

    text: str

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,)

    async def arm(self, start: Start) -> ArmedReady:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("args", {"args": ["ok", f"--report={CALLBACK_URL}"]}),
        ("env", {"env": {"REPORT": CALLBACK_URL}}),
        ("ready_mode", {"ready_mode": Elsewhere(CALLBACK_URL)}),
    ],
)
def test_a_callback_url_without_a_callback_is_refused_where_it_stands(
    field: str, given: dict[str, Any]
) -> None:
    error = problem_of(**given)
    assert field == error.field
    assert "CALLBACK_URL has no value" in error.problem
    assert error.problem.endswith("use Callback()")


# --- a value --------------------------------------------------------------------------------------


def full() -> LifecycleConfig:
    """A configuration in which every field is given."""
    return LifecycleConfig(
        "bin/queen",
        args=["--port", FREE_PORT],
        env={"TOKEN": SECRET, "GONE": None},
        secret_env={"KEY": SECRET},
        working_dir="/w",
        ready_mode=HealthCheck(f"http://127.0.0.1:{FREE_PORT}/"),
        ready_timeout=5,
        detach=True,
        name="majesty",
        stop_ladder=StopLadder((signal.SIGINT, 1.0)),
        output=Output(10, "q.log"),
        search_path=["/opt/q"],
        limits={"nofile": 1024},
        umask=0o077,
        listen=[ListenSocket(port=FREE_PORT, name="web")],
        user="queen",
        group=1000,
    )


OTHERS: dict[str, Any] = {
    "binary_name": "x",
    "args": [],
    "env": {"TOKEN": "other", "GONE": None},
    "secret_env": {"KEY": "another key"},
    "working_dir": None,
    "ready_mode": Manual(),
    "ready_timeout": 6,
    "detach": False,
    "name": "x",
    "on_change": "error",
    "claim_timeout": 3.0,
    "stall_timeout": 2.0,
    "max_ready_timeout": 400.0,
    "stop_ladder": StopLadder(),
    "output": Output(),
    "search_path": [],
    "limits": {"nofile": (1024, None)},
    "umask": 0o022,
    "listen": [ListenSocket(unix="socket")],
    "user": "drone",
    "group": "1000",
}


def test_the_same_fields_make_the_same_configuration() -> None:
    assert full() == full()
    assert 1 == len({full(), full()})


def test_every_field_is_tried_here() -> None:
    assert {field.name for field in fields(LifecycleConfig)} == set(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
def test_another_value_of_any_field_makes_another_configuration(name: str) -> None:
    assert full() != evolve(full(), **{name: OTHERS[name]})


@pytest.mark.parametrize("name", OTHERS)
def test_no_field_can_be_changed(name: str) -> None:
    made = full()
    with pytest.raises(FrozenInstanceError):
        setattr(made, name, OTHERS[name])
    assert full() == made


def test_a_configuration_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(full()))
    assert full() == again
    assert {FREE_PORT} == again.markers


@pytest.mark.fault(95)
def test_what_was_passed_in_can_be_changed_without_effect() -> None:
    args, env, search_path = ["a"], {"A": "b"}, ["/a"]
    made = config(args=args, env=env, search_path=search_path)
    before = hash(made)
    args.append("b")
    env["A"] = "c"
    search_path.clear()
    assert (("a",), {"A": "b"}, (Path("/a"),)) == (made.args, made.env, made.search_path)
    assert before == hash(made)


@pytest.mark.fault(95)
def test_the_environment_of_a_configuration_can_not_be_changed() -> None:
    env = config(env={"A": "b"}).env
    assert isinstance(env, Mapping)
    assert not hasattr(env, "__setitem__")
    assert not hasattr(env, "update")
    assert 1 == len(env)


@pytest.mark.fault(96)
def test_a_value_of_the_environment_is_in_no_repr() -> None:
    made = full()
    assert SECRET == made.env["TOKEN"]
    shown = f"{made!r} {made} {made.env!r} {made.env}"
    assert "'TOKEN': ..." in shown
    assert SECRET not in shown


@pytest.mark.fault(96)
@pytest.mark.parametrize(
    "env",
    [
        {"TOKEN": f"{SECRET}\0"},
        {"TOKEN": f"{SECRET}\ud800"},
        {"TOKEN": SECRET.encode()},
        {"TOKEN": [SECRET]},
        {f"TOKEN={SECRET}": "x"},
        {"TOKEN": f"{SECRET}{CALLBACK_URL}"},
        {"TOKEN": SECRET, "": "x"},
        [SECRET],
        f"TOKEN={SECRET}",
    ],
    ids=["nul", "surrogate", "bytes", "list", "name", "marker", "other", "no mapping", "string"],
)
def test_a_value_of_the_environment_is_in_no_error(env: object) -> None:
    error = problem_of(env=env)
    assert SECRET not in f"{error} {error!r} {error.args} {error.__cause__} {error.__context__}"


@pytest.mark.fault(96)
@pytest.mark.parametrize("arg", [f"{SECRET}\0", f"{SECRET}\ud800", SECRET.encode()], ids=ascii)
def test_an_argument_is_in_no_error(arg: object) -> None:
    error = problem_of(args=[arg])
    assert SECRET not in f"{error} {error!r} {error.__cause__} {error.__context__}"


# --- secret_env -----------------------------------------------------------------------------------


def test_a_secret_variable_is_no_other_than_one_of_env_but_for_what_is_shown() -> None:
    made = config(secret_env={"A": "hunter22", "B": f"x:{FREE_PORT}"})
    assert {"A": "hunter22", "B": f"x:{FREE_PORT}"} == made.secret_env
    assert {FREE_PORT} == made.markers


def test_a_secret_is_in_no_repr_wherever_else_it_stands() -> None:
    made = config(secret_env={"A": SECRET}, args=["--key", SECRET], name=f"q-{SECRET}")
    assert SECRET not in repr(made)
    assert "args=('--key', '***')" in repr(made)
    assert "secret_env={'A': ...}" in repr(made)


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({"KEY": ""}, r"secret_env\['KEY'\]: is empty"),
        ({"KEY": " \n"}, r"secret_env\['KEY'\]: is empty"),
        ({"KEY": None}, r"secret_env\['KEY'\]: must be a string or path, not NoneType"),
        ({"KEY": f"{SECRET}\0"}, r"secret_env\['KEY'\]: contains a NUL"),
        ({"KEY": SECRET.encode()}, r"secret_env\['KEY'\]: must be a string or path, not bytes"),
        ({f"KEY={SECRET}": "x"}, r"secret_env: 'KEY=...' can't be the name of a variable"),
        ({"": SECRET}, r"secret_env: '' can't be the name of a variable"),
        ({"KEY": f"{SECRET}{CALLBACK_URL}"}, "secret_env: CALLBACK_URL has no value under"),
        ({"TWICE": SECRET}, "secret_env: 'TWICE' is in env, too; give it in one of them"),
        ([SECRET], "secret_env: must be a mapping such as"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_can_be_no_secret_is_refused_without_being_repeated(env: object, problem: str) -> None:
    error = problem_of(env={"TWICE": "x"}, secret_env=env)
    assert re.match(problem, str(error))
    assert SECRET not in f"{error} {error!r} {error.args} {error.__cause__} {error.__context__}"


def test_another_secret_is_another_configuration_and_only_a_digest_says_so() -> None:
    one, two = (config(secret_env={"KEY": value}).fingerprint for value in (SECRET, "other"))
    assert ("secret_env",) == differences(one, two)
    assert SECRET not in one
