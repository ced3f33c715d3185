"""Several texts decoded together: a seat each in memory that one call reads.

A text asks as if it were alone (``asking``). Questions of many are gathered: sources are encoded
side by side, and texts that want one more token share a decode call. A seat is free when its text
has ended, so texts of unequal length do not wait for one another. Calls over several rows of one
text (a prompt, beams, drafts) are made alone. Several threads may each have a batch of their own on
the same graphs; each takes the next text when it has a seat free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

from .asking import Asked, Call, Encoding, Writing
from .decoder import Decoder, Scores
from .engine import Engine, Memory
from .generation import Answer
from .result import Result
from .seats import Seats, can_seat

# Sources of a call differ in length by at most this factor, since the shorter are padded.
RAGGED = 1.5


@dataclass
class Text:
    """One source's task, where its result belongs, and what it waits for."""

    place: int
    writing: Writing[Result]
    asked: Asked
    seated: Decoder | None = field(default=None)


class Waiting:
    """Texts not begun, for the batches of several threads. Once ``over`` none goes on."""

    def __init__(self, writings: Sequence[Writing[Result]]) -> None:
        self._texts = deque(enumerate(writings))
        self.over = False

    def take(self) -> tuple[int, Writing[Result]] | None:
        try:
            return self._texts.popleft()
        except IndexError:
            return None


class Batch:
    """``size`` texts at a time. Holds memory for as long as ``run`` runs."""

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine, self._size = engine, size
        self._seats: Seats | None = None
        self._results: dict[int, Result] = {}

    def run(self, waiting: Waiting) -> dict[int, Result]:
        """Results of the texts taken, by place. What one raises ends all."""
        active: list[Text] = []
        try:
            while not waiting.over:
                active += self._begun(waiting, self._size - len(active))
                if not active:
                    break
                active = self._turn(active)
            return self._results
        except BaseException:
            waiting.over = True
            raise

    def _begun(self, waiting: Waiting, room: int) -> list[Text]:
        texts: list[Text] = []
        while len(texts) < room and (following := waiting.take()) is not None:
            place, writing = following
            asked = self._next(place, writing, None)
            if asked is not None:
                texts.append(Text(place, writing, asked))
        return texts

    def _next(
        self, place: int, writing: Writing[Result], answer: Memory | Answer | None
    ) -> Asked | None:
        """Go on to the next question, None when the text is done."""
        try:
            item = next(writing) if answer is None else writing.send(answer)
            while not isinstance(item, Asked):
                item = next(writing)
            return item
        except StopIteration as end:
            self._results[place] = end.value
            return None

    def _turn(self, active: list[Text]) -> list[Text]:
        """Answer every text once; those that go on."""
        answers: dict[int, Memory | Answer] = {}
        encodings = [text for text in active if isinstance(text.asked, Encoding)]
        for text in encodings:  # of the next sentence: the last one's text has ended
            self._stand(text)
        for text, memory in zip(encodings, self._encode(encodings), strict=True):
            answers[text.place] = memory
        together: list[Text] = []
        for text in active:
            if isinstance(text.asked, Call):
                if self._seat(text, text.asked):
                    together.append(text)
                else:
                    answers[text.place] = text.asked.alone()
        answers |= self._decode(together)
        following = [self._next(text.place, text.writing, answers[text.place]) for text in active]
        # Seats are moved when every text has said which rows of the call it keeps.
        left: list[Text] = []
        for text, asked in zip(active, following, strict=True):
            if asked is None:
                self._stand(text)
            else:
                text.asked = asked
                left.append(text)
        return left

    def _encode(self, texts: Sequence[Text]) -> list[Memory]:
        """Memories of sources, those alike in length side by side."""
        if not texts:
            return []
        asked = [text.asked for text in texts if isinstance(text.asked, Encoding)]
        found: dict[int, Memory] = {}
        lengths = [len(one.ids) for one in asked]
        for group in side_by_side(lengths, self._engine.tokens_together):
            memories = self._engine.remember_many([asked[i].ids for i in group])
            found |= dict(zip(group, memories, strict=True))
        return [found[i] for i in range(len(asked))]

    # ------------------------------------------------------------ decode

    def _seat(self, text: Text, call: Call) -> bool:
        """Whether the call is one of several to be made together."""
        feed, decoder = call.feed, call.decoder
        if self._size == 1:
            return False
        if text.seated is decoder:
            return True
        self._stand(text)
        if len(feed.tokens) != 1 or not can_seat(decoder):
            return False
        if self._seats is None:
            self._seats = Seats(decoder, self._size)
        self._seats.take(decoder)
        text.seated = decoder
        return True

    def _stand(self, text: Text) -> None:
        if text.seated is not None and self._seats is not None:
            self._seats.leave(text.seated)
            text.seated = None

    def _decode(self, texts: Sequence[Text]) -> dict[int, Memory | Answer]:
        calls = {text.place: text.asked for text in texts if isinstance(text.asked, Call)}
        if not calls or self._seats is None:
            return {}
        start = perf_counter()
        tokens = {call.decoder: call.feed.tokens[0] for call in calls.values()}
        rows = self._seats.forward(tokens)
        share = (perf_counter() - start) / len(calls)
        return {place: Answer(Scores(rows[call.decoder]), share) for place, call in calls.items()}


def side_by_side(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Places of sources to encode in one call each: alike in length, and at most ``most`` tokens
    with padding where there are several (0 for any number)."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        length, group = lengths[place], groups[-1] if groups else []
        alike = bool(group) and length <= RAGGED * lengths[group[0]]
        if alike and (not most or (len(group) + 1) * length <= most):
            group.append(place)
        else:
            groups.append([place])
    return groups


def together(
    engine: Engine, writings: Sequence[Writing[Result]], size: int, workers: int = 1
) -> list[Result]:
    """The results, in order: ``workers`` threads decode ``size`` texts each at a time, fewer where
    there are not as many for each of them."""
    waiting, found = Waiting(writings), dict[int, Result]()
    size = min(size, max(1, -(-len(writings) // workers)))
    try:
        if workers == 1:
            found = Batch(engine, size).run(waiting)
        else:
            with ThreadPoolExecutor(workers, "edgegen-batch") as pool:
                running = [pool.submit(Batch(engine, size).run, waiting) for _ in range(workers)]
                try:
                    for one in running:
                        found |= one.result()
                except BaseException:  # an interrupt of this thread reaches the others
                    waiting.over = True
                    raise
    finally:
        for writing in writings:
            writing.close()
    return [found[place] for place in range(len(writings))]
