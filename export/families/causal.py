"""Decoder-only models of the Llama kind: one line of ``STYLES`` each.

What differs between them is a ``Style``: norms, windows, rotary bases; biases are used where the
checkpoint has them. Computation: transformers' folders of the same names (arXiv 2302.13971,
2310.06825, 2407.10671, 2503.19786, 2505.09388).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgegen.errors import CheckpointError
from edgegen.manifest import GenerationDefaults

from ..checkpoint import Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import Activation, FeedForward, Norm, Rope, SelfAttention
from .base import Family, Shape
from .decoding import prompted_defaults
from .gemma import unit_norms
from .naming import Naming, activation_of, output_table
from .rotary import rope_of


@dataclass(frozen=True, kw_only=True)
class Style:
    """``sandwich``: a norm after each sublayer too. ``unit_norms``: weights are stored minus 1.

    ``local_base``: where older configurations keep the rotary base of layers with a window, which
    then are not stretched as the others are. ``windows``: the layers that see a window where the
    configuration does not list them: none, all, those from ``max_window_layers`` up, or those that
    are not rotated.
    """

    sandwich: bool = False
    head_norms: bool = False
    unit_norms: bool = False
    scaled_embeddings: bool = False
    local_base: str = ""
    windows: Literal["none", "all", "upper", "unrotated"] = "none"
    activation: Activation | None = None  # whatever the configuration says


STYLES: Mapping[str, Style] = {
    "llama": Style(),
    "mistral": Style(windows="all"),
    "ministral": Style(windows="all"),
    "qwen2": Style(windows="upper"),
    "qwen3": Style(windows="upper", head_norms=True),
    "smollm3": Style(windows="unrotated"),
    "gemma": Style(unit_norms=True, scaled_embeddings=True, activation="gelu_tanh"),
    "gemma3_text": Style(
        sandwich=True,
        head_norms=True,
        unit_norms=True,
        scaled_embeddings=True,
        local_base="rope_local_base_freq",
    ),
}


class Causal(Family):
    """``decode`` alone: the prompt is a prefill of the same graph."""

    model_types = tuple(STYLES)
    task = "text-generation"
    limits = "no experts; Gemma's text half alone; with windowed layers one by one in batches"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        config = self.config
        self.style = STYLES[checkpoint.model_type]
        self.width = int(config["hidden_size"])
        self.heads = int(config["num_attention_heads"])
        self.kv_heads = int(config.get("num_key_value_heads") or self.heads)
        self.head_dim = int(config.get("head_dim") or self.width // self.heads)
        self.layers = int(config["num_hidden_layers"])
        self.eps = float(config.get("rms_norm_eps", 1e-6))
        name = str(config.get("hidden_activation") or config.get("hidden_act") or "silu")
        self.activation: Activation = self.style.activation or activation_of(name)
        # Qwen and SmolLM 3 name a window they do not use.
        used = config.get("use_sliding_window", self.style.windows in ("none", "all"))
        self.window = int(config.get("sliding_window") or 0) if used else 0
        self.naming = Naming(known=checkpoint.weights, o="o_proj")
        self.table = "model.embed_tokens.weight"
        self.output_table = output_table(checkpoint.weights, "lm_head.weight", self.table)
        self.softcap = float(config.get("final_logit_softcapping") or 0.0)
        if config.get("use_bidirectional_attention"):
            raise CheckpointError(
                f"{checkpoint.model_type}: use_bidirectional_attention makes rows see what follows "
                "them; expected a model that writes from left to right."
            )

    @property
    def shape(self) -> Shape:
        local = tuple(i for i in range(self.layers) if self.is_local(i))
        return Shape(
            vocabulary=int(self.config["vocab_size"]),
            width=self.width,
            layers=self.layers,
            cache_heads=self.kv_heads,
            head_dim=self.head_dim,
            window=self.window if local else 0,
            window_layers=local,
        )

    def weights(self) -> dict[str, Weight]:
        weights = dict(self.checkpoint.weights)
        return unit_norms(weights) if self.style.unit_norms else weights

    def is_local(self, i: int) -> bool:
        """Whether the layer sees a window only: listed, or by rule in older configurations."""
        kinds: Any = self.config.get("layer_types")
        if not self.window or kinds:
            return bool(self.window and kinds[i] == "sliding_attention")
        pattern = int(self.config.get("sliding_window_pattern") or 0)
        rules = {
            "none": bool(pattern and (i + 1) % pattern),
            "all": True,
            "upper": i >= int(self.config.get("max_window_layers") or 0),
            "unrotated": not self.is_rotated(i),
        }
        return rules[self.style.windows]

    def is_rotated(self, i: int) -> bool:
        """SmolLM 3 leaves every fourth layer without positions, or lists those that have them."""
        listed = self.config.get("no_rope_layers")
        if listed:
            return bool(listed[i])
        usual = 4 if self.style.windows == "unrotated" else 0
        interval = int(self.config.get("no_rope_layer_interval") or usual)
        return not interval or bool((i + 1) % interval)

    def rope(self, i: int) -> Rope | None:
        """transformers 5 keeps parameters by layer kind, older configs in one or two keys."""
        if not self.is_rotated(i):
            return None
        local = self.is_local(i)
        apart = local and bool(self.style.local_base)
        older: Any = {} if apart else self.config.get("rope_scaling")
        said: Any = self.config.get("rope_parameters") or older or {}
        said = said.get("sliding_attention" if local else "full_attention", said)
        theta = said.get("rope_theta")
        if theta is None:
            theta = self.config.get(self.style.local_base if apart else "rope_theta", 10000.0)
        return rope_of(said, float(theta), self.head_dim)

    def norm(self, name: str) -> Norm:
        return Norm(weight=f"model.{name}.weight", eps=self.eps)

    def attention(self, i: int) -> SelfAttention:
        at = f"model.layers.{i}.self_attn"
        size = float(self.config.get("query_pre_attn_scalar") or self.head_dim)
        normed = self.style.head_norms
        plain = self.naming.self_attention(
            at, heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim, scale=size**-0.5
        )
        return replace(
            plain,
            rope=self.rope(i),
            q_norm=self.naming.rms_norm(at, "q_norm", self.eps) if normed else None,
            k_norm=self.naming.rms_norm(at, "k_norm", self.eps) if normed else None,
            window=self.window if self.is_local(i) else 0,
        )

    def feed_forward(self, i: int) -> FeedForward:
        return self.naming.feed_forward(
            f"model.layers.{i}.mlp",
            up="up_proj",
            gate="gate_proj",
            down="down_proj",
            activation=self.activation,
        )

    def decode(self, ops: Ops[V]) -> None:
        x = ops.gather_rows(self.table, ops.input("tokens"))
        if self.style.scaled_embeddings:
            x = ops.scale(x, self.width**0.5)
        after = "post_attention_layernorm"
        inner = ops.norm(x, self.norm("layers.0.input_layernorm"))
        for i in range(self.layers):
            at, last = f"layers.{i}", i + 1 == self.layers
            attended = ops.self_attend(inner, i, self.attention(i))
            if self.style.sandwich:
                attended = ops.norm(attended, self.norm(f"{at}.{after}"))
            before = f"{at}.pre_feedforward_layernorm" if self.style.sandwich else f"{at}.{after}"
            if last:
                x, attended = ops.chosen_rows(x), ops.chosen_rows(attended)
            x, inner = ops.norm_add(x, attended, self.norm(before))
            fed = ops.ffn(inner, self.feed_forward(i))
            if self.style.sandwich:
                fed = ops.norm(fed, self.norm(f"{at}.post_feedforward_layernorm"))
            following = "norm" if last else f"layers.{i + 1}.input_layernorm"
            x, inner = ops.norm_add(x, fed, self.norm(following))
        ops.head(inner, self.output_table, softcap=self.softcap)

    def generation(self) -> GenerationDefaults:
        positions = int(self.config.get("max_position_embeddings") or 0)
        return prompted_defaults(self.checkpoint, positions=positions)
