"""Which of the replicas with room gets a request: the draws of the built-in routers, and the scores of all others."""

from __future__ import annotations

from sim.dataplane import layout
from sim.dataplane.state import Replica, Request
from sim.policies.routers import POWER_OF_TWO, RANDOM, ROUND_ROBIN, Router, comparable
from sim.rng import mix64


def choose(router: Router, request: Request, candidates: list[Replica], last_pick: int) -> Replica:
    """Return the router's choice.

    Draws are made from the request's own random word and its attempt, so they do not depend on when they are made.

    Parameters
    ----------
    candidates : replicas that could hold the request and have room, by index; at least one.
    last_pick : index of the replica chosen before this one, -1 at first; it survives removals.
    """
    if router.mechanism == ROUND_ROBIN:
        return next((replica for replica in candidates if replica.index > last_pick), candidates[0])
    if router.mechanism == RANDOM:
        return candidates[mix64(request.tag, request.attempt, layout.ROUTER_FIRST_DRAW) % len(candidates)]
    if router.mechanism == POWER_OF_TWO:
        if len(candidates) == 1:
            return candidates[0]
        first = mix64(request.tag, request.attempt, layout.ROUTER_FIRST_DRAW) % len(candidates)
        second = mix64(request.tag, request.attempt, layout.ROUTER_SECOND_DRAW) % (len(candidates) - 1)
        second += second >= first
        return min(candidates[first], candidates[second], key=lambda replica: (replica.load, replica.index))
    params = router.params()
    return min(candidates, key=lambda replica: (comparable(router.score(replica.features(), params)), replica.index))
