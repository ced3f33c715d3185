"""Auto: a budget that drafts when drafting pays, and whose losses are bounded when it does not.

A draft of k nodes makes a decode call dearer by L(1 + k) - L(1) and saves a call for each node
that stands. The most worthwhile k is the one where what it is expected to save exceeds what it
costs by most; a saved token is worth what tokens cost now, drafting included, since the next call
would have drafted too (Dinkelbach, 1967: the fixed point maximises tokens per second).

The expectation may be wrong, so there is an account in seconds against plain decoding. Each token
pays ``FILL`` of a plain call in, each saved call pays itself in, drafts and asking for them are
paid out, and no draft is made that could overdraw the account if all of it fell. Whatever the
text, N tokens in all then cost at most ``FILL`` * N + ``START`` plain calls more than plain
decoding, by the table: under 3 % from 200 tokens on. What is left, up to ``KEEP``, passes on to the
next request.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from threading import Lock

from .acceptance import Acceptance, kind_of
from .budget import Facts
from .calibration import Costs
from .verify import Draft

FILL = 0.02
START, KEEP = 2.0, 4.0
MOST = 31
# Drafters whose largest draft takes no longer than this, in plain calls, are asked for all of it.
CHEAP = 0.1
# What asking is hoped to bring before it was tried, in plain calls, and how fast it is learnt.
HOPE, LEARN = 0.5, 0.05
# A draft that does not seem to pay is tried now and then, this long, after so many tokens: twice
# as many after each that lost.
PROBE = 2
SOONEST, LATEST = 8, 512
# What asking that brings nothing may go on costing, in plain calls a token.
CURIOSITY = 0.003
# Plain steps between two thoughts about asking, which cost microseconds themselves.
REST = 16
# What asking took is believed up to so many times what it usually takes.
HICCUP = 3.0
# What a question too dear to ask is believed to cost, from one text to the next.
FADE = 0.97
# How fast the worth of a token follows the text, a token.
DRIFT = 0.05


class Median:
    """The lower median of the last nine numbers; 0 before the first."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=9)
        self.value = 0.0

    def add(self, number: float, most: float = math.inf) -> None:
        """A number far out is taken for a hiccup of the machine; the first is believed up to
        ``most``, since nothing yet says what is far out."""
        count = len(self._last)
        number = min(number, HICCUP * self.value if count > 2 else most if not count else math.inf)
        self._last.append(number)
        self.value = sorted(self._last)[(len(self._last) - 1) // 2]

    def fade(self) -> None:
        """A number so large that nothing is tried any more must not stand for ever."""
        self.value *= FADE


class Experience:
    """What the requests of one pipeline learn of one drafter. Safe to share among threads.

    ``credit`` is in plain calls.
    """

    def __init__(self, costs: Costs) -> None:
        self.costs, self.lock = costs, Lock()
        self._extras: dict[int, list[float]] = {}
        self.acceptance = Acceptance()
        self.credit = START
        self.tokens = 0
        # Seconds of a drafted node, of asking in vain, and of the first question of a text, for
        # which drafters read the source.
        self.node, self.silence, self.first = Median(), Median(), Median()
        # Seconds a decode call takes for each second of the table: what the drafter takes is
        # brought to the table's pace, since what slows one slows the other.
        self.pace = Median()
        # What asking has brought of late, in plain calls, and the kind of the last draft.
        self.profit, self.kind = HOPE, 0
        self.unasked = 0  # tokens since the drafter was asked
        self.idle = 0  # of them, those not booked yet: a text may end before it thinks again
        self._probes: dict[int, tuple[int, int]] = {}

    def extra(self, pending: int) -> list[float]:
        """Seconds that k = 0... nodes add to a call with ``pending`` other rows."""
        found = self._extras.get(pending)
        if found is None:
            base = self.costs.of(pending)
            found = [self.costs.of(pending + k) - base for k in range(MOST + 1)]
            self._extras[pending] = found
        return found

    def book(self) -> None:
        """Count the plain steps of late; a step lost to another thread is lost to caution."""
        idle, self.idle = self.idle, 0
        self.credit += FILL * idle
        self.tokens += idle
        self.unasked += idle

    def due(self, kind: int) -> bool:
        return self.tokens >= self._probes.get(kind, (0, 0))[0]

    def probed(self, kind: int, paid: bool) -> None:
        patience = self._probes.get(kind, (0, SOONEST // 2))[1]
        patience = SOONEST if paid else min(2 * patience, LATEST)
        self._probes[kind] = (self.tokens + patience, patience)

    def asked(self, seconds: float, nodes: int, first: bool) -> float:
        """The drafter took ``seconds`` to propose so many nodes; what of it is believed. A node
        costs what is beyond a vain question."""
        seconds /= max(self.pace.value, 1.0)
        if first:
            self.first.add(seconds, self.costs.of(1))
            return min(seconds, HICCUP * self.first.value)
        base = self.silence.value
        if not nodes:
            self.silence.add(seconds, self.costs.of(1))
            return min(seconds, HICCUP * self.silence.value)
        self.node.add(max(seconds - base, 0.0) / nodes)
        return min(seconds, HICCUP * (base + self.node.value * nodes))


class Auto:
    """The budget of one request; ``most`` bounds a draft. ``balance`` is in seconds."""

    def __init__(self, experience: Experience, most: int = MOST) -> None:
        self._known, self._most = experience, min(most, MOST)
        self._plain = experience.costs.of(1)
        self._worth = self._plain
        with experience.lock:
            experience.book()
            # Only here: what a request saved it may lose again, but no later one.
            experience.credit = min(KEEP, experience.credit)
        self.balance = experience.credit * self._plain
        if experience.first.value > self.balance:
            experience.first.fade()
        # Of the step under way: nodes proposed (-1: not asked), whether they are verified or asked
        # for only to see.
        self._proposed = -1
        self._probing, self._wondering = False, False
        self._opened = False  # asked at all
        # Plain steps before the next thought, and those since the last.
        self._rest = self._idle = 0

    def limit(self, pending: int) -> int:
        if self._rest > 0:
            return 0
        self._settle()
        self._proposed, self._probing, self._wondering = -1, False, False
        known = self._known
        with known.lock:
            extra = known.extra(pending)
            top = self._affordable(extra, self._most)
            asked = self._worthwhile(extra, top) if top > 0 else 0
        self._proposed = 0 if asked else -1
        self._rest = 0 if asked else REST
        return asked

    def _affordable(self, extra: Sequence[float], most: int) -> int:
        known = self._known
        asking = known.silence.value if self._opened else known.first.value
        node, spare = known.node.value, self.balance - asking
        top = min(bisect_right(extra, spare) - 1, most)
        while top > 0 and extra[top] + node * top > self.balance:
            top -= 1
        return top

    def _worthwhile(self, extra: Sequence[float], top: int) -> int:
        """What to ask for, before anything is known of the draft: all that may be, unless nodes
        cost much to propose."""
        known = self._known
        node, count = known.node.value, top
        if node * top > CHEAP * self._plain:
            count, _ = self._best(known.acceptance.chain(known.kind, top), extra, top, node)
        if count and known.profit > 0.0:
            return count
        # The last draft's kind, or all of late, promise nothing; others may by now.
        asking = known.silence.value if self._opened else known.first.value
        if known.unasked * CURIOSITY * self._plain < asking + node * PROBE:
            return 0
        self._wondering = True
        return max(count, min(PROBE, top))

    def _best(
        self, reach: Sequence[float], extra: Sequence[float], most: int, node: float = 0.0
    ) -> tuple[int, float]:
        """How many nodes save most, and how many seconds; (0, 0) when none do."""
        worth, expected, best, count = self._worth, 0.0, 0.0, 0
        for k in range(1, most + 1):
            expected += reach[k - 1]
            gain = worth * expected - extra[k] - node * k
            if gain > best:
                best, count = gain, k
        return count, best

    def trim(self, draft: Draft, pending: int) -> int:
        self._proposed = len(draft)
        if not self._proposed:
            return 0
        known = self._known
        with known.lock:
            extra = known.extra(pending)
            top = self._affordable(extra, min(self._proposed, self._most))
            count, _ = self._best(known.acceptance.nodes(draft), extra, top)
            if not count and top > 0 and known.due(kind_of(draft)):
                self._probing = True
                count = min(PROBE, top)
        return count

    def observe(self, facts: Facts) -> None:
        if self._proposed < 0:
            self._rest -= 1
            self._idle += 1
            self._known.idle += 1
            return
        plain, drafted, saved = self._plain, len(facts.draft), facts.kept
        tokens = saved + 1
        known = self._known
        with known.lock:
            extra = known.extra(facts.pending)[drafted]
            if facts.pending == 1:
                known.pace.add(facts.decode_seconds / (plain + extra))
            first, self._opened = not self._opened, True
            asking = known.asked(facts.draft_seconds, self._proposed, first)
            cost = extra + asking - saved * plain
            self.balance += FILL * tokens * plain - cost
            known.credit += FILL * tokens - cost / plain
            known.tokens += tokens
            profit = saved * self._worth - extra - asking
            known.profit += LEARN * (profit / plain - known.profit)
            paid = profit > 0.0
            known.unasked = 0
            if drafted:
                known.kind = kind_of(facts.draft)
                known.acceptance.observe(facts.draft, facts.path)
                if self._probing:
                    known.probed(kind_of(facts.draft), paid)
        share = (1.0 - DRIFT) ** tokens
        now = (plain + extra + asking) / tokens
        self._worth = min(plain, self._worth * share + now * (1.0 - share))

    def _settle(self) -> None:
        """Book the steps without a question since the last thought."""
        known, idle, self._idle = self._known, self._idle, 0
        if idle:
            self.balance += FILL * self._plain * idle
            with known.lock:
                known.book()
            self._worth += (1.0 - (1.0 - DRIFT) ** idle) * (self._plain - self._worth)
