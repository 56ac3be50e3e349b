"""Prices of serverless inference: memory for the time of a request, data, and capacity that is kept warm."""

from __future__ import annotations

from dataclasses import dataclass

from sim.domain.hardware import Provenance


@dataclass(frozen=True)
class ServerlessPrice:
    """What a serverless offer charges.

    Parameters
    ----------
    provider : who sells it. memory_gb : sizes that can be had, in GB of 1,024 MB. granularity_ms : a request is rounded up to it.
    usd_per_gb_s : of memory while a request is processed. usd_per_gb : of data in and out.
    provisioned_usd_per_gb_s : of memory that is kept warm, used or not.
    """

    name: str
    provider: str
    memory_gb: tuple[int, ...]
    granularity_ms: float
    usd_per_gb_s: str
    usd_per_gb: str
    provisioned_usd_per_gb_s: str
    provenance: Provenance
    notes: str = ""
