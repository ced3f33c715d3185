"""Checkpoint sources: whose a name is, and folders of transformers, local and from the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from source_files import (
    assert_same,
    ct2_whisper,
    tokenizer_json,
    write_ct2,
    write_gguf,
    write_marian,
)

from edgegen.errors import CheckpointError
from edgegen.export.sources import SOURCES, list_sources, load, source_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder of a random T5 with a tokenizer."""
    folder = tmp_path_factory.mktemp("t5")
    config = transformers.T5Config(
        vocab_size=16, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_decoder_layers=1, num_heads=2
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json(("<pad>", "</s>")))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "README.md").write_text("---\ntags: []\nlicense: mit\n---\n# T5\n")
    return folder


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def state_of(folder: Path) -> Mapping[str, Any]:
    """What transformers loads from a T5 folder; tied copies leave."""
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    state: Mapping[str, Any] = model.state_dict()
    tied = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    return {name: tensor for name, tensor in state.items() if name not in tied}


# The table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SOURCES))
def test_every_source_recognises_its_own_example_of_spelling_or_files(
    name: str, tmp_path: Path, t5: Path, spm: bytes
) -> None:
    examples = {
        "pypi": "pypi:whisper-base",
        "random": "random:encoder-decoder-30m",
        "gguf": str(write_gguf(tmp_path / "m.gguf", "llama")),
        "ctranslate2": str(write_ct2(tmp_path / "ct2", ct2_whisper())),
        "marian": str(write_marian(tmp_path / "marian", spm)),
        "local": str(t5),
        "hub": "google/flan-t5-small",
    }
    assert source_of(examples[name]).name == name
    entry = next(entry for entry in list_sources() if entry.name == name)
    assert entry.takes and entry.example and "\n" not in entry.takes


def test_a_name_that_is_nothing_is_answered_with_the_ways_there_are() -> None:
    with pytest.raises(CheckpointError, match="Did you mean pypi:whisper-base") as caught:
        load("whisper-base")
    assert "\n" not in str(caught.value)


# Local folders -----------------------------------------------------------------------------------


def test_a_folder_gives_what_transformers_loads(t5: Path) -> None:
    checkpoint = load(str(t5))
    assert_same(checkpoint.weights, state_of(t5))
    assert checkpoint.model_type == "t5"
    assert checkpoint.generation["eos_token_id"] == 1
    assert checkpoint.tokenizers["source"].data == (t5 / "tokenizer.json").read_bytes()
    assert checkpoint.tokenizer_config == {"eos_token": "</s>"}
    assert checkpoint.origin.kind == "local"
    assert checkpoint.origin.licence == "mit"
    assert checkpoint.origin.revision.startswith("sha256:")


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_floats_widen_when_read_and_the_origin_names_them(
    t5: Path, tmp_path: Path, kind: str
) -> None:
    folder = copied(t5, tmp_path / kind)
    model = transformers.T5ForConditionalGeneration.from_pretrained(t5)
    model.to(getattr(torch, kind)).save_pretrained(folder)
    checkpoint = load(str(folder))
    assert {weight.origin for weight in checkpoint.weights.values()} == {kind}
    assert_same(checkpoint.weights, state_of(folder))


def test_shards_and_pickles_say_the_same_as_one_file(t5: Path, tmp_path: Path) -> None:
    sharded, pickled = copied(t5, tmp_path / "shards"), copied(t5, tmp_path / "pickle")
    for folder in (sharded, pickled):
        (folder / "model.safetensors").unlink()
    model = transformers.T5ForConditionalGeneration.from_pretrained(t5)
    model.save_pretrained(sharded, max_shard_size="2KB")
    state = {name: tensor.clone() for name, tensor in state_of(t5).items()}
    torch.save({**state, "counter": torch.tensor(3)}, pickled / "pytorch_model.bin")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert_same(load(str(sharded)).weights, state)
    checkpoint = load(str(pickled))
    assert_same(checkpoint.weights, state)
    assert checkpoint.origin.notes == ("left out, not floats: counter",)


