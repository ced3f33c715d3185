"""What is run: prompts of an exact length, texts of a file, or audio; how long and how often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from edgegen.errors import InputError
from edgegen.manifest import Manifest
from edgegen.registry import unknown
from edgegen.runtime.tokenizer import Tokenizer
from edgegen.untrusted import UNREADABLE, reason

HERE = Path(__file__).parent / "workloads"
PROSE = "prose"  # what prompts of an exact length are cut from
MOST_TOKENS = 2**20


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What to run. Raises ``InputError`` naming every fault.

    ``prompts``: lengths in tokens, of the encoder's input for an encoder-decoder and of the prompt
    otherwise; each runs to exactly as many tokens as ``new_tokens`` says, once for each of them
    (to the model's own end where it is empty). ``texts`` and ``audio`` run to the model's own end.
    A speech model takes ``audio`` alone, a text model the two others.
    """

    prompts: tuple[int, ...] = ()
    new_tokens: tuple[int, ...] = (64,)
    texts: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    repetitions: int = 5
    warmups: int = 1

    def __post_init__(self) -> None:
        whole: list[tuple[str, object]] = [("prompts", length) for length in self.prompts]
        whole += [("repetitions", self.repetitions), ("warm-ups", self.warmups)]
        whole += [("new tokens", count) for count in self.new_tokens]
        faults = [
            f"{name} must be whole numbers from 1 to {MOST_TOKENS}, got {value!r}"
            for name, value in whole
            if not isinstance(value, int) or not 1 <= value <= MOST_TOKENS
        ]
        faults += [f"audio {path!r}: no such file" for path in self.audio if not _is_file(path)]
        if faults:
            raise InputError(f"workload: {'; '.join(faults)}.")


def _is_file(path: str) -> bool:
    return Path(path).is_file()


@dataclass(frozen=True, kw_only=True)
class Job:
    """The sources of one case. ``cut`` 0 gives a source as it is; else its text is made ids,
    and those are cut to that many."""

    name: str
    sources: tuple[str | Path, ...]
    cut: int = 0
    new_tokens: int = 0
    # Ids that stand before and behind the text's own, of those cut.
    frame: tuple[tuple[int, ...], tuple[int, ...]] = field(default=((), ()))


def read_texts(name: str | Path) -> tuple[str, ...]:
    """Texts of a JSONL file with ``{"text": ...}`` a line, or of one that edgegen brings, by name.

    Raises ``InputError``.
    """
    path = Path(name)
    if isinstance(name, str) and not path.suffix:
        brought = sorted(file.stem for file in HERE.glob("*.jsonl"))
        if name not in brought:
            raise InputError(f"{unknown('workload', name, brought)} Or give a .jsonl file.")
        path = HERE / f"{name}.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"workload {path}: cannot be read ({why}).") from error
    texts = [_text(line, f"workload {path} line {at}") for at, line in enumerate(lines, 1) if line]
    if not texts:
        raise InputError(f'workload {path}: it is empty; expected {{"text": ...}} a line.')
    return tuple(texts)


def _text(line: str, where: str) -> str:
    try:
        record: object = json.loads(line)
    except UNREADABLE as error:
        raise InputError(f"{where}: not JSON ({reason(error)}).") from error
    text = cast(dict[str, object], record).get("text") if isinstance(record, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{where}: expected {{"text": "..."}} with some text, got {line[:60]!r}.')
    return text


def jobs(workload: Workload, manifest: Manifest, tokenizer: Tokenizer | None) -> list[Job]:
    """The cases of one bundle. ``tokenizer`` is its source's; None for speech.

    Raises ``InputError`` when the workload has nothing for it or asks for more than it takes.
    """
    if manifest.task == "automatic-speech-recognition":
        if not workload.audio:
            raise InputError(
                f"bundle {manifest.name} is a speech model; give it audio files to transcribe."
            )
        return [Job(name=Path(path).name, sources=(Path(path),)) for path in workload.audio]
    if manifest.task == "image-to-text":
        raise InputError(
            f"bundle {manifest.name} takes pictures, of which workloads have none; time it with "
            "edgegen run --timings."
        )
    if tokenizer is None or not (workload.prompts or workload.texts):
        raise InputError(
            f"bundle {manifest.name} is a text model; give prompt lengths or texts to run."
        )
    found = [
        prompt_job(length, count, manifest, tokenizer)
        for length in sorted(set(workload.prompts))
        for count in sorted(set(workload.new_tokens)) or (None,)
    ]
    if workload.texts:
        found.append(Job(name=f"{len(workload.texts)} texts", sources=workload.texts))
    return found


def prompt_job(
    length: int, new_tokens: int | None, manifest: Manifest, tokenizer: Tokenizer
) -> Job:
    """A prompt of exactly ``length`` tokens, the marks the model wants included."""
    _check_room(length, new_tokens, manifest)
    prose = " ".join(read_texts(PROSE))
    plain = tokenizer.encode(prose, add_special=False)
    before, behind = _frame(tokenizer.encode(prose), plain)
    if is_encoded(manifest):
        defaults = manifest.generation
        before = (*defaults.source_prefix, *before)
        behind = (*behind, *defaults.source_suffix)
    room = length - len(before) - len(behind)
    if room < 1 or not plain:
        raise InputError(
            f"prompt length {length}: bundle {manifest.name} puts {len(before) + len(behind)} "
            "marks around a text; ask for more tokens."
        )
    name = f"p{length} n{new_tokens}" if new_tokens else f"p{length}"
    return Job(
        name=name,
        sources=(long_enough(prose, room, tokenizer),),
        cut=room,
        new_tokens=new_tokens or 0,
        frame=(before, behind),
    )


def long_enough(prose: str, room: int, tokenizer: Tokenizer) -> str:
    """The shortest run of whole words of ``prose``, repeated if need be, with ``room`` tokens."""
    words = prose.split()
    low, high = 1, max(1, room)
    while len(tokenizer.encode(_words(words, high), add_special=False)) < room:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        enough = len(tokenizer.encode(_words(words, middle), add_special=False)) >= room
        low, high = (low, middle) if enough else (middle + 1, high)
    return _words(words, high)


def _words(words: list[str], count: int) -> str:
    whole, part = divmod(count, len(words))
    return " ".join([*words * whole, *words[:part]])


def cut_ids(job: Job, text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of a prompt: exactly the length its job was made for."""
    before, behind = job.frame
    return [*before, *tokenizer.encode(text, add_special=False)[: job.cut], *behind]


def is_encoded(manifest: Manifest) -> bool:
    return "encode" in manifest.components


def _frame(whole: Sequence[int], plain: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a tokenizer's post-processor put before and behind the text's own ids."""
    extra = len(whole) - len(plain)
    for before in range(extra + 1):
        if list(whole[before : before + len(plain)]) == list(plain):
            return tuple(whole[:before]), tuple(whole[before + len(plain) :])
    return (), ()


def _check_room(length: int, new_tokens: int | None, manifest: Manifest) -> None:
    defaults, name = manifest.generation, manifest.name
    if is_encoded(manifest):
        if defaults.max_source and length > defaults.max_source:
            raise InputError(
                f"prompt length {length}: bundle {name} takes at most {defaults.max_source} "
                "source tokens; ask for fewer."
            )
        fed = len(defaults.start)
    else:
        fed = length
    wanted = fed + (new_tokens or 1) - 1
    if defaults.max_positions and wanted > defaults.max_positions:
        raise InputError(
            f"prompt length {length} with {new_tokens or 1} new tokens: bundle {name} has "
            f"{defaults.max_positions} decoder positions and {wanted} are needed; ask for fewer."
        )
