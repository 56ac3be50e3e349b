"""Batch jobs from scenario to report: hand-worked times and costs on a replica of one seat, and what a job may not do."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_kit import FIXED, poisson
from rich.console import Console

from sim import simulate
from sim.app.sheet import capacity_report
from sim.control import batchjobs
from sim.errors import InputError
from sim.perf.steptime import FRACTION_BITS
from sim.policies.autoscalers.hpa import Hpa
from sim.policies.autoscalers.hpa_config import Metric
from sim.policies.autoscalers.static import Static
from sim.report.terminal import render
from sim.results.invariants import check_run
from sim.results.jobs import jobs_of, summarize_jobs
from sim.results.records import RunResult
from sim.rng import StreamKey
from sim.scenario import Deployment, DynamicBatcher, Failure, Pool, Scenario, Service, Slo
from sim.scenario.check import check
from sim.scenario.resolve import resolve
from sim.schema import TABLES
from sim.units import NANO_PER_USD, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S
from sim.workload.backlog import Backlog
from sim.workload.specs import TokenLengths

PROMPT, OUTPUT = 100, 20


def backlog(requests: int = 50, **changes: Any) -> Backlog:
    """Jobs of requests of 100 and 20 tokens."""
    lengths = {"prompt": TokenLengths(family="fixed", mean=PROMPT), "output": TokenLengths(family="fixed", mean=OUTPUT)}
    return Backlog(requests=requests, **{**lengths, **changes})


def scenario(*jobs: Backlog, chat: Any = None, replicas: int = 1, seats: int = 1, **changes: Any) -> Scenario:
    """Services of batch jobs on replicas of few seats, beside a chat where one is given."""
    services = {f"batch_{number}": Service(workload=job, deployments=["llama"]) for number, job in enumerate(jobs)}
    if chat is not None:
        services["chat"] = Service(workload=chat, deployments=["llama"])
    autoscaler = changes.pop("autoscaler", Static(replicas))
    seats_for_batch = changes.pop("backlog_seats", None)
    return Scenario(**{
        "horizon": "30min",
        "services": services,
        "deployments": {
            "llama": Deployment(pools=["gpu"], autoscaler=autoscaler, max_num_seqs=seats, backlog_seats=seats_for_batch)
        },
        "pools": {"gpu": Pool(cold_start=FIXED)},
        **changes,
    })  # fmt: skip


def run(made: Scenario, folder: Path) -> RunResult:
    """Run a scenario and check its invariants."""
    result = simulate(made, out=folder / "run")
    check_run(result)
    return result


def row_fx(made: Scenario) -> int:
    """Time of one request alone, in fixed point: its prompt in one step, then a step for each further token."""
    step = resolve(made).kinds["llama", "gpu"].step
    decode = sum(step.step_fx(1, 1, 0, PROMPT + token, 1) for token in range(1, OUTPUT))
    return step.step_fx(PROMPT, 1, PROMPT * PROMPT, 0) + decode


def test_n_rows_on_one_seat_take_n_times_the_time_of_one(tmp_path: Path) -> None:
    """Submitted after ten minutes, taken at once, done after 50 times the time of one, to the nanosecond."""
    made = scenario(backlog(50, submit_at="10min", due="1h"))
    result = run(made, tmp_path)
    jobs = {name: values.tolist() for name, values in result.table("jobs").items()}
    at_ns = 10 * NS_PER_MINUTE
    assert (jobs["submitted_ns"], jobs["begun_ns"], jobs["first_taken_ns"]) == ([at_ns], [at_ns], [at_ns])
    assert jobs["finished_ns"] == [at_ns + (50 * row_fx(made) >> FRACTION_BITS)]
    assert (jobs["due_ns"], jobs["verdict"]) == ([at_ns + NS_PER_HOUR], ["in time"])
    assert (jobs["taken"], jobs["completed"], jobs["rejected"], jobs["preempted"]) == ([50], [50], [0], [0])
    assert (jobs["prompt_tokens"], jobs["output_tokens"]) == ([50 * PROMPT], [50 * OUTPUT])


def test_a_job_costs_the_machine_for_as_long_as_it_takes(tmp_path: Path) -> None:
    """The only service of a machine at 6.88 USD/h: the job costs its share of the hour, the rest of the bill is no job's."""
    made = scenario(backlog(50, submit_at="10min"))
    result = run(made, tmp_path)
    [job] = jobs_of(result)
    took_ns = 50 * row_fx(made) >> FRACTION_BITS
    assert job.took_s == took_ns / NS_PER_S
    assert job.cost_nano == pytest.approx(6.88 * NANO_PER_USD * took_ns / NS_PER_HOUR, abs=3)
    assert result.summary["bill"]["by_service"] == {"batch_0": 3.44}


