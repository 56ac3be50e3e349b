"""The rule that splits a bill into input and output tokens, beside the prefill and decode time of the reference engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim import load_scenario, simulate
from sim.dataplane import state
from sim.results.unit_costs import unit_costs


@pytest.mark.parametrize(("rate_per_s", "prefill_share"), [(2, 0.017), (20, 0.054), (112, 0.302)])
def test_the_rule_is_within_a_point_of_the_engines_accounts(
    rate_per_s: int, prefill_share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine charges a prefill its marginal time in the step it was in; the rule, what it adds to a full step."""
    prefill_ns = busy_ns = 0.0
    charge = state.Replica.charge_shares

    def counted(replica: state.Replica, elapsed_ns: int) -> None:
        nonlocal prefill_ns, busy_ns
        busy_ns += elapsed_ns
        if replica.chunks:
            decoding = len(replica.decoding)
            alone_fx = replica.step.step_fx(decoding, decoding, 0, replica.context, decoding) if decoding else 0
            prefill_ns += elapsed_ns * (1.0 - alone_fx / replica.step_fx)
        charge(replica, elapsed_ns)

    monkeypatch.setattr(state.Replica, "charge_shares", counted)
    changes = ["horizon=3m", "engine=reference", f"rate_per_s={rate_per_s}"]
    [chat] = unit_costs(simulate(load_scenario("bench_chat8", changes), out=tmp_path / "run"))
    assert prefill_ns / busy_ns == pytest.approx(prefill_share, abs=0.005)
    assert chat.prompt_nano is not None
    assert abs(chat.prompt_nano / chat.total_nano - prefill_ns / busy_ns) < 0.01
