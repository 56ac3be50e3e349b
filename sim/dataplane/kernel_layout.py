"""Where everything lies in the memory of the compiled engine: one array of int64 words, seen as floats where a word is a float.

Regions: control words, replica specs, for every spec and stream whether it accepts it and which requests it gets (those of more
tokens than the word in ABOVE_AT), tables of steps and batchers, streams, service queues, backlogs and their next rows,
histograms, replicas, their heaps of decoding sequences, the three trees over replicas (next wake, outstanding requests, timer),
the tree over clients and their next rows, the ring of seconds, hits, records, what a score is computed from, request slots. A
region starts at the control word named `..._AT`; rows inside it have a fixed width. Requests and replicas are named by their
index, so that a region can move when another grows.
"""

from __future__ import annotations

from sim.bins import BINS
from sim.dataplane.layout import COUNTERS, LATENCIES, RECORD_COLUMNS

NONE = -1
# A choice that Python has to make.
UNKNOWN = -2
# No time and no count is above this; it leaves room to add to it.
FAR = 1 << 62

# Control words.
(
    NOW_NS, UNIFORM, ROUTER, LAST_PICK, RECORD_ONE_IN, SPECS, STREAMS, QUEUES, LEVELS, CLIENTS,
    SPECS_AT, ACCEPTS_AT, ABOVE_AT, STREAMS_AT, QUEUES_AT, HISTOGRAMS_AT, REPLICAS_AT, HEAPS_AT, WAKES_AT, COUNTS_AT, TIMERS_AT,
    CLIENTS_AT, CLIENT_TIMES_AT, PENDING_CLIENTS_AT, RING_AT, HITS_AT, RECORDS_AT, SLOTS_AT, TABLES_AT, BACKLOGS_AT, SCORES_AT,
    REPLICA_WIDTH, REPLICA_CAPACITY, HEAP_CAPACITY, CLIENT_LEAVES, SLOT_CAPACITY, HIT_CAPACITY, RECORD_CAPACITY,
    REPLICAS_USED, FREE_SLOT, REQUESTS, IN_FLIGHT, QUEUED, QUEUE_CHANGED, WATCHES,
    HITS, RECORDS, PENDING_CLIENTS, STALE_NS, RING_S, RING_LAST_NS, NEXT_ARRIVAL, LAST_BLOCK,
    REDISPATCHING, NEXT_REDISPATCH, UNDECIDED, CHOICE, STEPPED,
    BACKLOGS, BACKLOG_WIDTH, BACKLOG_NEED, BACKLOG_LOW, OFFERED, FLUSHING,
    SCORE, CLIENT_DONE_AT, KNOWN_CLIENTS,
) = range(67)  # fmt: skip
CONTROL_WORDS = 67

# Words of a replica spec; from S_TOKEN_J to S_WEIGHT they are floats. Places in the tables: S_TOKENS and S_SAMPLED of the step
# model (rows of ENTRY_WIDTH words, the last index beside them), S_CONTEXTS (for B sequences, at index B, S_KNOTS pieces of
# PIECE_WIDTH words), S_PREFERRED of a batcher (whether a size is preferred, by size).
(
    S_SEATS, S_BUDGET, S_KV, S_WATERMARK, S_MOST, S_LONGEST, S_NET_NS,
    S_TOKENS, S_LAST_TOKENS, S_TOKEN_FX, S_SAMPLED, S_LAST_SAMPLED, S_SEQUENCE_FX, S_ATTENTION_FX, S_PROMPT_FX,
    S_CONTEXTS, S_LAST_CONTEXTS, S_KNOTS,
    S_TOKEN_J, S_SEQUENCE_J, S_ATTENTION_J, S_PROMPT_J, S_TDP_W, S_BASE_W, S_WEIGHT,
    S_BACKLOG_SEATS, S_BATCHER, S_DELAY_NS, S_LARGEST, S_PREFERRED,
) = range(30)  # fmt: skip
SPEC_WIDTH = 30

# Words of an entry of the tables of tokens and of sampled sequences: time, energy (a float).
E_TIME_FX, E_ENERGY_J = range(2)
ENTRY_WIDTH = 2

# Words of a piece of the contexts of B sequences: mean context at which it starts, time, energy (floats).
P_KNOT, P_OFFSET_FX, P_SLOPE_FX, P_OFFSET_J, P_SLOPE_J = range(5)
PIECE_WIDTH = 5

# Words of a stream: its rules, watch, integrals over time and counters.
(
    T_QUEUE, T_LEVEL, T_ATTEMPTS, T_TIMEOUT_NS, T_TTFT_NS, T_TPOT_NS, T_E2E_NS, T_LONGEST, T_ADMITTED, T_WATCH_EMPTY,
    T_BACKLOG, T_BATCHER_QUEUE, T_LATE_WAITS,
    T_QUEUED, T_QUEUED_NS, T_QUEUED_US, T_QUEUED_SINCE, T_FLYING, T_FLYING_NS, T_FLYING_US, T_FLYING_SINCE,
) = range(21)  # fmt: skip
T_COUNTERS = 21
STREAM_WIDTH = T_COUNTERS + len(COUNTERS)
HISTOGRAM_WIDTH = len(LATENCIES) * BINS

