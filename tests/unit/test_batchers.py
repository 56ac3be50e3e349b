"""Deployments with a dynamic batcher, from scenario to report; times of batches are chosen so that answers can be read off."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from control_kit import FIXED, poisson
from rich.console import Console

from sim import simulate
from sim.app.sheet import capacity_report
from sim.catalog.loader import load_catalog
from sim.errors import InputError
from sim.perf.batchtime import batch_sheet, batch_step_model, line_fx, table_fx
from sim.perf.power import stepping_power_w
from sim.perf.steptime import ONE_NS_FX
from sim.policies.autoscalers.hpa import Hpa
from sim.policies.autoscalers.hpa_config import Metric
from sim.policies.autoscalers.static import Static
from sim.report.terminal import render
from sim.results.invariants import check_run
from sim.results.records import RunResult
from sim.scenario import Deployment, DynamicBatcher, Pool, Scenario, SegmentRules, Service, Slo
from sim.scenario.check import check
from sim.workload.items import Items
from sim.workload.specs import TokenLengths

MS = 1_000_000
TIMES = {"1": "4 ms", "8": "11 ms", "32": "38 ms"}


def scenario(batcher: dict[str, Any] | None = None, *, rate_per_s: float = 1.0, **service: Any) -> Scenario:
    """A classifier on one H100, by default with a table of times."""
    settings = {"max_batch": 32, "batch_times": TIMES, **(batcher or {})}
    workload = service.pop("workload", None) or Items(rate_per_s=rate_per_s)
    return Scenario(
        horizon=service.pop("horizon", "1min"),
        records="all",
        services={"vision": Service(workload=workload, deployments=["classifier"], **service)},
        deployments={"classifier": Deployment(pools=["gpu"], autoscaler=Static(1), batcher=DynamicBatcher(**settings))},
        pools={"gpu": Pool(cold_start=FIXED)},
    )


def run(made: Scenario, folder: Path) -> RunResult:
    """Run a scenario and check its invariants."""
    result = simulate(made, out=folder / "run")
    check_run(result)
    return result


def problems_of(made: Scenario) -> dict[str, str]:
    """What the check says, by path."""
    with pytest.raises(InputError) as caught:
        check(made)
    return {problem.path: str(problem) for problem in caught.value.problems}


def test_times_between_two_measured_ones_lie_on_a_line() -> None:
    """5 items between 1 in 4 ms and 8 in 11 ms: 8 ms; 20 between 8 and 32 in 38 ms: 24.5 ms."""
    table = table_fx({int(items): int(time.split()[0]) * MS for items, time in TIMES.items()})
    assert [table[items - 1] / ONE_NS_FX / MS for items in (1, 5, 8, 20, 32)] == [4.0, 8.0, 11.0, 24.5, 38.0]
    assert len(table) == 32


def test_alone_a_request_takes_the_time_of_its_items_and_the_front_end(tmp_path: Path) -> None:
    """One request in ten seconds never waits: 8 items in 11 ms, and 2 ms of front end."""
    workload = Items(rate_per_s=0.1, items=TokenLengths(family="fixed", mean=8))
    result = run(scenario({"front_end_s": 0.002}, workload=workload, horizon="10min", slo=Slo(e2e_s=0.013)), tmp_path)
    completed = result.summary["requests"]["completed"]
    assert completed > 30
    assert result.summary["latency"]["vision"]["e2e_s"]["mean"] == pytest.approx(0.013, abs=1e-6)
    assert result.summary["slo"]["vision"]["e2e"]["attainment"] == 1.0
    assert result.summary["latency"]["vision"]["tpot_s"]["p50"] is None
    assert result.table("replicas")["busy_s"].tolist() == [pytest.approx(completed * 0.011, rel=1e-12)]


def test_there_are_items_in_place_of_tokens(tmp_path: Path) -> None:
    """Tables, summary and report: no token is counted, and money is by requests and by items."""
    workload = Items(rate_per_s=2.0, items=TokenLengths(family="fixed", mean=4))
    result = run(scenario(workload=workload, slo=Slo(e2e_s=0.1)), tmp_path)
    windows, summary = result.table("windows"), result.summary
    completed = summary["requests"]["completed"]
    assert (windows["prompt_tokens"].sum(), windows["output_tokens"].sum()) == (0, 0)
    assert windows["items"].sum() == summary["services"]["vision"]["items"] == 4 * completed
    assert summary["tokens"] == {"prompt": 0, "output": 0}
    bill, vision = summary["bill"], summary["services"]["vision"]
    assert (bill["usd_per_1m_tokens"], bill["usd_per_1m_output_tokens"]) == (None, None)
    assert vision["usd_per_1k_requests"] == pytest.approx(bill["total_usd"] / completed * 1e3, rel=1e-9)
    assert vision["usd_per_1k_items"] == pytest.approx(vision["usd_per_1k_requests"] / 4, rel=1e-9)
    text = terminal(result)
    assert "per 1,000 items of vision" in text
    assert [word for word in ("TPOT", "TTFT", "tokens") if word in text] == []
    assert max(len(line) for line in text.splitlines() if not line.startswith("results")) <= 80


def test_tokens_are_not_paid_with_the_money_of_items(tmp_path: Path) -> None:
    """A chat beside the classifier: its million tokens cost what the chat costs."""
    made = scenario()
    made.services["chat"] = Service(workload=poisson(), deployments=["llama"])
    made.deployments["llama"] = Deployment(pools=["gpu"])
    result = run(made, tmp_path)
    bill, tokens = result.summary["bill"], result.summary["tokens"]
    chat_usd = bill["total_usd"] - bill["by_service"]["vision"]
    assert bill["usd_per_1m_tokens"] == pytest.approx(chat_usd / sum(tokens.values()) * 1e6, rel=1e-9)
    assert "items" not in result.summary["services"]["chat"]
    assert "Wh per 1M tokens" not in terminal(result)


def terminal(result: RunResult) -> str:
    """The report as printed."""
    console = Console(file=io.StringIO(), width=80)
    render(result, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_power_is_that_of_the_accelerator_with_the_uses_given(tmp_path: Path) -> None:
    """8 of 32 items: operations are 8 / 11 ms of 32 / 38 ms of the 15 % of a full batch; energy is power times busy time."""
    workload = Items(rate_per_s=1.0, items=TokenLengths(family="fixed", mean=8))
    result = run(scenario({"compute_use": 0.15, "memory_use": 0.3}, workload=workload), tmp_path)
    replicas = result.table("replicas")
    h100 = load_catalog().accelerators["h100-sxm"]
    power_w = stepping_power_w(h100, memory_use=0.3, compute_use=0.15 * (8 / 11) / (32 / 38))
    assert power_w < h100.tdp_w
    assert replicas["energy_j"][0] == pytest.approx(power_w * replicas["busy_s"][0], rel=1e-9)


def test_segments_have_priorities_and_rules_of_their_own(tmp_path: Path) -> None:
    """Overloaded ten times: the web goes first and is answered; partners have one place, and the rest is turned away."""
    workload = Items(rate_per_s=100.0, segments={"web": 0.05, "partner": 0.95})
    rules = {"web": SegmentRules(priority=1), "partner": SegmentRules(max_waiting=1)}
    made = scenario({"max_batch": 1, "batch_times": {"1": "100 ms"}}, workload=workload, segment_rules=rules, horizon="2min")
    result = run(made, tmp_path)
    windows = result.table("windows")
    by_segment = {name: windows["segment"] == name for name in rules}
    left = {name: int(windows["total"][mine].sum()) for name, mine in by_segment.items()}
    turned_away = {name: int(windows["rejected"][mine].sum()) for name, mine in by_segment.items()}
    assert turned_away["web"] == 0
    assert turned_away["partner"] > 0.9 * left["partner"]
    assert windows["in_flight_end"][by_segment["partner"]].max() <= 2


@pytest.mark.parametrize(("action", "abandoned"), [("abandon", True), ("wait", False)])
def test_a_late_request_leaves_or_waits(action: str, abandoned: bool, tmp_path: Path) -> None:
    """Twice as many requests as can be served, and half a second of patience."""
    made = scenario({"max_batch": 1, "batch_times": {"1": "100 ms"}}, rate_per_s=20.0, queue_timeout_s=0.5, timeout_action=action)
    counts = run(made, tmp_path).summary["requests"]
    assert (counts["abandoned"] > 0) is abandoned
    assert (counts["unfinished"] > 100) is not abandoned


def test_a_delay_makes_larger_batches(tmp_path: Path) -> None:
    """At 200 requests a second, 20 ms of delay make fewer, fuller batches."""
    steps = [
        int(run(scenario({"max_delay_s": delay_s}, rate_per_s=200.0), tmp_path / str(delay_s)).table("replicas")["steps"][0])
        for delay_s in (0.0, 0.02)
    ]
    assert steps[1] < steps[0] / 2


def test_the_sheet_has_full_batches_and_those_within_the_target() -> None:
    """38 ms for 32; a request that just missed one waits for it and runs in the next, so 50 ms leave 25: 20 items in 24.5 ms."""
    made = scenario(slo=Slo(e2e_s=0.05))
    [kind] = capacity_report(made).kinds
    assert kind.full is not None
    assert kind.quick is not None
    assert (kind.full.batch, kind.full.items_per_s) == (32, pytest.approx(32 / 0.038))
    assert (kind.quick.batch, kind.quick.batch_s, kind.quick.bound) == (20, pytest.approx(0.0245), "e2e")
    assert kind.usd_per_1k_requests == pytest.approx(6.88 / (32 / 0.038 * 3600) * 1e3, rel=1e-9)
    assert kind.usd_per_1m_tokens is None
    assert capacity_report(made).fleets[0].capacity_per_s == pytest.approx(20 / 0.0245)


def test_a_target_below_one_request_is_warned_about() -> None:
    """Two times 4 ms do not fit into 7 ms."""
    report = capacity_report(scenario(slo=Slo(e2e_s=0.007)))
    assert any("misses the E2E target" in warning for warning in report.warnings)
    step = batch_step_model(line_fx(0.0, 0.001, 4), load_catalog().accelerators["l4"], compute_use=0.0, memory_use=0.0)
    assert batch_sheet(step, items=3, e2e_target_s=0.004).batch == 0  # a mean request has more items than fit into the target


def test_everything_wrong_with_a_batcher_comes_at_once() -> None:
    """Times that fall, sizes that are none, settings of an LLM, targets and a cache that do not exist."""
    made = scenario(
        {"max_batch": 16, "preferred_sizes": [4, 17], "batch_times": {"1": "4 ms", "8": "3 ms", "32": "9 ms", "x": "1 ms"}},
        slo=Slo(ttft_s=1.0, tpot_s=0.1),
        workload=Items(rate_per_s=1.0, items=TokenLengths(family="fixed", mean=20)),
        segment_rules={"gold": SegmentRules(timeout_action="forget")},
    )
    deployment = made.deployments["classifier"]
    deployment.max_num_seqs, deployment.weight_dtype = 8, "fp8"
    deployment.autoscaler = Hpa(metrics=[Metric(name="kv_utilization", target=0.5)])
    found = problems_of(made)
    assert sorted(found) == [
        "deployments.classifier.autoscaler",
        "deployments.classifier.batcher.batch_times.32",
        "deployments.classifier.batcher.batch_times.x",
        "deployments.classifier.batcher.preferred_sizes[1]",
        "deployments.classifier.max_num_seqs",
        "deployments.classifier.weight_dtype",
        "services.vision.segment_rules.gold",
        "services.vision.segment_rules.gold.timeout_action",
        "services.vision.slo.tpot_s",
        "services.vision.slo.ttft_s",
        "services.vision.workload.items",
    ]
    assert "at most 16" in found["services.vision.workload.items"]


@pytest.mark.parametrize(
    ("batcher", "path", "says"),
    [
        ({"batch_times": {}}, "batch_times", "no time of a batch is given"),
        ({"fixed_s": 0.001}, "batch_times", "given in two ways"),
        ({"batch_times": {}, "fixed_s": 0.0}, "per_item_s", "takes no time"),
        ({"batch_times": {"1": "5 ms"}}, "batch_times.32", "no time of a batch of so many"),
        ({"batch_times": {"8": "5 ms", "32": "9 ms"}}, "batch_times.1", "no time of a batch of so many"),
        ({"batch_times": {**TIMES, "16": "10 ms"}}, "batch_times.16", "is less than the time of 8 items"),
        ({"max_batch": 0}, "max_batch", "is out of range"),
        ({"compute_use": 1.5}, "compute_use", "is out of range"),
        ({"weights_gb": 90.0}, "weights_gb", "does not fit on a h100-sxm"),
    ],
)
def test_each_rule_of_a_batcher(batcher: dict[str, Any], path: str, says: str) -> None:
    """Each by its path, and what is allowed instead."""
    assert says in problems_of(scenario(batcher))[f"deployments.classifier.batcher.{path}"]


def test_tokens_and_items_do_not_mix() -> None:
    """A service of both kinds, items to an LLM, tokens to a batcher, rules of a batcher without one."""
    made = scenario()
    made.deployments["llama"] = Deployment(pools=["gpu"])
    made.services["both"] = Service(workload=poisson(), deployments=["llama", "classifier"])
    made.services["pictures"] = Service(workload=Items(), deployments=["llama"], max_waiting=3, timeout_action="wait")
    made.services["words"] = Service(workload=poisson(), deployments=["classifier"])
    found = problems_of(made)
    assert "has both kinds: classifier with a batcher, and llama of LLMs" in found["services.both.deployments"]
    assert "sends items" in found["services.pictures.workload"]
    assert "sends tokens" in found["services.words.workload"]
    assert {"services.pictures.max_waiting", "services.pictures.timeout_action"} < set(found)


def test_priorities_of_segments_hold_without_a_batcher_too(tmp_path: Path) -> None:
    """One seat, twice the load: the paid segment is served, the free one waits."""
    workload = poisson(20.0)
    workload.segments = {"free": 0.8, "paid": 0.2}
    made = Scenario(
        horizon="1min",
        services={"chat": Service(workload=workload, deployments=["llama"], segment_rules={"paid": SegmentRules(priority=1)})},
        deployments={"llama": Deployment(pools=["gpu"], autoscaler=Static(1), max_num_seqs=1)},
        pools={"gpu": Pool(cold_start=FIXED)},
    )
    windows = run(made, tmp_path).table("windows")
    queued = dict(zip(windows["segment"].tolist(), windows["queued_mean"].tolist(), strict=True))
    assert queued["paid"] < 2 < 20 < queued["free"]