def test_the_next_job_waits_for_the_one_before(tmp_path: Path) -> None:
    """Every day at 0:00 and 24 h of work for a horizon of two days and a half: begun one after the other, late, open."""
    made = scenario(backlog(submit_at="00:00", due="20h"), horizon="60h", window="12h")
    per_row_s = row_fx(made) / (1 << FRACTION_BITS) / NS_PER_S
    made.services["batch_0"].workload.requests = int(26 * 3600 / per_row_s)  # type: ignore[attr-defined]
    result = run(made, tmp_path)
    first, second, third = jobs_of(result)
    assert [job.verdict for job in (first, second, third)] == ["late", "late", "open"]
    assert first.took_s == pytest.approx(26 * 3600, abs=1)
    assert second.begun_ns == first.finished_ns
    assert second.took_s == pytest.approx(28 * 3600, abs=1)
    assert (third.begun_ns, third.finished_ns, third.submitted_ns) == (second.finished_ns, -1, 48 * NS_PER_HOUR)
    costs = [job.cost_nano for job in (first, second, third)]
    assert costs[0] == pytest.approx(costs[1], rel=1e-6)
    assert sum(costs) == round(result.summary["bill"]["total_usd"] * NANO_PER_USD)  # it is never idle


def test_rows_that_fit_nowhere_are_left_out_and_counted(tmp_path: Path) -> None:
    """Half of the prompts are above the longest request: they are never handed over."""
    halves = TokenLengths(family="empirical", probabilities=[0, 0.5, 0.51, 1], tokens=[100, 100, 900, 900])
    made = scenario(backlog(400, prompt=halves))
    made.deployments["llama"].max_model_len = 500
    result = run(made, tmp_path)
    jobs = result.table("jobs")
    assert 150 < jobs["rejected"][0] < 250
    assert jobs["taken"][0] + jobs["rejected"][0] == 400
    assert jobs["completed"][0] == jobs["taken"][0] == result.summary["requests"]["arrived"]
    assert "too long" in terminal(result)


def test_a_job_of_nothing_that_fits_is_done_at_once(tmp_path: Path) -> None:
    """All rows are too long."""
    made = scenario(backlog(10, submit_at="1min"))
    made.deployments["llama"].max_model_len = 50
    [job] = jobs_of(run(made, tmp_path))
    assert (job.finished_ns, job.first_taken_ns, job.counts["rejected"]) == (NS_PER_MINUTE, -1, 10)


def test_rows_are_drawn_as_they_are_needed(tmp_path: Path) -> None:
    """Ten thousand million requests take no time to submit and no memory; a few are worked on."""
    [job] = jobs_of(run(scenario(backlog(10**10), horizon="10s"), tmp_path))
    assert job.verdict == "open"
    assert 10 < job.counts["completed"] < 1_000


def test_the_chat_goes_first_and_the_job_fills_the_rest(tmp_path: Path) -> None:
    """Four seats, a chat that needs about half of them: the job makes way, the chat waits no longer than a step."""
    alone = run(scenario(chat=poisson(8.0), seats=4), tmp_path / "alone").summary
    result = run(scenario(backlog(10**6), chat=poisson(8.0), seats=4), tmp_path / "both")
    both, [job] = result.summary, jobs_of(result)
    assert both["services"]["chat"]["requests"]["arrived"] == alone["services"]["chat"]["requests"]["arrived"]
    assert job.counts["preempted"] > 100
    added_s = both["latency"]["chat"]["ttft_s"]["mean"] - alone["latency"]["chat"]["ttft_s"]["mean"]
    assert 0 <= added_s < 0.02
    assert sum(result.table("usage")["busy_ns"]) == pytest.approx(30 * NS_PER_MINUTE, rel=1e-3)  # never idle


def test_no_more_seats_than_allowed(tmp_path: Path) -> None:
    """One of four seats for the job: as fast as on one seat alone."""
    one, four = scenario(backlog(50)), scenario(backlog(50), seats=4, backlog_seats=1)
    took = [jobs_of(run(made, tmp_path / name))[0].took_s for name, made in (("one", one), ("four", four))]
    assert took[0] == took[1]


def test_a_machine_that_crashes_costs_time_and_no_row(tmp_path: Path) -> None:
    """Its replacement comes 150 s later and goes on."""
    made = scenario(backlog(2000), seats=8, failures=[Failure("20s", "gpu")])
    result = run(made, tmp_path)
    jobs = result.table("jobs")
    assert (jobs["completed"][0], jobs["failed"][0], jobs["retried"][0]) == (2000, 0, 8)
    before = jobs_of(run(scenario(backlog(2000), seats=8), tmp_path / "before"))[0].took_s
    after = jobs_of(result)[0].took_s
    assert before is not None
    assert after is not None
    assert after - before > 150


