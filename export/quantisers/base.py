"""What turns a dense matrix into integer codes, a block of a row at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..checkpoint import DENSE_ORIGINS, Array, Blocks, Weight


@dataclass
class Tally:
    """What happened to matrices their source had already quantised: taken over or done anew."""

    imported: set[int] = field(default_factory=set)
    requantised: set[int] = field(default_factory=set)


class Quantiser:
    """Round to nearest over blocks of ``block`` inputs (weights only; activations are not touched).

    Symmetric codes have their zero in the middle; asymmetric ones a zero per block that makes 0.0
    exact. A source's own codes are taken over when they have as many bits and hold.
    """

    def __init__(self, bits: int, block: int, symmetric: bool) -> None:
        self.bits, self.block, self.symmetric = bits, block, symmetric
        self.tally = Tally()

    def takes(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and shape[1] >= 32 and shape[1] % 16 == 0

    def quantise(self, weight: Weight) -> Blocks:
        """``uint8 [out, in]`` codes; ``in`` is a multiple of the block."""
        if weight.blocks is not None:
            found = self.fitted(weight.blocks())
            if found is not None:
                self.tally.imported.add(id(weight))
                return found
        return self.requantise(weight)

    def requantise(self, weight: Weight) -> Blocks:
        if weight.origin not in DENSE_ORIGINS:
            self.tally.imported.discard(id(weight))
            self.tally.requantised.add(id(weight))
        block = self.block_for(weight.shape[1])
        return round_to_nearest(weight.read(), self.bits, block, self.symmetric)

    def block_for(self, columns: int) -> int:
        """The block asked for, halved down to 16 while it does not divide the inputs."""
        block = self.block
        while columns % block and block > 16:
            block //= 2
        return block

    def fitted(self, source: Blocks) -> Blocks | None:
        """The source's codes under a block size kernels have, or None when they do not hold."""
        if source.bits > self.bits or source.block % 16:
            return None
        block = min(source.block, self.block_for(source.codes.shape[1]))
        if source.block % block or source.codes.shape[1] % block:
            return None
        spread = source.block // block
        if self.bits == 8 and source.bits == 4:
            return None  # more bits than the source has would only cost space
        return Blocks(
            codes=source.codes,
            scales=np.repeat(source.scales, spread, 1),
            zeros=np.repeat(source.zeros, spread, 1),
            block=block,
            bits=self.bits,
            origin=source.origin,
        )


def round_to_nearest(matrix: Array, bits: int, block: int, symmetric: bool) -> Blocks:
    """Blocks of one row share a scale; the largest magnitude of a block is kept exactly."""
    rows, columns = matrix.shape
    shaped = matrix.reshape(rows, columns // block, block)
    top = (1 << bits) - 1
    middle = 1 << (bits - 1)
    if symmetric:
        peak = np.take_along_axis(shaped, np.abs(shaped).argmax(-1)[..., None], -1)[..., 0]
        scales = peak / -middle  # signed: the peak lands on code 0, the end of the range
        zeros = np.full(scales.shape, middle, np.uint8)
    else:
        low, high = np.minimum(shaped.min(-1), 0), np.maximum(shaped.max(-1), 0)
        scales = (high - low) / top
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = np.nan_to_num(np.rint(-low / scales)).clip(0, top).astype(np.uint8)
    scales = scales.astype(np.float32)
    safe = np.where(scales == 0, np.float32(1), scales)[..., None]
    codes = np.rint(shaped / safe + zeros[..., None].astype(np.float32)).clip(0, top)
    return Blocks(
        codes=codes.astype(np.uint8).reshape(rows, -1),
        scales=np.asarray(scales, np.float32),
        zeros=zeros,
        block=block,
        bits=bits,
        origin="float32",
    )
