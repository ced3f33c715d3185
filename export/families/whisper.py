"""Whisper: log-mel features, a convolutional front, two transformer stacks (arXiv 2212.04356).

Parameter names are transformers' (``models/whisper/modeling_whisper.py``). The features are a graph
of their own: a windowed Fourier basis as a convolution, so a device needs no audio library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgegen.manifest import GenerationDefaults, Speech

from ..checkpoint import Array, Checkpoint, Weight
from ..ops.base import Ops, V
from ..ops.specs import Activation, CrossAttention, FeedForward, Norm, SelfAttention
from .base import Family, Shape, end_ids
from .naming import Naming, activation_of, output_table

SAMPLE_RATE, WINDOW_SECONDS = 16000, 30
WINDOW, HOP = 400, 160
EPS = 1e-5


class Whisper(Family):
    """Audio in windows of 30 seconds; the encoder always sees all of one."""

    model_types = ("whisper",)
    task = "automatic-speech-recognition"
    limits = "windows of 30 seconds"
    batched = False
    parity_prompts = ("speech-1.wav", "speech-2.wav")

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.width = int(self.config["d_model"])
        self.bins = int(self.config.get("num_mel_bins", 80))
        self.naming = Naming(known=checkpoint.weights)
        self.activation: Activation = activation_of(
            str(self.config.get("activation_function", "gelu"))
        )
        self.table = "model.decoder.embed_tokens.weight"
        self.output_table = output_table(checkpoint.weights, "proj_out.weight", self.table)
        self.said: dict[str, Any] = {**self.config, **checkpoint.generation}

    @property
    def shape(self) -> Shape:
        heads = int(self.config["decoder_attention_heads"])
        layers = int(self.config["decoder_layers"])
        positions = int(self.config.get("max_source_positions", 1500))
        return Shape(
            vocabulary=int(self.config["vocab_size"]),
            width=self.width,
            layers=layers,
            cache_heads=heads,
            head_dim=self.width // heads,
            encoder=True,
            cross_layers=layers,
            cross_heads=heads,
            source="features",
            feature_bins=self.bins,
            source_length=positions,
            feature_frames=2 * positions,
            source_masked=False,
        )

    def weights(self) -> dict[str, Weight]:
        found = dict(self.checkpoint.weights)
        found["features.basis"] = Weight((WINDOW + 2, 1, WINDOW), fourier_basis)
        found["features.mel"] = Weight((self.bins, WINDOW // 2 + 1), self.mel_filters)
        return found

    def mel_filters(self) -> Array:
        """``[bins, frequencies]``, Slaney's scale and norm, as the checkpoint was trained with."""
        from transformers.audio_utils import mel_filter_bank

        bank = mel_filter_bank(
            num_frequency_bins=WINDOW // 2 + 1,
            num_mel_filters=self.bins,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE / 2,
            sampling_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        return np.ascontiguousarray(bank.T, dtype=np.float32)

    def features(self, ops: Ops[V]) -> None:
        """Power spectrum, mel bank, log10, eight decades at most below the window's peak."""
        # A reflected half window on the left; on the right what the last kept frame reaches.
        padded = ops.pad_reflect(ops.input("samples"), WINDOW // 2, WINDOW // 2 - HOP)
        waves = ops.conv1d(ops.unsqueeze(padded, 1), "features.basis", None, HOP, 0)
        half = WINDOW // 2 + 1
        real, imaginary = ops.split(ops.transpose(waves, (0, 2, 1)), (half, half))
        power = ops.add(ops.mul(real, real), ops.mul(imaginary, imaginary))
        mel = ops.binary("max", ops.linear(power, "features.mel"), ops.constant(1e-10))
        decades = ops.scale(ops.unary("log", mel), 1.0 / float(np.log(10.0)))
        floor = ops.binary("sub", ops.maximum(decades, (1, 2)), ops.constant(8.0))
        kept = ops.binary("max", decades, floor)
        scaled = ops.scale(ops.add(kept, ops.constant(4.0)), 0.25)
        ops.output("features", ops.transpose(scaled, (0, 2, 1)))

    def norm(self, name: str) -> Norm:
        return Norm(weight=f"model.{name}.weight", bias=f"model.{name}.bias", eps=EPS, kind="layer")

    def self_attention(self, at: str, heads: int) -> SelfAttention:
        return self.naming.self_attention(at, heads=heads, head_dim=self.width // heads)

    def cross_attention(self, i: int) -> CrossAttention:
        at, heads = f"model.decoder.layers.{i}.encoder_attn", self.shape.cross_heads
        return self.naming.cross_attention(at, heads=heads, head_dim=self.width // heads)

    def feed_forward(self, at: str) -> FeedForward:
        return self.naming.feed_forward(at, up="fc1", down="fc2", activation=self.activation)

    def encode(self, ops: Ops[V]) -> None:
        x = ops.input("features")
        for name, stride in (("conv1", 1), ("conv2", 2)):
            at = f"model.encoder.{name}"
            x = ops.activate("gelu", ops.conv1d(x, f"{at}.weight", f"{at}.bias", stride, 1))
        places = ops.parameter("model.encoder.embed_positions.weight")
        x = ops.add(ops.transpose(x, (0, 2, 1)), places)
        layers = int(self.config["encoder_layers"])
        heads = int(self.config["encoder_attention_heads"])
        inner = ops.norm(x, self.norm("encoder.layers.0.self_attn_layer_norm"))
        for i in range(layers):
            at = f"encoder.layers.{i}"
            spec = self.self_attention(f"model.{at}.self_attn", heads)
            attended = ops.encode_attend(inner, spec, None)
            x, inner = ops.norm_add(x, attended, self.norm(f"{at}.final_layer_norm"))
            following = (
                f"encoder.layers.{i + 1}.self_attn_layer_norm"
                if i + 1 < layers
                else "encoder.layer_norm"
            )
            fed = ops.ffn(inner, self.feed_forward(f"model.{at}"))
            x, inner = ops.norm_add(x, fed, self.norm(following))
        for i in range(self.shape.layers):
            ops.remember(inner, i, self.cross_attention(i))

    def decode(self, ops: Ops[V]) -> None:
        places = ops.gather(
            ops.parameter("model.decoder.embed_positions.weight"), ops.input("positions"), 0
        )
        x = ops.add(ops.gather_rows(self.table, ops.input("tokens")), places)
        inner = ops.norm(x, self.norm("decoder.layers.0.self_attn_layer_norm"))
        layers = self.shape.layers
        for i in range(layers):
            at = f"decoder.layers.{i}"
            spec = self.self_attention(f"model.{at}.self_attn", self.shape.cache_heads)
            attended = ops.self_attend(inner, i, spec)
            x, inner = ops.norm_add(x, attended, self.norm(f"{at}.encoder_attn_layer_norm"))
            crossed = ops.cross_attend(inner, i, self.cross_attention(i), masked=False)
            last = i + 1 == layers
            if last:
                x, crossed = ops.chosen_rows(x), ops.chosen_rows(crossed)
            x, inner = ops.norm_add(x, crossed, self.norm(f"{at}.final_layer_norm"))
            following = (
                "decoder.layer_norm" if last else f"decoder.layers.{i + 1}.self_attn_layer_norm"
            )
            fed = ops.ffn(inner, self.feed_forward(f"model.{at}"))
            x, inner = ops.norm_add(x, fed, self.norm(following))
        ops.head(inner, self.output_table)

    def generation(self) -> GenerationDefaults:
        positions = int(self.config.get("max_target_positions", 448))
        return GenerationDefaults(
            start=(int(self.said["decoder_start_token_id"]),),
            end=end_ids(self.said, 50257),
            pad=int(self.said.get("pad_token_id") or 0),
            suppress=tuple(int(i) for i in self.said.get("suppress_tokens") or ()),
            suppress_at_start=tuple(int(i) for i in self.said.get("begin_suppress_tokens") or ()),
            max_positions=positions,
            max_new_tokens=positions,
        )

    def speech(self) -> Speech:
        said = self.said
        no_timestamps = int(said["no_timestamps_token_id"])
        languages: dict[str, int] = said.get("lang_to_id") or {}
        multilingual = bool(said.get("is_multilingual", bool(languages)))
        initial = said.get("max_initial_timestamp_index")
        return Speech(
            sample_rate=SAMPLE_RATE,
            window_samples=SAMPLE_RATE * WINDOW_SECONDS,
            samples_per_frame=HOP,
            timestamp_begin=no_timestamps + 1,
            no_timestamps=no_timestamps,
            no_speech=int(said.get("no_speech_token_id") or no_timestamps - 1),
            start_of_previous=int(said.get("prev_sot_token_id") or no_timestamps - 2),
            tasks=dict(said.get("task_to_id") or {}) if multilingual else {},
            languages={k.strip("<|>"): v for k, v in languages.items()} if multilingual else {},
            max_initial_timestamp=50 if initial is None else int(initial),
        )


def fourier_basis() -> Array:
    """``[2 * frequencies, 1, window]``: cosines, then sines, under a periodic Hann window."""
    time = np.arange(WINDOW)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / WINDOW)
    angles = 2 * np.pi * np.arange(WINDOW // 2 + 1)[:, None] * time / WINDOW
    waves = np.concatenate([np.cos(angles), np.sin(angles)]) * hann
    return np.ascontiguousarray(waves[:, None], dtype=np.float32)
