"""transformers' ``generate``, which optimum-intel's models have too: greedy or beams, one source
after another or all in a batch, which are then of one length.

Lengths are fixed by ``min_new_tokens`` = ``max_new_tokens``, which forbids the end mark.
"""

from __future__ import annotations

from typing import Any

import torch

from ..protocol import Outcome, Request, Run

LONGEST = 256  # tokens, where a text may end when it likes


def runner(model: Any, *, encoder: bool) -> Run:
    """``encoder``: what comes out begins with a start mark instead of the prompt."""
    settings = model.generation_config
    ends = settings.eos_token_id
    marks = {*(ends if isinstance(ends, list) else [ends]), settings.pad_token_id}

    @torch.inference_mode()
    def run(request: Request) -> Outcome:
        tokens: list[list[int]] = []
        batches = [request.sources] if request.batch else [(one,) for one in request.sources]
        for batch in batches:
            ids = torch.tensor(batch)
            rows = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                num_beams=request.beams,
                min_new_tokens=request.least or None,
                max_new_tokens=request.new_tokens or LONGEST,
            ).tolist()
            for found in rows:
                made = found[1 if encoder else ids.shape[1] :]
                while request.ends and made and made[-1] in marks:
                    made.pop()
                tokens.append(made)
        return Outcome(tokens=tokens)

    return run
