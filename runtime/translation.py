"""The languages a request names, as what they put around its source and before its text."""

from __future__ import annotations

from edgegen.errors import InputError
from edgegen.frame import Frame, frame_of
from edgegen.manifest import Manifest

from .languages import code_of
from .options import GenerationOptions


def frame_for(manifest: Manifest, options: GenerationOptions) -> Frame:
    """Raises ``InputError`` for a language the bundle does not know or cannot be told."""
    translation = manifest.translation
    asked = {"language": options.language, "source_language": options.source_language}
    if translation is None:
        if given := [name for name, said in asked.items() if said is not None]:
            raise InputError(
                f"{', '.join(given)}: for speech models and models of several languages; "
                f"{manifest.name} is neither."
            )
        return frame_of(manifest.generation, None)
    if options.source_language is not None and translation.source == "none":
        raise InputError(
            f"source_language: {manifest.name} reads one kind of source and is not told which; "
            "leave it out."
        )
    target, source = (
        None if said is None else code_of(said, translation.languages) for said in asked.values()
    )
    return frame_of(manifest.generation, translation, source, target)
