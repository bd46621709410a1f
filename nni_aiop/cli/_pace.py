"""How often to do what takes longer and longer."""

from __future__ import annotations

import math
import time

__all__ = ["Pace"]

_SHARE = 0.05  # of the time


class Pace:
    """When something that takes longer and longer is done again: it gets a twentieth of the time.

    Args:
        pause: Seconds between two times, at least.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self._begun = self._next = -math.inf

    @property
    def began(self) -> bool:
        """Whether it was ever done."""
        return self._begun > -math.inf

    @property
    def is_due(self) -> bool:
        """Whether to do it now, in a `with` block of this pace."""
        return time.monotonic() >= self._next

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *error: object) -> None:
        now = time.monotonic()
        self._next = now + max(self._pause, (now - self._begun) / _SHARE)
