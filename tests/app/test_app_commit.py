"""`billcast commit`: what it foretells is what the next run is charged, what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim import open_run
from sim.app.cli import main
from sim.app.commit import scenario_rows
from sim.app.commit_use import eligible_use
from sim.app.commit_view import flow
from sim.billing.commitment_choice import HourlyUse, Kind, Offer, Promise, cover
from sim.billing.commitment_portfolios import Portfolio
from sim.catalog.loader import load_catalog
from sim.units import NANO_PER_USD, NS_PER_HOUR, NS_PER_MINUTE

# All machines on demand, from 17:45 to 20:30 in a zone half an hour off; one more machine from the second hour on.
FLEET = [
    "scenario=peer_w3", "start=2026-09-15T12:15:00Z", "horizon=165min", "window=15min", "rate_per_s=0.01",
    "account.timezone=Asia/Kolkata", "autoscaler=schedule", "tensor_parallel=8", "replicas=1",
    "autoscaler.steps=[{at: 80min, replicas: 3}]",
]  # fmt: skip
OWN = ["--reserved", "40%", "--instance-plan", "30%", "--compute-plan", "p4de=35%"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run without commitments."""
    out = tmp_path_factory.mktemp("commit") / "plain"
    assert main(["run", *FLEET, f"out={out}"]) == 0
    return out


