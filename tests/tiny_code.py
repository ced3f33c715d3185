"""Tiny checkpoints of CodeGen's kin, and CodeT5+'s computation written down a second time.

transformers has no CodeT5+ of CodeGen's blocks: ``Towers`` is one in torch, over whole texts and
without any cache (arXiv 2305.07922 and the modeling file published with Salesforce/codet5p-2b).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tokenizers
import torch
from tiny import checkpoint_of
from tiny_words import END, PAD, UNKNOWN, VOCABULARY, WORDS, Case
from torch import Tensor
from torch.nn import functional
from transformers import CodeGenConfig, CodeGenForCausalLM

from edgegen.export.checkpoint import Checkpoint, Origin, TokenizerFiles, Weight

# Eight heads are two a slice of four; 12 of a head's 16 numbers turn.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 128, "n_head": 8, "n_layer": 3, "n_inner": 96,
    "n_positions": 640, "n_ctx": 640, "rotary_dim": 12, "bos_token_id": UNKNOWN,
    "eos_token_id": END, "pad_token_id": PAD,
}  # fmt: skip
MARKS = ("<mask_1>", "<mask_2>", "<mask_3>")
SPECIAL = ("<|endoftext|>", "<sep>", "<eom>", *MARKS)
MARKED = VOCABULARY + len(SPECIAL)


def tiny_codegen_model(**overrides: Any) -> CodeGenForCausalLM:
    torch.manual_seed(7)
    own = {name: value for name, value in overrides.items() if name != "prefix_lm"}
    model = CodeGenForCausalLM(CodeGenConfig(**{**SIZES, **own}))
    for name, tensor in model.state_dict().items():
        if "ln_" in name:
            tensor.normal_(0.0 if name.endswith("bias") else 0.8, 0.2)
        elif name.endswith("bias"):
            tensor.normal_(0.0, 0.1)
        elif "wte" in name:
            tensor.normal_(0.0, 0.5)
        else:
            tensor.normal_(0.0, 2.0 / tensor.shape[1] ** 0.5)
    model.train(False)
    return model


def tiny_codegen(**overrides: Any) -> Checkpoint:
    """``prefix_lm`` besides the configuration's words."""
    made = checkpoint_of(tiny_codegen_model(**overrides))
    return replace(made, config={**made.config, **overrides})


def tiny_codet5p(**overrides: Any) -> Checkpoint:
    """Towers of unequal width and depth; heads of 16 and of 32, of which 8 and 12 turn."""
    decoder = {**SIZES, "n_layer": 3, "is_decoder": True, "add_cross_attention": True, **overrides}
    encoder = {
        **SIZES, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_inner": None, "rotary_dim": 8,
        **overrides,
    }  # fmt: skip
    config: dict[str, Any] = {
        "model_type": "codet5p", "is_encoder_decoder": True,
        "encoder": {"model_type": "codet5p_module", **encoder},
        "decoder": {"model_type": "codet5p_module", **decoder},
    }  # fmt: skip
    wide, narrow = int(decoder["n_embd"]), int(config["encoder"]["n_embd"])
    last = f"decoder.transformer.h.{int(decoder['n_layer']) - 1}.crossattention"
    words = int(decoder["vocab_size"])
    shapes = {
        **_shapes("encoder", encoder), **_shapes("decoder.transformer", decoder),
        f"{last}.q_attn.weight": (wide, wide), f"{last}.qkv_proj.weight": (2 * wide, wide),
        f"{last}.out_proj.weight": (wide, wide),
        "decoder.lm_head.weight": (words, wide), "decoder.lm_head.bias": (words,),
    }  # fmt: skip
    if wide != narrow:
        shapes |= {"enc_to_dec_proj.weight": (wide, narrow), "enc_to_dec_proj.bias": (wide,)}
    random = np.random.default_rng(8)
    return Checkpoint(
        config=config,
        weights={name: _drawn(random, name, shape) for name, shape in shapes.items()},
        tokenizers={},
        origin=Origin(source="tiny", kind="memory"),
    )


