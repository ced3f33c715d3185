"""One recording being transcribed, window by window.

A recording of one window is decoded once. A longer one is heard the way Whisper's authors do
(Radford et al., 2022, section 3.8): the model writes timestamps, asked for or not, and the next
window starts at the last one, so no word is cut in two. Each window stands alone: nothing of the
text before it is fed, and nothing is decoded again at a higher temperature.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import fmean
from time import perf_counter
from zlib import compress

import numpy as np

from edgegen.manifest import Speech

from .audio import Samples, is_silent
from .decoder import Decoder
from .engine import Engine
from .options import GenerationOptions
from .pauses import pause
from .recording import Recording
from .result import Result, Segment, Timings, weakest
from .sampling import log_probabilities
from .task import Opening, Record, Running, decode
from .timestamps import Reading, Span, read, settled
from .tokenizer import Tokenizer

LEAST_SECONDS = 0.1  # a shorter rest at the end holds no word
# openai/whisper's transcribe() takes a window for silent when both hold: nobody speaks is this
# likely, the tokens are this unlikely on average. Here a text that loops counts as unlikely too.
NO_SPEECH_PROBABILITY = 0.6
NO_SPEECH_LOGPROB = -1.0
# Its measure of a phrase written again and again: bytes of the text over those of it compressed.
LOOPING_RATIO = 2.4


@dataclass(kw_only=True)
class Transcription:
    """``language`` None is heard in the first window with speech. Used once, by one thread."""

    engine: Engine
    speech: Speech
    tokenizer: Tokenizer
    recording: Recording
    options: GenerationOptions
    task: str
    language: str | None
    record: Record = field(default_factory=Record)
    segments: list[Segment] = field(default_factory=list[Segment])
    text: str = ""
    timed: bool = False
    _begun: bool = False  # a window of which nothing is said yet

    def run(self) -> Running:
        """Yields text as it is settled: by the token in one window, by the segment in several."""
        speech, recording, position, faint = self.speech, self.recording, 0, False
        long = recording.goes_beyond(speech.window_samples)
        self.timed = speech.timestamp_begin > 0 and (self.options.timestamps or long)
        least = LEAST_SECONDS * speech.sample_rate
        while (samples := recording.window(position)).size >= least and not self._stopped:
            samples = self._whole_words(samples, position)
            advance = samples.size
            if is_silent(samples, speech.sample_rate):
                faint = faint or bool(samples.any())
            else:
                advance = yield from self._window(samples, position)
            position += advance
        record = self.record
        if faint and not record.passes:
            record.warn("no sound reaches -60 dBFS, so it was taken for silence; amplify it.")
        return Result(
            text=self.text,
            tokens=tuple(record.tokens),
            finish_reason=weakest(record.reasons),
            timings=Timings(
                passes=tuple(record.passes),
                wall_seconds=perf_counter() - record.started,
                read_seconds=recording.read_seconds,
                audio_seconds=self._seconds(position if self._stopped else recording.heard),
            ),
            lossless=self.engine.lossless(self.options),
            speculation=self.engine.speculation.note(self.options),
            logprobs=tuple(record.scores),
            hypotheses=record.best(),
            segments=tuple(self.segments),
            language=self.language,
            warnings=tuple(record.warnings),
        )

    @property
    def _stopped(self) -> bool:
        return "stop_string" in self.record.reasons

    def _seconds(self, position: int) -> float:
        return position / self.speech.sample_rate

    def _whole_words(self, samples: Samples, position: int) -> Samples:
        """A window that ends in a pause, where the model says no times that tell where to go on."""
        if self.timed or not self.recording.goes_beyond(position + samples.size):
            return samples
        return samples[: pause(samples, self.speech.sample_rate)]

    # ---------------------------------------------------------- one window

    def _window(self, samples: Samples, position: int) -> Generator[str, None, int]:
        """Transcribe what starts at ``position``; returns how many samples that settled."""
        speech, known = self.speech, self.language
        heard = samples
        if speech.padded:
            heard = np.zeros(speech.window_samples, np.float32)
            heard[: samples.size] = samples
        with_model = self.engine.drafts_with_model(self.options)
        memory = self.engine.remember_samples(heard, draft=with_model)
        decoder = self.engine.decoder(memory, self.options)
        start = perf_counter()
        doubtful = self._listen(decoder) > NO_SPEECH_PROBABILITY
        prompt = self._prompt()
        # The loop wants a token to feed: a prompt of the start alone is fed again.
        decoder.keep(min(decoder.length, len(prompt) - 1))
        opening = Opening(
            prompt=prompt,
            memory=memory,
            decoder=decoder,
            detect_seconds=perf_counter() - start,
            stop=self.options.stop,
            hidden=self._times(),
        )
        window = _Window(self, position, samples.size)
        self._begun = True
        if not doubtful and not self.timed and not self.options.timestamps:
            return (yield from self._streamed(opening, window))
        advance = yield from self._held(opening, window, doubtful)
        if advance == 0:
            self.language = known
            return samples.size
        return advance

    def _bounded(self, options: GenerationOptions, size: int) -> GenerationOptions:
        """At most the tokens that can be said in ``size`` samples, the start among them, where the
        model needs such a bound and no other was asked for."""
        rate, defaults = self.speech.tokens_per_second, self.engine.manifest.generation
        if not rate or options.max_new_tokens is not None:
            return options
        most = min(int(self._seconds(size) * rate) - len(defaults.start), defaults.max_new_tokens)
        return replace(options, max_new_tokens=max(1, most, options.min_new_tokens or 0))

    def _listen(self, decoder: Decoder) -> float:
        """How likely nobody speaks, and the language if it is not known: the first row tells both.

        The row stays in the cache.
        """
        speech, start = self.speech, self.engine.manifest.generation.start
        if speech.no_speech < 0 and self.language is not None:
            return 0.0
        row = decoder.forward(start, first_row=len(start) - 1).logits[0]
        decoder.keep(len(start))
        if self.language is None:
            codes = list(speech.languages)
            self.language = codes[int(row[[speech.languages[code] for code in codes]].argmax())]
        if speech.no_speech < 0:
            return 0.0
        return math.exp(log_probabilities(row, speech.no_speech).logprob)

    def _prompt(self) -> list[int]:
        """Start, language, task, no timestamps: those of them the model has."""
        speech = self.speech
        prompt = list(self.engine.manifest.generation.start)
        if self.language in speech.languages:
            prompt.append(speech.languages[self.language])
        if self.task in speech.tasks:
            prompt.append(speech.tasks[self.task])
        if speech.no_timestamps and not self.timed:
            prompt.append(speech.no_timestamps)
        return prompt

    def _times(self) -> Sequence[int]:
        begin = self.speech.timestamp_begin
        return range(begin, self.engine.manifest.vocabulary) if begin else ()

    def _streamed(self, opening: Opening, window: _Window) -> Generator[str, None, int]:
        options = self._bounded(self.options, window.size)
        pieces = decode(self.engine, self.tokenizer, opening, options, self.record)
        with closing(pieces):
            for piece in pieces:
                window.text += piece
                yield from self.say(piece)
        window.warn_of_loops()
        return window.size

    def _held(self, opening: Opening, window: _Window, doubtful: bool) -> Generator[str, None, int]:
        """Text is shown when it is sure to stand; 0 when none is, because nobody speaks."""
        options = replace(self._bounded(self.options, window.size), timestamps=self.timed)
        if doubtful and options.logprobs is None:
            options = replace(options, logprobs=0)
        pieces = decode(self.engine, self.tokenizer, opening, options, self.record)
        with closing(pieces):
            for _ in pieces:
                if self.timed and not doubtful and not options.stop:
                    yield from window.say_settled()
        if doubtful and (window.mean_logprob() < NO_SPEECH_LOGPROB or window.loops()):
            window.forget()
            return 0
        if self.options.logprobs is None:
            self.record.scores.clear()
        reading = window.read()
        yield from window.say(reading.spans)
        window.keep(reading.kept)
        window.warn_of_loops()
        return min(reading.advance * window.step, window.size)

    def say(self, text: str) -> Iterator[str]:
        """Add to the text, which does not begin with the space the tokens have."""
        piece = text if self.text else text.lstrip()
        apart = self.text and piece and not piece[0].isspace()
        if self._begun and apart and not self.speech.timestamp_begin:
            piece = f" {piece}"  # windows cut in a pause begin with a word
        self._begun = self._begun and not piece
        self.text += piece
        if piece:
            yield piece


class _Window:
    """What is written of one window: its tokens are the last of the record."""

    def __init__(self, of: Transcription, position: int, size: int) -> None:
        self.position, self.size = position, size
        self.step = round(of.speech.seconds_per_timestamp * of.speech.sample_rate)
        self.text = ""
        self._of, self._record = of, of.record
        self._first, self._first_score = len(of.record.tokens), len(of.record.scores)
        self._looked = self._first
        self._said = 0  # segments
        self._ends = frozenset(of.engine.manifest.generation.end)
        self._begin = of.speech.timestamp_begin

    @property
    def tokens(self) -> list[int]:
        """Without the end token."""
        tokens = self._record.tokens[self._first :]
        return tokens[:-1] if tokens and tokens[-1] in self._ends else tokens

    def read(self) -> Reading:
        steps, tokens = -(-self.size // self.step), self.tokens
        if not self._of.timed:
            return Reading((Span(0, len(tokens), 0, steps),), len(tokens), steps)
        stopped = self._record.reasons[-1] == "stop_string"
        return read(tokens, self._begin, steps, stopped=stopped)

    def say_settled(self) -> Iterator[str]:
        """Text of the segments that were closed since the last look."""
        times = [token >= self._begin for token in self._record.tokens[self._looked :]]
        self._looked = max(self._first, len(self._record.tokens) - 1)
        if any(a and b for a, b in pairwise(times)):
            yield from self.say(settled(self.tokens, self._begin))

    def say(self, spans: Sequence[Span]) -> Iterator[str]:
        """The text of the segments not said yet."""
        fresh = spans[self._said :]
        self._said = len(spans)
        tokens = self.tokens
        texts = [self._text(tokens[span.first : span.last]) for span in fresh]
        before, after = len(self.text), self.text + "".join(texts)
        places = (place for stop in self._of.options.stop if (place := after.find(stop)) >= 0)
        self.text = after[: min(places, default=None)]
        left = len(self.text) - before
        for span, text in zip(fresh, texts, strict=True):
            shown, left = text[:left], max(0, left - len(text))
            if self._of.options.timestamps and shown.strip():
                self._of.segments.append(self._segment(span, shown, tokens))
            yield from self._of.say(shown)

    def _text(self, tokens: Sequence[int]) -> str:
        begin = self._begin
        words = [token for token in tokens if token < begin] if begin else tokens
        return self._of.tokenizer.decode(words)

    def _segment(self, span: Span, text: str, tokens: Sequence[int]) -> Segment:
        rate, last = self._of.speech.sample_rate, self.position + self.size
        return Segment(
            start=min(self.position + span.start * self.step, last) / rate,
            end=min(self.position + span.end * self.step, last) / rate,
            text=text.strip(),
            tokens=tuple(tokens[span.first : span.last]),
        )

    def mean_logprob(self) -> float:
        """Over the tokens written, the end token with them."""
        return fmean(score.logprob for score in self._record.scores[self._first_score :])

    def keep(self, count: int) -> None:
        """Forget the tokens after the first ``count``: their sound is heard again."""
        if count == len(self.tokens):
            return
        del self._record.tokens[self._first + count :]
        del self._record.scores[self._first_score + count :]
        self._record.reasons[-1] = "stop"

    def forget(self) -> None:
        """As if the window had not been decoded, but for the time it took."""
        del self._record.tokens[self._first :]
        del self._record.scores[self._first_score :]
        del self._record.reasons[-1:]

    def loops(self) -> bool:
        data = self._text(self.tokens).encode()
        return len(data) > LOOPING_RATIO * len(compress(data))

    def warn_of_loops(self) -> None:
        if self.loops():
            start, rate = self.position, self._of.speech.sample_rate
            self._record.warn(
                f"the text from {start / rate:.2f} s to {(start + self.size) / rate:.2f} s repeats "
                "itself and may not be what was said; listen to that part."
            )
