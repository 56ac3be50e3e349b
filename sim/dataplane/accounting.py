"""The counting side of the reference engine: stream counters, integrals, histograms, records, the ring of seconds."""

from __future__ import annotations

from itertools import chain

import numpy as np

from sim.bins import BINS, bin_of
from sim.dataplane.engine import IntArray, PlaneConfig
from sim.dataplane.layout import (
    COMPLETED_OUTPUT_TOKENS,
    COMPLETED_PROMPT_TOKENS,
    COUNTERS,
    E2E,
    E2E_US,
    FAILED,
    GOOD_ALL,
    GOOD_E2E,
    GOOD_TPOT,
    GOOD_TTFT,
    MISSED_KV_FULL,
    MISSED_PREEMPTED,
    MISSED_QUEUED,
    MISSED_RETRIED,
    MISSED_SLOW,
    N_COMPLETED,
    RECORD_COLUMNS,
    RECORD_SAMPLE,
    REJECTED_FULL,
    TPOT,
    TPOT_COUNT,
    TPOT_NS,
    TTFT,
    TTFT_US,
    WAITED_FOR_KV,
)
from sim.rng import mix64
from sim.units import NS_PER_S, NS_PER_US


class Ring:
    """Arrivals and in-flight request-microseconds per second, for controllers that average over the last seconds."""

    def __init__(self, seconds: int, start_ns: int) -> None:
        self.seconds = seconds
        self.last_ns = start_ns
        self.arrivals: dict[int, int] = {}
        self.in_flight_ns: dict[int, int] = {}

    def settle(self, t_ns: int, in_flight: int, arrivals: int = 0) -> None:
        """Account `in_flight` requests since the last change, then the arrivals of this instant."""
        if not self.seconds:
            return
        self._spread(self.in_flight_ns, t_ns, in_flight)
        self.last_ns = t_ns
        second = t_ns // NS_PER_S
        if arrivals:
            self.arrivals[second] = self.arrivals.get(second, 0) + arrivals
        for bucket in (self.arrivals, self.in_flight_ns):
            for old in [key for key in bucket if key < second - self.seconds]:
                del bucket[old]

    def _spread(self, bucket: dict[int, int], t_ns: int, in_flight: int) -> None:
        at = max(self.last_ns, (t_ns // NS_PER_S - self.seconds) * NS_PER_S)
        while at < t_ns:
            second = at // NS_PER_S
            until = min(t_ns, (second + 1) * NS_PER_S)
            bucket[second] = bucket.get(second, 0) + in_flight * (until - at)
            at = until

    def read(self, t_ns: int, in_flight: int) -> tuple[IntArray, IntArray]:
        """Return (arrivals, in-flight request-microseconds) of the `seconds` complete seconds before `t_ns`."""
        sums = dict(self.in_flight_ns)
        if self.seconds:
            self._spread(sums, t_ns, in_flight)
        seconds = range(t_ns // NS_PER_S - self.seconds, t_ns // NS_PER_S)
        arrivals = np.array([self.arrivals.get(second, 0) for second in seconds], np.int64)
        return arrivals, np.array([sums.get(second, 0) // NS_PER_US for second in seconds], np.int64)


class Accounts:
    """Everything the engine counts by stream."""

    def __init__(self, config: PlaneConfig) -> None:
        streams = len(config.streams)
        self.rules = config.streams
        self.counters = [[0] * len(COUNTERS) for _ in range(streams)]
        self.queued = [0] * streams
        self.in_flight = [0] * streams
        self._queued_ns = [0] * streams
        self._queued_since = [config.start_ns] * streams
        self._in_flight_ns = [0] * streams
        self._in_flight_since = [config.start_ns] * streams
        self.histograms = np.zeros((streams, 3, BINS), np.int64)
        self.sample = config.records
        self.records: list[tuple[int, ...]] = []
        self.ring = Ring(config.ring_s, config.start_ns)

    def change_queued(self, t_ns: int, stream: int, by: int) -> None:
        """Add to the number of waiting requests of a stream."""
        self._queued_ns[stream] += self.queued[stream] * (t_ns - self._queued_since[stream])
        self._queued_since[stream] = t_ns
        self.queued[stream] += by

    def change_in_flight(self, t_ns: int, stream: int, by: int) -> None:
        """Add to the number of requests of a stream in the system."""
        self.ring.settle(t_ns, sum(self.in_flight) if self.ring.seconds else 0, arrivals=max(by, 0))
        self._in_flight_ns[stream] += self.in_flight[stream] * (t_ns - self._in_flight_since[stream])
        self._in_flight_since[stream] = t_ns
        self.in_flight[stream] += by

    def queued_us(self, t_ns: int) -> IntArray:
        """Return the integral of waiting requests, in request-microseconds."""
        now = zip(self._queued_ns, self.queued, self._queued_since, strict=True)
        return np.array([(total + n * (t_ns - since)) // NS_PER_US for total, n, since in now], np.int64)

    def in_flight_us(self, t_ns: int) -> IntArray:
        """Return the integral of requests in the system, in request-microseconds."""
        now = zip(self._in_flight_ns, self.in_flight, self._in_flight_since, strict=True)
        return np.array([(total + n * (t_ns - since)) // NS_PER_US for total, n, since in now], np.int64)

    def completed(self, stream: int, prompt: int, output: int, ttft_ns: int, e2e_ns: int) -> bool:
        """Count a completion: sums, histograms and SLO counters; True if it is inside all targets.

        A single token has no TPOT and cannot miss its target.
        """
        rules, counters, histogram = self.rules[stream], self.counters[stream], self.histograms[stream]
        counters[N_COMPLETED] += 1
        counters[COMPLETED_PROMPT_TOKENS] += prompt
        counters[COMPLETED_OUTPUT_TOKENS] += output
        counters[TTFT_US] += ttft_ns // NS_PER_US
        counters[E2E_US] += e2e_ns // NS_PER_US
        histogram[TTFT, bin_of(ttft_ns)] += 1
        histogram[E2E, bin_of(e2e_ns)] += 1
        good_ttft, good_tpot, good_e2e = ttft_ns <= rules.ttft_ns, True, e2e_ns <= rules.e2e_ns
        if output > 1:
            tpot_ns = (e2e_ns - ttft_ns) // (output - 1)
            counters[TPOT_NS] += tpot_ns
            counters[TPOT_COUNT] += 1
            histogram[TPOT, bin_of(tpot_ns)] += 1
            good_tpot = tpot_ns <= rules.tpot_ns
        counters[GOOD_TTFT] += good_ttft
        counters[GOOD_TPOT] += good_tpot
        counters[GOOD_E2E] += good_e2e
        good = good_ttft and good_tpot and good_e2e
        counters[GOOD_ALL] += good
        return good

    def missed(self, stream: int, outcome: int, attempts: int, preemptions: int, waited: int) -> None:
        """Count why a request was not good; `waited` has the bits of `layout.WAITED_FOR_...`."""
        if attempts > 1 or outcome == FAILED:
            cause = MISSED_RETRIED
        elif preemptions:
            cause = MISSED_PREEMPTED
        elif waited & WAITED_FOR_KV:
            cause = MISSED_KV_FULL
        else:
            cause = MISSED_QUEUED if waited or outcome == REJECTED_FULL else MISSED_SLOW
        self.counters[stream][cause] += 1

    def wants_record(self, tag: int) -> bool:
        """Whether a request with this random word is among those recorded."""
        return self.sample == 1 or (self.sample > 1 and mix64(tag, 0, RECORD_SAMPLE) % self.sample == 0)

    def take_records(self) -> dict[str, IntArray]:
        """Return and forget the records, by column."""
        flat = np.fromiter(chain.from_iterable(self.records), np.int64).reshape(-1, len(RECORD_COLUMNS))
        self.records = []
        return {name: np.ascontiguousarray(flat[:, column]) for column, name in enumerate(RECORD_COLUMNS)}
