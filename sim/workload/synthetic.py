"""Open traffic that is generated: `synthetic` (a preset of a real service) and `poisson` (theory, benchmarks)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sim.domain.traffic import RequestBlock, Source
from sim.errors import InputError, Problem, Problems
from sim.registry import register
from sim.rng import StreamKey
from sim.workload.arrivals import FAMILIES, MAX_CV, GapTable, arrival_blocks, gap_table
from sim.workload.base import ExpectedLoad, OpenedSource, Workload, is_positive, random_words
from sim.workload.lengths import RequestLengths, SegmentShares
from sim.workload.presets import check_preset, check_week_profile, preset, week_weights
from sim.workload.rates import MONTH_NS, RateModel, hour_nodes
from sim.workload.specs import (
    Event,
    TokenLengths,
    check_segments,
    check_week_weights,
    segment_names,
    segment_shares,
    whole_week,
)
from sim.workload.users import UserPools, check_users, users_of

# The longest gap sums and the integral of one chunk of rate stay inside 63 bits up to here.
MAX_RATE_PER_S = 20_000.0


@dataclass(frozen=True)
class OpenArrivals:
    """A generator of open arrivals: rate, gaps, lengths and segments.

    Parameters
    ----------
    rate : requests per second over time. gaps : renewal gaps of mean 1. lengths : tokens. segments : who sends.
    users : whose request it is among those of the segment; None where that is not known.
    """

    rate: RateModel
    gaps: GapTable
    lengths: RequestLengths
    segments: SegmentShares
    users: UserPools | None = None

    def blocks(self, key: StreamKey, start: datetime, horizon_ns: int) -> Iterator[RequestBlock]:
        """Yield the arrivals before the horizon; one random word has lengths, segment and tag of a request, another its user.

        Parameters
        ----------
        key : random streams of the service. start : calendar instant of time 0. horizon_ns : end, in nanoseconds.
        """
        words_of, users_key = key.about("workload/requests"), key.about("workload/users")
        chunks = self.rate.chunks(key, start, horizon_ns)
        for number, times_ns in enumerate(arrival_blocks(self.gaps, chunks, key)):
            words = random_words(words_of, number, len(times_ns))
            prompt, output = self.lengths.draw(words)
            stream = self.segments.draw(words)
            senders = {} if self.users is None else {"client": self.users.draw(random_words(users_key, number, len(words)), stream)}
            yield RequestBlock.of(
                arrival_ns=times_ns, prompt_tokens=prompt, output_tokens=output, stream=stream, tag=words, **senders
            )


@register("workload", "synthetic")
@dataclass
class Synthetic(Workload):
    """Traffic of a preset: rate(t) = base x hour-of-week weight x growth x events x exp(OU - sd^2/2), then a renewal process.

    Parameters
    ----------
    preset : name in the catalog; every other field left at None keeps the preset's value.
    rate_per_s : mean over a week, before growth. renewal_family : gamma, weibull, lognormal, exponential or deterministic.
    renewal_cv : coefficient of variation of the gaps. noise_sd, noise_tau_s : slow noise of the log rate.
    week_profile : name in the catalog, or "flat". week_weights : weights of one's own in its place, of the 24 hours of every day
        or of the 168 of a week from Monday 00:00 UTC; only their proportions count.
    prompt, output : lengths. spearman : their rank correlation.
    growth_per_month : 0.1 is 10 % a month, compounded. events : name -> dated factor. segments : name -> share.
    users : segment -> how many users it has; none are known where it is empty. user_skew : the k-th most active user of a segment
        sends k^-user_skew as much as the first; 0 for equally active ones.
    """

    preset: str = "chat-azure-2023"
    rate_per_s: float | None = None
    renewal_family: str = "gamma"
    renewal_cv: float | None = None
    noise_sd: float | None = None
    noise_tau_s: float | None = None
    week_profile: str | None = None
    week_weights: list[float] = field(default_factory=list)
    prompt: TokenLengths = field(default_factory=TokenLengths)
    output: TokenLengths = field(default_factory=TokenLengths)
    spearman: float | None = None
    growth_per_month: float = 0.0
    events: dict[str, Event] = field(default_factory=dict)
    segments: dict[str, float] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=dict)
    user_skew: float = 0.0

    def problems(self, path: str, problems: Problems) -> None:
        """Add everything that is wrong with the configuration."""
        check_preset(self.preset, f"{path}.preset", problems)
        if self.rate_per_s is not None:
            check_rate(self.rate_per_s, f"{path}.rate_per_s", problems)
        problems.check(
            self.renewal_family in FAMILIES,
            f"{path}.renewal_family",
            self.renewal_family,
            "is not a family of gaps",
            choices=FAMILIES,
        )
        bounds: tuple[tuple[str, float | None, float, float], ...] = (
            ("renewal_cv", self.renewal_cv, 0.01, MAX_CV),
            ("noise_sd", self.noise_sd, 0.0, 2.0),
            ("noise_tau_s", self.noise_tau_s, 10.0, 1e6),
            ("spearman", self.spearman, -0.99, 0.99),
            ("growth_per_month", self.growth_per_month, -0.9, 9.0),
        )
        for name, value, low, high in bounds:
            within = value is None or low <= value <= high
            problems.check(within, f"{path}.{name}", value, "is out of range", f"{low:g} to {high:g}")
        if self.week_profile is not None:
            check_week_profile(self.week_profile, f"{path}.week_profile", problems)
        if self.week_weights:
            check_week_weights(self.week_weights, f"{path}.week_weights", problems)
            both = self.week_profile is not None
            problems.check(not both, f"{path}.week_profile", self.week_profile, "is replaced by week_weights: give one of the two")
        self.prompt.problems(f"{path}.prompt", problems)
        self.output.problems(f"{path}.output", problems)
        for name, event in self.events.items():
            event.problems(f"{path}.events.{name}", problems)
        check_segments(self.segments, f"{path}.segments", problems)
        check_users(self.users, self.user_skew, self.segment_names(), path, problems)

    def segment_names(self) -> tuple[str, ...]:
        """Return the names of the segments."""
        return segment_names(self.segments)

    def expected_load(self, start: datetime, horizon_ns: int) -> ExpectedLoad:
        """Return planned mean and peak rate over the horizon and the mean lengths."""
        mean_per_s, peak_per_s = self._rate(start).mean_and_peak_per_s(start, horizon_ns)
        lengths = self._lengths()
        return ExpectedLoad(mean_per_s, peak_per_s, lengths.prompt.mean, lengths.output.mean)

    def open(self, key: StreamKey, start: datetime, horizon_ns: int) -> Source:
        """Open the generator; see `Workload.open`.

        Raises
        ------
        InputError : growth and events take the rate higher than can be generated.
        """
        base = preset(self.preset)
        cv = base.renewal_cv if self.renewal_cv is None else self.renewal_cv
        rate = self._rate(start)
        check_peak(rate, start, horizon_ns)
        users = users_of(self.users, self.segment_names())
        arrivals = OpenArrivals(
            rate,
            gap_table(self.renewal_family, cv),
            self._lengths(),
            SegmentShares(segment_shares(self.segments)),
            UserPools(users, self.user_skew) if users else None,
        )
        return OpenedSource(lambda: arrivals.blocks(key, start, horizon_ns), segments=self.segment_names(), users=sum(users))

    def _rate(self, start: datetime) -> RateModel:
        base = preset(self.preset)
        profile = base.week_profile if self.week_profile is None else self.week_profile
        return RateModel(
            base_per_s=base.base_rate_per_s if self.rate_per_s is None else self.rate_per_s,
            weights=whole_week(self.week_weights) if self.week_weights else week_weights(profile),
            noise_sd=base.noise_sd if self.noise_sd is None else self.noise_sd,
            noise_tau_s=base.noise_tau_s if self.noise_tau_s is None else self.noise_tau_s,
            growth_per_month=self.growth_per_month,
            events=tuple(event.resolved(start) for _, event in sorted(self.events.items())),
        )

    def _lengths(self) -> RequestLengths:
        base = preset(self.preset)
        spearman = base.spearman if self.spearman is None else self.spearman
        return RequestLengths(self.prompt.distribution(base.prompt), self.output.distribution(base.output), spearman)


@register("workload", "poisson")
@dataclass
class Poisson(Workload):
    """Poisson arrivals at a constant rate, with independent prompt and output lengths.

    Parameters
    ----------
    rate_per_s : requests per second. lengths_preset : whose mixtures the family "preset" means.
    prompt, output : lengths. segments : name -> share. users, user_skew : as of `Synthetic`.
    """

    rate_per_s: float = 1.0
    lengths_preset: str = "chat-azure-2023"
    prompt: TokenLengths = field(default_factory=lambda: TokenLengths(family="fixed", mean=512))
    output: TokenLengths = field(default_factory=lambda: TokenLengths(family="fixed", mean=128))
    segments: dict[str, float] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=dict)
    user_skew: float = 0.0

    def problems(self, path: str, problems: Problems) -> None:
        """Add everything that is wrong with the configuration."""
        check_rate(self.rate_per_s, f"{path}.rate_per_s", problems)
        check_preset(self.lengths_preset, f"{path}.lengths_preset", problems)
        self.prompt.problems(f"{path}.prompt", problems)
        self.output.problems(f"{path}.output", problems)
        check_segments(self.segments, f"{path}.segments", problems)
        check_users(self.users, self.user_skew, self.segment_names(), path, problems)

    def segment_names(self) -> tuple[str, ...]:
        """Return the names of the segments."""
        return segment_names(self.segments)

    def expected_load(self, start: datetime, horizon_ns: int) -> ExpectedLoad:
        """Return the rate and the mean lengths."""
        lengths = self._lengths()
        return ExpectedLoad(self.rate_per_s, self.rate_per_s, lengths.prompt.mean, lengths.output.mean)

    def open(self, key: StreamKey, start: datetime, horizon_ns: int) -> Source:
        """Open the generator; see `Workload.open`."""
        segments = SegmentShares(segment_shares(self.segments))
        users = users_of(self.users, self.segment_names())
        pools = UserPools(users, self.user_skew) if users else None
        arrivals = OpenArrivals(RateModel(self.rate_per_s), gap_table("exponential", 1.0), self._lengths(), segments, pools)
        return OpenedSource(lambda: arrivals.blocks(key, start, horizon_ns), segments=self.segment_names(), users=sum(users))

    def _lengths(self) -> RequestLengths:
        base = preset(self.lengths_preset)
        return RequestLengths(self.prompt.distribution(base.prompt), self.output.distribution(base.output), spearman=0.0)


def check_peak(rate: RateModel, start: datetime, horizon_ns: int) -> None:
    """Refuse a rate that grows beyond what can be generated; the plan is only followed where a bound does not settle it."""
    months = horizon_ns / MONTH_NS
    bound = rate.base_per_s * float(hour_nodes(rate.weights).max()) * max(1.0, (1.0 + rate.growth_per_month) ** months)
    for event in rate.events:
        bound *= max(1.0, event.factor)
    if bound > MAX_RATE_PER_S:
        _, peak_per_s = rate.mean_and_peak_per_s(start, horizon_ns)
        if peak_per_s > MAX_RATE_PER_S:
            message = f"becomes {peak_per_s:,.0f} requests a second with its week, growth and events"
            raise InputError([Problem("rate_per_s", rate.base_per_s, message, f"at most {MAX_RATE_PER_S:,.0f}")])


def check_rate(rate_per_s: float, path: str, problems: Problems) -> None:
    """Add a problem unless this is a rate that can be generated."""
    within = is_positive(rate_per_s) and rate_per_s <= MAX_RATE_PER_S
    problems.check(
        within, path, rate_per_s, "must be a positive rate in requests per second", f"above 0, at most {MAX_RATE_PER_S:,.0f}"
    )
