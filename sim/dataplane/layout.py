"""What both engines must agree on to the bit: event order, outcome codes, counters.

Event order, complete: (time, kind, sequence) with

1. step ends, by replica index;
2. transfer ends;
3. arrivals: open ones in block order, then closed-loop ones by client;
4. timers (batcher delays, idle watches);
5. control actions, which are not events: the control loop calls `advance(t)`, mutates, and the engine flushes at once
   (redispatches in id order, then the pull of an added replica; after a change of a route the pulls of all replicas, by index).
   A throttle flushes nothing: it is about arrivals to come.

An arrival is judged in this order: too long for every replica; throttled; routed, or else turned away by a full queue.

`advance(until)` is inclusive. A step starts the moment a replica has work and no step running, so an arrival at exactly a boundary
misses the step that starts there.
"""

from __future__ import annotations

STEP_END = 0
TRANSFER_END = 1 << 20
OPEN_ARRIVAL = 2 << 20
CLOSED_ARRIVAL = OPEN_ARRIVAL + 1
TIMER = 3 << 21

NEVER_NS = (1 << 63) - 1

# Half a KV block of 16 tokens: the mean fragmentation of a sequence's last block.
FRAGMENT_TOKENS = 8

# A closed-loop client that was turned away waits this long before it thinks about its next request, or it could spin in zero time.
REJECTED_CLIENT_PAUSE_NS = 1_000_000_000

# Purposes of mix64 draws.
ROUTER_FIRST_DRAW = 1
ROUTER_SECOND_DRAW = 2
RECORD_SAMPLE = 3
THROTTLE = 4

# Of a stream that is throttled an arrival is admitted if the first bits of its draw are below the admitted share in 2^-20.
ADMITTED_BITS = 20
ALL_ADMITTED = 1 << ADMITTED_BITS

# How a request left.
COMPLETED, FAILED, ABANDONED, REJECTED_FULL, REJECTED_TOO_LONG, REJECTED_THROTTLED, UNFINISHED = range(7)
OUTCOMES = ("completed", "failed", "abandoned", "queue_full", "too_long", "throttled", "unfinished")
# A client that was turned away pauses before it thinks about its next request.
REJECTIONS = (REJECTED_FULL, REJECTED_TOO_LONG, REJECTED_THROTTLED)

# Latency histograms.
TTFT, TPOT, E2E = range(3)
LATENCIES = ("ttft", "tpot", "e2e")

# Per-stream cumulative counters of a view, in this order. The last five are the causes of what was not good: a request that was
# turned away by a full queue, was abandoned, failed, or completed outside a target counts once, at the first cause that holds: a
# killed attempt, a preemption, no room in the cache, a wait in the service queue, none of these (the load on its replica). What was
# too long or throttled has its cause in its outcome.
COUNTERS = (
    "arrived",
    "completed",
    "failed",
    "abandoned",
    "rejected_full",
    "rejected_too_long",
    "rejected_throttled",
    "retried",
    "preempted",
    "redispatched",
    "prefill_tokens",
    "output_tokens",
    "useful_prefill_tokens",
    "completed_prompt_tokens",
    "completed_output_tokens",
    "lost_prefill_tokens",
    "lost_output_tokens",
    "good_ttft",
    "good_tpot",
    "good_e2e",
    "good_all",
    "ttft_us",
    "tpot_ns",
    "e2e_us",
    "tpot_count",
    "missed_retried",
    "missed_preempted",
    "missed_kv_full",
    "missed_queued",
    "missed_slow",
)
(
    ARRIVED,
    N_COMPLETED,
    N_FAILED,
    N_ABANDONED,
    N_REJECTED_FULL,
    N_REJECTED_TOO_LONG,
    N_REJECTED_THROTTLED,
    RETRIED,
    PREEMPTED,
    REDISPATCHED,
    PREFILL_TOKENS,
    OUTPUT_TOKENS,
    USEFUL_PREFILL_TOKENS,
    COMPLETED_PROMPT_TOKENS,
    COMPLETED_OUTPUT_TOKENS,
    LOST_PREFILL_TOKENS,
    LOST_OUTPUT_TOKENS,
    GOOD_TTFT,
    GOOD_TPOT,
    GOOD_E2E,
    GOOD_ALL,
    TTFT_US,
    TPOT_NS,
    E2E_US,
    TPOT_COUNT,
    MISSED_RETRIED,
    MISSED_PREEMPTED,
    MISSED_KV_FULL,
    MISSED_QUEUED,
    MISSED_SLOW,
) = range(len(COUNTERS))

# Columns of a per-request record, in this order.
RECORD_COLUMNS = (
    "request",
    "stream",
    "client",
    "session",
    "turn",
    "arrival_ns",
    "first_token_ns",
    "leave_ns",
    "net_ns",
    "prompt_tokens",
    "output_tokens",
    "attempts",
    "preemptions",
    "replica",
    "outcome",
    "dispatched_ns",
    "admitted_ns",
)

# What has kept a request waiting, ever: no replica had room for it, or it was next in line and its cache did not fit.
WAITED_FOR_ROOM, WAITED_FOR_KV = 1, 2
