"""The five routers, their ties, and routers of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from engine_kit import MS, requests, spec
from play import end, go, outcome, start

import sim.dataplane.kernel
from sim.dataplane.compiled import CompiledPlane
from sim.dataplane.engine import DataPlane
from sim.dataplane.kernel_layout import ASK, BY_RESERVED, BY_SCORE, ROUTER
from sim.dataplane.layout import ROUTER_FIRST_DRAW, ROUTER_SECOND_DRAW
from sim.dataplane.reference import ReferencePlane
from sim.policies.routers import (
    KV_TOKENS,
    OUTSTANDING,
    RESERVED_TOKENS,
    RUNNING,
    SEATS,
    WAITING,
    WEIGHT,
    LeastKv,
    LeastOutstanding,
    PowerOfTwo,
    Random,
    RoundRobin,
    Router,
)
from sim.rng import mix64

Engine = type[DataPlane]
LONG = 50


def test_least_outstanding(engine: Engine) -> None:
    """Ties go to the lowest index: 0, 1, 2; then 1, whose request left at 1 ms; then 0."""
    rows = requests((0, 10, LONG), (0, 10, 1), (0, 10, LONG), (2 * MS, 10, LONG), (2 * MS, 10, LONG))
    assert outcome(engine, rows, replicas=(0,) * 3, router=LeastOutstanding()).column("replica") == [0, 1, 2, 1, 0]


def test_least_kv_counts_reserved_tokens(engine: Engine) -> None:
    """Rule 28: prompts count, waiting ones too, generated tokens do not: 0 (90), then 1 gets 40, 40 and the tie at 90 goes to 0."""
    rows = requests((0, 90, LONG), (0, 40, LONG), (0, 40, LONG), (0, 10, LONG), (30 * MS, 10, LONG))
    done = outcome(engine, rows, replicas=(0, 0), specs=[spec(seats=1)], router=LeastKv())
    assert done.column("replica") == [0, 1, 1, 1, 0]


def test_least_kv_frees_what_leaves(engine: Engine) -> None:
    """Rule 28: the 90 tokens of replica 0 are gone at 1 ms."""
    rows = requests((0, 90, 1), (0, 10, LONG), (2 * MS, 10, 1))
    assert outcome(engine, rows, replicas=(0, 0), router=LeastKv()).column("replica") == [0, 1, 0]


def test_reserved_tokens_grow_with_what_was_generated_at_a_readmission(engine: Engine) -> None:
    """Rule 28: reserved is prompt + generated at admission: the victim of 8 + 3 tokens counts 11 from its return at 20 ms on."""
    plane = start(engine, requests((0, 8, 20), (0, 8, 20)), specs=[spec(seats=4, kv_tokens=40)])
    seen = []
    for t_ms in (0, 5, 20, 37):
        go(plane, t_ms * MS)
        seen.append(int(plane.view(t_ms * MS).reserved_tokens[0]))
    assert seen == [16, 16, 11, 0]


def test_round_robin(engine: Engine) -> None:
    """The next index with room after the last pick, cyclic; a full one is passed over and the pointer stays behind it."""
    specs = [spec(), spec(max_outstanding=1)]
    rows = requests(*[(0, 10, LONG)] * 7)
    done = outcome(engine, rows, replicas=(0, 1, 0), specs=specs, router=RoundRobin())
    assert done.column("replica") == [0, 1, 2, 0, 2, 0, 2]


TAGS = [int(tag) for tag in np.random.default_rng(5).integers(0, 2**63, 400)]


def test_random_is_the_requests_own_draw(engine: Engine) -> None:
    """Rule 29: the replica is mix64(tag, attempt, purpose) modulo the candidates, whatever came before."""
    rows = requests(*[(k * 5 * MS, 10, 1) for k in range(400)], tag=TAGS)
    done = outcome(engine, rows, until_ns=3_000 * MS, replicas=(0,) * 3, router=Random())
    assert done.column("replica") == [mix64(tag, 1, ROUTER_FIRST_DRAW) % 3 for tag in TAGS]
    counts = np.bincount(done.column("replica"), minlength=3)
    assert abs(counts - 400 / 3).max() < 4 * np.sqrt(400 * (1 / 3) * (2 / 3))


def test_random_draws_again_for_the_second_attempt(engine: Engine) -> None:
    """Rule 29: the attempt is part of the draw, and candidates are counted among those with room."""
    rows = requests(*[(0, 10, LONG)] * 40, tag=TAGS[:40])
    plane = start(engine, rows, replicas=(0, 0, 0, 0), router=Random(), specs=[spec(seats=100, token_budget=1_000)])
    go(plane, 5 * MS)
    first = [mix64(tag, 1, ROUTER_FIRST_DRAW) % 4 for tag in TAGS[:40]]
    plane.kill_replica(5 * MS, 1)
    second = [[0, 2, 3][mix64(tag, 2, ROUTER_FIRST_DRAW) % 3] for tag in TAGS[:40]]
    assert end(plane).column("replica") == [b if a == 1 else a for a, b in zip(first, second, strict=True)]


def test_power_of_two_takes_the_less_loaded_of_two_different(engine: Engine) -> None:
    """Two different replicas by two draws; fewer outstanding wins, ties to the lowest index."""
    rows = requests(*[(0, 10, LONG)] * 60, tag=TAGS[:60])
    done = outcome(engine, rows, replicas=(0,) * 4, router=PowerOfTwo())
    outstanding, expected = [0] * 4, []
    for tag in TAGS[:60]:
        first = mix64(tag, 1, ROUTER_FIRST_DRAW) % 4
        second = [index for index in range(4) if index != first][mix64(tag, 1, ROUTER_SECOND_DRAW) % 3]
        pick = min(first, second, key=lambda index: (outstanding[index], index))
        outstanding[pick] += 1
        expected.append(pick)
    assert done.column("replica") == expected


@pytest.mark.parametrize("router", [LeastOutstanding(), LeastKv(), RoundRobin(), Random(), PowerOfTwo()])
def test_a_router_chooses_only_among_those_with_room(engine: Engine, router: Router) -> None:
    """Full, draining, refusing and too small replicas are no candidates, so the one that is left gets everything."""
    specs = [
        spec(max_outstanding=1),
        spec(streams=frozenset({7})),
        spec(kv_tokens=20),
        spec(max_outstanding=40),
        spec(seats=1),
    ]
    rows = requests((0, 10, LONG), *[(MS, 10, LONG)] * 30, tag=TAGS[:31])
    plane = start(engine, rows, replicas=(0,), specs=specs, router=router)
    go(plane, MS - 1)
    for kind in (1, 2, 3, 4):
        plane.add_replica(MS - 1, kind)
    plane.drain_replica(MS - 1, 4)
    assert end(plane).column("replica") == [0] + [3] * 30


@pytest.mark.parametrize("router", [Random(), PowerOfTwo(), RoundRobin()])
def test_a_router_with_one_candidate(engine: Engine, router: Router) -> None:
    """No draw is needed."""
    assert outcome(engine, requests((0, 10, 1), tag=[TAGS[0]]), router=router).column("replica") == [0]


@dataclass
class Heaviest(Router):
    """Highest weight times a factor, hardly different."""

    factor: float = 1.0

    @staticmethod
    def score(f: Sequence[float], p: Sequence[float]) -> float:
        """Rank by weight."""
        return -f[WEIGHT] * p[0]


@dataclass
class FewestWaiting(Router):
    """Waiting requests first, then running ones."""

    @staticmethod
    def score(f: Sequence[float], p: Sequence[float]) -> float:
        """Rank by both."""
        return 1_000.0 * f[WAITING] + f[RUNNING]


@pytest.mark.parametrize(("factor", "replica"), [(1.0, 1), (1e-8, 1), (1e-10, 0), (-1.0, 0)])
def test_scores_are_compared_after_rounding(engine: Engine, factor: float, replica: int) -> None:
    """Semantics 8: weights 1, 2, 2 scaled: below 1e-9 all scores are equal and the lowest index gets it."""
    specs = [spec(weight=1.0), spec(weight=2.0)]
    done = outcome(engine, requests((0, 10, 1)), replicas=(0, 1, 1), specs=specs, router=Heaviest(factor))
    assert done.column("replica") == [replica]


def test_waiting_and_running_are_told_apart(engine: Engine) -> None:
    """Replica 0 (one seat) runs 1 and would make others wait; replica 1 runs up to eight, so it gets all the rest."""
    specs = [spec(seats=1), spec(seats=8)]
    rows = requests(*[(k * 2 * MS, 10, LONG) for k in range(8)])
    done = outcome(engine, rows, replicas=(0, 1), specs=specs, router=FewestWaiting())
    # 0: tie. 1: 1 running on replica 0. 2: one each, tie: it waits on replica 0. From then on replica 0 has one waiting.
    assert done.column("replica") == [0, 1, 0, 1, 1, 1, 1, 1]


@dataclass
class Everything(Router):
    """Every feature, each with a weight of its own; replicas that nobody wants are infinitely far."""

    outstanding: float = 0.31
    waiting: float = 1.7
    running: float = -0.013
    reserved: float = 0.0007
    capacity: float = -0.0003

    @staticmethod
    def score(f: Sequence[float], p: Sequence[float]) -> float:
        """Rank by all of them."""
        if f[SEATS] < 2:
            return math.inf
        mixed = p[0] * f[OUTSTANDING] + p[1] * f[WAITING] + p[2] * f[RUNNING] + p[3] * f[RESERVED_TOKENS] + p[4] * f[KV_TOKENS]
        return mixed / math.sqrt(f[WEIGHT])


@dataclass
class InPython(Everything):
    """The same in a way that no compiler takes."""

    @staticmethod
    def score(f: Sequence[float], p: Sequence[float]) -> float:
        """Rank by all of them."""
        return {"score": Everything.score(f, p)}.popitem()[1]


@pytest.mark.parametrize(("router", "how"), [(Everything(), BY_SCORE), (InPython(), ASK), (LeastKv(), BY_RESERVED)])
def test_a_score_is_called_through_its_address_or_else_in_python(router: Router, how: int) -> None:
    """Both give the choices of the reference; no router makes the kernel compile again."""
    specs = [spec(seats=1), spec(seats=4, weight=2.0), spec(seats=8, kv_tokens=400, weight=3.0)]
    rows = requests(*[(k * MS, 10 + 7 * k % 50, 5 + k % 11) for k in range(60)])
    planes = [start(engine, rows, replicas=(0, 1, 2, 1), specs=specs, router=router) for engine in (ReferencePlane, CompiledPlane)]
    assert planes[1].memory.m[ROUTER] == how  # type: ignore[attr-defined]
    chosen = [end(plane).column("replica") for plane in planes]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) >= 2
    assert len(sim.dataplane.kernel.advance.nopython_signatures) == 1


@dataclass
class Wrong(Router):
    """A score with something wrong in it, by its parameter."""

    how: int = 0

    @staticmethod
    def score(f: Sequence[float], p: Sequence[float]) -> float:
        """Divide by zero, read past the end, or give no number."""
        if p[0] == 0:
            return 1.0 / (f[OUTSTANDING] - f[OUTSTANDING])
        if p[0] == 1:
            return p[5]
        return math.nan if f[WEIGHT] == 1.0 else 1e300


@pytest.mark.parametrize(("how", "error"), [(0, ZeroDivisionError), (1, IndexError)])
def test_an_error_of_a_score_ends_the_run(engine: Engine, how: int, error: type[Exception]) -> None:
    """Compiled or not: it is never taken for a score."""
    with pytest.raises(error):
        outcome(engine, requests((0, 10, 1)), router=Wrong(how))


def test_no_number_and_numbers_beyond_bounds_choose_as_in_python(engine: Engine) -> None:
    """NaN is below nothing and nothing is below it, so the first stays; 1e300 is a number like others."""
    specs = [spec(weight=1.0), spec(weight=2.0)]
    assert outcome(engine, requests((0, 10, 1)), replicas=(0, 1), specs=specs, router=Wrong(2)).column("replica") == [0]
    assert outcome(engine, requests((0, 10, 1)), replicas=(1, 0), specs=specs, router=Wrong(2)).column("replica") == [0]
    assert outcome(engine, requests((0, 10, 1)), replicas=(1, 1), specs=specs, router=Wrong(2)).column("replica") == [0]