def _shapes(at: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width = int(config["n_embd"])
    inner = int(config["n_inner"] or 4 * width)
    found: dict[str, tuple[int, ...]] = {
        f"{at}.wte.weight": (int(config["vocab_size"]), width),
        f"{at}.ln_f.weight": (width,), f"{at}.ln_f.bias": (width,),
    }  # fmt: skip
    for i in range(int(config["n_layer"])):
        found |= {
            f"{at}.h.{i}.ln_1.weight": (width,), f"{at}.h.{i}.ln_1.bias": (width,),
            f"{at}.h.{i}.attn.qkv_proj.weight": (3 * width, width),
            f"{at}.h.{i}.attn.out_proj.weight": (width, width),
            f"{at}.h.{i}.mlp.fc_in.weight": (inner, width), f"{at}.h.{i}.mlp.fc_in.bias": (inner,),
            f"{at}.h.{i}.mlp.fc_out.weight": (width, inner),
            f"{at}.h.{i}.mlp.fc_out.bias": (width,),
        }  # fmt: skip
    return found


def _drawn(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> Weight:
    scale = 0.2 if len(shape) == 1 else 0.5 if "wte" in name else 2.0 / shape[1] ** 0.5
    values = random.normal(size=shape, scale=scale) + 0.8 * ("ln_" in name and "weight" in name)
    return Weight.of(values.astype(np.float32))


class Towers:
    """CodeT5+ over whole texts, from a checkpoint's own packed parameters."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self.weights = {n: torch.from_numpy(w.read()) for n, w in checkpoint.weights.items()}

    def logits(self, source: list[int] | None, tokens: list[int]) -> Tensor:
        """``[n, V]``; without a source the decoder is alone."""
        x = None if source is None else self.encoded(source)
        last = self.tower("decoder.transformer", self.config["decoder"], tokens, x, causal=True)
        return self.linear(last, "decoder.lm_head")

    def encoded(self, source: list[int]) -> Tensor:
        return self.tower("encoder", self.config["encoder"], source, None, causal=False)

    def tower(
        self, at: str, config: Mapping[str, Any], ids: list[int], seen: Tensor | None, causal: bool
    ) -> Tensor:
        heads, turned, count = config["n_head"], config["rotary_dim"], config["n_layer"]
        x = self.weights[f"{at}.wte.weight"][torch.tensor(ids)]
        hidden = torch.full((len(ids), len(ids)), -torch.inf).triu(1) if causal else None
        for i in range(count):
            inner = self.norm(x, f"{at}.h.{i}.ln_1")
            q, v, k = self.parts(inner, f"{at}.h.{i}.attn.qkv_proj", 3, heads)
            made = self.attend(q, k, v, turned, hidden, f"{at}.h.{i}.attn.out_proj")
            if seen is not None and i == count - 1:
                cross = f"{at}.h.{i}.crossattention"
                wide = self.linear(seen, "enc_to_dec_proj") if self.projects else seen
                v, k = self.parts(wide, f"{cross}.qkv_proj", 2, heads)
                q = self.linear(inner, f"{cross}.q_attn").reshape(len(ids), heads, -1)
                made = made + self.attend(q, k, v, turned, None, f"{cross}.out_proj")
            up = functional.gelu(self.linear(inner, f"{at}.h.{i}.mlp.fc_in"), approximate="tanh")
            x = x + made + self.linear(up, f"{at}.h.{i}.mlp.fc_out")
        return self.norm(x, f"{at}.ln_f")

    @property
    def projects(self) -> bool:
        return "enc_to_dec_proj.weight" in self.weights

    def linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(
            x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        )

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, 1e-5)

    def parts(self, x: Tensor, name: str, count: int, heads: int) -> list[Tensor]:
        """``[n, heads, head_dim]`` each, out of four slices that hold ``count`` parts."""
        packed = self.linear(x, name).reshape(len(x), 4, count, -1)
        return [packed[:, :, i].reshape(len(x), heads, -1) for i in range(count)]

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, turned: int, hidden: Tensor | None, out: str
    ) -> Tensor:
        scores = torch.einsum("qhd,khd->hqk", turn(q, turned), turn(k, turned))
        scores = scores / q.shape[-1] ** 0.5
        weights = torch.softmax(scores if hidden is None else scores + hidden, -1)
        return self.linear(torch.einsum("hqk,khd->qhd", weights, v).flatten(1), out)


def turn(x: Tensor, turned: int) -> Tensor:
    """Neighbours among the first ``turned`` numbers of a head as complex ones, times a phase."""
    rates = 10000.0 ** (-torch.arange(0, turned, 2) / turned)
    phase = torch.outer(torch.arange(len(x), dtype=torch.float32), rates)[:, None]
    pairs = torch.view_as_complex(x[..., :turned].reshape(*x.shape[:2], -1, 2).contiguous())
    spun = torch.view_as_real(pairs * torch.polar(torch.ones_like(phase), phase)).flatten(2)
    return torch.cat([spun, x[..., turned:]], -1)


def code_tokenizer() -> TokenizerFiles:
    """A word is a token, spaces are part of it, and CodeGen2's special tokens are there."""
    words = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}
    words |= {f"▁{word}": 3 + i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="never")
    made.decoder = tokenizers.decoders.Metaspace(prepend_scheme="never")
    made.add_special_tokens(["<pad>", "</s>", "<unk>", *SPECIAL])
    return TokenizerFiles(kind="tokenizers", data=json.dumps(json.loads(made.to_str())).encode())


CASES = {
    "codegen": Case(family="codegen", make=tiny_codegen),
    "codegen-prefix-lm": Case(family="codegen", make=partial(tiny_codegen, prefix_lm=True)),
    "codet5p": Case(family="codet5p", make=tiny_codet5p),
}
