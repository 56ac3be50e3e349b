"""Generated traffic: burstiness at every scale, common random numbers, configuration problems."""

from datetime import UTC, datetime
from math import exp, sqrt

import numpy as np
import pytest
from scipy import integrate

from sim.domain.traffic import BLOCK_DTYPES, BLOCK_REQUESTS
from sim.errors import InputError, Problems
from sim.rng import StreamKey
from sim.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_S
from sim.workload.base import Workload, random_words
from sim.workload.specs import Event, TokenLengths
from sim.workload.synthetic import Poisson, Synthetic

START = datetime(2026, 1, 5, tzinfo=UTC)
KEY = StreamKey(11, 0, "", "chat")


def column(source, name):
    return np.concatenate([getattr(block, name) for block in source.blocks()])


def expected_dispersion(rate, cv, sd, tau_s, window_s):
    """Variance over mean of the counts in a window: cv^2 of the renewals + the variance of the integral of the rate."""
    covariance = integrate.quad(lambda u: (window_s - u) * (exp(sd * sd * exp(-u / tau_s)) - 1), 0, window_s)[0]
    return cv * cv + rate * 2 * covariance / window_s


def test_chat_is_as_bursty_as_its_model_at_every_scale():
    hours, parts = 600, 30
    source = Synthetic(rate_per_s=5.53, week_profile="flat").open(KEY, START, hours * NS_PER_HOUR)
    seconds = np.bincount(column(source, "arrival_ns") // NS_PER_S, minlength=hours * 3600).reshape(parts, -1)
    for window_s in (1, 10, 60, 300):
        counts = seconds.reshape(parts, -1, window_s).sum(axis=2)
        dispersion = counts.var(axis=1, ddof=1) / counts.mean()
        expected = expected_dispersion(5.53, 1.05, 0.23, 300.0, window_s)
        # A window of a second holds too few gaps for the renewal limit cv^2; 3 % covers the difference to 1.
        error = dispersion.std(ddof=1) / sqrt(parts)
        assert abs(dispersion.mean() - expected) < 4 * error + 0.03 * (window_s == 1)


def test_the_mean_rate_over_weeks_is_the_asked_one():
    weeks, rate = 6, 2.0
    source = Synthetic(rate_per_s=rate).open(KEY, START, weeks * 7 * NS_PER_DAY)
    count = sum(map(len, source.blocks()))
    horizon_s = weeks * 7 * 86_400
    expected = rate * horizon_s
    # The noise multiplies weights whose mean square is above 1: 1.3 bounds that of the profile.
    deviation = sqrt(expected * 1.3 * expected_dispersion(rate, 1.05, 0.23, 300.0, 86_400))
    assert abs(count - expected) < 4 * deviation


def test_the_same_key_gives_the_same_bytes_and_another_does_not():
    workload = Synthetic(rate_per_s=40.0)
    source, again = (workload.open(KEY, START, NS_PER_HOUR) for _ in range(2))
    other = workload.open(StreamKey(11, 1, "", "chat"), START, NS_PER_HOUR)
    for name in BLOCK_DTYPES:
        assert column(source, name).tobytes() == column(again, name).tobytes() == column(source, name).tobytes()
    assert column(source, "arrival_ns").tobytes() != column(other, "arrival_ns").tobytes()
    assert column(source, "prompt_tokens").tobytes() != column(other, "prompt_tokens").tobytes()


def test_a_block_of_lengths_needs_no_block_before_it():
    source = Synthetic(rate_per_s=60.0).open(KEY, START, 2 * NS_PER_HOUR)
    tags = column(source, "tag")
    alone = random_words(KEY.about("workload/requests"), 3, BLOCK_REQUESTS)
    np.testing.assert_array_equal(tags[3 * BLOCK_REQUESTS : 4 * BLOCK_REQUESTS], alone)


def test_services_share_no_draws():
    chat, code = (Synthetic().open(StreamKey(1, 0, "", name), START, NS_PER_HOUR) for name in ("chat", "code"))
    assert not set(column(chat, "tag").tolist()) & set(column(code, "tag").tolist())
    assert not set(column(chat, "arrival_ns").tolist()) & set(column(code, "arrival_ns").tolist())


def test_a_longer_horizon_or_another_length_moves_no_arrival():
    short = column(Synthetic().open(KEY, START, NS_PER_HOUR), "arrival_ns")
    long = column(Synthetic().open(KEY, START, 5 * NS_PER_HOUR), "arrival_ns")
    fixed = column(Synthetic(prompt=TokenLengths(family="fixed", mean=9)).open(KEY, START, NS_PER_HOUR), "arrival_ns")
    np.testing.assert_array_equal(long[: len(short)], short)
    np.testing.assert_array_equal(fixed, short)


def test_segments_and_events_reach_the_requests():
    workload = Synthetic(
        rate_per_s=50.0,
        week_profile="flat",
        noise_sd=0.0,
        segments={"free": 3, "paid": 1},
        events={"outage": Event(at="1h", lasts="30min", factor=0.0)},
    )
    source = workload.open(KEY, START, 2 * NS_PER_HOUR)
    assert source.segments == ("free", "paid") == workload.segment_names()
    times_ns, streams = column(source, "arrival_ns"), column(source, "stream")
    assert not np.any((times_ns >= NS_PER_HOUR) & (times_ns < 3 * NS_PER_HOUR // 2))
    assert abs(np.mean(streams == 1) - 0.25) < 4 * sqrt(0.1875 / len(streams))


def test_expected_load_is_what_is_generated():
    workload = Synthetic(
        rate_per_s=30.0, noise_sd=0.0, events={"launch": Event(at="2h", rise="20min", lasts="1h", factor=3.0, decay="30min")}
    )
    load = workload.expected_load(START, 6 * NS_PER_HOUR)
    source = workload.open(KEY, START, 6 * NS_PER_HOUR)
    times_ns = column(source, "arrival_ns")
    assert abs(len(times_ns) - load.mean_rate_per_s * 21_600) < 4 * 1.05 * sqrt(len(times_ns))
    busiest = np.bincount(times_ns // (60 * NS_PER_S)).max() / 60
    assert busiest == pytest.approx(load.peak_rate_per_s, rel=0.1)
    assert column(source, "output_tokens").mean() == pytest.approx(load.mean_output_tokens, rel=0.01)


def test_poisson_of_the_peers_has_fixed_lengths():
    source = Poisson(rate_per_s=1.0).open(KEY, START, NS_PER_HOUR)
    assert set(column(source, "prompt_tokens").tolist()) == {512}
    assert set(column(source, "output_tokens").tolist()) == {128}
    assert abs(sum(map(len, source.blocks())) - 3_600) < 4 * 60


def paths(workload):
    problems = Problems()
    workload.problems("services.chat.workload", problems)
    return {problem.path.removeprefix("services.chat.workload"): problem for problem in problems.found}


def test_every_problem_is_found_at_once():
    found = paths(
        Synthetic(
            preset="chat-azure-2032",
            rate_per_s=-1.0,
            renewal_family="gama",
            renewal_cv=0.0,
            noise_tau_s=1.0,
            week_profile="flatt",
            prompt=TokenLengths(family="fixed", mean=2.5),
            output=TokenLengths(family="lognormal_mixture", weights=[1.0], log_mean=[5.0, 6.0], log_sd=[0.0], cap=0),
            events={"launch": Event(at="soon", factor=-1.0, rise="1x", decay="later")},
            segments={"free": 0.0},
        )
    )
    assert set(found) == {
        ".preset", ".rate_per_s", ".renewal_family", ".renewal_cv", ".noise_tau_s", ".week_profile", ".prompt.mean",
        ".output.log_mean", ".output.log_sd", ".output.cap", ".events.launch.at", ".events.launch.rise",
        ".events.launch.decay", ".events.launch.factor", ".segments.free",
    }  # fmt: skip
    assert found[".preset"].nearest == "chat-azure-2023"
    assert found[".renewal_family"].nearest == "gamma"
    assert found[".week_profile"].nearest == "flat"
    assert "20,000" in found[".rate_per_s"].allowed


@pytest.mark.parametrize("weights", [[1.0] * 23, [-1.0] + [1.0] * 167, [0.0] * 24, [float("nan")] * 168])
def test_weights_that_are_none_are_named(weights):
    assert list(paths(Synthetic(week_weights=weights))) == [".week_weights"]


def test_a_profile_and_weights_of_one_s_own_are_one_too_many():
    assert list(paths(Synthetic(week_profile="flat", week_weights=[1.0] * 24))) == [".week_profile"]


def test_weights_of_a_day_hold_on_every_day_whatever_their_sum():
    day = [3.0] * 8 + [9.0] * 8 + [6.0] * 8
    quiet = {"noise_sd": 0.0, "rate_per_s": 12.0}
    daily, weekly = (Synthetic(week_weights=weights, **quiet) for weights in (day, day * 7))
    mean, peak = (
        daily.expected_load(START, 7 * NS_PER_DAY).mean_rate_per_s,
        daily.expected_load(START, NS_PER_DAY).peak_rate_per_s,
    )
    assert mean == pytest.approx(12.0, rel=1e-12)
    assert 18.0 <= peak < 21.0  # nodes overshoot at a step, so that every hour keeps its mean
    counts = np.bincount(column(daily.open(KEY, START, 2 * NS_PER_DAY), "arrival_ns") // NS_PER_DAY)
    assert abs(counts / 86_400 - 12.0).max() < 4 * 1.05 * sqrt(12.0 / 86_400)
    same = (column(workload.open(KEY, START, NS_PER_DAY), "arrival_ns") for workload in (daily, weekly))
    np.testing.assert_array_equal(*same)


def test_an_event_is_dated_by_the_calendar_or_since_the_start():
    late = datetime(2026, 1, 5, 6, 30, tzinfo=UTC)
    for at, hours in (("2026-01-06", 17.5), ("2026-01-06T06:00:00+05:30", 18.0), ("36h", 36.0), ("2026-01-04T00:00:00Z", -30.5)):
        assert Event(at=at).resolved(late).start_ns == hours * NS_PER_HOUR


def test_a_rate_that_grows_beyond_what_can_be_generated_is_refused():
    workload = Synthetic(rate_per_s=10_000.0, week_profile="flat", noise_sd=0.0, growth_per_month=1.0)
    workload.open(KEY, START, 30 * NS_PER_DAY)  # 19,800 at its end
    with pytest.raises(InputError, match=r"becomes 20,\d+ requests a second"):
        workload.open(KEY, START, 31 * NS_PER_DAY)
    # Two factors that are never high at the same time are no problem, though their product would be.
    apart = {"one": Event(at="1h", factor=1.9), "two": Event(at="5h", factor=1.9)}
    Synthetic(rate_per_s=10_000.0, week_profile="flat", events=apart).open(KEY, START, NS_PER_DAY)


@pytest.mark.parametrize(
    ("lengths", "path"),
    [
        (TokenLengths(family="fixd"), ".family"),
        (TokenLengths(family="fixed"), ".mean"),
        (TokenLengths(family="geometric", mean=0.5), ".mean"),
        (TokenLengths(family="lognormal_mixture", weights=[], log_mean=[], log_sd=[]), ".weights"),
        (TokenLengths(family="lognormal_mixture", log_mean=[float("nan")], log_sd=[1.0]), ".log_mean"),
        (TokenLengths(family="empirical", probabilities=[0, 0.5], tokens=[1, 2]), ".probabilities"),
        (TokenLengths(family="empirical", probabilities=[0, 1], tokens=[5, 2]), ".tokens"),
    ],
)
def test_lengths_that_are_none_are_named(lengths, path):
    assert list(paths(Poisson(prompt=lengths))) == [f".prompt{path}"]


def test_good_configurations_have_no_problems():
    mixture = TokenLengths(family="lognormal_mixture", log_mean=[5.0], log_sd=[1.0])
    quantiles = TokenLengths(family="empirical", probabilities=[0, 1], tokens=[2, 5])
    assert not paths(Synthetic())
    assert not paths(Synthetic(prompt=mixture, output=quantiles, events={"none": Event()}, segments={"a": 1.0}))
    assert not paths(Poisson())


def test_no_workload_is_a_problem():
    found = paths(Workload())
    assert "synthetic" in found[""].allowed
