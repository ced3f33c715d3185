"""Encoders that stand alone say what transformers says, one by one and in ragged batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_modernbert as tiny
import torch
import transformers
from tiny_words import VOCABULARY, WORDS
from typer.testing import CliRunner

from edgegen.bundle_rules import manifest_faults
from edgegen.cli import app
from edgegen.errors import CheckpointError, ExportError, InputError
from edgegen.export import build
from edgegen.export.checkpoint import Checkpoint, Pooling
from edgegen.export.families import family_of
from edgegen.export.ops.torch_ops import TorchOps
from edgegen.export.options import ExportOptions, Format, WeightFormat
from edgegen.export.reference import TorchReference
from edgegen.export.sources.sentence_folder import pooling_of
from edgegen.manifest import Manifest
from edgegen.runtime.methods import METHODS
from edgegen.runtime.opening import load
from edgegen.runtime.pipeline import Pipeline

DEVICES: dict[Format, str] = {"onnx": "ort-cpu", "openvino": "ov-cpu"}
LIMITS: dict[Format, float] = {"onnx": 1e-4, "openvino": 1e-3}
# One token, word pieces and marks, and one longer than any window.
TEXTS = ["ba", "banbe bonbaban, ben.", "bor bast " + " ".join(WORDS[:60]), "fa fe fi."]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Manifest]]:
    @cache
    def export(
        task: str, form: Format = "onnx", narrow: WeightFormat = "fp32", pooling: Any = None
    ) -> tuple[Path, Manifest]:
        folder = tmp_path_factory.mktemp("bundle") / task
        checkpoint = replace(
            tiny.encoder(task), tokenizers={"source": tiny.word_pieces()}, pooling=pooling
        )
        manifest = written(checkpoint, folder, formats=(form,), weight_format=narrow)
        return folder, manifest

    return export


def written(checkpoint: Checkpoint, folder: Path, **said: Any) -> Manifest:
    said = {"min_agreement": 0.8, "parity_prompts": tuple(TEXTS), **said}
    with pytest.MonkeyPatch.context() as patch:

        def load(*_: Any, **__: Any) -> Checkpoint:
            return checkpoint

        patch.setattr(build, "load", load)
        return build.export(ExportOptions(model="tiny", output=folder, **said))


@pytest.fixture
def opened(exported: Any) -> Callable[..., Pipeline]:
    def open_(task: str, form: Format = "onnx", **said: Any) -> Pipeline:
        return load(exported(task, form, **said)[0], DEVICES[form])

    return open_


def spoken() -> Any:
    """The same tokenizer as transformers has it."""
    import tokenizers

    made = tokenizers.Tokenizer.from_buffer(tiny.word_pieces().data)
    make: Any = transformers.PreTrainedTokenizerFast
    return make(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip


def truth(task: str, text: str) -> Any:
    with torch.no_grad():
        return tiny.encoder_model(task)(**spoken()(text, return_tensors="pt"))


# ---------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("form", DEVICES)
@pytest.mark.parametrize("task", tiny.ENCODERS)
def test_the_gate_finds_graphs_equal_and_batches_too(
    task: str, form: Format, exported: Any
) -> None:
    _, manifest = exported(task, form)
    (parity,) = manifest.parity
    assert parity.reference.startswith("transformers")
    assert parity.max_error <= LIMITS[form] and parity.rows_error <= 1e-5
    assert parity.agreement == pytest.approx(1, abs=1e-6)
    assert set(manifest.components) == {"encode"} and manifest.task == task


@pytest.mark.parametrize("task", tiny.ENCODERS)
def test_int8_agrees(task: str, exported: Any) -> None:
    assert exported(task, narrow="int8")[1].parity[0].agreement >= 0.9


@pytest.mark.parametrize("form", DEVICES)
def test_embeddings_are_means_of_what_transformers_gives(form: Format, opened: Any) -> None:
    with opened("feature-extraction", form) as pipeline:
        found = pipeline.embed(TEXTS)
        assert found.shape == (4, 96) and found.dtype == np.float32
        for text, vector in zip(TEXTS, found, strict=True):
            mean = truth("feature-extraction", text).last_hidden_state[0].mean(0).numpy()
            np.testing.assert_allclose(vector, mean, atol=1e-3 if form == "openvino" else 1e-4)
            np.testing.assert_allclose(pipeline.embed(text)[0], vector, atol=1e-5)


@pytest.mark.parametrize("how", ["cls", "mean", "max"])
def test_pooling_is_as_the_folder_says(how: Any, opened: Any) -> None:
    with opened("feature-extraction", pooling=Pooling(how=how, unit=True)) as pipeline:
        encoding = pipeline.bundle.manifest.encoding
        assert encoding is not None and encoding.pooling == how and encoding.unit
        hidden = truth("feature-extraction", TEXTS[1]).last_hidden_state[0].numpy()
        vector = {"cls": hidden[0], "mean": hidden.mean(0), "max": hidden.max(0)}[how]
        found = pipeline.embed(TEXTS)[1]
        np.testing.assert_allclose(found, vector / np.linalg.norm(vector), atol=1e-5)


def test_classes_are_those_of_transformers(opened: Any) -> None:
    with opened("text-classification") as pipeline:
        for text, labels in zip(TEXTS, pipeline.classify(TEXTS), strict=True):
            scores = truth("text-classification", text).logits[0].softmax(-1).numpy()
            assert [one.label for one in labels] == [tiny.LABELS[i] for i in np.argsort(-scores)]
            assert labels[0].score == pytest.approx(scores.max(), abs=1e-4)
            assert pipeline.classify(text)[0].label == labels[0].label


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["simple", "first", "average", "max"])
def test_spans_are_those_of_transformers_pipeline(way: str, opened: Any) -> None:
    make: Any = transformers.TokenClassificationPipeline
    model = tiny.encoder_model("token-classification")
    theirs = make(model=model, tokenizer=spoken(), aggregation_strategy=way)
    with opened("token-classification") as pipeline:
        for text, spans in zip(TEXTS, pipeline.tag(TEXTS, way), strict=True):
            said = theirs(text)
            expected = [(one["entity_group"], one["start"], one["end"]) for one in said]
            assert [(one.label, one.start, one.end) for one in spans] == expected
            assert [one.score for one in spans] == pytest.approx(
                [float(one["score"]) for one in said], abs=1e-4
            )
            assert all(text[one.start : one.end] == one.text for one in spans)


def test_masks_are_filled_as_transformers_does(opened: Any) -> None:
    text = "ba [MASK] bon [MASK]."
    logits = truth("fill-mask", text).logits[0].softmax(-1)
    ids = spoken()(text)["input_ids"]
    with opened("fill-mask") as pipeline:
        found = pipeline.fill_mask(text, top_k=3)
        places = [i for i, token in enumerate(ids) if token == 4]
        for place, fillings in zip(places, found, strict=True):
            best = logits[place].topk(3)
            assert [one.id for one in fillings] == best.indices.tolist()
            assert [one.score for one in fillings] == pytest.approx(best.values.tolist(), abs=1e-4)
        with pytest.raises(InputError, match=r"\[MASK\]"):
            pipeline.fill_mask("ba ban")


def test_the_encoder_sees_one_place_further_than_the_decoder() -> None:
    """A window of 2 r: the encoder sees r places on either side, the decoder r with its own."""
    reach = tiny.SAID["local_attention"] // 2
    local: dict[str, Any] = {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}
    for checkpoint, seen in (
        (tiny.encoder("fill-mask", **local), reach),
        (tiny.decoder(**local), reach - 1),
    ):
        assert furthest(checkpoint) == seen


def furthest(checkpoint: Checkpoint) -> int:
    """How far before a token another may be that changes what the family's graph makes of it."""
    family = family_of(checkpoint)[1]
    weights = family.weights()

    def rows(ids: list[int]) -> Any:
        if family.task == "text-generation":
            return TorchReference(family).logits({}, ids)
        feeds = {
            "input_ids": [ids], "source_mask": np.zeros((1, len(ids)), np.float32),
            "logit_rows": np.arange(len(ids)),
        }  # fmt: skip
        ops = TorchOps(weights, feeds)
        with torch.no_grad():
            family.encode(ops)
        return ops.results["logits"][0].numpy()

    text = [int(i) for i in np.random.default_rng(0).integers(3, VOCABULARY, 24)]
    plain = rows(text)[20]
    other = [rows([*text[:at], 7, *text[at + 1 :]])[20] for at in range(20)]
    return max(20 - at for at, row in enumerate(other) if np.abs(row - plain).max() > 1e-4)


