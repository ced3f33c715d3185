"""The table of drafters: what may propose tokens for the target to verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgegen.errors import UnknownName
from edgegen.registry import Registry, unknown

if TYPE_CHECKING:
    from .base import DrafterKind


class Drafters(Registry["DrafterKind"]):
    """``a+b``, any number of different names, is the first of them that has something to say."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and not self._strange(name)

    def __getitem__(self, name: str) -> DrafterKind:
        strange = self._strange(name)
        if strange:
            known = [one for one in self.entries if one not in ("none", "auto") or "+" not in name]
            raise UnknownName(unknown(self.kind, strange[0], known))
        parts = name.split("+")
        if len(parts) == 1:
            return super().__getitem__(name)
        from .combined import combination

        return combination([super(Drafters, self).__getitem__(part) for part in parts])

    def _strange(self, name: str) -> list[str]:
        """What in a name is no drafter, or has no place in a combination."""
        parts = name.split("+")
        barred = {"none", "auto"} if len(parts) > 1 else set[str]()
        if len(set(parts)) < len(parts):
            return [name]
        return [part for part in parts if part not in self.entries or part in barred]


DRAFTERS = Drafters(
    "drafter",
    {
        "auto": "edgegen.runtime.drafters.auto:Automatic",
        "none": "edgegen.runtime.drafters.none:NoDraft",
        "lookup": "edgegen.runtime.drafters.lookup:Lookup",
        "suffix": "edgegen.runtime.drafters.suffix:Suffix",
        "aggressive": "edgegen.runtime.drafters.aggressive:Aggressive",
        "recycling": "edgegen.runtime.drafters.recycling:Recycling",
        "trigram": "edgegen.runtime.drafters.trigram:Trigram",
        "trigram-mcts": "edgegen.runtime.drafters.mcts:SearchedTrigram",
        "model": "edgegen.runtime.drafters.model:ModelDrafter",
    },
)
