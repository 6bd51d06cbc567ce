"""The demo's models: what there is, what its cards say, and how a text is loaded."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle.demo import worker
from trio_lifecycle.demo._language import WordModel, words_of
from trio_lifecycle.demo._models import ModelError, find_model, model_names
from trio_lifecycle.demo.hive_lifecycle import checks, llama_server
from trio_lifecycle.demo.worker import LoadError, load

# --- models ---


def test_a_model_is_a_text_weights_a_card_or_built_in(tmp_path: Path) -> None:
    (tmp_path / "tale.txt").write_text("once " * 1_000_000)
    (tmp_path / "big.gguf").write_bytes(bytes(2**20))
    (tmp_path / "card.toml").write_text('file = "tale.txt"\nmemory_mib = 512\nvram_gib = 2')
    assert ["big", "card", "hashing", "pydoc", "tale"] == model_names(tmp_path)
    tale, card = find_model("tale", tmp_path), find_model("card", tmp_path)
    assert str(tmp_path / "tale.txt") == tale.source == card.source
    assert 0.2 < tale.memory_gib < 0.4
    assert (0.5, 2.0) == (card.memory_gib, card.vram_gib)
    assert "pydoc" == find_model("pydoc", tmp_path).source
    assert ["hashing", "pydoc"] == model_names(None)


def test_weights_are_served_by_llama_cpp(tmp_path: Path) -> None:
    """Another configuration: the checks and the way of starting it are the same."""
    (tmp_path / "big.gguf").write_bytes(bytes(2**20))
    model = find_model("big", tmp_path)
    assert model.is_gguf
    config = llama_server(model, lambda _event: None).config
    assert ["-m", "llama_cpp.server", "--model", model.source] == list(config.args[:4])
    assert "llama_cpp@big" == config.name


def test_a_card_says_whether_a_gpu_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "on_gpu.toml").write_text('file = "x"\nvram_gib = 2')
    (tmp_path / "on_cpu.toml").write_text('file = "x"')
    kinds = [
        [type(check).__name__ for check in checks(find_model(name, tmp_path))]
        for name in ("on_gpu", "on_cpu", "pydoc")
    ]
    assert [["FreeVRAM", "FileExists"], ["FreeMemory", "FileExists"], ["FreeMemory"]] == kinds


@pytest.mark.parametrize("value", ["-1", "true", '"1"', "[]"])
def test_a_card_with_an_odd_number_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "odd.toml").write_text(f"memory_mib = {value}")
    with pytest.raises(ModelError, match=r"odd\.toml: memory_mib must be a number of 0 or more"):
        find_model("odd", tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../tale", "/etc/passwd", "a/b", "tale.txt"])
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "tale.txt").write_text("once")
    with pytest.raises(ModelError, match="there is no model"):
        find_model(name, tmp_path)


# --- loading ---


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_text_may_be_cut_anywhere(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Words, and characters of several bytes, stand across the parts in which it is loaded."""
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(f"{text} €".encode())
    at_once = WordModel()
    at_once.learn(words_of(f"{text} €"))
    for prompt in ("", text):
        assert [*at_once.go_on(prompt, 9, 1)] == [*load(str(path)).go_on(prompt, 9, 1)]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"a " * 100 + b"\xff" + b"a " * 100, "is no text in UTF-8 .byte 200, 50 % loaded."),
        (b"\xff" * 10, "is no text in UTF-8 .byte 0, 0 % loaded."),
        (b"a " * 99 + b"\xe2\x82", "is no text in UTF-8 .byte 198, 90 % loaded."),
        (b"a " * 15 + b"\xe2\x82" + b" a" * 20, "is no text in UTF-8 .byte 30, "),
        (b" \n ", "has no words"),
        (None, "can't be read: No such file or directory"),
    ],
)
def test_what_is_no_text_is_said_to_be_none(
    tmp_path: Path, raw: bytes | None, sentence: str
) -> None:
    path = tmp_path / "text"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(LoadError, match=sentence):
        load(str(path))


def test_a_worker_without_the_memory_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(_source: str) -> Any:
        raise MemoryError

    monkeypatch.setattr("sys.argv", ["x", "--model", "vast", "--port", "1"])
    assert 1 == worker.run_worker("llm-worker-rbee", None, prepare)
    assert "vast takes more memory than there is\n" == capsys.readouterr().err


def test_python_s_own_help_is_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = load("pydoc")
    assert len(model) > 10_000
    assert "loading pydoc: 100 %" == capsys.readouterr().out.splitlines()[-1]


# --- odd cards ---


@pytest.mark.parametrize(
    "text",
    [
        f"memory_mib = {'9' * 400}",
        f"memory_mib = 0x{'f' * 9000}",
        f"file = {'[' * 100_000}",
        f'file = "{"x" * 300}"',
    ],
)
def test_a_card_may_be_odd_in_many_ways(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(ModelError, match=r"the model 'odd' can't be used: .*/odd\.toml: "):
        find_model("odd", tmp_path)


def test_a_name_that_no_file_can_have_is_that_of_no_model(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b", "\ud800"):
        with pytest.raises(ModelError, match="there is no model"):
            find_model(name, tmp_path)
