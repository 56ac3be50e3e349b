"""Configs: every file composes, every choice can be set from a file and read back, short keys mean one place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sim import load_scenario
from sim.app.conf import config_dir, read_scenario, scenario_names
from sim.errors import InputError
from sim.policies.autoscalers.schedule import ScheduleStep
from sim.registry import names, registered
from sim.scenario import Deployment, Pool, Scenario, Service, Slo
from sim.scenario.check import check
from sim.scenario.plain import import_choices, places
from sim.workload.synthetic import Poisson

import_choices()
# One place for every group one can choose from, found in the dataclasses: a new group is tested without a change here.
_ONE_OF_EACH = Scenario(services={"s": Service()}, deployments={"d": Deployment()}, pools={"p": Pool()})
PLACE = {place.group: place.path for place in places(_ONE_OF_EACH) if place.group}
SHIPPED = [(group, name) for group in PLACE for name in names(group) if registered(group, name).__module__.startswith("sim.")]


def _problems(*overrides: str, name: str = "quickstart", folder: Path | None = None) -> dict[str, str]:
    return {problem.path: str(problem) for problem in read_scenario(name, overrides, folder).problems.found}


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_composes_and_passes_the_check(name, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
    overrides = [f"workload.path={trace}"] if name == "azure_chat_trace" else []
    scenario = load_scenario(name, overrides)
    assert scenario.name == name
    check(scenario)


def test_every_file_of_the_configs_is_reached_by_a_test():
    """A folder that is no group is a new kind of file and needs a test of its own."""
    groups = {path.parent.name for path in config_dir().rglob("*.yaml")}
    assert groups <= {"scenario", *PLACE}


@pytest.mark.parametrize(
    ("group", "option"),
    [(path.parent.name, path.stem) for path in sorted(config_dir().glob("*/*.yaml")) if path.parent.name in PLACE],
)
def test_every_option_file_composes_for_a_place(group, option, tmp_path):
    _write(tmp_path, f"  - /{group}@{PLACE[group]}: {option}\n", "")
    check(_complete(load_scenario("own", config_dir=tmp_path)))


def _complete(scenario: Scenario) -> Scenario:
    """Give a scenario that has only what a test is about everything else a run needs."""
    scenario.services.setdefault("s", Service(Poisson()))
    scenario.services["s"].deployments = ["d"]
    if type(scenario.services["s"].workload).__name__ == "Workload":
        scenario.services["s"].workload = Poisson()
    scenario.deployments.setdefault("d", Deployment())
    scenario.deployments["d"].pools = ["p"]
    scenario.pools["p"] = Pool()
    return scenario


def _write(folder: Path, defaults: str, body: str) -> None:
    (folder / "scenario").mkdir(exist_ok=True)
    (folder / "scenario" / "own.yaml").write_text(f"# @package _global_\ndefaults:\n{defaults}  - _self_\n{body}")


# A value other than the default for the types fields of choices have.
_OTHER = {int: 7, float: 0.25, str: "1h", bool: True}


def _own_scalar(cls: type) -> tuple[str, object] | None:
    """Return a scalar field of a choice and a value that is not its default; None where it has no field."""
    made = cls()
    for field in dataclasses.fields(cls):
        kind = next((kind for kind in (bool, int, float, str) if kind.__name__ in str(field.type)), None)
        if kind is not None and "list" not in str(field.type) and "dict" not in str(field.type):
            assert getattr(made, field.name) != _OTHER[kind]
            return field.name, _OTHER[kind]
    return None


@pytest.mark.parametrize(("group", "name"), SHIPPED)
def test_a_field_of_every_choice_is_set_from_a_file_and_read_back(group, name, tmp_path):
    cls = registered(group, name)
    setting = _own_scalar(cls)
    outer, inner, last = PLACE[group].split(".")
    body = f"{outer}:\n  {inner}:\n    {last}: {{{setting[0]}: {setting[1]}}}\n" if setting else ""
    _write(tmp_path, f"  - /{group}@{PLACE[group]}: {name}\n", body)
    scenario = load_scenario("own", config_dir=tmp_path)
    chosen = getattr(getattr(scenario, outer)[inner], last)
    assert type(chosen) is cls
    if setting:
        assert getattr(chosen, setting[0]) == setting[1]


def test_a_notebook_and_a_file_build_the_same_object(tmp_path):
    _write(
        tmp_path,
        "  - /workload@services.chat.workload: poisson\n",
        "name: same\nservices: {chat: {deployments: [d], workload: {rate_per_s: 4}, slo: {ttft_s: 500ms}}}\n"
        "deployments: {d: {pools: [p], autoscaler: {replicas: 2}}}\npools: {p: {quota_nodes: 3}}\n",
    )
    by_hand = Scenario(
        name="same",
        services={"chat": Service(Poisson(rate_per_s=4.0), ["d"], Slo(ttft_s=0.5))},
        deployments={"d": Deployment(pools=["p"], autoscaler=registered("autoscaler", "static")(replicas=2))},
        pools={"p": Pool(quota_nodes=3)},
    )
    assert load_scenario("own", config_dir=tmp_path) == by_hand


def test_loading_twice_in_one_process_gives_equal_but_separate_objects():
    first, second = load_scenario("quickstart"), load_scenario("quickstart")
    assert first == second
    first.services["chat"].deployments.append("x")
    assert second.services["chat"].deployments == ["llama_8b"]


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("horizon=2h", "horizon", "2h"),
        ("start=2026-10-01", "start", "2026-10-01"),
        ("replicas=5", "deployments.llama_8b.autoscaler.replicas", 5),
        ("workload.rate_per_s=7", "services.chat.workload.rate_per_s", 7.0),
        ("rate_per_s=8.5", "services.chat.workload.rate_per_s", 8.5),
        ("chat.slo.ttft_s=2", "services.chat.slo.ttft_s", 2.0),
        ("slo.ttft_s=300ms", "services.chat.slo.ttft_s", 0.3),
        ("model=llama-3.1-70b", "deployments.llama_8b.model", "llama-3.1-70b"),
        ("max_model_len=null", "deployments.llama_8b.max_model_len", None),
        ("pools.h100.price_usd_per_hour=2.5", "pools.h100.price_usd_per_hour", "2.5"),
        ("h100.cold_start.storage=nvme", "pools.h100.cold_start.storage", "nvme"),
        ("account.name='A, B'", "account.name", "A, B"),
        ("h100_spot.zones=[a,b]", "pools.h100_spot.zones", ["a", "b"]),
        ("slo={tpot_s: 0.1}", "services.chat.slo.ttft_s", 1.0),
        ("engine=reference", "engine", "reference"),
    ],
)
def test_a_short_key_is_the_one_place_it_can_mean(override, path, value):
    here: object = load_scenario("quickstart", [override])
    for name in path.split("."):
        here = here[name] if isinstance(here, dict) else getattr(here, name)
    assert here == value


def test_lists_are_replaced_and_their_elements_set():
    assert load_scenario("quickstart", ["failures=[]"]).failures == []
    assert load_scenario("quickstart", ["failures.0.nodes=2"]).failures[0].nodes == 2
    scenario = load_scenario("quickstart", ["autoscaler=afternoon", "steps=[{at: 1h, replicas: 9}]"])
    assert scenario.deployments["llama_8b"].autoscaler.steps == [ScheduleStep("1h", 9)]


@pytest.mark.parametrize("key", ["autoscaler", "deployments.llama_8b.autoscaler", "autoscaler@deployments.llama_8b.autoscaler"])
def test_another_choice_is_taken_with_its_own_settings(key):
    scenario = load_scenario("quickstart", [f"{key}=static", "replicas=6"])
    assert scenario.deployments["llama_8b"].autoscaler == registered("autoscaler", "static")(replicas=6)


def test_a_choice_the_scenario_left_at_its_default_can_be_made():
    assert type(load_scenario("quickstart", ["router=least_kv"]).services["chat"].router) is registered("router", "least_kv")


def test_names_can_be_added():
    more = ["+pools.spare.instance=p5.48xlarge", "deployments.llama_8b.pools=[h100,h100_spot,spare]"]
    scenario = load_scenario("quickstart", more)
    assert scenario.pools["spare"].instance == "p5.48xlarge"
    check(scenario)


def test_the_scenario_may_be_among_the_overrides():
    assert load_scenario(overrides=["scenario=peer_w3", "seed=3"]).name == "peer_w3"


def test_a_folder_of_ones_own_is_searched_first(tmp_path):
    _write(tmp_path, "", "name: mine\n")
    (tmp_path / "scenario" / "quickstart.yaml").write_text("# @package _global_\nname: replaced\n")
    assert load_scenario("own", config_dir=tmp_path).name == "mine"
    assert load_scenario("quickstart", config_dir=tmp_path).name == "replaced"
    assert load_scenario("peer_w3", config_dir=tmp_path).name == "peer_w3"


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        ("hroizon=1h", "hroizon", "did you mean 'horizon'?"),
        ("services.chat.slo.ttft=1", "services.chat.slo.ttft", "did you mean 'services.chat.slo.ttft_s'?"),
        ("services.caht.slo.ttft_s=1", "services.caht.slo.ttft_s", "did you mean 'services.chat.slo.ttft_s'?"),
        ("repilcas=3", "repilcas", "did you mean 'replicas'?"),
        ("seed=one", "seed", "must be a whole number"),
        ("router=randm", "router", "did you mean 'random'?"),
        ("autoscaler=shedule", "autoscaler", "did you mean 'schedule'?"),
        ("autoscaler@deployments.x.autoscaler=static", "autoscaler@deployments.x.autoscaler", "is not a place of this scenario"),
        ("median_s=4", "median_s", "pools.h100.cold_start.pending.median_s"),
        ("seed=1,2", "seed", "one run takes one value"),
        ("~failures", "~failures", "nothing can be removed"),
        ("horizon", "horizon", "key=value"),
        ("failures=[{at: 1h", "failures", "cannot be read"),
        ("failures.0.nods=1", "failures[0].nods", "did you mean 'nodes'?"),
        ("+pools.spare.instnace=x", "pools.spare.instnace", "did you mean 'instance'?"),
    ],
)
def test_a_bad_override_is_a_problem_with_its_path(override, path, says):
    found = _problems(override)
    assert list(found) == [path]
    assert says in found[path]


def test_all_bad_overrides_come_out_together():
    found = _problems("hroizon=1h", "seed=one", "router=randm", "median_s=4", "attainment=high")
    assert set(found) == {"hroizon", "seed", "router", "median_s", "services.chat.slo.attainment"}


def test_a_key_that_fits_two_services_is_ambiguous(tmp_path):
    _write(tmp_path, "", "services: {a: {}, b: {}}\n")
    text = _problems("router=random", "max_queue=3", name="own", folder=tmp_path)
    assert "services.a.router, services.b.router" in text["router"]
    assert "services.a.max_queue, services.b.max_queue" in text["max_queue"]


def test_problems_of_a_file_come_out_together_too(tmp_path):
    body = "seed: one\nservices: {chat: {slo: {ttft: 1}, router: {choice: randm}}}\npools: {p: {zones: here}}\n"
    _write(tmp_path, "", body)
    with pytest.raises(InputError) as caught:
        load_scenario("own", ["hroizon=1h"], tmp_path)
    paths = {problem.path for problem in caught.value.problems}
    assert paths == {"hroizon", "seed", "services.chat.slo.ttft", "services.chat.router.choice", "pools.p.zones"}


def test_a_setting_of_another_choice_says_whose_it_is_not():
    found = _problems("workload=closed_loop", name="bench_chat8")
    assert "is not a setting of the workload closed_loop" in found["services.chat.workload.rate_per_s"]


def test_settings_kept_in_an_option_file_go_with_it():
    assert load_scenario("quickstart", ["workload=poisson"]).services["chat"].workload == Poisson()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("services: [unclosed\n", "cannot be composed"),
        ("defaults:\n  - /workload@services.chat.workload: nope\n", "nope"),
        ("name: ${nowhere}\n", "nowhere"),
    ],
)
def test_a_file_that_cannot_be_composed_is_a_problem(content, says, tmp_path):
    (tmp_path / "scenario").mkdir()
    (tmp_path / "scenario" / "broken.yaml").write_text(f"# @package _global_\n{content}")
    with pytest.raises(InputError, match=says):
        load_scenario("broken", config_dir=tmp_path)


def test_an_unknown_scenario_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        load_scenario("quickstrat")


def test_a_config_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_scenario(config_dir=tmp_path / "none")


def test_a_value_that_refers_to_another_follows_the_command_line(tmp_path):
    (tmp_path / "scenario").mkdir()
    (tmp_path / "scenario" / "own.yaml").write_text(
        "# @package _global_\ndefaults: [quickstart, _self_]\n"
        "pools:\n  h100: {cold_start: {storage: object_store}}\n"
        "  h100_spot: {cold_start: '${pools.h100.cold_start}', quota_nodes: '${pools.h100.quota_nodes}'}\n",
        "utf-8",
    )
    pools = load_scenario("own", ["h100.cold_start={storage: nvme, warming: {median_s: 20}}", "h100.quota_nodes=5"], tmp_path).pools
    assert pools["h100_spot"].cold_start == pools["h100"].cold_start
    assert pools["h100_spot"].cold_start.storage == "nvme"
    assert pools["h100_spot"].quota_nodes == 5
    pools = load_scenario("own", ["h100.cold_start.storage=nvme", "h100_spot.cold_start.image_gb=3"], tmp_path).pools
    assert (pools["h100_spot"].cold_start.storage, pools["h100_spot"].cold_start.image_gb) == ("object_store", 3.0)
