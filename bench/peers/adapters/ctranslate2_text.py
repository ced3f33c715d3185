"""CTranslate2's Translator on token ids, its own greedy loop and beam search.

Lengths are fixed by ``min_decoding_length`` = ``max_decoding_length``.
"""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2  # type: ignore[import-not-found,unused-ignore] # pyright: ignore[reportMissingImports]

from ..protocol import Outcome, Request, Run, Settings

PACKAGES = ("ctranslate2", "numpy")
LONGEST = 256  # tokens, where a text may end when it likes


def load(settings: Settings, threads: int) -> Run:
    folder = Path(settings["model"])
    words: list[str] = json.loads((folder / "shared_vocabulary.json").read_text("utf-8"))
    ids = {word: number for number, word in enumerate(words)}
    translator = ctranslate2.Translator(
        str(folder),
        device="cpu",
        compute_type=settings["compute_type"],
        inter_threads=1,
        intra_threads=threads,
    )

    def run(request: Request) -> Outcome:
        sources = [[words[token] for token in source] for source in request.sources]
        batches = [sources] if request.batch else [[source] for source in sources]
        tokens: list[list[int]] = []
        for batch in batches:
            found = translator.translate_batch(
                batch,
                beam_size=request.beams,
                min_decoding_length=request.least,
                max_decoding_length=request.new_tokens or LONGEST,
                max_input_length=0,
            )
            tokens += [[ids[word] for word in one.hypotheses[0]] for one in found]
        return Outcome(tokens=tokens)

    return run