def advice(folder: Path, capsys, *words: str) -> dict:
    """What the command says, as JSON."""
    capsys.readouterr()
    assert main(["commit", str(folder), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_hours_are_those_of_the_account(folder):
    use = eligible_use(open_run(folder), load_catalog())
    assert use.lengths_ns == (15 * NS_PER_MINUTE, NS_PER_HOUR, NS_PER_HOUR, 30 * NS_PER_MINUTE)
    assert use.on_demand_nano() == pytest.approx(round(open_run(folder).summary["bill"]["total_usd"] * NANO_PER_USD), abs=100)
    [kind] = use.kinds
    assert (kind.instance, kind.region) == ("p4de.24xlarge", "us-east-1")
    assert use.machines(kind)[0] == 1 < use.machines(kind)[2] < use.machines(kind)[3] == 3


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_next_run_is_charged_what_was_foretold(folder, number, tmp_path, capsys):
    found = advice(folder, capsys, *OWN)
    portfolio = found["portfolios"][number]
    assert portfolio["saved_nano_usd"] > 0
    rows = portfolio["scenario"]["commitments"]
    settings = [f"+commitments.{name}={flow(row)}" for name, row in rows.items()]
    assert main(["run", *FLEET, f"out={tmp_path / 'committed'}", *settings]) == 0
    charged = open_run(tmp_path / "committed").sql("SELECT sum(amount_nano_usd) AS amount FROM ledger")["amount"][0]
    cent = NANO_PER_USD // 100
    assert charged == pytest.approx(found["bill_nano_usd"] - portfolio["saved_nano_usd"], abs=cent // 10_000)
    assert charged < found["bill_nano_usd"]


def test_amounts_add_up(folder, capsys):
    found = advice(folder, capsys, *OWN, "--traffic", "-50%,0%,+20%")
    names = {portfolio["name"] for portfolio in found["portfolios"]}
    assert names == {"machines", "instance plans", "compute plan", "machines and compute plan"}
    saved = [portfolio["saved_nano_usd"] for portfolio in found["portfolios"]]
    assert saved == sorted(saved, reverse=True)
    for portfolio in found["portfolios"]:
        parts = [row["saved_nano_usd"] for row in portfolio["commitments"]]
        assert portfolio["saved_nano_usd"] == sum(parts) <= portfolio["saved_at_most_nano_usd"]
        assert portfolio["eligible_bill_nano_usd"] == found["eligible_nano_usd"] - portfolio["saved_nano_usd"]
        assert portfolio["on_assumed_discounts_nano_usd"] == portfolio["committed_nano_usd"]
        assert 0 < portfolio["utilisation"] <= 1
        assert 0 < portfolio["coverage"] <= 1
        assert [round(row["factor"], 9) for row in portfolio["traffic"]] == [0.5, 1.0, 1.2]
        assert [row["regret_nano_usd"] >= 0 for row in portfolio["traffic"]] == [True] * 3
        assert portfolio["traffic"][1]["regret_nano_usd"] == 0
        assert portfolio["traffic"][1]["saved_nano_usd"] == portfolio["saved_nano_usd"]


def test_a_longer_term_is_cheaper_and_names_what_is_assumed(folder, capsys):
    one, three = (advice(folder, capsys, "--term", term)["portfolios"][0] for term in ("1y", "3y"))
    assert one["saved_nano_usd"] < three["saved_nano_usd"]
    assert {row["confidence"] for row in three["commitments"]} == {"published"}
    assert main(["commit", str(folder), "--term", "3y"]) == 0
    shown = capsys.readouterr().out
    assert "57.3%: AWS Savings Plans price list of 2026-09-25" in shown
    assert "\n0.0% of the commitments rest on assumed discounts" in shown
    assert "if the hours of the run repeat" in shown
    assert "choice: instance_savings_plan" in shown
    assert "family: p4de, region: us-east-1" in shown


def test_without_a_discount_there_is_nothing_to_buy(folder, capsys):
    found = advice(folder, capsys, "--reserved", "0%", "--instance-plan", "0%")
    assert [(portfolio["saved_nano_usd"], portfolio["commitments"]) for portfolio in found["portfolios"]] == [(0, []), (0, [])]
    assert main(["commit", str(folder), "--reserved", "0%", "--instance-plan", "0%"]) == 0
    assert "nothing to commit to" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["use.svg", "use.png"])
def test_the_figure_is_written(folder, name, tmp_path, capsys):
    file = tmp_path / name
    advice(folder, capsys, *OWN, "--figure", str(file))
    first = file.read_bytes()
    assert first.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    advice(folder, capsys, *OWN, "--figure", str(file))
    assert file.read_bytes() == first


def test_what_is_refused(folder, tmp_path, capsys):
    capsys.readouterr()
    words = ["--reserved", "p5=120%,x", "--traffic", "much", "--figure", "use.pdf"]
    assert main(["commit", str(folder), *words]) == 2
    shown = capsys.readouterr().err
    assert "4 problems" in shown
    for word in ("p5=120%", "'x'", "'much'", "'use.pdf'"):
        assert word in shown
    committed = "+commitments.mine={choice: reserved_instances, instance: p4de.24xlarge, region: us-east-1}"
    assert main(["run", *FLEET, f"out={tmp_path / 'committed'}", committed]) == 0
    assert main(["commit", str(tmp_path / "committed")]) == 2
    assert "has commitments of its own (mine)" in capsys.readouterr().err


def test_a_type_without_a_known_discount(tmp_path, capsys):
    settings = ["instance=p6-b200.48xlarge", "tensor_parallel=4", "horizon=10min"]  # AWS sells no such promise of a year
    assert main(["run", "scenario=peer_w3", "rate_per_s=0.01", *settings, f"out={tmp_path / 'run'}"]) == 0
    assert main(["commit", str(tmp_path / "run")]) == 2
    assert "the catalog knows no discounts for p6-b200.48xlarge" in capsys.readouterr().err
    [portfolio] = advice(tmp_path / "run", capsys, "--reserved", "30%")["portfolios"]
    assert portfolio["name"] == "machines"


def test_spot_machines_are_not_eligible(tmp_path, capsys):
    settings = ["pools.a100.purchase=spot", "placement=in_order", "horizon=10min", "pools.a100.spot.market=advisor-5-10"]
    assert main(["run", "scenario=peer_w3", "rate_per_s=0.01", *settings, f"out={tmp_path / 'run'}"]) == 0
    capsys.readouterr()
    assert main(["commit", str(tmp_path / "run")]) == 2
    assert "has no machine time that a commitment could cover" in capsys.readouterr().err


def bought(rates_nano: dict[Kind, int]) -> Portfolio:
    """A plan of 5 USD an hour for one hour."""
    plan = Promise(Offer("compute_savings_plan", rates_nano, "assumed", "an example"), 500_000)
    outcome, _ = cover(HourlyUse((NS_PER_HOUR,), {}), plan)
    return Portfolio("compute plan", (outcome,), 0, ())


def test_rows_of_a_scenario_have_one_rate_for_a_type():
    here, there = Kind("aws", "us-east-1", "p5.4xlarge"), Kind("aws", "us-west-2", "p5.4xlarge")
    rows = scenario_rows(bought({here: 5 * NANO_PER_USD, there: 5 * NANO_PER_USD}))
    assert rows == {
        "commitment_1": {"choice": "compute_savings_plan", "usd_per_hour": "5", "rates_usd_per_hour": {"p5.4xlarge": "5"}}
    }
    assert scenario_rows(bought({here: 5 * NANO_PER_USD, there: 6 * NANO_PER_USD})) == {}


@pytest.mark.parametrize("payment", ["partial_upfront", "all_upfront"])
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_payments_up_front_cost_amortised_what_was_foretold(folder, payment, number, tmp_path, capsys):
    found = advice(folder, capsys, *OWN, "--payment", payment, "--term", "3y")
    portfolio = found["portfolios"][number]
    share = {"partial_upfront": 2, "all_upfront": 1}[payment]
    assert portfolio["upfront_nano_usd"] == pytest.approx(portfolio["nano_usd_per_hour"] * 26_280 / share, abs=26_280)
    settings = [f"+commitments.{name}={flow(row)}" for name, row in portfolio["scenario"]["commitments"].items()]
    assert main(["run", *FLEET, f"out={tmp_path / 'committed'}", *settings]) == 0
    sums = open_run(tmp_path / "committed").sql("SELECT sum(effective_nano_usd) AS cost, sum(amount_nano_usd) AS cash FROM ledger")
    assert sums["cost"][0] == pytest.approx(found["bill_nano_usd"] - portfolio["saved_nano_usd"], abs=1_000)
    assert sums["cash"][0] < sums["cost"][0]


def test_terms_and_payments_side_by_side(folder, capsys):
    found = advice(folder, capsys, "--compare", "--traffic", "-50%,+50%")
    choices = {(row["term"], row["payment"]): row["best"] for row in found["choices"]}
    assert len(choices) == 6
    # Each is what the command says of it alone.
    for (term, payment), best in choices.items():
        words = ["--term", term, "--payment", payment, "--traffic", "-50%,+50%"]
        if best is None:
            assert main(["commit", str(folder), *words]) == 2
            assert f"({term}, {payment})" in capsys.readouterr().err
        else:
            assert best == advice(folder, capsys, *words)["portfolios"][0]
    one, three = choices["1y", "no_upfront"], choices["3y", "no_upfront"]
    assert one["saved_nano_usd"] < three["saved_nano_usd"]
    assert main(["commit", str(folder), "--compare", *OWN]) == 0
    shown = capsys.readouterr().out
    assert "TERMS AND PAYMENTS, the best set of each" in shown
    assert shown.count("all_upfront") == 2
