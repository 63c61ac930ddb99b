"""What a number may be: written once, checked where recipes are made, and drawn by the page.

A technique's option has its range in the signature, `probes: Annotated[int, Range(1, 1000)] = 8`.
"""

from __future__ import annotations

from typing import NamedTuple

from pruning.errors import OutOfRange


class Range(NamedTuple):
    """From `low` up to `high`. above, below: `low`, `high` itself is not allowed."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def holds(self, value: object) -> bool:
        """Whether it is a number inside; NaN is inside of nothing."""
        # True is an int in Python, and nobody means 1 by it.
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        # Compared as they are: an int of 401 digits is no float, and NaN is never in order.
        inside = self.low <= value <= self.high
        at_low = self.above and value == self.low
        at_high = self.below and value == self.high
        return inside and not at_low and not at_high

    def check(self, what: str, value: object, *, whole: bool = False, hint: str = "") -> None:
        """Raises OutOfRange unless `value` is a number inside. whole: it has to be an int."""
        if self.holds(value) and not (whole and not isinstance(value, int)):
            return
        raise OutOfRange(what, value, self.in_words(whole) + (f" ({hint})" if hint else ""))

    def in_words(self, whole: bool = False) -> str:
        """`a whole number from 1 to 1,000`, `a number above 0, up to 100`."""
        if whole:
            return f"a whole number from {int(self.low):,} to {int(self.high):,}"
        start = "above" if self.above else "from"
        end = "up to, not including," if self.below else "up to"
        noun = "share" if self == SHARE else "number"
        comma = "" if self.below else ","
        return f"a {noun} {start} {self.low:g}{comma} {end} {self.high:g}"


SHARE = Range(0, 1, below=True)
"""A share to remove: all of it would be no network."""

ANY = Range(-1e9, 1e9)
"""Of an option whose technique names no range; that what it costs ends, the studies' budget says.
"""
