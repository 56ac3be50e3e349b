"""Plain data read into the scenario's dataclasses: round trip, types, unknown names, choices."""

from __future__ import annotations

import json

import pytest

from sim.errors import Problems
from sim.policies.autoscalers.schedule import Schedule, ScheduleStep
from sim.policies.routers import PowerOfTwo
from sim.scenario import Deployment, Failure, Pool, Scenario, Service, Slo
from sim.scenario.check import check
from sim.scenario.plain import group_of, places, scenario_from_plain
from sim.workload.base import Workload
from sim.workload.synthetic import Synthetic


def _read(plain: dict[str, object]) -> tuple[Scenario, dict[str, str]]:
    problems = Problems()
    scenario = scenario_from_plain(plain, problems)
    return scenario, {problem.path: problem.message for problem in problems.found}


def _rich_scenario() -> Scenario:
    return Scenario(
        name="rich",
        services={"chat": Service(Synthetic(rate_per_s=3.0, segments={"a": 0.5}), ["d"], Slo(ttft_s=0.5), PowerOfTwo())},
        deployments={"d": Deployment(autoscaler=Schedule(2, [ScheduleStep("6h", 4)]), pools=["p"], max_model_len=4096)},
        pools={"p": Pool(price_usd_per_hour="1.25")},
        failures=[Failure("1h", "p", nodes=2)],
    )


def test_a_scenario_reads_back_from_its_own_plain_data():
    scenario = _rich_scenario()
    again, problems = _read(scenario.to_dict())
    assert problems == {}
    assert again == scenario
    assert again.digest() == scenario.digest()


def test_it_reads_back_through_json_as_in_a_manifest():
    scenario = _rich_scenario()
    again, problems = _read(json.loads(json.dumps(scenario.to_dict())))
    assert (again, problems) == (scenario, {})


@pytest.mark.parametrize(
    ("plain", "path", "message"),
    [
        ({"seed": 1.5}, "seed", "must be a whole number"),
        ({"seed": True}, "seed", "must be a whole number"),
        ({"seed": 2**63}, "seed", "is too large"),
        ({"name": None}, "name", "must be a text"),
        ({"name": ["a"]}, "name", "must be a text"),
        ({"services": []}, "services", "must be a group of settings"),
        ({"services": {"chat": 3}}, "services.chat", "must be a group of settings"),
        ({"services": {"chat": {"slo": {"attainment": "high"}}}}, "services.chat.slo.attainment", "must be a number"),
        ({"services": {"chat": {"slo": {"ttft_s": "soon"}}}}, "services.chat.slo.ttft_s", "is not a time"),
        ({"services": {"chat": {"deployments": "d"}}}, "services.chat.deployments", "must be a list"),
        ({"services": {"chat": {"deployments": ["d", 3.5, None]}}}, "services.chat.deployments[2]", "must be a text"),
        ({"failures": [{"nodes": "two"}]}, "failures[0].nodes", "must be a whole number"),
        ({"pools": {"p": {"electricity_billed": "maybe"}}}, "pools.p.electricity_billed", "must be true or false"),
        ({"services": {"chat": {"router": {"choice": "randm"}}}}, "services.chat.router.choice", "is not the name of a router"),
        ({"services": {"chat": {"workload": {"rate_per_s": 1}}}}, "services.chat.workload.choice", "is not the name of a workload"),
    ],
)
def test_what_has_a_wrong_type_is_named_with_its_path(plain, path, message):
    _, problems = _read(plain)
    assert problems == {path: message}


def test_everything_wrong_is_found_and_the_rest_is_read():
    scenario, problems = _read(
        {"seed": "x", "name": "kept", "hroizon": "1h", "pools": {"p": {"instnace": "g5.xlarge", "zones": ["z"]}}}
    )
    assert set(problems) == {"seed", "hroizon", "pools.p.instnace"}
    assert scenario.name == "kept"
    assert scenario.seed == Scenario().seed
    assert scenario.pools["p"].zones == ["z"]


def test_unknown_names_show_the_nearest_and_all_valid_ones():
    problems = Problems()
    scenario_from_plain({"services": {"chat": {"router": {"choice": "random", "sed": 1}, "slo": {"ttft": 1}}}}, problems)
    by_path = {problem.path: problem for problem in problems.found}
    assert by_path["services.chat.router.sed"].allowed == "none: it has no settings"
    assert by_path["services.chat.slo.ttft"].nearest == "ttft_s"
    assert by_path["services.chat.slo.ttft"].allowed == "ttft_s, tpot_s, e2e_s, attainment"


@pytest.mark.parametrize(("written", "seconds"), [("300 ms", 0.3), ("1m30s", 90.0), (2, 2.0), ("2", 2.0)])
def test_seconds_may_be_written_as_a_duration(written, seconds):
    scenario, problems = _read({"services": {"chat": {"slo": {"ttft_s": written}}}})
    assert problems == {}
    assert scenario.services["chat"].slo.ttft_s == seconds


def _chat(**settings: object) -> dict[str, object]:
    return {"services": {"chat": settings}}


