"""Pictures to text: prepared as transformers prepares them, read as it reads them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_families import CASES, write_bundle
from tiny_vision import PREPROCESSOR
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from edgegen.bundle import Bundle
from edgegen.cli import main
from edgegen.errors import CheckpointError, InputError
from edgegen.export.families import family_of
from edgegen.export.families.picture import image_of
from edgegen.export.families.vision import renamed
from edgegen.export.options import ExportOptions
from edgegen.export.parity import Gate
from edgegen.export.reference import TransformersReference
from edgegen.manifest import Image
from edgegen.runtime import picture
from edgegen.runtime.opening import load
from edgegen.runtime.options import GenerationOptions

pillow = pytest.importorskip("PIL.Image")
Bytes = NDArray[np.uint8]
READERS = [name for name, case in CASES.items() if case.family == "vision"]


def drawing(height: int, width: int, seed: int) -> Bytes:
    """Bars and a disc on a ground that grows lighter."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    shown = (rows[..., None] * random.uniform(0, 2, 3) + columns[..., None]) % 256
    disc = (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (height / 3) ** 2
    shown[disc] = random.integers(0, 256, 3)
    shown[:: 3 + seed] = random.integers(0, 256, 3)
    return np.asarray(shown, np.uint8)


def prepared(shown: Bytes) -> NDArray[np.float32]:
    processor = ViTImageProcessorPil(**PREPROCESSOR)
    values = processor(pillow.fromarray(shown), return_tensors="np")["pixel_values"][0]
    return np.asarray(values, np.float32)


@pytest.mark.parametrize("name", READERS)
def test_drawings_give_the_tokens_transformers_generates(name: str, tmp_path: Path) -> None:
    model: Any = TransformersReference(family_of(CASES[name].make())[1]).model
    texts: set[tuple[int, ...]] = set()
    options = GenerationOptions(max_new_tokens=24)
    with load(write_bundle(tmp_path / "b", name)) as pipeline:
        for seed in range(8):
            shown = drawing(31 + 7 * seed, 90 - 9 * seed, seed)
            pillow.fromarray(shown).save(tmp_path / "picture.png")
            result = pipeline.generate(tmp_path / "picture.png", options)
            wanted = model.generate(
                torch.from_numpy(prepared(shown))[None], max_new_tokens=24, do_sample=False
            )
            assert list(result.tokens) == wanted[0, 1:].tolist()
            assert pipeline.generate(shown, options).tokens == result.tokens
            texts.add(result.tokens)
    assert len(texts) > 2  # pictures are told apart


@pytest.mark.parametrize("resample", range(6))
def test_pictures_are_prepared_as_transformers_prepares_them(resample: int) -> None:
    said: dict[str, Any] = {
        **PREPROCESSOR, "size": {"height": 41, "width": 40}, "resample": resample,
        "do_center_crop": True, "crop_size": {"height": 24, "width": 33},
    }  # fmt: skip
    shown = drawing(67, 90, 3)
    wanted = DeiTImageProcessorPil(**said)(pillow.fromarray(shown), return_tensors="np")
    found = picture.pixels(shown, image_of(said, 24, 33))
    np.testing.assert_allclose(found, wanted["pixel_values"][0], atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_files_of_any_mode_are_read_as_rgb(mode: str, tmp_path: Path) -> None:
    shown = pillow.fromarray(drawing(24, 40, 1)).convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    shown.save(path)
    found = picture.pixels(path, image_of(PREPROCESSOR, 24, 40))
    wanted = picture.pixels(np.asarray(shown.convert("RGB")), image_of(PREPROCESSOR, 24, 40))
    np.testing.assert_array_equal(found, wanted)


def test_a_picture_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    shown = pillow.fromarray(drawing(40, 24, 1))
    exif = shown.getexif()
    exif[0x0112] = 6
    shown.save(tmp_path / "a.png", exif=exif)
    found = picture.pixels(tmp_path / "a.png", image_of(PREPROCESSOR, 24, 40))
    turned = np.asarray(shown.transpose(pillow.Transpose.ROTATE_270))
    np.testing.assert_array_equal(found, picture.pixels(turned, image_of(PREPROCESSOR, 24, 40)))


WITHOUT_PILLOW = """
import sys
sys.modules["PIL"] = None
import numpy as np
from edgegen.manifest import Image
from edgegen.runtime.picture import pixels
print(pixels(np.zeros((4, 6, 3), np.uint8), Image(height=4, width=6)).shape)
wanted = Image(height=4, width=6, resize_height=4, resize_width=6)
print(pixels(np.zeros((4, 6, 3), np.uint8), wanted).shape)
try:
    pixels(np.zeros((5, 6, 3), np.uint8), wanted)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_pictures_of_the_right_size_need_no_pillow() -> None:
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_PILLOW], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[:2] == ["(3, 4, 6)", "(3, 4, 6)"]
    assert said[2].startswith("InputError") and said[2].endswith("pip install 'edgegen[image]'.")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros((4, 6), np.uint8), r"picture \[4, 6\] of uint8: expected"),
        (np.zeros((4, 6, 3), np.float32), "of float32: expected"),
        ([1, 2, 3], "expected uint8"),
        ([{"role": "user", "content": "a"}], "expected uint8"),
        ("nowhere.png", "nowhere.png: it cannot be read"),
        (Path(__file__), "it cannot be read"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(source: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as fault:
        picture.pixels(source, Image(height=4, width=6))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({}, "is missing"),
        ({"size": {"shortest_edge": 24}}, "expected a height and a width"),
        ({"size": 30}, "expected 24 x 40"),
        ({"size": 20, "do_center_crop": True, "crop_size": {"height": 24, "width": 40}}, "from 20"),
    ],
)
def test_preparations_that_do_not_fit_the_encoder_are_refused(
    said: dict[str, Any], fault: str
) -> None:
    with pytest.raises(CheckpointError, match=fault):
        image_of(said, 24, 40)


def test_names_of_older_files_are_read() -> None:
    """transformers 5 renamed ViT's parameters (``models/vit/modeling_vit.py``)."""
    at = "encoder.encoder.layer.3"
    assert renamed(f"{at}.attention.attention.query.weight") == (
        "encoder.layers.3.attention.q_proj.weight"
    )
    assert renamed(f"{at}.attention.attention.value.bias") == (
        "encoder.layers.3.attention.v_proj.bias"
    )
    assert renamed(f"{at}.attention.output.dense.bias") == "encoder.layers.3.attention.o_proj.bias"
    assert renamed(f"{at}.intermediate.dense.bias") == "encoder.layers.3.mlp.fc1.bias"
    assert renamed(f"{at}.output.dense.weight") == "encoder.layers.3.mlp.fc2.weight"
    assert renamed("decoder.output.dense.weight") == "decoder.output.dense.weight"


@pytest.mark.parametrize(("side", "kind"), [("encoder", "swin"), ("decoder", "mbart")])
def test_stacks_that_are_not_there_are_named(side: str, kind: str) -> None:
    checkpoint = CASES["vit-gpt2"].make()
    config = {**checkpoint.config, side: {**checkpoint.config[side], "model_type": kind}}
    with pytest.raises(CheckpointError, match=kind):
        family_of(replace(checkpoint, config=config))


def test_a_picture_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, shown = write_bundle(tmp_path / "b", "vit-trocr"), drawing(50, 30, 2)
    pillow.fromarray(shown).save(tmp_path / "a.png")
    with load(bundle) as pipeline:
        text = pipeline.generate(shown, GenerationOptions(max_new_tokens=9)).text
    words = [str(bundle), str(tmp_path / "a.png"), "--max-new-tokens", "9"]
    assert main(["run", *words]) == 0
    assert capsys.readouterr().out.strip() == text.strip()
    assert text
    for wrong, said in (("b.png", "no such file"), ("--whole", "for text")):
        assert main(["run", str(bundle), wrong]) == 2
        assert said in capsys.readouterr().err
    assert main(["inspect", str(bundle)]) == 0
    assert "24 x 40 pixels" in capsys.readouterr().out


def test_the_gate_draws_its_own_pictures(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "b", "vit-gpt2"))
    variants = {name: one.variants[0] for name, one in bundle.manifest.components.items()}
    family = family_of(CASES["vit-gpt2"].make())[1]
    parity = Gate(family, ExportOptions(model="tiny", output=tmp_path)).check(bundle.path, variants)
    assert parity.max_error < 1e-4 and parity.agreement == 1
    assert len({prompt.tokens for prompt in parity.prompts}) >= 1


@pytest.mark.parametrize("name", ["t5gemma2", "gpt2"])
def test_a_picture_is_refused_by_models_of_text(name: str, tmp_path: Path) -> None:
    """T5Gemma 2 has a tower for pictures, which its graphs leave out."""
    with load(write_bundle(tmp_path / "b", name)) as pipeline:
        with pytest.raises(InputError, match=r"\[9, 8, 3\] of uint8: a picture, and") as fault:
            pipeline.generate(drawing(9, 8, 1))
        assert "\n" not in str(fault.value)
