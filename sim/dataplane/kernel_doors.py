"""Doors into the kernel for Python: the same functions, called with arrays instead of pointers."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from sim.dataplane.engine import FloatArray, IntArray
from sim.dataplane.kernel_accounts import change_queued as accounts_change_queued
from sim.dataplane.kernel_accounts import has_backlog as accounts_has_backlog
from sim.dataplane.kernel_accounts import hit as accounts_hit
from sim.dataplane.kernel_accounts import leave as accounts_leave
from sim.dataplane.kernel_accounts import schedule_client as accounts_schedule_client
from sim.dataplane.kernel_backlogs import throw_back as backlogs_throw_back
from sim.dataplane.kernel_batching import leave_batch as batching_leave_batch
from sim.dataplane.kernel_batching import start_step as batching_start_step
from sim.dataplane.kernel_looking import look as looking_look
from sim.dataplane.kernel_parts import FLOAT, FLOAT_ARRAY, INT, INT_ARRAY, compiled, pointer_to
from sim.dataplane.kernel_parts import prepend as parts_prepend
from sim.dataplane.kernel_queues import check_above as queues_check_above
from sim.dataplane.kernel_queues import forget as queues_forget
from sim.dataplane.kernel_queues import pull as queues_pull
from sim.dataplane.kernel_routing import is_candidate as routing_is_candidate
from sim.dataplane.kernel_routing import pull_again as routing_pull_again
from sim.dataplane.kernel_routing import touch as routing_touch
from sim.dataplane.kernel_steps import account_busy as steps_account_busy
from sim.dataplane.kernel_steps import charge_shares as steps_charge_shares
from sim.dataplane.kernel_steps import energy_j as steps_energy_j
from sim.dataplane.kernel_steps import run_fx as steps_run_fx
from sim.dataplane.kernel_steps import settle as steps_settle
from sim.dataplane.kernel_timers import set_timer as timers_set_timer
from sim.dataplane.kernel_timers import watch_idle as timers_watch_idle


@intrinsic
def _words(_: Any, array: Any) -> Any:
    """The pointer to the first word of an array, for the compiler."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, values[0]).data

    return pointer_to(array.dtype)(array), generate


# To mypy, a pointer is what it points to.
words: Any = _words


@compiled(types.void(INT_ARRAY, INT, INT))
def prepend(m: IntArray, line: int, q: int) -> None:
    """`kernel_parts.prepend`."""
    parts_prepend(words(m), line, q)


@compiled(types.void(INT_ARRAY, INT, INT, INT))
def schedule_client(m: IntArray, client: int, from_ns: int, leaves: int) -> None:
    """`kernel_accounts.schedule_client`."""
    accounts_schedule_client(words(m), client, from_ns, leaves)


@compiled(types.void(INT_ARRAY, INT, INT))
def hit(m: IntArray, reason: int, subject: int) -> None:
    """`kernel_accounts.hit`."""
    accounts_hit(words(m), reason, subject)


@compiled(types.void(INT_ARRAY, INT, INT))
def leave(m: IntArray, q: int, outcome: int) -> None:
    """`kernel_accounts.leave`."""
    accounts_leave(words(m), q, outcome)


@compiled(types.void(INT_ARRAY, INT, INT))
def change_queued(m: IntArray, t: int, by: int) -> None:
    """`kernel_accounts.change_queued`."""
    accounts_change_queued(words(m), t, by)


@compiled(types.void(INT_ARRAY, FLOAT_ARRAY, INT))
def settle(m: IntArray, f: FloatArray, r: int) -> None:
    """`kernel_steps.settle`."""
    steps_settle(words(m), words(f), r)


@compiled(types.void(INT_ARRAY, FLOAT_ARRAY, INT_ARRAY, FLOAT_ARRAY, INT))
def look(m: IntArray, f: FloatArray, ints: IntArray, floats: FloatArray, count: int) -> None:
    """`kernel_looking.look`."""
    looking_look(words(m), words(f), words(ints), words(floats), count)