# ------------------------------------------------------------------- folders and messages


def sentence_folder(folder: Path, pooling: dict[str, Any], *steps: str) -> Path:
    modules = [{"idx": i, "path": f"{i}_{name}" if i else "", "type": f"st.models.{name}"}
               for i, name in enumerate(("Transformer", "Pooling", *steps))]  # fmt: skip
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    return folder


def test_sentence_transformers_folders_say_how_to_pool(tmp_path: Path) -> None:
    assert pooling_of(tmp_path) is None
    said = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    folder = sentence_folder(tmp_path, said, "Normalize")
    assert pooling_of(folder) == Pooling(how="cls", unit=True, max_tokens=128)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    assert pooling_of(folder) == Pooling(how="mean", unit=True, max_tokens=128)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    with pytest.raises(CheckpointError, match="lasttoken"):
        pooling_of(folder)


def test_a_longest_text_that_is_no_number_is_refused(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, {"pooling_mode": "mean"})
    for said in ('"many"', "-1", "true", "[128]"):
        (folder / "sentence_bert_config.json").write_text(f'{{"max_seq_length": {said}}}')
        with pytest.raises(CheckpointError, match=r"max_seq_length is .*, expected a whole number"):
            pooling_of(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": null}')
    assert pooling_of(folder) == Pooling(how="mean")


def test_a_step_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path, {"pooling_mode_mean_tokens": True}, "Dense")
    with pytest.raises(CheckpointError, match="Dense"):
        pooling_of(folder)


