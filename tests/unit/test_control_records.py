"""Records of requests: a sample is a part of all, chosen by the requests' own random words, and changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from control_kit import poisson, scenario, tables_of

from sim.control import loop
from sim.scenario import Failure, Scenario, Service

ONE_IN = 20


def made(records: str, engine: str = "compiled") -> Scenario:
    return scenario(
        horizon="25m",
        records=records,
        engine=engine,
        services={"chat": Service(workload=poisson(10.0), deployments=["llama"])},
        failures=[Failure("10m", "gpu")],
    )


def rows(tables: dict[str, Any]) -> list[tuple[Any, ...]]:
    return list(zip(*tables["requests"].values(), strict=True))


def test_a_sample_is_a_part_of_all_records(tmp_path: Path) -> None:
    everything, sample = (tables_of(made(records), tmp_path / records[:6]) for records in ("all", f"sample:{ONE_IN}"))
    chosen, known = rows(sample), rows(everything)
    assert set(chosen) <= set(known)
    assert chosen == [row for row in known if row in set(chosen)]
    expected = len(known) / ONE_IN
    assert abs(len(chosen) - expected) < 4 * (expected * (1 - 1 / ONE_IN)) ** 0.5
    assert {name: table for name, table in sample.items() if name != "requests"} == {
        name: table for name, table in everything.items() if name != "requests"
    }
    assert tables_of(made("sample:1"), tmp_path / "one")["requests"] == everything["requests"]


def test_both_engines_choose_the_same_sample(tmp_path: Path) -> None:
    compiled, reference = (tables_of(made(f"sample:{ONE_IN}", engine), tmp_path / engine) for engine in ("compiled", "reference"))
    assert compiled["requests"] == reference["requests"]
    assert len(rows(compiled)) > 500


@pytest.mark.parametrize("breath_s", [7, 100_000])
def test_when_records_are_taken_cannot_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breath_s: int) -> None:
    expected = tables_of(made("all"), tmp_path / "expected")
    monkeypatch.setattr(loop, "BREATH_NS", breath_s * 10**9)
    assert tables_of(made("all"), tmp_path / "run") == expected
