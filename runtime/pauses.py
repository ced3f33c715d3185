"""Where long sound may be cut: in the longest pause, or else where it is quietest."""

from __future__ import annotations

import numpy as np

from .audio import Samples

# A cut lies in the last third of what a model can hear at once, so that windows stay long.
EARLIEST = 2 / 3
STEP_S = 0.02
# Between two words there are some 50 to 300 ms; what is quiet for as long is no stop consonant.
PAUSE_S = 0.3


def pause(samples: Samples, sample_rate: int) -> int:
    """The sample in the middle of the quietest 300 ms of the last third; the later of equals.

    ``samples`` are one window of a recording that goes on. At least two thirds of it are kept.
    """
    step = max(1, round(STEP_S * sample_rate))
    first = int(samples.size * EARLIEST)
    count = (samples.size - first) // step
    span = round(PAUSE_S / STEP_S)
    if count < span:
        return samples.size
    tail = samples[samples.size - count * step :].astype(np.float64).reshape(count, step)
    power = np.concatenate([[0.0], np.cumsum(np.square(tail).mean(1))])
    quiet = power[span:] - power[:-span]
    middle = len(quiet) - 1 - int(quiet[::-1].argmin()) + span // 2
    return samples.size - (count - middle) * step