def test_any_checkpoint_embeds_and_no_other_does_more_than_its_class(tmp_path: Path) -> None:
    checkpoint = replace(tiny.encoder("fill-mask"), tokenizers={"source": tiny.word_pieces()})
    manifest = written(checkpoint, tmp_path / "b", task="feature-extraction")
    assert manifest.task == "feature-extraction" and manifest.parity[0].max_error <= 1e-4
    with pytest.raises(ExportError, match="fill-mask and feature-extraction"):
        written(checkpoint, tmp_path / "c", task="text-generation")


@pytest.mark.parametrize("task", tiny.ENCODERS)
def test_what_a_bundle_cannot_do_is_one_line_that_says_what_it_can(task: str, opened: Any) -> None:
    with opened(task) as pipeline:
        for asked in {"generate", *METHODS.values()} - {METHODS[task]}:
            with pytest.raises(InputError, match=METHODS[task]) as caught:
                getattr(pipeline, asked)("ba ban")
            assert "\n" not in str(caught.value)


def test_a_generator_does_not_embed(tmp_path: Path) -> None:
    from tiny_families import write_bundle

    with (
        load(write_bundle(tmp_path / "b", "modernbert-decoder")) as pipeline,
        pytest.raises(InputError, match="use generate"),
    ):
        pipeline.embed("ba")


def test_a_long_text_is_cut_with_a_warning_and_keeps_its_end_mark(tmp_path: Path) -> None:
    pooling = Pooling(how="cls", max_tokens=16)
    checkpoint = tiny.encoder("feature-extraction")
    checkpoint = replace(checkpoint, tokenizers={"source": tiny.word_pieces()}, pooling=pooling)
    written(checkpoint, tmp_path / "b", parity=False)
    with load(tmp_path / "b") as pipeline:
        with pytest.warns(UserWarning, match="16"):
            found = pipeline.embed(" ".join(WORDS[:40]))
        np.testing.assert_allclose(found, pipeline.embed(" ".join(WORDS[:14])), atol=1e-6)


@pytest.mark.parametrize("task", tiny.ENCODERS)
def test_run_prints_lines_and_json(task: str, exported: Any) -> None:
    folder = str(exported(task)[0])
    text = "ba [MASK] ban."
    plain = CliRunner().invoke(app, ["run", folder, text])
    assert plain.exit_code == 0 and plain.output.strip()
    document = json.loads(CliRunner().invoke(app, ["run", folder, text, "--json"]).output)
    keys = {"embed": "embedding", "classify": "labels", "tag": "spans", "fill_mask": "masks"}
    assert document[keys[METHODS[task]]] is not None
    refused = CliRunner().invoke(app, ["run", folder, text, "--num-beams", "2"])
    assert refused.exit_code != 0


def test_a_manifest_without_its_record_is_refused(exported: Any) -> None:
    manifest = exported("fill-mask")[1]
    assert not manifest_faults(manifest)
    bare = msgspec.structs.replace(manifest, encoding=None)
    assert any("encoding" in fault for fault in manifest_faults(bare))
