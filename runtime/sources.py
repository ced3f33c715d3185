"""What ``encode`` left of sources, kept for the next time the same source comes.

Keyed by the very bytes the encoder is given and by what encodes them, so a hit is what encoding
again would give. Encoded sources go in and out as copies: no request can spoil another's. Bounded
in bytes; what was used longest ago leaves first. Safe to share among threads.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np

from edgegen.devices.device import Feeds, Tensor
from edgegen.errors import InputError

# What an entry's key and arrays take beside their bytes.
OVERHEAD = 512


@dataclass(frozen=True, kw_only=True)
class SourceCounts:
    """What a cache has done so far. ``bytes`` are those held now, in ``sources`` entries."""

    hits: int
    misses: int
    evictions: int
    sources: int
    bytes: int


class SourceCache:
    """At most ``most_bytes`` of encoded sources. Raises ``InputError`` for fewer than none."""

    def __init__(self, most_bytes: int) -> None:
        if most_bytes < 0:
            raise InputError(f"source_cache_bytes must be at least 0, got {most_bytes}.")
        self.most_bytes = most_bytes
        self._held: OrderedDict[bytes, dict[str, Tensor]] = OrderedDict()
        self._hits = self._misses = self._evictions = self._bytes = 0
        self._lock = Lock()

    def find(self, key: bytes) -> dict[str, Tensor] | None:
        """A copy of what is held of a source, or None."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._held.move_to_end(key)
        # Entries never change, so they are copied outside the lock.
        return {name: array.copy() for name, array in found.items()}

    def keep(self, key: bytes, feeds: Feeds) -> None:
        """Hold a copy; a source larger than the whole cache is not held."""
        size = size_of(feeds)
        if size > self.most_bytes:
            return
        copied = {name: np.array(array) for name, array in feeds.items()}
        with self._lock:
            if key in self._held:  # another thread encoded it meanwhile
                return
            while self._bytes + size > self.most_bytes:
                _, gone = self._held.popitem(last=False)
                self._bytes -= size_of(gone)
                self._evictions += 1
            self._held[key] = copied
            self._bytes += size

    @property
    def counts(self) -> SourceCounts:
        with self._lock:
            return SourceCounts(
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                sources=len(self._held),
                bytes=self._bytes,
            )


def size_of(feeds: Feeds) -> int:
    """Bytes an entry counts for."""
    return OVERHEAD + sum(array.nbytes for array in feeds.values())


def key_of(place: Mapping[str, str], feeds: Feeds) -> bytes:
    """The key of a source: what encodes it, and the encoder's input to the byte."""
    digest = hashlib.blake2b(digest_size=32)
    for name, value in sorted(place.items()):
        digest.update(f"{name}={value}\0".encode())
    for name, array in sorted(feeds.items()):
        digest.update(f"{name}:{array.dtype}{list(array.shape)}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
