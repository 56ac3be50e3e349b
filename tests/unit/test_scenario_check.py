"""The scenario check: each rule by path, several at once, and nothing but InputError for any values."""

from __future__ import annotations

import copy
import dataclasses
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.policies.autoscalers.schedule import Schedule, ScheduleStep
from sim.policies.autoscalers.static import Static
from sim.policies.routers import LeastKv, PowerOfTwo
from sim.scenario import Account, ColdStart, Deployment, Energy, Failure, Pool, Scenario, Service, Slo, StageTime
from sim.scenario.check import check
from sim.workload.synthetic import Poisson, Synthetic
from sim.workload.trace import Trace


def _good() -> Scenario:
    return Scenario(
        name="good",
        services={"chat": Service(Poisson(rate_per_s=5.0), ["llama"])},
        deployments={"llama": Deployment(autoscaler=Static(2), pools=["h100"])},
        pools={"h100": Pool(quota_nodes=4)},
        failures=[Failure("1h", "h100")],
    )


def _problems(scenario: Scenario) -> dict[str, str]:
    try:
        check(scenario)
    except InputError as error:
        return {problem.path: str(problem) for problem in error.problems}
    return {}


def _with(path: str, value: object) -> Scenario:
    """Return the good scenario with one value changed, by dotted path."""
    scenario = _good()
    here: typing.Any = scenario
    *parents, last = path.split(".")
    for name in parents:
        here = here[int(name)] if isinstance(here, list) else here[name] if isinstance(here, dict) else getattr(here, name)
    if isinstance(here, dict):
        here[last] = value
    else:
        setattr(here, last, value)
    return scenario


def test_the_good_scenario_has_no_problem():
    assert _problems(_good()) == {}


