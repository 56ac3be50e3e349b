"""Step models from exported tables against the points of those tables, also those that were left out."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from sim.catalog.loader import load_catalog
from sim.errors import Problems
from sim.perf.steptime import ONE_NS_FX, StepModel
from sim.perf.table import table_step_model
from sim.perf.table_reader import StepRow, read_step_table

pytestmark = pytest.mark.validation
DATA = Path(os.environ.get("BILLCAST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")) / "perf"

KEYS = ("model", "gpu", "engine", "w_dtype", "tp")
EVERY = 9
MOST_TOKENS = 16_384


def coarser(rows: Sequence[StepRow]) -> list[StepRow]:
    """Every second batch, context and size of a prefill, and the last of each."""

    def kept(values: set[int]) -> set[int]:
        ordered = sorted(values)
        return {*ordered[::2], ordered[-1]}

    decodes, prefills = ([row for row in rows if row.phase == phase] for phase in ("decode", "prefill"))
    batches, contexts = kept({row.sequences for row in decodes}), kept({row.context for row in decodes})
    sizes = kept({row.sequences * row.tokens for row in prefills})
    left = [row for row in decodes if row.sequences in batches and row.context in contexts]
    return left + [row for row in prefills if row.sequences * row.tokens in sizes]


def errors(step: StepModel, lines: Sequence[dict[str, str]]) -> Iterator[tuple[str, float]]:
    """Phase and relative error of each step of up to `MOST_TOKENS` tokens."""
    for line in lines:
        batch, tokens, context = int(line["batch"]), int(line["prefill_tokens"]), int(line["ctx"])
        if line["phase"] == "decode":
            load = (batch, batch, 0, batch * context, batch)
        elif line["phase"] == "prefill":
            load = (batch * tokens, batch, batch * tokens * (2 * context + tokens), 0, 0)
        else:
            load = (batch + tokens, batch, tokens**2, batch * context, batch)
        if load[0] <= MOST_TOKENS:
            yield line["phase"], step.step_fx(*load) / ONE_NS_FX / 1e6 / float(line["time_ms"]) - 1


def test_tables_give_back_their_points_and_those_between() -> None:
    """Bounds are the medians that were reached, rounded up; mixed steps are in no table."""
    path = DATA / "aic_step_times.csv"
    if not path.is_file():
        pytest.skip(f"no {path.name} in BILLCAST_DATA ({DATA.parent})")
    groups = defaultdict(list)
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            groups[tuple(line[key] for key in KEYS)].append(line)
    bare, found = load_catalog().engines["bare"], defaultdict(list)
    for chosen in list(groups)[::EVERY]:
        problems = Problems()
        rows = read_step_table(str(path), dict(zip(KEYS, chosen, strict=True)), "step_table", problems)
        assert not problems.found
        for name, points in (("full", rows), ("coarse", coarser(rows))):
            step = table_step_model(StepModel(), points, bare, accelerators=1, idle_w=0.0, tokens=MOST_TOKENS, sequences=512)
            for phase, error in errors(step, groups[chosen]):
                found[name, phase].append(error)
    median = {key: float(np.median(np.abs(values))) for key, values in found.items()}
    assert median["full", "decode"] < 1e-6
    assert median["full", "prefill"] < 0.012
    assert median["full", "mixed"] < 0.055
    assert median["coarse", "decode"] < 0.006
    assert median["coarse", "prefill"] < 0.018
    assert median["coarse", "mixed"] < 0.06
