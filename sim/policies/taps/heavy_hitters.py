"""The most frequent keys of an endless stream in bounded memory, with the error of each count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class HeavyHitters:
    """Space-Saving over blocks: exact up to `capacity` keys, beyond that the most frequent ones.

    A block is counted exactly and merged: a key that is not kept enters with its count in the block plus `floor`, the most that
    such a key can have had before; then the `capacity` largest stay (ties: the lowest key). So, after n occurrences,

    - count - error <= true count <= count for every key kept,
    - true count <= floor for every key not kept, and
    - error <= floor <= n / capacity, so every key with more than n / capacity occurrences is kept.

    Sources: Metwally, Agrawal, El Abbadi, ICDT 2005 (Space-Saving); Cafaro, Pulimeno, Tempesta, Information Sciences 329 (2016)
    (merging summaries).

    Parameters
    ----------
    capacity : most keys kept. sums : how many quantities are added up beside the count; they are complete where the error is 0,
        else they begin when the key was last taken in.

    Examples
    --------
    >>> hitters = HeavyHitters(capacity=2, sums=0)
    >>> hitters.add(np.array([7, 7, 7, 5]), [])
    >>> hitters.add(np.array([3, 3, 7]), [])
    >>> hitters.keys.tolist(), hitters.counts.tolist(), hitters.errors.tolist(), hitters.floor
    ([3, 7], [2, 4], [0, 0], 1)
    """

    def __init__(self, capacity: int, sums: int) -> None:
        self.capacity = capacity
        self.floor = 0
        self.keys: IntArray = np.zeros(0, np.int64)
        self.counts: IntArray = np.zeros(0, np.int64)
        self.errors: IntArray = np.zeros(0, np.int64)
        self.sums: IntArray = np.zeros((sums, 0), np.int64)

    def add(self, keys: IntArray, amounts: Sequence[npt.NDArray[np.signedinteger]]) -> None:
        """Count a block.

        Parameters
        ----------
        keys : int64, (n,). amounts : one integer array of that shape for each sum; a sum over a block is below 2^53.
        """
        found, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        # bincount adds in floats, which are exact for whole numbers below 2^53.
        sums = (
            np.array([np.bincount(inverse, amount, len(found)) for amount in amounts])
            .astype(np.int64)
            .reshape(len(amounts), len(found))
        )
        place = np.searchsorted(self.keys, found)
        known = np.zeros(len(found), np.bool_)
        inside = place < len(self.keys)
        known[inside] = self.keys[place[inside]] == found[inside]
        self.counts[place[known]] += counts[known]
        self.sums[:, place[known]] += sums[:, known]
        new = ~known
        if not new.any():
            return
        self._keep(
            np.concatenate([self.keys, found[new]]),
            np.concatenate([self.counts, counts[new] + self.floor]),
            np.concatenate([self.errors, np.full(int(new.sum()), self.floor)]),
            np.concatenate([self.sums, sums[:, new]], axis=1),
        )

    def _keep(self, keys: IntArray, counts: IntArray, errors: IntArray, sums: IntArray) -> None:
        """Keep the largest counts, in the order of their keys."""
        order = np.lexsort((keys, -counts))
        dropped = order[self.capacity :]
        if len(dropped):
            self.floor = max(self.floor, int(counts[dropped[0]]))
        kept = np.sort(order[: self.capacity])
        kept = kept[np.argsort(keys[kept])]
        self.keys, self.counts, self.errors, self.sums = keys[kept], counts[kept], errors[kept], sums[:, kept]
