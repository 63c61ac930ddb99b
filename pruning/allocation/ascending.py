"""Scores in ascending order, sorted only where somebody looks.

A full sort of 25 million scores takes most of the time from a model to its masks, and a budget
looks at one place of it. So the scores are put into buckets by the leading bits of their floats,
in one pass, and a bucket is sorted when it is read.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

SHIFT = 17
"""Trailing bits of a float that a bucket spans: 64 buckets for each power of two."""

SMALL = 2**14
"""Scores up to which a plain sort is faster."""

LARGE = 2**31
"""Scores from which places do not fit into int32."""


def ascending(values: NDArray[Any]) -> Any:
    """The values in ascending order: an array, or what reads as one. values: (n,), no NaN."""
    if not SMALL < len(values) < LARGE or values.dtype != np.float32:
        return np.sort(values)
    return Ascending(values)


class Ascending:
    """A sorted float32 array that is not sorted yet.

    It reads as one: length, `[i]`, `[i:j]`, `searchsorted`, and as a whole where numpy takes it.
    starts: (buckets + 1,) where each begins; first: the number of the first bucket.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, values: NDArray[np.float32]) -> None:
        bits = values.view(np.int32)
        if int(bits.min()) < 0:
            values = values + np.float32(0)  # -0.0 is no less than 0.0, though its bits are
            bits = values.view(np.int32)
            # Turned round where they are negative, so that integers order as the floats do.
            bits = bits ^ ((bits >> 31) & np.int32(2**31 - 1))
        buckets = bits >> SHIFT
        self._first = int(buckets.min())
        buckets -= self._first
        # One row whose columns are the buckets: by column is by bucket, in one counting pass.
        size = (1, int(buckets.max()) + 1)
        by_row = csr_array((values, buckets, np.array([0, len(values)], np.int32)), shape=size)
        by_bucket = by_row.tocsc()
        self._values: NDArray[np.float32] = by_bucket.data
        self._starts = by_bucket.indptr
        # Sorted buckets are kept apart: two readers at once must never see one half sorted.
        self._sorted: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1 and 0 < stop - start < len(self) // 4:
                return self._between(start, stop)
            return self._whole[index]
        place = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(f"{index} of {len(self)} scores")
        return self._between(place, place + 1)[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._whole, dtype=dtype, copy=copy)

    def searchsorted(
        self, value: float, side: Literal["left", "right"] = "left", sorter: None = None
    ) -> int:
        """As numpy's: where the value would be put, before or behind its equals."""
        bucket, is_first, is_last = _place(float(value))
        bucket -= self._first
        if bucket < 0:
            return 0
        if bucket >= len(self._starts) - 1:
            return len(self)
        start, end = int(self._starts[bucket]), int(self._starts[bucket + 1])
        # At an edge of a bucket its content does not matter.
        if start == end or (side == "left" and is_first):
            return start
        if side == "right" and is_last:
            return end
        return start + int(self._bucket(bucket).searchsorted(value, side))

    def forget(self) -> None:
        """Sort anew what is looked at next, as if nothing had been."""
        self._sorted.clear()
        self.__dict__.pop("_whole", None)

    def _between(self, start: int, stop: int) -> NDArray[np.float32]:
        """The values from one place to another, of which only the buckets touched are sorted."""
        first = int(self._starts.searchsorted(start, "right")) - 1
        last = int(self._starts.searchsorted(stop, "left"))
        offset = int(self._starts[first])
        touched = [self._bucket(number) for number in range(first, last)]
        return np.concatenate(touched)[start - offset : stop - offset]

    def _bucket(self, number: int) -> NDArray[np.float32]:
        if number not in self._sorted:
            inside = self._values[self._starts[number] : self._starts[number + 1]]
            self._sorted[number] = np.sort(inside)
        return self._sorted[number]

    @cached_property
    def _whole(self) -> NDArray[np.float32]:
        """All of them: bucket by bucket takes half the time of one long sort."""
        values = self._values.copy()
        starts = self._starts
        for number in np.flatnonzero(np.diff(starts) > 1):
            values[starts[number] : starts[number + 1]].sort()
        return values


@lru_cache(maxsize=64)
def _place(value: float) -> tuple[int, bool, bool]:
    """(the bucket that a value falls into, whether it is the first of it, the last of it)."""
    with np.errstate(over="ignore"):
        nearest = np.float32(value) + np.float32(0)
    bits = int(nearest.view(np.int32))
    key = bits if bits >= 0 else ~(bits & (2**31 - 1))
    exact = float(nearest) == value or math.isinf(value)
    inside = key & (2**SHIFT - 1)
    return key >> SHIFT, exact and inside == 0, exact and inside == 2**SHIFT - 1
