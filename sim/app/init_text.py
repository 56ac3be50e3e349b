"""The text of a first scenario: every setting that matters with what it means, and what else there is."""

from __future__ import annotations

import json
import re

from sim.app.init import MOST_USE, Init, Sized

# What YAML would read as something other than a text.
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def _scalar(text: str) -> str:
    """Return a text as YAML, in quotes where it would be read as something else.

    Examples
    --------
    >>> _scalar("chat"), _scalar("on"), _scalar("1.10"), _scalar("1d")
    ('chat', '"on"', '"1.10"', '"1d"')
    """
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", text) is not None and text.lower() not in _WORDS
    return text if plain else json.dumps(text)


def scenario_text(found: Sized, wanted: Init) -> str:
    """Return the YAML file of a sized scenario."""
    scenario = found.scenario
    deployment, pool = scenario.deployments["main"], scenario.pools["machines"]
    kind, fleet = found.report.kinds[0], found.report.fleets[0]
    replicas = deployment.autoscaler.initial_replicas()
    sheet = kind.sheet
    assert sheet is not None
    peak = fleet.peak_rate_per_s or wanted.rate_per_s
    use = peak / (fleet.capacity_per_s or peak)
    e2e = "null" if wanted.e2e_s is None else f"{wanted.e2e_s:.12g}"
    return f"""\
# @package _global_
# {deployment.model} on {pool.instance}, written by `billcast init`. Times take units: 300ms, 90s, 12h, 7d.
#   billcast validate --config-dir DIR scenario={scenario.name}     what it can serve, and what is wrong with it
#   billcast show --config-dir DIR scenario={scenario.name}         every setting there is, with unit and source
defaults:
  - /workload@services.chat.workload: synthetic                   # or poisson, trace (a log of yours), closed_loop
  - /autoscaler@deployments.main.autoscaler: static               # or hpa, schedule
  - _self_

name: {_scalar(scenario.name)}
start: "{scenario.start}"          # a calendar instant: hours of the day and of the week count
horizon: {_scalar(wanted.horizon)}                              # simulated time; the bill is by calendar month

services:
  chat:
    deployments: [main]
    workload:
      preset: chat-azure-2023                # shape of the week, bursts and lengths of a real chat service
      rate_per_s: {wanted.rate_per_s:.12g}                        # requests/s, mean of a week; its busiest hour has {peak:.3g}
    slo:                                     # seconds; null for no target
      ttft_s: {wanted.ttft_s:.12g}                            # to the first token
      tpot_s: {wanted.tpot_s:.12g}                           # between two tokens
      e2e_s: {e2e}                            # to the last token
      attainment: {wanted.attainment:.12g}                       # share of requests within each of them

deployments:
  main:
    model: {deployment.model}
    engine: {deployment.engine}
    weight_dtype: {deployment.weight_dtype}
    tensor_parallel: {deployment.tensor_parallel}                       # accelerators of a replica, times pipeline_parallel
    pipeline_parallel: {deployment.pipeline_parallel}
    max_num_seqs: {deployment.max_num_seqs}                        # seats of a step
    max_num_batched_tokens: {deployment.max_num_batched_tokens}             # tokens of a step
    # One replica serves about {sheet.requests_per_s:.3g} requests/s within the TPOT target: {replicas} are {use:.0%} busy at the
    # peak of the week (at most {MOST_USE:.0%} was asked for).
    autoscaler: {{replicas: {replicas}}}
    pools: [machines]

pools:
  machines:
    instance: {pool.instance}
    purchase: on_demand                      # or spot, owned, capacity_block
    region: {pool.region}
    zones: [{", ".join(pool.zones)}]
    # price_usd_per_hour: 2.10 USD/h         # a price of your own instead of the catalog's
"""
