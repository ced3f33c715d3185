"""Marian students with a recurrent decoder (Firefox Translations).

Encoder: post-norm transformer. Decoder: simpler simple recurrent units (arXiv 1903.10461 4.1; the
units, arXiv 1909.01940 3.1) with cross-attention, so its memory is one vector a layer. Parameter
names are Marian's own; the network was checked against the engine that ships these models.
"""

from __future__ import annotations

from edgegen.manifest import GenerationDefaults

from ..checkpoint import Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import CrossAttention, FeedForward, Norm, SelfAttention
from .base import Family, Shape, end_ids
from .naming import Naming

OUTPUT_BIAS = "decoder_ff_logit_out_b"
START = -1  # an all-zero embedding
# Longer sentences are cut at clauses: these models were trained on single sentences.
MAX_SOURCE = 128


class MarianSsru(Family):
    """One width everywhere; one vocabulary for source, target and output table."""

    model_types = ("marian-ssru",)
    task = "text2text-generation"
    limits = "single sentences: longer text is split; no `stateful` cache, having a state instead"
    in_transformers = False
    parity_prompts = (
        "The quick brown fox jumps over the lazy dog.",
        "In 1969, three astronauts flew to the Moon; two of them walked on it!",
        "Yes.",
        "Please send the signed documents to our office before Friday, March 14th.",
        "O tempo hoje está muito bom e vamos caminhar pela cidade.",
    )

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.width = int(self.config["d_model"])
        self.heads = int(self.config["num_heads"])
        self.eps = float(self.config.get("layer_norm_eps", 1e-6))
        self.naming = Naming(
            known=checkpoint.weights,
            q="q",
            k="k",
            v="v",
            o="o",
            weight="{at}_W{part}",
            bias="{at}_b{part}",
        )

    @property
    def shape(self) -> Shape:
        layers = int(self.config["decoder_layers"])
        return Shape(
            vocabulary=int(self.config["vocab_size"]),
            width=self.width,
            layers=layers,
            recurrent_width=self.width,
            head_dim=self.width // self.heads,
            encoder=True,
            cross_layers=layers,
            cross_heads=self.heads,
            shortlisted=self.lexicon is not None,
        )

    def norm(self, name: str) -> Norm:
        return Norm(weight=f"{name}_scale", bias=f"{name}_bias", eps=self.eps, kind="layer")

    def feed_forward(self, at: str) -> FeedForward:
        return self.naming.feed_forward(at, up="1", down="2", activation="relu")

    def self_attention(self, at: str) -> SelfAttention:
        return self.naming.self_attention(at, heads=self.heads, head_dim=self.width // self.heads)

    def cross_attention(self, i: int) -> CrossAttention:
        at = f"decoder_l{i + 1}_context"
        return self.naming.cross_attention(at, heads=self.heads, head_dim=self.width // self.heads)

    def placed(self, ops: Ops[V], rows: V, positions: V) -> V:
        """Scaled embeddings plus sinusoids: sines, then cosines (marian, transformer.h)."""
        half = self.width // 2
        rates = [10000.0 ** (-i / (half - 1)) for i in range(half)]
        angles = ops.mul(ops.unsqueeze(ops.cast(positions, "float32"), 2), ops.constant(rates))
        waves = ops.concat([ops.unary("sin", angles), ops.unary("cos", angles)], 2)
        return ops.add(ops.scale(rows, self.width**0.5), waves)

    def encode(self, ops: Ops[V]) -> None:
        ids = ops.input("input_ids")
        places = ops.reshape(ops.arange(ids, 1), (1, -1))
        x = self.placed(ops, ops.gather_rows("Wemb", ids), places)
        for i in range(1, int(self.config["encoder_layers"]) + 1):
            at = f"encoder_l{i}"
            attended = ops.encode_attend(x, self.self_attention(f"{at}_self"), ops.source_mask())
            _, x = ops.norm_add(x, attended, self.norm(f"{at}_self_Wo_ln"))
            fed = ops.ffn(x, self.feed_forward(f"{at}_ffn"))
            _, x = ops.norm_add(x, fed, self.norm(f"{at}_ffn_ffn_ln"))
        for i in range(self.shape.layers):
            ops.remember(x, i, self.cross_attention(i))
        if self.lexicon is not None:
            ops.propose(ids, self.lexicon.likely, self.lexicon.frequent, "Wemb", OUTPUT_BIAS)

    def decode(self, ops: Ops[V]) -> None:
        tokens = ops.input("tokens")
        known = ops.binary("max", tokens, ops.constant(0, "int64"))
        is_token = ops.cast(ops.binary("greater", tokens, ops.constant(START, "int64")), "float32")
        rows = ops.mul(ops.gather_rows("Wemb", known), ops.unsqueeze(is_token, 2))
        x = self.placed(ops, rows, ops.input("positions"))
        for i in range(self.shape.layers):
            at = f"decoder_l{i + 1}"
            x = self.recur(ops, x, i, f"{at}_rnn")
            crossed = ops.cross_attend(x, i, self.cross_attention(i))
            _, x = ops.norm_add(x, crossed, self.norm(f"{at}_context_Wo_ln"))
            if i + 1 == self.shape.layers:
                x = ops.chosen_rows(x)
            fed = ops.ffn(x, self.feed_forward(f"{at}_ffn"))
            _, x = ops.norm_add(x, fed, self.norm(f"{at}_ffn_ffn_ln"))
        if self.lexicon is not None:
            ops.head_of_words(x)
        else:
            ops.head(x, "Wemb", OUTPUT_BIAS)

    def recur(self, ops: Ops[V], x: V, layer: int, at: str) -> V:
        """f = sigmoid(Wf x + bf); c = f * c_parent + (1 - f) * W x; norm(x + relu(c))."""
        gate, candidate = ops.projections(x, (f"{at}_Wf", f"{at}_W"), (f"{at}_bf", None))
        keep = ops.unary("sigmoid", gate)
        gain = ops.mul(ops.binary("sub", ops.constant(1.0), keep), candidate)
        states = ops.follow_parents(
            keep,
            gain,
            ops.input(f"state_{layer}"),
            ops.input("parents"),
            ops.input("positions"),
        )
        ops.output(f"new_state_{layer}", states)
        return ops.norm_add(x, ops.unary("relu", states), self.norm(f"{at}_ffn_ln"))[1]

    def generation(self) -> GenerationDefaults:
        end = end_ids(self.checkpoint.generation, 0)
        return GenerationDefaults(
            start=(START,),
            end=end,
            pad=end[0],
            source_suffix=(end[0],),
            sentences=True,
            max_source=MAX_SOURCE,
            max_new_tokens=256,
        )

    def weights(self) -> dict[str, Weight]:
        found = dict(self.checkpoint.weights)
        bias = found[OUTPUT_BIAS]
        found[OUTPUT_BIAS] = Weight(
            (bias.shape[-1],), lambda: bias.read().reshape(-1), origin=bias.origin
        )
        return found