def test_a_rate_is_not_a_duration():
    _, problems = _read({"services": {"chat": {"workload": {"choice": "poisson", "rate_per_s": "20 s"}}}})
    assert problems == {"services.chat.workload.rate_per_s": "is not in a unit of /s"}


@pytest.mark.parametrize(
    ("plain", "path", "value"),
    [
        (_chat(workload={"choice": "poisson", "rate_per_s": "840/min"}), "services.chat.workload.rate_per_s", 14.0),
        (_chat(workload={"choice": "synthetic", "growth_per_month": "10 %"}), "services.chat.workload.growth_per_month", 0.1),
        (_chat(workload={"choice": "synthetic", "segments": {"free": "70%"}}), "services.chat.workload.segments.free", 0.7),
        (_chat(slo={"attainment": "99.9 %"}), "services.chat.slo.attainment", 0.999),
        ({"deployments": {"d": {"max_num_batched_tokens": "8192 tokens"}}}, "deployments.d.max_num_batched_tokens", 8192),
        ({"deployments": {"d": {"autoscaler": {"replicas": "3 replicas"}}}}, "deployments.d.autoscaler.replicas", 3),
        ({"pools": {"p": {"price_usd_per_hour": "$2.10/h"}}}, "pools.p.price_usd_per_hour", "2.1"),
        ({"pools": {"p": {"price_usd_per_hour": "2.10"}}}, "pools.p.price_usd_per_hour", "2.10"),
        ({"pools": {"p": {"cold_start": {"image_gb": "80 GiB"}}}}, "pools.p.cold_start.image_gb", 85.89934592),
        ({"pools": {"p": {"cold_start": {"registry_gb_per_s": "100 Gbit/s"}}}}, "pools.p.cold_start.registry_gb_per_s", 12.5),
        ({"energy": {"gco2_per_kwh": "0.4 kg/kWh"}}, "energy.gco2_per_kwh", 400.0),
    ],
)
def test_quantities_are_read_in_the_unit_of_the_field(plain, path, value):
    scenario, problems = _read(plain)
    assert problems == {}
    here = scenario
    for part in path.split("."):
        here = here[part] if isinstance(here, dict) else getattr(here, part)
    assert here == value
    assert type(here) is type(value)


@pytest.mark.parametrize(
    ("plain", "path", "says"),
    [
        ({"pools": {"p": {"price_usd_per_hour": "2.10 EUR/h"}}}, "pools.p.price_usd_per_hour", "'EUR'"),
        ({"pools": {"p": {"price_usd_per_hour": "2 USD"}}}, "pools.p.price_usd_per_hour", "is not in a unit of USD/h"),
        ({"pools": {"p": {"price_usd_per_hour": "1 USD/week"}}}, "pools.p.price_usd_per_hour", "no finite decimal"),
        ({"pools": {"p": {"cold_start": {"image_gb": "80 s"}}}}, "pools.p.cold_start.image_gb", "is not in a unit of GB"),
        ({"services": {"chat": {"slo": {"ttft_s": "5 USD/h"}}}}, "services.chat.slo.ttft_s", "is not a time"),
        ({"services": {"chat": {"slo": {"attainment": "99 s"}}}}, "services.chat.slo.attainment", "only a number or %"),
        ({"deployments": {"d": {"max_num_seqs": "1.5"}}}, "deployments.d.max_num_seqs", "must be a whole number"),
        ({"deployments": {"d": {"max_num_batched_tokens": "8k"}}}, "deployments.d.max_num_batched_tokens", "a number of tokens"),
    ],
)
def test_a_wrong_unit_is_a_problem_that_names_the_right_one(plain, path, says):
    _, problems = _read(plain)
    assert list(problems) == [path]
    assert says in problems[path]


def test_a_scenario_of_a_notebook_may_hold_quantities_too():
    scenario = _rich_scenario()
    scenario.services["chat"].slo.ttft_s = "300 ms"
    scenario.pools["p"].price_usd_per_hour = "2.10 USD/h"
    read = check(scenario)
    assert (read.services["chat"].slo.ttft_s, read.pools["p"].price_usd_per_hour) == (0.3, "2.1")


def test_a_choice_without_a_name_keeps_the_default_class():
    scenario, problems = _read({"deployments": {"d": {"autoscaler": {"replicas": 5}}}})
    assert problems == {}
    assert scenario.deployments["d"].autoscaler.initial_replicas() == 5


def test_places_list_every_setting_and_what_can_be_chosen():
    found = {place.path: place.group for place in places(_rich_scenario())}
    assert found["services.chat.router"] == "router"
    assert found["services.chat.workload"] == "workload"
    assert found["deployments.d.autoscaler"] == "autoscaler"
    assert found["services.chat.workload.prompt.family"] == ""
    assert found["pools.p.cold_start.loading.median_s"] == ""
    assert "failures" in found


def test_groups_are_found_by_their_base_class():
    assert group_of(Workload) == "workload"
    assert group_of(Synthetic) == ""
    assert group_of(str) == ""
    assert group_of(object) == ""
