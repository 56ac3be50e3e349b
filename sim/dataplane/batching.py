"""How a replica that is not an LLM forms its batches in the reference engine: the rules of `engine.Batcher`, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from sim.dataplane.layout import NEVER_NS
from sim.dataplane.state import Replica, Request


def form_batch(replica: Replica, now_ns: int, is_late: Callable[[Request], bool], drop: Callable[[Request], None]) -> list[Request]:
    """Take the next batch from the waiting lists of a free replica; empty if nothing waits or if it is better to wait.

    `replica.look_again_ns` is then when the oldest has waited long enough, `NEVER_NS` if nothing waits.

    Parameters
    ----------
    is_late : whether a request is past its timeout. drop : lets such a request leave; others may come to the lists by that.
    """
    batcher, most = replica.spec.batcher, replica.spec.token_budget
    assert batcher is not None
    preferred = batcher.sizes(most)
    pending: list[Request] = []
    size = best = 0
    full = False
    for request in _in_turn(replica, is_late, drop):
        if pending and size + request.prompt_tokens > preferred[-1] and not best:
            best = len(pending)
        if size + request.prompt_tokens > most:
            full = True
            break
        pending.append(request)
        size += request.prompt_tokens
        if size in preferred:
            best = len(pending)
    replica.look_again_ns = NEVER_NS
    if not pending:
        # A pull after the last one left may have brought one of a priority that had its turn.
        return form_batch(replica, now_ns, is_late, drop) if replica.outstanding else []
    due_ns = min(request.dispatched_ns for request in pending) + batcher.max_delay_ns
    if best and (now_ns < due_ns or not batcher.max_delay_ns):
        return _take(replica, best)
    if full or size >= preferred[-1] or now_ns >= due_ns:
        return _take(replica, len(pending))
    replica.look_again_ns = due_ns
    return []


def _in_turn(replica: Replica, is_late: Callable[[Request], bool], drop: Callable[[Request], None]) -> Iterator[Request]:
    """Waiting requests by priority; those found late leave or go behind the others of their priority."""
    for waiting, late in zip(replica.waiting, replica.late, strict=True):
        place = 0
        while place < len(waiting):
            request = waiting[place]
            if is_late(request):
                del waiting[place]
                if request.late_waits:
                    late.append(request)
                else:
                    drop(request)
            else:
                place += 1
                yield request
        yield from late


def _take(replica: Replica, count: int) -> list[Request]:
    """Remove the first requests from the waiting lists."""
    taken: list[Request] = []
    for line in (line for pair in zip(replica.waiting, replica.late, strict=True) for line in pair):
        here = list(islice(line, count - len(taken)))
        for _ in here:
            line.popleft()
        taken += here
    return taken
