"""The figures of a run: one function each, from a saved run to a matplotlib Figure, without pyplot and its global state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from sim.report.figures.budget import slo_burn_down
from sim.report.figures.budget_months import budget_by_month
from sim.report.figures.carbon import carbon_and_load
from sim.report.figures.cost import cost_stack
from sim.report.figures.fleet import demand_and_replicas
from sim.report.figures.latency_cdf import latency_cdfs
from sim.report.figures.latency_time import latency_over_time
from sim.report.figures.queue import queue_over_time
from sim.report.figures.trend import cost_and_latency_trend
from sim.report.figures.waterfall import months_compared, why_dearer
from sim.results.periods import Calendar
from sim.results.records import RunResult


@dataclass(frozen=True)
class Chart:
    """A figure of the report.

    Parameters
    ----------
    name : of its files. heading : above it. caption : how to read it. draw : makes it.
    long_runs : whether it is only for runs of four weeks or more. several_months : only for those of which there is a month before.
    with_energy : only for those that drew any.
    """

    name: str
    heading: str
    caption: str
    draw: Callable[[RunResult], Figure]
    long_runs: bool = False
    several_months: bool = False
    with_energy: bool = False


def charts_of(result: RunResult) -> tuple[Chart, ...]:
    """Return the figures that are worth drawing for a run."""
    is_long = Calendar.of(result.manifest["scenario"]).is_long
    several = months_compared(result) is not None
    with_energy = bool(result.summary["energy"]["kwh"])
    return tuple(
        chart
        for chart in CHARTS
        if (is_long or not chart.long_runs) and (several or not chart.several_months) and (with_energy or not chart.with_energy)
    )


CHARTS = (
    Chart(
        "demand_and_replicas",
        "Demand against replicas",
        "Above, arrivals per second, mean of each reporting window. Below, replicas by state, exact in time: booting "
        "from the request for a replica until it is ready, draining from the order to leave until it is gone. A "
        "triangle marks a decision at the number it asked for, a cross replicas that were lost.",
        demand_and_replicas,
    ),
    Chart(
        "latency_cdfs",
        "Latency distributions",
        "Share of all requests that left (after the warm-up) whose latency was at most so long. Requests that were "
        "not served have no latency, so a curve ends below 100 % where there were any; an answer of one token has no "
        "TPOT and cannot miss its target. The diamond is the SLO attainment.",
        latency_cdfs,
    ),
    Chart(
        "latency_over_time",
        "Latency over time",
        "Percentiles of the requests that completed in each reporting window, by stream (service and segment). A gap "
        "is a window without completions.",
        latency_over_time,
    ),
    Chart(
        "queue_over_time",
        "Queue and requests not served",
        "Above, requests that waited for a place in a batch, time mean of each window. Below, requests that left "
        "without an answer: rejected on arrival, abandoned after the queue timeout, or failed after all attempts.",
        queue_over_time,
    ),
    Chart(
        "slo_burn_down",
        "Error budgets",
        "A goal of 99 % allows 1 % of the run's requests to be bad: that is the error budget. Each bad request burns "
        "a part of it when it leaves. Below 0 more requests were bad than the goal allows in the whole run, so the "
        "goal is missed whatever follows. Thick pieces that end in a dot are the windows that burnt most.",
        slo_burn_down,
    ),
    Chart(
        "cost_stack",
        "Where the money went",
        "The bill by calendar day (hour in a run under two days) of the account's zone. Every charge is split exactly"
        " into work (busy, by the service that pays) and booting, idle, draining and lost time. The first and the "
        "last bar can be partial.",
        cost_stack,
    ),
    Chart(
        "carbon_and_load",
        "Carbon against load",
        "Hours of the day of the account's zone, all days together (hours of the run where it is under two days). Energy is that "
        "at the meter, PUE included; the intensity is the mean of what was drawn; tokens are those of requests that completed in "
        "the hour. An intensity that never changes has no panel, and no hour is then cleaner than another.",
        carbon_and_load,
        with_energy=True,
    ),
    Chart(
        "cost_and_latency_trend",
        "Cost and latency week by week",
        "Steps are calendar weeks of each service's time zone. Percentiles are those of all completions of a week, pooled "
        "from integer histograms. Pale weeks lie only partly in the run.",
        cost_and_latency_trend,
        long_runs=True,
    ),
    Chart(
        "budget_by_month",
        "Error budgets month by month",
        "Each calendar month has an error budget of its own: the share of that month's requests that the goal allows to be "
        "bad. Bars show when an alert on the burn rate would have fired; the table of burn rates says what each of them "
        "looks at.",
        budget_by_month,
        long_runs=True,
    ),
    Chart(
        "why_dearer",
        "Why a month was dearer than the one before",
        "The last two whole months of the run, else its last two: from the bill of one to that of the other. The causes are "
        "Shapley values, so they add up to the difference in whatever order they are read; overheads are what was paid for "
        "idle, booting, draining and lost time beside work. Causes below a thousandth of the bill are one bar.",
        why_dearer,
        long_runs=True,
        several_months=True,
    ),
)

__all__ = [
    "CHARTS",
    "Chart",
    "budget_by_month",
    "carbon_and_load",
    "charts_of",
    "cost_and_latency_trend",
    "cost_stack",
    "demand_and_replicas",
    "latency_cdfs",
    "latency_over_time",
    "queue_over_time",
    "slo_burn_down",
    "why_dearer",
]
