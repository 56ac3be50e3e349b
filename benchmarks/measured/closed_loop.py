"""Serving measured as load generators measure it: so many clients, each with one request in the system, on one replica."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.dataplane.compiled import CompiledPlane
from sim.dataplane.engine import PlaneConfig, ReplicaSpec, StreamRules
from sim.domain.traffic import RequestBlock
from sim.perf.steptime import StepModel
from sim.rng import StreamKey
from sim.units import NS_PER_S

LONG_NS = 1 << 60


@dataclass(frozen=True)
class Load:
    """What a load generator sends.

    Parameters
    ----------
    clients : requests in the system. prompt_tokens, output_tokens : longest request. shortest : the shortest over the longest, 1
        for requests that are all alike; lengths are uniform in between, prompt and output drawn apart.
    rounds : requests of each client. skipped : the first of them that are not measured.
    """

    clients: int
    prompt_tokens: int
    output_tokens: int
    shortest: float = 1.0
    rounds: int = 10
    skipped: int = 0


@dataclass(frozen=True)
class Served:
    """What the clients saw, and what the replica did.

    Parameters
    ----------
    ttft_s, tpot_s : means over the measured requests, NaN where there are none. running : sequences in a step, on average.
    output_tokens_per_s : of the whole run. energy_j_per_token : of the replica, over output tokens. power_w : of the replica.
    refused : requests that no cache could hold.
    """

    ttft_s: float
    tpot_s: float
    running: float
    output_tokens_per_s: float
    energy_j_per_token: float
    power_w: float
    refused: int


@dataclass
class _Clients:
    clients: int
    load: Load

    def rows(self, client: int, block: int) -> RequestBlock:
        load = self.load
        count = load.rounds if block == 0 else 0
        draws = StreamKey(0, 0, "closed loop", f"client {client}").generator().random((2, max(count, 1)))[:, :count]
        shares = load.shortest + (1.0 - load.shortest) * draws
        prompt = np.maximum(np.rint(shares[0] * load.prompt_tokens), 1)
        output = np.maximum(np.rint(shares[1] * load.output_tokens), 1)
        return RequestBlock.of(
            arrival_ns=np.zeros(count),
            prompt_tokens=prompt,
            output_tokens=output,
            turn=np.arange(count),
            client=np.full(count, client),
        )


def serve(step: StepModel, load: Load, *, seats: int, token_budget: int, kv_tokens: int, front_end_s: float = 0.0) -> Served:
    """Return what a closed loop measures on one replica.

    Parameters
    ----------
    step : its step times. seats, token_budget, kv_tokens : `max_num_seqs`, `max_num_batched_tokens` and the cache.
    front_end_s : added to every TTFT.

    Examples
    --------
    >>> from sim.perf.steptime import closed_form
    >>> served = serve(closed_form(fixed_ns=1e6), Load(4, 100, 11), seats=8, token_budget=1_000, kv_tokens=10_000)
    >>> round(served.tpot_s * 1e3, 3), served.refused
    (1.0, 0)
    """
    spec = ReplicaSpec(
        kind=0, seats=seats, token_budget=max(token_budget, seats), kv_tokens=kv_tokens, net_ns=round(front_end_s * NS_PER_S)
    )
    config = PlaneConfig(steps=(step,), specs=(spec,), streams=(StreamRules(),), records=1)
    plane = CompiledPlane(config, (), _Clients(load.clients, load))
    plane.add_replica(0, 0)
    while plane.advance(LONG_NS) is not None:
        pass
    records = plane.take_records()
    view = plane.close(LONG_NS)
    done = records["outcome"] == 0
    refused = int((~done).sum())
    kept = done & (records["turn"] >= load.skipped)
    ttft_ns = records["first_token_ns"][kept] - records["arrival_ns"][kept] + records["net_ns"][kept]
    longer = kept & (records["output_tokens"] > 1)
    tpot_ns = (records["leave_ns"] - records["first_token_ns"])[longer] / (records["output_tokens"][longer] - 1)
    busy_s = int(view.busy_ns[0]) / NS_PER_S
    tokens = int(view.output_tokens[0])
    return Served(
        ttft_s=float(ttft_ns.mean()) / NS_PER_S if kept.any() else float("nan"),
        tpot_s=float(tpot_ns.mean()) / NS_PER_S if longer.any() else float("nan"),
        running=tokens / max(int(view.steps[0]), 1),
        output_tokens_per_s=tokens / busy_s if busy_s else 0.0,
        energy_j_per_token=float(view.energy_j[0]) / max(tokens, 1),
        power_w=float(view.energy_j[0]) / busy_s if busy_s else 0.0,
        refused=refused,
    )
