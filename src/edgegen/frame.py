"""What stands around a source's own ids and before the first new token, by language."""

from __future__ import annotations

from dataclasses import dataclass

from .manifest import GenerationDefaults, Translation


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Ids before and after a source, the decoder's start, and (index, id) of forced new tokens."""

    start: tuple[int, ...]
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    forced: tuple[tuple[int, int], ...] = ()

    @property
    def bare(self) -> bool:
        """Whether a text's ids are taken without those its tokenizer would put around them."""
        return bool(self.before or self.after)

    def around(self, ids: list[int]) -> list[int]:
        return [*self.before, *ids, *self.after]


def frame_of(
    defaults: GenerationDefaults,
    translation: Translation | None,
    source: str | None = None,
    target: str | None = None,
) -> Frame:
    """``source`` and ``target`` are codes of ``translation``; None is its default, or nothing."""
    before, after = defaults.source_prefix, defaults.source_suffix
    start, forced = defaults.start, tuple[tuple[int, int], ...]()
    if translation is None:
        return Frame(start=start, before=before, after=after)
    languages = translation.languages
    spoken = source or translation.default_source
    if spoken and translation.source == "before":
        before = (languages[spoken], *before)
    elif spoken and translation.source == "after":
        after = (*after, languages[spoken])
    if target is None:
        return Frame(start=start, before=before, after=after)
    if translation.target == "before":
        before = (languages[target], *before)
    elif translation.target == "start":
        start = (languages[target],)
    else:
        forced = ((0, languages[target]),)
    return Frame(start=start, before=before, after=after, forced=forced)
