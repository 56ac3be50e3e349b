"""Goodput of a long job: the share of its time that is not lost to checkpoints, failures and restarts."""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, inf, sqrt

from sim.domain.training import Range

HOUR_S = 3600.0
# 466 interruptions in 54 days on 16,384 H100 (The Llama 3 Herd of Models, 2024, section 3.3.4): one in 45,566 hours of a GPU.
CHIP_MTBF_H = 54 * 24 * 16_384 / 466
# To notice, to replace the machine, to load and to warm up: 10 minutes, assumed (2026-11-23). With it the formula gives that run
# 0.92, and its authors state "higher than 90 %".
RESTART_S = 600.0
# Storage of that run: 2 TB/s sustained for 16,384 GPUs (the same, section 3.3.1).
CHECKPOINT_GB_PER_S = 2000 / 16_384
# How far the mean time between failures of other clusters may be from that of the one that was published: assumed.
MTBF_SPREAD = 2.0


@dataclass(frozen=True)
class Reliability:
    """What failures and checkpoints of a cluster cost.

    Parameters
    ----------
    chip_mtbf_h : mean time between interruptions of one accelerator, all causes. restart_s : from the failure to the next step.
    checkpoint_gb_per_s : storage bandwidth of each accelerator, 1e9 B/s. checkpoint_interval_s : work between two checkpoints; None
        for the best one.
    """

    chip_mtbf_h: float = CHIP_MTBF_H
    restart_s: float = RESTART_S
    checkpoint_gb_per_s: float = CHECKPOINT_GB_PER_S
    checkpoint_interval_s: float | None = None


@dataclass(frozen=True)
class Goodput:
    """Goodput of a job, and what it comes from.

    Parameters
    ----------
    share : useful time over all time, between bounds. mtbf_s : of the whole job. write_s : one checkpoint.
    interval_s : work between two checkpoints.
    """

    share: Range
    mtbf_s: float
    write_s: float
    interval_s: float


def best_interval_s(write_s: float, mtbf_s: float) -> float:
    """Return the work between two checkpoints that loses the least time.

    sqrt(2 w M) (1 + sqrt(w / 2M) / 3 + (w / 2M) / 9) - w for w < 2 M, else M. The first factor alone is Young's rule.

    Parameters
    ----------
    write_s : time w of one checkpoint. mtbf_s : mean time M between failures of the job.

    Source: J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, 2006, equation 37 (from
    memory; a test compares it with a numeric minimum).

    Examples
    --------
    >>> round(best_interval_s(write_s=60.0, mtbf_s=24 * 3600.0))
    3180
    """
    if write_s >= 2 * mtbf_s:
        return mtbf_s
    small = write_s / (2 * mtbf_s)
    return sqrt(2 * write_s * mtbf_s) * (1 + sqrt(small) / 3 + small / 9) - write_s


def goodput_share(interval_s: float, write_s: float, mtbf_s: float, restart_s: float) -> float:
    """Return useful time over all time: tau / (M exp(R / M) (exp((tau + w) / M) - 1)).

    Parameters
    ----------
    interval_s, write_s, mtbf_s, restart_s : tau, w, M and R.

    Source: Daly 2006, equation 13: failures are a Poisson process, and may also strike while a checkpoint is written or the job
    restarts.

    Examples
    --------
    >>> round(goodput_share(interval_s=1000.0, write_s=0.0, mtbf_s=1e6, restart_s=0.0), 4)  # half an interval is lost every 1,000
    0.9995
    """
    if mtbf_s == inf:
        return interval_s / (interval_s + write_s)
    exponent = (restart_s + interval_s + write_s) / mtbf_s
    if exponent > 700:  # exp would overflow: such a job never ends
        return 0.0
    growth = expm1(exponent) - expm1(restart_s / mtbf_s)
    return interval_s / (mtbf_s * growth)


def goodput(accelerators: int, checkpoint_bytes: float, reliability: Reliability) -> Goodput:
    """Return the goodput of a job on so many accelerators, with bounds for clusters that fail twice or half as often.

    Parameters
    ----------
    checkpoint_bytes : of the whole job; all accelerators write together.

    Examples
    --------
    >>> found = goodput(16_384, checkpoint_bytes=14 * 405e9, reliability=Reliability())  # Llama 3 405B: "higher than 90 %"
    >>> round(found.share.mid, 2), round(found.mtbf_s / 3600, 1), round(found.interval_s / 60)
    (0.92, 2.8, 4)
    """
    write_s = checkpoint_bytes / (reliability.checkpoint_gb_per_s * 1e9 * accelerators)
    mtbf_s = reliability.chip_mtbf_h * HOUR_S / accelerators
    shares = []
    for factor in (1 / MTBF_SPREAD, 1.0, MTBF_SPREAD):
        interval_s = reliability.checkpoint_interval_s or best_interval_s(write_s, factor * mtbf_s)
        shares.append(goodput_share(interval_s, write_s, factor * mtbf_s, reliability.restart_s))
    interval_s = reliability.checkpoint_interval_s or best_interval_s(write_s, mtbf_s)
    return Goodput(Range(*shares), mtbf_s, write_s, interval_s)
