"""Which machine is meant: what can be said, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from trio_lifecycle import ConfigError
from trio_lifecycle._ssh._target import LEFT_OUT, SSHTarget

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ6c1bBzTqDsXlDyxGmCMpSkbPCmXwtZxb0oSVhJ0hd"


def test_what_was_left_out_is_the_users_own() -> None:
    target = SSHTarget(host="gpu-2")
    left_out = (target.config, target.known_hosts, target.client_keys, target.agent, target.tunnel)
    assert (LEFT_OUT,) * 5 == left_out
    assert (None, None, (), None) == (target.user, target.port, target.host_key, target.passphrase)
    assert 10.0 == target.connect_timeout


def test_equal_targets_are_one_machine() -> None:
    one, two = (SSHTarget(host="gpu-2", config=[Path("/a"), "/b"]) for _ in range(2))
    assert one == two
    assert 1 == len({one, two})
    assert one != SSHTarget(host="gpu-2", config=None)


def test_a_passphrase_is_not_shown() -> None:
    target = SSHTarget(host="gpu-2", passphrase="open sesame", tunnel="bastion")
    assert "sesame" not in repr(target)


def test_paths_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    target = SSHTarget(host="gpu-2", known_hosts="known", client_keys=["~/.ssh/key"], agent="s")
    assert (f"{tmp_path}/known",) == target.known_hosts
    assert ("/home/me/.ssh/key",) == target.client_keys
    assert f"{tmp_path}/s" == target.agent


def test_a_pinned_key_is_kept_without_its_comment() -> None:
    assert (KEY,) == SSHTarget(host="gpu-2", host_key=f"{KEY} root@gpu-2\n").host_key
    assert (KEY, KEY) == SSHTarget(host="gpu-2", host_key=[KEY, f"{KEY} x"]).host_key


def test_a_tunnel_in_words_has_the_files_of_its_target() -> None:
    target = SSHTarget(
        host="gpu-2", host_key=KEY, config=None, known_hosts="/k", tunnel="me@a:2222, [::1]:23"
    )
    last = target.tunnel
    assert isinstance(last, SSHTarget)
    first = last.tunnel
    assert isinstance(first, SSHTarget)
    assert ("::1", None, 23) == (last.host, last.user, last.port)
    assert ("a", "me", 2222, None) == (first.host, first.user, first.port, first.tunnel)
    assert ((), ("/k",), ()) == (first.config, first.known_hosts, first.host_key)


@pytest.mark.parametrize(
    "given",
    [
        {"host": ""},
        {"host": "-oProxyCommand=x"},
        {"host": "a b"},
        {"host": "me@gpu-2"},
        {"host": "gpu\0"},
        {"host": "gpu\n"},
        {"host": 7},
        {"host": "gpu;id"},
        {"host": "$(id)"},
        {"host": "`id`"},
        {"host": "gpu'"},
        {"user": ""},
        {"user": "-l"},
        {"user": "a b"},
        {"user": "a|id"},
        {"user": '"a'},
        {"user": "a\0"},
        {"port": 0},
        {"port": 65536},
        {"port": "22"},
        {"port": True},
        {"config": 7},
        {"config": b"x"},
        {"config": ""},
        {"known_hosts": None},
        {"known_hosts": print},
        {"known_hosts": ["a\0"]},
        {"host_key": "gpu-2"},
        {"host_key": f"gpu-2 {KEY}"},
        {"host_key": 7},
        {"client_keys": None},
        {"client_keys": []},
        {"client_keys": "~nobody-of-this-name/key"},
        {"passphrase": b"x"},
        {"agent": ""},
        {"tunnel": 7},
        {"tunnel": ""},
        {"tunnel": "a:port"},
        {"tunnel": "a:70000"},
        {"connect_timeout": 0},
        {"connect_timeout": "10"},
        {"connect_timeout": float("nan")},
        {"keepalive_interval": 0},
        {"keepalive_count": 0},
        {"keepalive_count": 1.5},
    ],
    ids=repr,
)
def test_what_cannot_be_meant_is_refused_by_name(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ConfigError) as raised:
        SSHTarget(**{"host": "gpu-2", **given})
    assert name == raised.value.field


@pytest.mark.fault(70)
def test_no_way_leads_around_the_check_of_host_keys() -> None:
    with pytest.raises(ConfigError, match="host keys are always checked"):
        SSHTarget(host="gpu-2", known_hosts=None)
