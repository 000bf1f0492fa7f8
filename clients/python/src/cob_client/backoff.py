"""How long to wait before trying again: exponential, with jitter, and with an end."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Callable, Optional


@dataclass(frozen=True)
class Patience:
    """How a client waits for a server that is not there. All numbers are seconds."""

    #: The first pause.
    first: float = 0.05
    #: The longest pause.
    longest: float = 2.0
    #: All pauses and attempts together; then outstanding requests fail.
    total: float = 60.0


class Backoff:
    """The pauses of one series of attempts, of which `attempt` were made before. Clock and chance are given by tests."""

    def __init__(
        self,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        attempt: int = 0,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._chance = chance
        self._attempt = attempt
        self._end = clock() + patience.total

    def next(self, at_least: float = 0.0) -> Optional[float]:
        """Seconds to wait now, between half and all of the current step so that clients do not come back in step;
        `None` when patience has ended."""
        left = self._end - self._clock()
        if left <= 0:
            return None
        # The exponent is bounded: a float would overflow after a thousand attempts.
        step = min(self._patience.longest, self._patience.first * 2.0 ** min(self._attempt, 32))
        self._attempt += 1
        return min(max(step * (0.5 + self._chance() / 2), at_least), left)
