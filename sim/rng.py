"""Named, counter-based random streams: who draws what never depends on who else draws.

A stream is keyed by (seed, replication, purpose, entity, block). Blocks of one stream are independent generators, so a
block can be drawn without its predecessors and changing one consumer never shifts another (common random numbers).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

_MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class StreamKey:
    """Names one family of random streams: a seed, a replication, a purpose and the entity that draws.

    Examples
    --------
    >>> key = StreamKey(seed=1, replication=0, purpose="arrivals", entity="chat")
    >>> float(key.generator(0).random()) == float(key.generator(0).random())
    True
    """

    seed: int
    replication: int
    purpose: str
    entity: str

    def generator(self, block: int = 0) -> np.random.Generator:
        """Return a fresh Philox generator for one block of this stream."""
        name = f"{self.seed}/{self.replication}/{self.purpose}/{self.entity}/{block}"
        digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))

    def about(self, purpose: str) -> StreamKey:
        """Return the key of another purpose of the same entity."""
        return StreamKey(self.seed, self.replication, purpose, self.entity)


def mix64(tag: int, attempt: int, purpose: int) -> int:
    """Mix three integers into one 64-bit word (the finaliser of splitmix64, Steele, Lea and Flood 2014).

    Both engines use it for the draws they need themselves, so that a draw belongs to a request and not to a moment.

    Examples
    --------
    >>> mix64(1, 1, 0) != mix64(1, 2, 0)
    True
    """
    word = (tag + 0x9E3779B97F4A7C15 * (2 * attempt + 1) + 0xD1B54A32D192ED03 * (purpose + 1)) & _MASK64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK64
    return word ^ (word >> 31)
