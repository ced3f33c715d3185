"""llama.cpp through its C interface, without the Python binding's loop: greedy, the end mark
forbidden by a bias."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import llama_cpp  # type: ignore[import-not-found,unused-ignore] # pyright: ignore

from ..protocol import Outcome, Request, Run, Settings

PACKAGES = ("llama-cpp-python",)
CAPACITY = 512


def load(settings: Settings, threads: int) -> Run:
    model: Any = llama_cpp.Llama(
        settings["model"],
        n_ctx=CAPACITY,
        n_batch=CAPACITY,
        n_ubatch=CAPACITY,
        n_threads=threads,
        n_threads_batch=threads,
        flash_attn=settings.get("flash_attn", False),
        verbose=False,
    )
    sampler = greedy_without(model)

    def run(request: Request) -> Outcome:
        # The model, not its context alone, is held here: it would free the context with itself.
        context = model.ctx
        return Outcome(
            tokens=[greedy(context, sampler, source, request) for source in request.sources]
        )

    return run


def greedy_without(model: Any) -> Any:
    """A sampler that never chooses the end mark."""
    vocabulary = llama_cpp.llama_model_get_vocab(model.model)
    end = llama_cpp.llama_logit_bias
    bias = (end * 1)(end(token=llama_cpp.llama_vocab_eos(vocabulary), bias=-math.inf))
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    count = llama_cpp.llama_vocab_n_tokens(vocabulary)
    llama_cpp.llama_sampler_chain_add(
        chain, llama_cpp.llama_sampler_init_logit_bias(count, 1, bias)
    )
    llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_greedy())
    return chain


def greedy(context: Any, sampler: Any, source: tuple[int, ...], request: Request) -> list[int]:
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    feed = (llama_cpp.llama_token * len(source))(*source)
    one = (llama_cpp.llama_token * 1)()
    tokens: list[int] = []
    while len(tokens) < request.new_tokens:
        batch = llama_cpp.llama_batch_get_one(feed, ctypes.c_int32(len(feed)))
        status = llama_cpp.llama_decode(context, batch)
        if status:
            raise RuntimeError(f"llama_decode gave {status}")
        token = int(llama_cpp.llama_sampler_sample(sampler, context, -1))
        tokens.append(token)
        one[0], feed = token, one
    return tokens