@compiled(types.void(INT_ARRAY, INT, INT))
def account_busy(m: IntArray, r: int, elapsed_ns: int) -> None:
    """`kernel_steps.account_busy`."""
    steps_account_busy(words(m), r, elapsed_ns)


@compiled(types.void(INT_ARRAY, FLOAT_ARRAY, INT, INT))
def charge_shares(m: IntArray, f: FloatArray, r: int, elapsed_ns: int) -> None:
    """`kernel_steps.charge_shares`."""
    steps_charge_shares(words(m), words(f), r, elapsed_ns)


@compiled(FLOAT(INT_ARRAY, FLOAT_ARRAY, INT, INT))
def energy_j(m: IntArray, f: FloatArray, r: int, steps: int) -> float:
    """`kernel_steps.energy_j`."""
    return steps_energy_j(words(m), words(f), r, steps)


@compiled(INT(INT_ARRAY, INT, INT))
def run_fx(m: IntArray, r: int, steps: int) -> int:
    """`kernel_steps.run_fx`."""
    return steps_run_fx(words(m), r, steps)


@compiled(types.void(INT_ARRAY, INT, INT))
def pull(m: IntArray, r: int, most: int) -> None:
    """`kernel_queues.pull`."""
    queues_pull(words(m), r, most)


@compiled(types.void(INT_ARRAY, FLOAT_ARRAY, INT))
def pull_again(m: IntArray, f: FloatArray, r: int) -> None:
    """`kernel_routing.pull_again`."""
    routing_pull_again(words(m), words(f), r)


@compiled(types.void(INT_ARRAY, FLOAT_ARRAY, INT))
def start_step(m: IntArray, f: FloatArray, r: int) -> None:
    """`kernel_batching.start_step`."""
    batching_start_step(words(m), words(f), r)


@compiled(types.void(INT_ARRAY, INT, INT))
def set_timer(m: IntArray, r: int, at_ns: int) -> None:
    """`kernel_timers.set_timer`."""
    timers_set_timer(words(m), r, at_ns)


@compiled(types.void(INT_ARRAY, INT))
def watch_idle(m: IntArray, r: int) -> None:
    """`kernel_timers.watch_idle`."""
    timers_watch_idle(words(m), r)


@compiled(types.void(INT_ARRAY, INT))
def throw_back(m: IntArray, q: int) -> None:
    """`kernel_backlogs.throw_back`."""
    backlogs_throw_back(words(m), q)


@compiled(types.boolean(INT_ARRAY, INT))
def has_backlog(m: IntArray, t: int) -> bool:
    """`kernel_accounts.has_backlog`."""
    return accounts_has_backlog(words(m), t)


@compiled(types.void(INT_ARRAY, FLOAT_ARRAY, INT, INT))
def leave_batch(m: IntArray, f: FloatArray, r: int, q: int) -> None:
    """`kernel_batching.leave_batch`."""
    batching_leave_batch(words(m), words(f), r, q)


@compiled(types.void(INT_ARRAY, INT, INT))
def forget(m: IntArray, r: int, q: int) -> None:
    """`kernel_queues.forget`."""
    queues_forget(words(m), r, q)


@compiled(types.void(INT_ARRAY, INT, INT))
def check_above(m: IntArray, u: int, number: int) -> None:
    """`kernel_queues.check_above`."""
    queues_check_above(words(m), u, number)


@compiled(types.boolean(INT_ARRAY, INT, INT))
def is_candidate(m: IntArray, r: int, q: int) -> bool:
    """`kernel_routing.is_candidate`."""
    return routing_is_candidate(words(m), r, q)


@compiled(types.void(INT_ARRAY, INT))
def touch(m: IntArray, r: int) -> None:
    """`kernel_routing.touch`."""
    routing_touch(words(m), r)