@pytest.mark.parametrize(
    ("path", "value", "at", "says"),
    [
        ("horizon", "-1h", "horizon", "the end would be before the start"),
        ("horizon", "0s", "horizon", "the end would be at the start"),
        ("horizon", "soon", "horizon", "is not a duration"),
        ("horizon", "20000d", "horizon", "is too long"),
        ("start", "yesterday", "start", "is not a calendar instant"),
        ("start", "0001-01-01T00:00:00+09:00", "start", "is not a calendar instant"),
        ("start", "1066-10-14", "start", "is out of range"),
        ("warmup", "1d", "warmup", "leaves nothing to report"),
        ("warmup", "-1s", "warmup", "must not be negative"),
        ("window", "10ms", "window", "is too short"),
        ("seed", -1, "seed", "must not be negative"),
        ("engine", "referense", "engine", "did you mean 'reference'?"),
        ("records", "sample:0", "records", "is not a choice of records"),
        ("name", "../escape", "name", "cannot be the name of a folder"),
        ("services", {}, "services", "there is no service"),
        ("services.chat.deployments", [], "services.chat.deployments", "names no deployment"),
        ("services.chat.deployments", ["lama"], "services.chat.deployments[0]", "did you mean 'llama'?"),
        ("services.chat.deployments", ["llama", "llama"], "services.chat.deployments[1]", "is listed twice"),
        ("services.chat.workload.rate_per_s", -2.0, "services.chat.workload.rate_per_s", "must be a positive rate"),
        ("services.chat.slo.attainment", 0.0, "services.chat.slo.attainment", "above 0 to 1"),
        ("services.chat.slo.attainment", 1.01, "services.chat.slo.attainment", "above 0 to 1"),
        ("services.chat.slo.ttft_s", float("nan"), "services.chat.slo.ttft_s", "is out of range"),
        ("services.chat.queue_timeout_s", 0.0, "services.chat.queue_timeout_s", "is out of range"),
        ("services.chat.max_queue", -1, "services.chat.max_queue", "is out of range"),
        ("services.chat.max_attempts", 0, "services.chat.max_attempts", "is out of range"),
        ("deployments.llama.model", "lama-3.1-8b", "deployments.llama.model", "did you mean 'llama-3.1-8b'?"),
        ("deployments.llama.engine", "vlm-2026", "deployments.llama.engine", "did you mean 'vllm-2026'?"),
        ("deployments.llama.weight_dtype", "fp9", "deployments.llama.weight_dtype", "not a weight type"),
        ("deployments.llama.kv_dtype", "fp9", "deployments.llama.kv_dtype", "not a type of the KV cache"),
        ("deployments.llama.tensor_parallel", 2, "deployments.llama.tensor_parallel", "more than the accelerators of p5.4xlarge"),
        ("deployments.llama.tensor_parallel", 0, "deployments.llama.tensor_parallel", "cannot split"),
        ("deployments.llama.max_num_batched_tokens", 100, "deployments.llama.max_num_batched_tokens", "is below max_num_seqs"),
        ("deployments.llama.max_num_seqs", 0, "deployments.llama.max_num_seqs", "is out of range"),
        ("deployments.llama.watermark_tokens", 0, "deployments.llama.watermark_tokens", "is out of range"),
        ("deployments.llama.watermark_tokens", 10**9, "deployments.llama.watermark_tokens", "is all of the KV cache"),
        ("deployments.llama.max_model_len", 10**9, "deployments.llama.max_model_len", "is out of range for llama-3.1-8b"),
        ("deployments.llama.max_outstanding", -1, "deployments.llama.max_outstanding", "must not be negative"),
        ("deployments.llama.kv_tokens", 0, "deployments.llama.kv_tokens", "is out of range"),
        ("deployments.llama.start", "warm", "deployments.llama.start", "is not a start"),
        ("deployments.llama.pools", [], "deployments.llama.pools", "names no pool"),
        ("deployments.llama.pools", ["h10"], "deployments.llama.pools[0]", "did you mean 'h100'?"),
        ("deployments.llama.autoscaler", Static(-1), "deployments.llama.autoscaler.replicas", "must not be negative"),
        ("deployments.llama.autoscaler", Static(5), "deployments.llama.autoscaler", "at most 4"),
        ("pools.h100.instance", "p5.4xlrge", "pools.h100.instance", "did you mean 'p5.4xlarge'?"),
        ("pools.h100.purchase", "on_demnd", "pools.h100.purchase", "is not a purchase option"),
        ("pools.h100.region", "eastus", "pools.h100.region", "p5.4xlarge has no price there"),
        ("pools.h100.region", "us-east-9", "pools.h100.region", "no electricity grid is known there"),
        ("pools.h100.zones", [], "pools.h100.zones", "names no zone"),
        ("pools.h100.zones", ["a", "a"], "pools.h100.zones[1]", "listed twice"),
        ("pools.h100.quota_nodes", 0, "pools.h100.quota_nodes", "is out of range"),
        ("pools.h100.price_usd_per_hour", "-1", "pools.h100.price_usd_per_hour", "is out of range"),
        ("pools.h100.price_usd_per_hour", "six", "pools.h100.price_usd_per_hour", "is not an amount of money"),
        ("pools.h100.price_usd_per_hour", "1e999999999", "pools.h100.price_usd_per_hour", "0 to 1,000,000"),
        ("pools.h100.price_usd_per_hour", "sNaN", "pools.h100.price_usd_per_hour", "0 to 1,000,000"),
        ("pools.h100.cold_start", ColdStart(storage="nmve"), "pools.h100.cold_start.storage", "did you mean 'nvme'?"),
        ("pools.h100.cold_start", ColdStart(booting=StageTime(10.0, 5.0)), "pools.h100.cold_start.booting.p95_s", "10 to"),
        (
            "pools.h100.cold_start",
            ColdStart(booting=StageTime(None, 5.0)),
            "pools.h100.cold_start.booting.median_s",
            "must be given",
        ),
        ("pools.h100.cold_start", ColdStart(booting=StageTime(0.0, 5.0)), "pools.h100.cold_start.booting.p95_s", "takes no time"),
        ("failures", [Failure("later", "h100")], "failures[0].at", "is not a duration"),
        ("failures", [Failure("1h", "h200")], "failures[0].pool", "did you mean 'h100'?"),
        ("failures", [Failure("1h", "h100", nodes=0)], "failures[0].nodes", "is out of range"),
        ("account", Account(timezone="Europe/Berln"), "account.timezone", "did you mean 'Europe/Berlin'?"),
        ("account", Account(timezone="../../etc/passwd"), "account.timezone", "is not a time zone"),
        ("services.chat.timezone", "Europe/Berln", "services.chat.timezone", "did you mean 'Europe/Berlin'?"),
        ("account", Account(name=" "), "account.name", "is empty"),
        ("energy", Energy(pue=0.9), "energy.pue", "is out of range"),
        ("energy", Energy(usd_per_kwh=-0.1), "energy.usd_per_kwh", "is out of range"),
        ("catalog", "no/such/file.yaml", "catalog", "cannot be read"),
        ("catalog", "null\0byte", "catalog", "cannot be read"),
        (
            "services.chat.workload",
            Trace(path="a" * 5000),
            "services.chat.workload.path",
            "cannot be looked at: File name too long",
        ),
        ("services.chat.workload", Trace(path="null\0byte"), "services.chat.workload.path", "there is no such file"),
    ],
)
def test_each_rule_names_its_path(path, value, at, says):
    found = _problems(_with(path, value))
    assert at in found, found
    assert says in found[at]


def test_a_model_that_does_not_fit_says_what_would():
    scenario = _with("deployments.llama.model", "llama-3.1-70b")
    text = _problems(scenario)["deployments.llama.model"]
    assert "does not fit 1 x h100-sxm" in text
    assert "tensor_parallel=" in text
    assert "on a machine with as many, for instance coreweave-hgx-h100" in text
    assert "a larger accelerator: b200-sxm" in text