def test_a_pickle_of_torch_before_1_6_says_the_same_as_an_archive(t5: Path, tmp_path: Path) -> None:
    folder = copied(t5, tmp_path / "legacy")
    (folder / "model.safetensors").unlink()
    state = {name: tensor.clone() for name, tensor in state_of(t5).items()}
    path = folder / "pytorch_model.bin"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert not path.read_bytes().startswith(b"PK")
    assert_same(load(str(folder)).weights, state)


def test_a_byte_tokenizer_needs_no_file(t5: Path, tmp_path: Path) -> None:
    folder = copied(t5, tmp_path / "byt5")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    tokenizer = load(str(folder)).tokenizers["source"]
    assert (tokenizer.kind, tokenizer.offset, tokenizer.data) == ("bytes", 3, b"")


def test_a_slow_tokenizer_is_turned_into_a_tokenizer_json(
    t5: Path, tmp_path: Path, spm: bytes
) -> None:
    import tokenizers

    folder = copied(t5, tmp_path / "slow")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    (folder / "spiece.model").write_bytes(spm)
    data = load(str(folder)).tokenizers["source"].data
    fast = tokenizers.Tokenizer.from_str(data.decode())
    expected = transformers.AutoTokenizer.from_pretrained(folder)("the cat said hello").input_ids
    assert fast.encode("the cat said hello").ids == expected


def test_chat_templates_are_found_wherever_transformers_keeps_them(
    t5: Path, tmp_path: Path
) -> None:
    folder = copied(t5, tmp_path / "chat")
    assert load(str(folder)).chat_template is None
    named = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert load(str(folder)).chat_template == "d"
    (folder / "chat_template.jinja").write_text("j")
    assert load(str(folder)).chat_template == "j"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("chat_template.jinja", b"{{ \xff }}", "chat_template.jinja: not UTF-8 text .byte 3"),
        ("tokenizer_config.json", b'{"chat_template": ["x"]}', "an entry 'x', expected a name"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default"}]}', "expected a name"),
    ],
)
def test_a_chat_template_that_is_none_is_one_line(
    name: str, content: bytes, said: str, t5: Path, tmp_path: Path
) -> None:
    folder = copied(t5, tmp_path / "chat")
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


def test_weights_packed_by_another_quantiser_are_refused(t5: Path, tmp_path: Path) -> None:
    folder = copied(t5, tmp_path / "gptq")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="packed by 'gptq'"):
        load(str(folder))


def test_a_revision_of_a_folder_is_refused(t5: Path) -> None:
    with pytest.raises(CheckpointError, match="no revisions"):
        load(str(t5), revision="main")


# The hub -----------------------------------------------------------------------------------------


def test_a_hub_snapshot_is_read_as_a_folder_and_its_commit_recorded(
    t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    snapshot = copied(t5, tmp_path / "0123abc")
    asked: list[Any] = []

    def fetch(model: str, **options: Any) -> str:
        asked.append((model, options["revision"]))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    checkpoint = load("someone/tiny-t5", revision="main")
    assert asked == [("someone/tiny-t5", "main")]
    assert checkpoint.origin.revision == "0123abc"
    assert checkpoint.origin == replace(
        checkpoint.origin, kind="hub", source="someone/tiny-t5", licence="mit"
    )
    assert_same(checkpoint.weights, state_of(t5))


def test_without_the_hub_one_line_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be reached") as caught:
        load("someone/absent", cache_dir=tmp_path)
    said = str(caught.value)
    assert "\n" not in said
    assert "huggingface-cli download someone/absent" in said
    assert "local folder" in said
    assert "pypi:" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("GatedRepoError", "gated"),
        ("RepositoryNotFoundError", "no such model"),
        ("RevisionNotFoundError", "no revision 'v9'"),
        ("HfHubHTTPError", "the hub failed"),
    ],
)
def test_every_refusal_of_the_hub_is_one_line(
    error: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def fetch(model: str, **options: Any) -> str:
        kind: type[Exception] = getattr(huggingface_hub.errors, error)
        raise kind.__new__(kind, "refused\nfor reasons")  # its __init__ wants a real response

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(CheckpointError, match=said) as caught:
        load("someone/model", revision="v9")
    assert "\n" not in str(caught.value)
