"""The rate over time: profile, growth, events and noise against closed forms."""

from datetime import UTC, datetime
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.rng import StreamKey
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_S
from sim.workload.presets import week_weights
from sim.workload.rates import HOURS_PER_WEEK, MONTH_NS, RateEvent, RateModel, hour_nodes

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
WEEK_NS = 7 * NS_PER_DAY
KEY = StreamKey(1, 0, "", "chat")


def hourly_means(model, start, hours):
    edges, rates = joined(model.planned(start, hours * NS_PER_HOUR))
    requests = rates * np.diff(edges) / NS_PER_S
    return np.add.reduceat(requests, np.searchsorted(edges[:-1], np.arange(hours) * NS_PER_HOUR)) / 3600


def joined(chunks):
    """Edges and rates of all cells; cells before the start and behind the horizon are empty and left out."""
    chunks = list(chunks)
    edges = np.concatenate([chunks[0].edges_ns[:1], *(chunk.edges_ns[1:] for chunk in chunks)])
    real = np.flatnonzero(np.diff(edges) > 0)
    return np.append(edges[real], edges[real[-1] + 1]), np.concatenate([chunk.rate_per_s for chunk in chunks])[real]


def test_every_hour_of_the_profile_keeps_its_mean():
    weights = np.asarray(week_weights("azure-2024-conv"))
    means = hourly_means(RateModel(4.0, weights), MONDAY, HOURS_PER_WEEK)
    np.testing.assert_allclose(means, 4.0 * weights / weights.mean(), rtol=1e-12)


def test_the_profile_does_not_jump_on_the_hour():
    _, rates = joined(RateModel(1.0, week_weights("azure-2024-conv")).planned(MONDAY, WEEK_NS))
    nodes = hour_nodes(week_weights("azure-2024-conv"))
    steepest_per_minute = np.abs(np.diff(np.append(nodes, nodes[0]))).max() / 60
    assert np.abs(np.diff(rates)).max() <= steepest_per_minute * (1 + 1e-9)


def test_a_ragged_profile_keeps_the_mean_of_the_week_and_stays_positive():
    weights = np.zeros(HOURS_PER_WEEK)
    weights[[10, 99]] = 1.0
    means = hourly_means(RateModel(3.0, weights), MONDAY, HOURS_PER_WEEK)
    assert means.min() >= 0
    assert means.mean() == pytest.approx(3.0, rel=1e-12)
    assert means[10] == pytest.approx(3.0 * 84 * 6 / 8, rel=1e-12)


def test_a_start_in_the_middle_of_an_hour_reads_the_right_weights():
    weights = week_weights("azure-2024-conv")
    whole = hourly_means(RateModel(1.0, weights), MONDAY, HOURS_PER_WEEK)
    shifted_edges, shifted = joined(RateModel(1.0, weights).planned(datetime(2026, 1, 7, 13, 17, 30, tzinfo=UTC), 10 * NS_PER_HOUR))
    assert shifted_edges[0] == 0
    assert shifted_edges[-1] == 10 * NS_PER_HOUR
    first_full_hour = (shifted_edges[:-1] >= 2550 * NS_PER_S) & (shifted_edges[:-1] < (2550 + 3600) * NS_PER_S)
    assert shifted[first_full_hour].mean() == pytest.approx(whole[2 * 24 + 14], rel=1e-12)


def test_calendar_time_is_utc_whatever_the_zone_of_the_start():
    start = datetime.fromisoformat("2026-01-05T02:00:00+02:00")
    there = joined(RateModel(1.0, week_weights("azure-2024-conv")).planned(start, WEEK_NS))
    here = joined(RateModel(1.0, week_weights("azure-2024-conv")).planned(MONDAY, WEEK_NS))
    np.testing.assert_array_equal(there[1], here[1])


def test_growth_compounds_by_the_month():
    edges, rates = joined(RateModel(2.0, growth_per_month=0.1).planned(MONDAY, int(12 * MONTH_NS)))
    middles = (edges[:-1] + edges[1:]) / 2
    np.testing.assert_allclose(rates, 2.0 * np.exp(log(1.1) * middles / MONTH_NS), rtol=1e-6)
    mean, peak = RateModel(2.0, growth_per_month=0.1).mean_and_peak_per_s(MONDAY, int(12 * MONTH_NS))
    assert mean == pytest.approx(2.0 * (1.1**12 - 1) / (12 * log(1.1)), rel=1e-6)
    assert peak == pytest.approx(2.0 * 1.1**12, rel=1e-4)


@given(st.integers(0, 10_000), st.integers(1, 10_000), st.floats(0, 20))
def test_an_event_adds_exactly_its_requests(start_s, duration_s, factor):
    horizon_ns = 6 * NS_PER_HOUR
    event = RateEvent(start_s * NS_PER_S, duration_s * NS_PER_S, factor)
    mean, peak = RateModel(3.0, events=(event,)).mean_and_peak_per_s(MONDAY, horizon_ns)
    inside_s = min(start_s + duration_s, 21_600) - min(start_s, 21_600)
    assert mean == pytest.approx(3.0 * (1 + (factor - 1) * inside_s / 21_600), rel=1e-9)
    assert peak <= 3.0 * max(1.0, factor) * (1 + 1e-12)