# Words of a service queue: its bound, watches and length, then a list (first, last) for each level.
U_MOST, U_LENGTH, U_WATCH_NOBODY, U_WATCH_ABOVE, U_LISTS = range(5)

# Words of a backlog: its stream, the rows at hand from the next to the last, whether there are more, the list of requests that
# were thrown back and its length; then the rows. BACKLOG_NEED rows are at hand before anything happens, or all that are left.
B_STREAM, B_NEXT, B_COUNT, B_FINISHED, B_LIST, B_LIST_END, B_THROWN_BACK, B_ROWS = range(8)

# Words of a replica, then a list (first, last) of waiting requests for each level, decoding sequences and float shares by stream,
# and for each level a list of late requests (of a batcher).
(
    R_NUMBER, R_SPEC, R_ACCEPTING, R_OUTSTANDING, R_RUNNING, R_RESERVED, R_USED, R_CONTEXT, R_ADMISSIONS, R_DECODED,
    R_DECODING, R_PARTIAL, R_CHUNKS, R_CHUNK_COUNT, R_TOKENS, R_N_OUT, R_S_TWICE,
    R_START_NS, R_FRACTION_FX, R_STEP_FX, R_GROWTH_FX, R_LEFT, R_WAKE_NS,
    R_IDLE_SINCE, R_TIMER_NS, R_WATCH_IDLE, R_ADDED_NS, R_DRAIN_NS, R_REMOVED_NS,
    R_BUSY_NS, R_DRAINING_BUSY_NS, R_STEPS, R_PREFILL_TOKENS, R_OUTPUT_TOKENS,
    R_LOST_NS, R_ENERGY_J, R_DECODE_SHARE_NS, R_INDEX, R_BACKLOG, R_ASKS, R_PIECE, R_LISTS,
) = range(42)  # fmt: skip

# Words of a request; the two shares are floats.
(
    Q_NEXT, Q_NUMBER, Q_ARRIVAL_NS, Q_DEADLINE_NS, Q_STREAM, Q_LEVEL, Q_PROMPT, Q_OUTPUT, Q_CACHED, Q_STARTED,
    Q_GENERATED, Q_PREFILLED, Q_NEED, Q_CHUNK, Q_FIRST_NS, Q_RESERVED, Q_ADMISSION, Q_FINISH, Q_INDEX, Q_REPLICA,
    Q_ATTEMPT, Q_PREEMPTIONS, Q_SOURCE, Q_CLIENT, Q_SESSION, Q_TURN, Q_TAG, Q_PREFILL_SHARE_NS, Q_DECODE_SHARE_NS,
    Q_DISPATCHED_NS, Q_ADMITTED_NS, Q_WAITED,
) = range(32)  # fmt: skip
SLOT_WIDTH = 32
# Where a request came from.
FROM_OUTSIDE, FROM_CLIENT, FROM_BACKLOG = range(3)
# A heap entry is finish count << SLOT_BITS | slot.
SLOT_BITS = 28
SLOT_MASK = (1 << SLOT_BITS) - 1

# Words of a client: its rows at hand, from the next to the last, each of these words (as in a backlog).
C_NEXT, C_COUNT, C_ROWS = range(3)
(
    ROW_PAUSE_NS, ROW_PROMPT, ROW_OUTPUT, ROW_STREAM, ROW_SESSION, ROW_TURN, ROW_PREFIX, ROW_PREFIX_TOKENS,
    ROW_DEADLINE_NS, ROW_TAG, ROW_CLIENT,
) = range(11)  # fmt: skip
ROW_WIDTH = 11
ROWS_AT_HAND = 16
CLIENT_WIDTH = C_ROWS + ROWS_AT_HAND * ROW_WIDTH
PENDING_WIDTH = 2

HIT_WIDTH = 3
RECORD_WIDTH = len(RECORD_COLUMNS)

# `engine.Watch` in machine words.
WATCH_DRAINED, WATCH_NOBODY, WATCH_ABOVE, WATCH_EMPTY, WATCH_IDLE = range(5)

# Routers the kernel knows; BY_SCORE calls a compiled score through its address, ASK lets Python choose.
BY_OUTSTANDING, BY_RESERVED, IN_TURN, BY_DRAW, BY_TWO_DRAWS, BY_SCORE, ASK = range(7)

# Why the kernel returns.
REACHED, HIT, NEEDS_ARRIVALS, NEEDS_ROWS, NEEDS_SLOTS, NEEDS_HEAP, NEEDS_RECORDS, NEEDS_CHOICE, NEEDS_BACKLOG = range(9)