def test_the_same_model_fits_what_the_message_proposed():
    scenario = _with("deployments.llama.model", "llama-3.1-70b")
    scenario.pools["h100"] = Pool(instance="p5.48xlarge")
    degree = _problems(scenario)["deployments.llama.model"].split("tensor_parallel=")[1].split(" ")[0]
    scenario.deployments["llama"].tensor_parallel = int(degree)
    assert _problems(scenario) == {}


def test_a_missing_trace_names_the_nearest_file(tmp_path):
    (tmp_path / "chat.csv").write_text("")
    found = _problems(_with("services.chat.workload", Trace(path=str(tmp_path / "chta.csv"))))
    assert f"did you mean {str(tmp_path / 'chat.csv')!r}?" in found["services.chat.workload.path"]


def test_services_that_share_replicas_share_the_router():
    scenario = _good()
    scenario.services["code"] = Service(Poisson(), ["llama"], router=PowerOfTwo())
    assert "with which it shares replicas" in _problems(scenario)["services.code.router"]
    scenario.services["chat"].router = PowerOfTwo()
    assert _problems(scenario) == {}


def test_deployments_that_share_a_pool_share_its_quota():
    scenario = _good()
    scenario.deployments["second"] = Deployment(autoscaler=Static(3), pools=["h100"])
    assert "at least 5" in _problems(scenario)["pools.h100.quota_nodes"]


def test_quotas_count_replicas_by_node():
    """8 accelerators a node hold 4 replicas of 2: 5 need a second node."""
    scenario = _good()
    scenario.pools["h100"] = Pool(instance="p5.48xlarge", quota_nodes=1)
    scenario.deployments["llama"] = Deployment(tensor_parallel=2, autoscaler=Schedule(1, [ScheduleStep("1h", 5)]), pools=["h100"])
    assert "at most 4" in _problems(scenario)["deployments.llama.autoscaler"]
    scenario.pools["h100"].quota_nodes = 2
    assert _problems(scenario) == {}


def test_a_price_of_ones_own_needs_no_catalog_price():
    scenario = _with("pools.h100.region", "eastus")
    scenario.pools["h100"].price_usd_per_hour = "2.49"
    assert _problems(scenario) == {}


def test_a_failure_after_the_end_is_no_problem():
    assert _problems(_with("failures", [Failure("400d", "h100")])) == {}


def test_wrong_types_from_python_are_problems_too():
    scenario = _with("horizon", {"hours": 1})
    scenario.seed = typing.cast("int", "one")
    scenario.services["chat"].slo = typing.cast("Slo", 3)
    assert set(_problems(scenario)) == {"horizon", "seed", "services.chat.slo"}


def test_many_problems_come_out_together():
    scenario = _with("horizon", "-1h")
    scenario.services["chat"].workload = Synthetic(rate_per_s=-1.0)
    scenario.services["chat"].router = LeastKv()
    scenario.deployments["llama"].model = "llama-2-70b"
    scenario.pools["h100"].zones = []
    scenario.account.timezone = "Mars"
    assert set(_problems(scenario)) == {
        "horizon",
        "services.chat.workload.rate_per_s",
        "deployments.llama.model",
        "pools.h100.zones",
        "account.timezone",
    }


# Values that have broken programs before, and ordinary ones, for every field of every dataclass of a scenario.
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "-1h", "1h", "0s", "1e999999", "NaN", "../..", "\0", "2026-02-30", "0001-01-01T00:00+23:59", "a" * 5000]),
    st.lists(st.one_of(st.text(max_size=5), st.integers(-5, 5), st.floats()), max_size=3),
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5)), max_size=2),
)


def _spots(value: object) -> list[tuple[object, str]]:
    """Return (owner, field) of every field of every dataclass inside a scenario."""
    found: list[tuple[object, str]] = []
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            found.append((value, field.name))
            found += _spots(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.values():
            found += _spots(item)
    elif isinstance(value, list):
        for item in value:
            found += _spots(item)
    return found


_WORKLOADS = st.sampled_from([Poisson(), Synthetic(), Trace(path="x.csv")])
_SCALERS = st.sampled_from([Static(1), Schedule(1, [ScheduleStep("1h", 2)])])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), workload=_WORKLOADS, scaler=_SCALERS, changes=st.integers(1, 4))
def test_no_value_raises_anything_but_input_error(data, workload, scaler, changes):
    scenario = _good()
    scenario.services["chat"].workload = copy.deepcopy(workload)
    scenario.deployments["llama"].autoscaler = copy.deepcopy(scaler)
    for _ in range(changes):
        owner, name = data.draw(st.sampled_from(_spots(scenario)))
        setattr(owner, name, data.draw(_VALUES))
    # `_problems` catches InputError only, and shows every problem it holds.
    assert all(text.startswith(path) for path, text in _problems(scenario).items())
