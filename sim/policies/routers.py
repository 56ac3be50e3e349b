"""Routers: which replica gets a request. A router is one class with a plain `score(features, params)`.

The replica with the lowest score among those with room gets the request; scores are compared after rounding to 1e-9, ties go
to the lowest index. Features are constant inside a decode run, or two engines could not agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import isfinite
from typing import ClassVar

from sim.registry import register

OUTSTANDING, WAITING, RUNNING, RESERVED_TOKENS, KV_TOKENS, SEATS, WEIGHT = range(7)
FEATURES = ("outstanding", "waiting", "running", "reserved_tokens", "kv_tokens", "seats", "weight")

SCORES_PER_UNIT = 1e9
BY_SCORE, ROUND_ROBIN, RANDOM, POWER_OF_TWO = range(4)


def comparable(score: float) -> float:
    """Return a score as routers compare it: in whole units of 1e-9, so that the last bits of a float decide nothing.

    Examples
    --------
    >>> comparable(0.1 + 0.2) == comparable(0.3)
    True
    """
    scaled = score * SCORES_PER_UNIT
    return round(scaled) if isfinite(scaled) else scaled


class Router:
    """Base of all routers.

    `mechanism` is BY_SCORE for a router that ranks replicas, or one of the built-in draws.
    """

    mechanism: ClassVar[int] = BY_SCORE

    @staticmethod
    def score(f: Sequence[float], p: Sequence[float]) -> float:
        """Rank one replica, lowest wins.

        Parameters
        ----------
        f : features of the replica, indexed by OUTSTANDING, WAITING, RUNNING, RESERVED_TOKENS, KV_TOKENS, SEATS, WEIGHT.
        p : the router's own fields, in order.
        """
        return f[OUTSTANDING]

    def params(self) -> tuple[float, ...]:
        """Return the router's fields as numbers, in order."""
        return tuple(float(getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]


@register("router", "least_outstanding")
class LeastOutstanding(Router):
    """Fewest requests waiting and running."""


@register("router", "least_kv")
class LeastKv(Router):
    """Fewest reserved KV tokens: prompt and generated tokens at admission, waiting requests included."""

    @staticmethod
    def score(f: Sequence[float], p: Sequence[float]) -> float:
        """Rank by reserved tokens."""
        return f[RESERVED_TOKENS]


@register("router", "round_robin")
class RoundRobin(Router):
    """The next index with room after the last pick, cyclic."""

    mechanism: ClassVar[int] = ROUND_ROBIN


@register("router", "random")
class Random(Router):
    """Any replica with room, uniformly, by the request's own random word."""

    mechanism: ClassVar[int] = RANDOM


@register("router", "power_of_two")
class PowerOfTwo(Router):
    """The one with fewer outstanding requests of two different replicas drawn uniformly."""

    mechanism: ClassVar[int] = POWER_OF_TWO
