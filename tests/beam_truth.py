"""What beam search must find: transformers' own, or the book's over whole forwards."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from tiny_families import CASES, END, VOCABULARY
from transformers import GenerationMixin

from edgegen import GenerationOptions
from edgegen.export.families import family_of
from edgegen.export.reference import Reference, reference_of

Scored = list[tuple[list[int], float]]
NEW = 12
# Nearer to one another than this, two texts are as likely: rounding says which of them stays.
TIE = 1e-5
# Whisper's own ``generate`` cuts sound into windows; this searches once, for any model.
one_search: Any = getattr(GenerationMixin, "generate")  # noqa: B009


@cache
def reference(name: str) -> Reference:
    """The checkpoint itself: transformers' model, or the family in torch."""
    return reference_of(family_of(CASES[name].make())[1])


def sources(count: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [
        [*map(int, random.integers(3, VOCABULARY, int(random.integers(2, 14)))), END]
        for _ in range(count)
    ]


def options(**said: Any) -> GenerationOptions:
    chosen: dict[str, Any] = {
        "max_new_tokens": NEW,
        "num_return_sequences": said.get("num_beams", 1),
        **said,
    }
    return GenerationOptions(**chosen)


def truth(
    name: str,
    source: Mapping[str, Any],
    said: Mapping[str, Any],
    prompt: Sequence[int] | None = None,
    ends: Sequence[int] = (END,),
) -> Scored:
    """transformers' sequences without prompt and padding, and their scores. ``source`` holds its
    inputs by name; without a ``prompt`` it starts as it is used to."""
    given: dict[str, Any] = dict(source)
    if prompt is not None:
        given["decoder_input_ids"] = torch.tensor([list(prompt)])
    with torch.no_grad():
        model: Any = reference(name)
        found: Any = one_search(
            model.model,
            **given,
            eos_token_id=list(ends),
            max_new_tokens=NEW,
            num_return_sequences=said["num_beams"],
            do_sample=False,
            use_cache=False,  # its own cache has as many layers as the encoder
            return_dict_in_generate=True,
            output_scores=True,
            **said,
        )
    texts: Scored = []
    for row, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        tokens = row[1 if prompt is None else len(prompt) :]
        last = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        texts.append((tokens[: last + 1], score))
    return texts


@contextmanager
def margins(name: str, ends: Sequence[int]) -> Generator[list[float]]:
    """How far apart in score transformers finds the last text it keeps and the first it drops, of
    all and of those that go on: a number for each step of the searches inside."""
    model: Any = getattr(reference(name), "model")  # noqa: B009
    inner, found = model._get_top_k_continuations, list[float]()

    def seen(*, cur_len: int, num_beams: int, **given: Any) -> Any:
        made = inner(cur_len=cur_len, num_beams=num_beams, **given)
        last = made[1][0, :, cur_len].tolist()
        every = made[0][0].tolist()
        going = [score for score, token in zip(every, last, strict=True) if token not in ends]
        for scores in (every, going):
            found.extend(a - b for a, b in pairwise(scores[num_beams - 1 : num_beams + 1]))
        return made

    model._get_top_k_continuations = seen
    try:
        yield found
    finally:
        del model._get_top_k_continuations


def searched(
    name: str,
    source: Mapping[str, Any],
    prompt: Sequence[int],
    said: GenerationOptions,
    ends: Sequence[int] = (END,),
) -> Scored:
    """Beam search by the book over whole forwards, nothing cached: what graphs must find."""
    width = said.num_beams
    penalty = 1.0 if said.length_penalty is None else said.length_penalty
    most = min((1 + len(ends)) * width, reference(name).family.shape.vocabulary)
    beams: Scored = [(list(prompt), 0.0)]
    finished: Scored = []
    for length in range(1, NEW + 1):
        found: Scored = []
        for tokens, score in beams:
            row = torch.from_numpy(reference(name).logits(source, tokens)[-1:])
            logprobs = torch.log_softmax(row, -1)[0] + score
            best = torch.topk(logprobs, most)
            found += [
                ([*tokens, token], value)
                for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        found.sort(key=lambda entry: -entry[1])
        ended = [entry for entry in found[:width] if entry[0][-1] in ends or length == NEW]
        finished += [(tokens[len(prompt) :], score / length**penalty) for tokens, score in ended]
        finished = sorted(finished, key=lambda entry: -entry[1])[:width]
        beams = [entry for entry in found[:most] if entry[0][-1] not in ends][:width]
        if len(finished) == width and beams[0][1] / length**penalty <= finished[-1][1]:
            break
    return finished
