"""Masks of a call: what each row sees, in arrays that stay the same objects while a text grows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_families import VOCABULARY, write_bundle

from edgegen.bundle import Bundle
from edgegen.devices import DeviceOptions, device_named
from edgegen.errors import CacheFull
from edgegen.graph import HIDDEN
from edgegen.runtime.buffers import GRAIN, TRAIL
from edgegen.runtime.decoder import Decoder, widens
from edgegen.runtime.engine import Engine
from edgegen.runtime.masks import Masks
from edgegen.runtime.options import GenerationOptions

Floats = NDArray[np.float32]


# Rows and what stands before them: one after another, several, back again, over a grain's edge.
CALLS = (
    *((4, 0), (1, 4), (1, 5), (1, 6), (3, 5), (1, 6), (1, 7), (1, 5), (1, 70), (1, 71)),
    *((3, 71), (1, 9), (3, 5), (2, 63), (1, 63), (1, 64), (1, 65)),
)


def seen(masks: Masks, n: int, past: int, parents: list[int] | None = None) -> list[list[int]]:
    """The columns each row sees; all others are hidden."""
    mask = masks.visible(n, past, parents)
    assert mask.dtype == np.float32 and set(np.unique(mask)) <= {np.float32(0), HIDDEN}
    return [np.flatnonzero(row == 0).tolist() for row in mask[0]]


def test_a_row_sees_itself_and_those_before_it_however_wide_the_mask() -> None:
    for grain in (1, 64):
        masks = Masks(grain)
        for n, past in CALLS:
            wanted = [list(range(past + row + 1)) for row in range(n)]
            assert seen(masks, n, past) == wanted
            width = masks.visible(n, past, None).shape[2]
            assert width == past + n if grain == 1 or not past else width % 64 == 0


def test_a_tree_s_row_sees_its_path_and_lies_where_its_depth_says() -> None:
    masks = Masks(64)
    tree = [-1, 0, 0, 1]
    assert seen(masks, 4, 2, tree) == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 3, 5]]
    assert seen(masks, 4, 3, None) == [list(range(4 + row)) for row in range(4)]
    places = masks.key_positions(4, 2, tree, np.array([[2, 3, 3, 4]]))
    assert places[0, :6].tolist() == [0, 1, 2, 3, 3, 4] and places.shape == (1, 64)
    chain = masks.key_positions(4, 2, None, np.array([[2, 3, 4, 5]]))
    assert chain[0].tolist() == list(range(64))


def test_arrays_stay_the_same_objects_while_their_width_does() -> None:
    masks = Masks(64)
    no = np.zeros((1, 1), np.int64)
    found = [
        (masks.visible(1, past, None), masks.key_positions(1, past, None, no))
        for past in (1, 62, 63, 64)
    ]
    assert found[0][0] is found[1][0] is found[2][0] is not found[3][0]
    assert found[0][1] is found[1][1] is found[2][1] is not found[3][1]
    long = TRAIL + 1
    assert masks.visible(long, 1, None) is not masks.visible(long, 1, None)


# A bias by distance, learned positions with a companion row, rotations and shared key heads.
NAMES = ("t5-tied", "bart", "llama-grouped")
WAYS: tuple[dict[str, Any], ...] = ({}, {"weight_format": "int8", "kv_cache": "int8"})


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def engine(name: str, way: int) -> Engine:
        folder: Path = tmp_path_factory.mktemp("masks") / "b"
        bundle = Bundle.open(write_bundle(folder, name, **WAYS[way]))
        return Engine(bundle, device_named("ort-cpu"), DeviceOptions())

    return engine


def rows_of(decoder: Decoder) -> list[Floats]:
    """A prompt, single rows over two grains, drafts as a chain and a tree, and going back."""
    drawn = [int(i) for i in np.random.default_rng(3).integers(3, VOCABULARY, 2 * GRAIN + 20)]
    found = [decoder.forward(drawn[:5]).logits.copy()]
    decoder.keep(5)
    for token in drawn[5 : GRAIN + 6]:
        found.append(decoder.forward([token]).logits.copy())
        decoder.keep(decoder.length + 1)
    for parents in (None, [-1, 0, 0, 1]):
        found.append(decoder.forward(drawn[:4], parents).logits.copy())
        decoder.keep(decoder.length, [decoder.length, decoder.length + 1])
    decoder.keep(GRAIN - 2)
    for token in drawn[:GRAIN]:
        found.append(decoder.forward([token]).logits.copy())
        decoder.keep(decoder.length + 1)
    return found


@pytest.mark.parametrize("way", range(len(WAYS)))
@pytest.mark.parametrize("name", NAMES)
def test_columns_behind_the_rows_change_no_bit(name: str, way: int, engines: Any) -> None:
    engine = engines(name, way)
    memory = engine.remember_ids([5, 9, 77, 120, 1]) if "encode" in engine.variants else None
    wide, narrow = engine.decoder(memory), engine.decoder(memory)
    assert widens(engine.variants["decode"])
    narrow._masks = Masks()
    for one, other in zip(rows_of(wide), rows_of(narrow), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_beams_are_the_same_behind_masks_as_wide_as_their_rows(name: str, engines: Any) -> None:
    engine, found = engines(name, 0), list[Any]()
    source = [5, 9, 77, 120, 1]
    encodes = "encode" in engine.variants
    memory = engine.remember_ids(source) if encodes else None
    prompt = engine.manifest.generation.start if encodes else source
    said = GenerationOptions(num_beams=4, max_new_tokens=90, min_new_tokens=89)
    for masks in (None, Masks()):
        decoder = engine.decoder(memory, said)
        decoder._masks = masks or decoder._masks
        search = engine.generation(decoder, said, prompt_length=len(prompt), memory=memory)
        *_, last = search.run(prompt)
        assert decoder.length > GRAIN
        found.append(last.hypotheses)
    assert found[0] == found[1]


def test_layers_with_a_window_have_masks_as_wide_as_their_rows(engines: Any) -> None:
    assert not widens(engines("gemma3", 0).variants["decode"])


def test_a_limit_between_two_grains_cuts_no_mask_short(engines: Any) -> None:
    """A model of 100 positions: masks are 128 wide, and its cache holds as many rows."""
    engine = engines("llama-grouped", 0)
    limit, of = 100, engine.decoder()
    wide = Decoder(of.session, of.variant, limit=limit)
    narrow: Any = Decoder(of.session, of.variant, limit=limit)
    narrow._masks = Masks()
    drawn = [int(i) for i in np.random.default_rng(5).integers(3, VOCABULARY, limit)]
    for decoder in (wide, narrow):
        decoder.forward(drawn[:60])
        decoder.keep(60)
    for token in drawn[60:]:
        one, other = (decoder.forward([token]).logits for decoder in (wide, narrow))
        np.testing.assert_array_equal(one, other)
        for decoder in (wide, narrow):
            decoder.keep(decoder.length + 1)
    assert wide.length == limit
    with pytest.raises(CacheFull, match="the text needs 101 decoder positions and the model has"):
        wide.forward([5])


def test_rows_of_a_tree_see_what_is_said_in_an_array_that_stays_the_same() -> None:
    masks = Masks(64)
    first = np.array([[True, False, True], [True, True, False]])
    mask = masks.visible_of(first)
    assert mask.shape == (1, 2, 64)
    assert [np.flatnonzero(row == 0).tolist() for row in mask[0]] == [[0, 2], [0, 1]]
    assert np.all(mask[0, :, 3:] == HIDDEN)
    again = masks.visible_of(np.array([[False, True, False, True], [True, False, True, True]]))
    assert again is mask
    assert [np.flatnonzero(row == 0).tolist() for row in mask[0]] == [[1, 3], [0, 2, 3]]
    exact = Masks().visible_of(first)
    assert exact.shape == (1, 2, 3)


def test_places_of_a_tree_s_rows_are_those_given_in_an_array_that_stays_the_same() -> None:
    masks = Masks(64)
    places = masks.key_positions_of(np.array([[0, 1, 1, 2]]), 2)
    assert places.shape == (1, 64) and places[0, :4].tolist() == [0, 1, 1, 2]
    assert masks.key_positions_of(np.array([[0, 1, 2, 2, 3]]), 2) is places
    assert places[0, :5].tolist() == [0, 1, 2, 2, 3]
    assert Masks().key_positions_of(np.array([[0, 1, 1, 2]]), 2).tolist() == [[0, 1, 1, 2]]
