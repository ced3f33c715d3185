"""Combinations: of several drafters the first that has something to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self, cast

from ..verify import LOSSLESS, Draft, Lossless
from .base import Context, Drafter, DrafterKind, Materials, learns


class Combined:
    """Asked in order; those not asked still see the context. ``combination`` makes the kinds."""

    kinds: ClassVar[tuple[DrafterKind, ...]]

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        self.drafters = tuple(drafters)

    @classmethod
    def make(cls, materials: Materials) -> Self:
        *first, last = cls.kinds
        followed = replace(materials, followed=True)
        return cls([*(kind.make(followed) for kind in first), last.make(materials)])

    def draft(self, context: Context, limit: int) -> Draft:
        found = Draft()
        for voice, drafter in enumerate(self.drafters):
            said = drafter.draft(context, 0 if len(found) else limit)
            if len(said) and not len(found):
                found = replace(said, voice=voice) if voice else said
        return found

    def commit(self, length: int) -> None:
        for drafter in self.drafters:
            drafter.commit(length)

    def save(self) -> None:
        for drafter in self.drafters:
            if learns(drafter):
                drafter.save()


def combination(parts: Sequence[DrafterKind]) -> DrafterKind:
    """The kind that tries ``parts`` in order; as lossless as the weakest of them."""
    classes: list[Lossless] = [kind.lossless for kind in parts]

    class Made(Combined):
        lossless: ClassVar[Lossless] = min(classes, key=LOSSLESS.index)
        kinds = tuple(parts)
        wants = tuple(dict.fromkeys(name for kind in parts for name in wanted(kind)))

    return cast("DrafterKind", Made)


def wanted(kind: DrafterKind) -> tuple[str, ...]:
    """Outputs of the decode graph the drafter can use beside the logits."""
    found: tuple[str, ...] = getattr(kind, "wants", ())
    return found
