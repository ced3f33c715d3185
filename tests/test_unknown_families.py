"""An architecture there is no family for is answered with the nearest one and the way to add it."""

from __future__ import annotations

from typing import Any

import pytest

from edgegen.errors import CheckpointError
from edgegen.export.checkpoint import Checkpoint, Origin
from edgegen.export.families import family_of
from edgegen.export.families.nearest import ENDINGS, nearest


def unknown(model_type: str, **config: Any) -> Checkpoint:
    return Checkpoint(
        config={"model_type": model_type, **config},
        weights={},
        tokenizers={},
        origin=Origin(source="made here", kind="memory"),
    )


@pytest.mark.parametrize(
    ("model_type", "config", "near", "family"),
    [
        ("bert", {}, "modernbert", "modernbert"),
        ("pegasus_x", {"is_encoder_decoder": True}, "pegasus", "bart"),
        ("nllb-moe", {"is_encoder_decoder": True}, "bart", "bart"),
        ("longt5", {}, "t5", "t5"),
        ("umt5", {}, "mt5", "t5"),
        ("gemma2", {}, "gemma", "causal"),
        ("lama", {}, "llama", "causal"),
        ("falcon", {"architectures": ["FalconForCausalLM"]}, "llama", "causal"),
        ("electra", {"architectures": ["ElectraForMaskedLM"]}, "modernbert", "modernbert"),
    ],
)
def test_the_nearest_family_is_named(
    model_type: str, config: dict[str, Any], near: str, family: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        family_of(unknown(model_type, **config))
    said = str(caught.value)
    assert f"{model_type!r}. The nearest is {near!r} (family {family!r})" in said
    assert "docs/extend.md" in said and "\n" not in said


def test_where_nothing_is_near_nothing_is_guessed() -> None:
    with pytest.raises(CheckpointError, match=r"unknown model type 'sam'\. Known: bart") as caught:
        family_of(unknown("sam"))
    assert "nearest" not in str(caught.value)


def test_every_class_ending_leads_to_a_model_type_there_is() -> None:
    for ending, model_type in ENDINGS.items():
        named = unknown("xyzzy", architectures=[f"Xyzzy{ending}"])
        assert nearest(named, ENDINGS.values()) == model_type
        with pytest.raises(CheckpointError, match=f"nearest is '{model_type}'"):
            family_of(named)