def test_a_launch_rises_stays_and_falls_back_by_halves():
    hour = NS_PER_HOUR
    launch = RateEvent(2 * hour, 3 * hour, 5.0, rise_ns=4 * hour, half_life_ns=6 * hour)
    edges, rates = joined(RateModel(10.0, events=(launch,)).planned(MONDAY, 40 * hour))

    def factor_at(hours):
        return rates[np.searchsorted(edges, hours * hour)] / 10.0

    assert factor_at(1) == pytest.approx(1.0, rel=1e-12)
    assert factor_at(4) == pytest.approx(3.0, abs=0.01)  # half way up; a cell is a minute
    assert [factor_at(6), factor_at(8)] == pytest.approx([5.0, 5.0], rel=1e-12)
    assert [factor_at(hours) for hours in (9, 15, 21, 27)] == pytest.approx([5.0, 3.0, 2.0, 1.5], abs=0.01)


@given(st.integers(-10_000, 30_000), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 20))
def test_the_shape_of_an_event_adds_exactly_its_area(start_s, rise_s, lasts_s, half_s, factor):
    """By hand: half of the rise, the whole of the stay, and of the fall half_s / ln 2 less what is left of it at the horizon."""
    horizon_s = 200_000
    event = RateEvent(*(seconds * NS_PER_S for seconds in (start_s, lasts_s)), factor, rise_s * NS_PER_S, half_s * NS_PER_S)
    mean, peak = RateModel(3.0, events=(event,)).mean_and_peak_per_s(MONDAY, horizon_s * NS_PER_S)
    low_s, top_s, end_s = start_s, start_s + rise_s, start_s + rise_s + lasts_s
    risen_s = max(top_s, 0) - max(low_s, 0)  # what lies in the run, and the mean height of the line there
    area_s = risen_s * ((max(low_s, 0) - low_s) + (max(top_s, 0) - low_s)) / (2 * rise_s) if rise_s else 0.0
    area_s += max(end_s, 0) - max(top_s, 0)
    if half_s:
        area_s += half_s / log(2) * (2 ** (-max(-end_s, 0) / half_s) - 2 ** (-(horizon_s - end_s) / half_s))
    assert mean * horizon_s == pytest.approx(3.0 * (horizon_s + (factor - 1) * area_s), rel=1e-9)
    assert peak <= 3.0 * max(1.0, factor) * (1 + 1e-12)


def test_the_fall_of_an_event_is_as_smooth_a_year_later():
    """A difference of two integrals since the start would be lost in the last bits here."""
    half_life_ns = 100 * NS_PER_DAY
    event = RateEvent(0, 0, 3.0, half_life_ns=half_life_ns)
    edges = 400 * NS_PER_DAY + np.arange(200) * 60 * NS_PER_S
    expected = 1 + 2 * 2 ** (-(edges[:-1] + 30.0 * NS_PER_S) / half_life_ns)
    np.testing.assert_allclose(event.mean_factor(edges), expected, rtol=1e-12)


def test_noise_has_mean_one_and_the_covariance_of_the_process():
    sd, tau_s = 0.23, 300.0
    model = RateModel(1.0, noise_sd=sd, noise_tau_s=tau_s)
    cell_s = model.cell_ns / NS_PER_S
    assert cell_s <= tau_s / 20
    _, factor = joined(model.chunks(KEY, MONDAY, 20 * WEEK_NS))
    level = np.log(factor) + sd * sd / 2
    independent = len(level) * cell_s / (2 * tau_s)  # effective sample size of an AR(1) mean
    assert abs(level.mean()) < 4 * sd / sqrt(independent)
    assert abs(factor.mean() - 1) < 4 * sqrt(exp(sd * sd) - 1) / sqrt(independent)
    for lag in (1, 20, 60):
        expected = sd * sd * exp(-lag * cell_s / tau_s)
        measured = float(np.mean(level[:-lag] * level[lag:]))
        assert abs(measured - expected) < 4 * sd * sd * sqrt(2 / independent)


def test_noise_does_not_depend_on_the_horizon():
    model = RateModel(1.0, noise_sd=0.3, noise_tau_s=300)
    short = joined(model.chunks(KEY, MONDAY, NS_PER_DAY))[1]
    long = joined(model.chunks(KEY, MONDAY, 3 * NS_PER_DAY))[1]
    np.testing.assert_array_equal(long[: NS_PER_DAY // model.cell_ns], short[: NS_PER_DAY // model.cell_ns])


@pytest.mark.parametrize("weights", [np.ones(167), -np.ones(168), np.zeros(168), np.full(168, np.nan)])
def test_a_profile_that_is_none_is_refused(weights):
    with pytest.raises(ValueError, match="168 weights"):
        hour_nodes(weights)