def test_leaving_a_long_job_alone_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On two data planes with a job each, one watched from its start: the same end to the nanosecond, and all other tables."""

    def tables(folder: Path) -> dict[str, Any]:
        made = scenario(backlog(40_000, due="5min"), chat=poisson(5.0), seats=16)
        one = TokenLengths(family="fixed", mean=1)  # a row a step and seat: as fast as rows can go
        made.services["other"] = Service(workload=backlog(300_000, prompt=one, output=one), deployments=["second"])
        made.deployments["second"] = Deployment(pools=["gpu"], max_num_seqs=32)
        result = run(made, folder)
        return {f"{name}.{column}": values for name in TABLES for column, values in result.table(name).items()}

    slept: list[int] = []
    surely_busy_ns = batchjobs.Backlog._surely_busy_ns

    def noted(self: batchjobs.Backlog, work: Any) -> int:
        slept.append(surely_busy_ns(self, work))
        return slept[-1]

    monkeypatch.setattr(batchjobs.Backlog, "_surely_busy_ns", noted)
    alone = tables(tmp_path / "alone")
    assert len(slept) > 20
    assert max(slept) > NS_PER_S
    monkeypatch.setattr(batchjobs.Backlog, "_surely_busy_ns", lambda self, work: 0)
    watched = tables(tmp_path / "watched")
    assert alone["jobs.finished_ns"].min() > 0
    for name, values in alone.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(watched[name], values, rtol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(watched[name], values, err_msg=name)


def test_two_services_have_backlogs_of_their_own(tmp_path: Path) -> None:
    """The one of the higher priority goes first on the only seat."""
    made = scenario(backlog(50), backlog(50))
    made.services["batch_1"].priority = 1
    first, second = jobs_of(run(made, tmp_path))
    assert (first.service, second.service) == ("batch_0", "batch_1")
    assert first.took_s is not None
    # All rows of the preferred one first: it is also handed over first where both are submitted at one time.
    assert second.took_s == pytest.approx(first.took_s / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "grows"),
    [
        (Metric(name="outstanding", target=2.0), False),
        (Metric(name="waiting", target=2.0), False),
        (Metric(source="external", name="queue", target=2.0), False),
        (Metric(source="external", name="in_flight", target=2.0), False),
        (Metric(source="external", name="requests_per_s", target=3.0), False),
        (Metric(name="running", target=2.0), True),
        (Metric(name="busy", target=0.5), True),
    ],
)
def test_a_backlog_asks_for_no_replicas_unless_the_metric_is_of_the_engine(metric: Metric, grows: bool, tmp_path: Path) -> None:
    """A chat of one request a second and a million batch requests that make way for it."""
    autoscaler = Hpa(min_replicas=1, max_replicas=4, metrics=[metric])
    made = scenario(backlog(10**6), chat=poisson(1.0), seats=8, autoscaler=autoscaler, horizon="10min")
    assert (len(run(made, tmp_path).table("decisions")["after"]) > 0) is grows


def test_days_are_those_of_the_time_zone() -> None:
    """Berlin goes back an hour on 25 October 2026: 22:00 is 20:00 UTC the day before and 21:00 UTC from then on."""
    start = datetime(2026, 10, 24, 12, tzinfo=UTC)
    workload = backlog(submit_at="22:00", timezone="Europe/Berlin", due="2h")
    source = workload.open(StreamKey(1, 0, "workload", "batch"), start, 72 * NS_PER_HOUR)
    assert [job.submit_ns / NS_PER_HOUR for job in source.jobs] == [8.0, 33.0, 57.0]
    assert [job.due_ns for job in source.jobs] == [job.submit_ns + 2 * NS_PER_HOUR for job in source.jobs]


@pytest.mark.parametrize(("at", "hours"), [("2026-10-25T00:00:00Z", [12.0]), ("2h", [2.0]), ("2026-10-23", []), ("100h", [])])
def test_a_job_of_one_time(at: str, hours: list[float]) -> None:
    """A date, or a time since the start; one outside the run does not happen."""
    start = datetime(2026, 10, 24, 12, tzinfo=UTC)
    source = backlog(submit_at=at).open(StreamKey(1, 0, "workload", "batch"), start, 72 * NS_PER_HOUR)
    assert [job.submit_ns / NS_PER_HOUR for job in source.jobs] == hours


def test_jobs_of_the_same_service_draw_other_rows_and_the_same_each_time() -> None:
    """Rows belong to the seed, the service and the number of the job."""
    lengths = {"prompt": TokenLengths(), "output": TokenLengths()}
    workload, start = backlog(200_000, submit_at="00:00", **lengths), datetime(2026, 10, 24, tzinfo=UTC)
    source = workload.open(StreamKey(1, 0, "workload", "batch"), start, 48 * NS_PER_HOUR)
    rows = [[block.prompt_tokens.tolist() for block in job.blocks()] for job in (*source.jobs, source.jobs[0])]
    assert [len(block) for block in rows[0]] == [65_536, 65_536, 65_536, 3_392]
    assert rows[0] == rows[2]
    assert rows[0] != rows[1]


def test_a_job_from_a_file(tmp_path: Path) -> None:
    """Its rows in order of time; the times themselves do not matter."""
    file = tmp_path / "rows.csv"
    file.write_text("time,prompt_tokens,output_tokens\n5000,30,3\n1,10,1\n9,20,2\n")
    made = scenario(Backlog(path=str(file)), records="all")
    result = run(made, tmp_path)
    requests = result.table("requests")
    assert requests["prompt_tokens"].tolist() == [10, 20, 30]
    assert requests["arrival_ns"][1:].tolist() == requests["leave_ns"][:-1].tolist()  # taken when there is room
    assert list(result.manifest["inputs"]) == [str(file)]
    assert result.table("jobs")["requests"].tolist() == [3]


def test_summary_and_report_tell_of_jobs(tmp_path: Path) -> None:
    """Nine jobs: only those that were late are listed, and their sum; all in 80 columns."""
    made = scenario(backlog(50, submit_at="00:00", due="1h"), horizon="9d", window="1d")
    result = run(made, tmp_path)
    found = result.summary["services"]["batch_0"]["jobs"]
    assert (found["submitted"], found["in_time"], found["late"], found["requests"]) == (9, 9, 0, 450)
    assert found == summarize_jobs(jobs_of(result))
    text = terminal(result)
    assert "9 jobs" in text
    assert "9 in time" in text
    assert "0: 01-05 00:00" not in text
    made.services["batch_0"].workload.due = "1ns"  # type: ignore[attr-defined]
    text = terminal(run(made, tmp_path / "late"))
    assert "1: 01-06 00:00" in text
    assert "TTFT" not in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("results")) <= 80


def terminal(result: RunResult) -> str:
    """The report as printed."""
    console = Console(file=io.StringIO(), width=80)
    render(result, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_sheet_spreads_a_job_over_the_run() -> None:
    """36,000 requests in ten hours are one a second."""
    report = capacity_report(scenario(backlog(36_000), horizon="10h"))
    assert report.fleets[0].mean_rate_per_s == pytest.approx(1.0)


def test_the_sheet_says_how_long_a_job_takes_at_best() -> None:
    """One seat: n times the time of one, at the mean of its context; on two replicas half, and due before that is warned about."""
    made = scenario(backlog(1_000, due="1min"), replicas=2)
    report = capacity_report(made)
    [job] = report.jobs
    one_s = row_fx(made) / (1 << FRACTION_BITS) / NS_PER_S
    assert job.replica_s == pytest.approx(
        1_000 * one_s, rel=0.1
    )  # the sheet counts a seat as decoding while its prompt is computed
    assert job.at_best_s == pytest.approx(job.replica_s / 2)
    assert (job.jobs, job.requests, job.due_s) == (1, 1_000, 60.0)
    assert [warning for warning in report.warnings if "due after 60.00 s" in warning] != []
    assert capacity_report(scenario(backlog(10, due="1h"))).warnings == []


def test_everything_wrong_with_a_job_comes_at_once(tmp_path: Path) -> None:
    """What binds requests that arrive, wrong times, no requests, no seats, a batcher."""
    made = scenario(Backlog(submit_at="25:00", due="soon", timezone="Mars", prompt=TokenLengths(family="fixed")), backlog_seats=0)
    service = made.services["batch_0"]
    service.slo, service.queue_timeout_s, service.max_queue = Slo(ttft_s=1.0, tpot_s=1.0, e2e_s=1.0), 5.0, 3
    made.deployments["vision"] = Deployment(pools=["gpu"], batcher=DynamicBatcher(fixed_s=0.01), backlog_seats=4)
    made.services["pictures"] = Service(workload=backlog(), deployments=["vision"])
    made.services["file"] = Service(workload=Backlog(path=str(tmp_path / "none.csv")), deployments=["llama"])
    with pytest.raises(InputError) as caught:
        check(made)
    assert sorted(problem.path for problem in caught.value.problems) == [
        "deployments.vision.backlog_seats",
        "services.batch_0.deployments",
        "services.batch_0.max_queue",
        "services.batch_0.queue_timeout_s",
        "services.batch_0.slo.e2e_s",
        "services.batch_0.slo.tpot_s",
        "services.batch_0.slo.ttft_s",
        "services.batch_0.workload.due",
        "services.batch_0.workload.prompt.mean",
        "services.batch_0.workload.requests",
        "services.batch_0.workload.submit_at",
        "services.batch_0.workload.timezone",
        "services.file.deployments",
        "services.file.workload.path",
        "services.pictures.workload",
    ]
