"""The engines agree: every integer of every table is the same, floats to 1e-9."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from scenarios import Player, Scenario, differences, scenarios

import sim.dataplane.kernel
import sim.dataplane.kernel_parts
from sim import load_scenario, simulate
from sim.bins import BINS, bin_of
from sim.dataplane.compiled import CompiledPlane
from sim.dataplane.reference import ReferencePlane
from sim.rng import mix64
from sim.schema import TABLES

HERE = Path(str(sim.dataplane.kernel.__file__)).parent
KERNEL = [importlib.import_module(f"sim.dataplane.{path.stem}") for path in sorted(HERE.glob("kernel*.py"))]
quiet = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def check_equal(scenario: Scenario) -> None:
    """Play a scenario on both engines and compare everything that was seen."""
    reference, compiled = (Player(engine, scenario).play().tables() for engine in (ReferencePlane, CompiledPlane))
    assert differences(reference, compiled) == []


@settings(quiet, max_examples=200)
@given(scenario=scenarios())
def test_equal_in_random_scenarios(scenario: Scenario) -> None:
    """Idle to overload, tiny and huge KV, adds, drains, kills, timeouts, priorities, clients, ties: the same tables."""
    check_equal(scenario)


@pytest.mark.slow
@settings(quiet, max_examples=5_000, derandomize=False)
@given(scenario=scenarios())
def test_equal_in_many_random_scenarios(scenario: Scenario) -> None:
    """The same in 5,000 scenarios, others each time."""
    check_equal(scenario)


@settings(quiet, max_examples=60)
@given(scenario=scenarios())
def test_what_happens_in_an_instant_is_seen_in_the_same_order(scenario: Scenario) -> None:
    """Views in the middle of an instant, where a watch has stopped the engine, agree too."""

    def seen(engine: type[ReferencePlane] | type[CompiledPlane]) -> list[list[int]]:
        rows: list[list[int]] = []
        player = Player(engine, scenario)
        react = player._react

        def look(hit: object) -> None:
            view = player.plane.view(player.plane.now_ns)
            rows.append([view.time_ns, *view.steps, *view.output_tokens, *view.kv_used_tokens, *view.busy_ns, *view.queued])
            react(hit)  # type: ignore[arg-type]

        player._react = look  # type: ignore[method-assign]
        player.play()
        return rows

    assert seen(ReferencePlane) == seen(CompiledPlane)


def test_one_specialisation_of_every_function() -> None:
    """An explicit signature each, so that no literal or array layout compiles a function again."""
    functions = [function for module in KERNEL for function in vars(module).values() if hasattr(function, "nopython_signatures")]
    assert len(functions) > 50
    assert {function.py_func.__name__ for function in functions if len(function.nopython_signatures) != 1} == set()


def test_words_of_the_kernel_are_those_of_the_reference() -> None:
    """Random words and histogram bins, at the edges of 64 bits and of the bins."""
    rng = np.random.default_rng(3)
    for tag in [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, *(int(tag) for tag in rng.integers(0, 1 << 64, 50, np.uint64))]:
        signed = tag - (1 << 64) if tag >= 1 << 63 else tag
        assert int(sim.dataplane.kernel_parts.mix(signed, 3, 2)) == mix64(tag, 3, 2)
    edges = [value + by for power in range(62) for value in [1 << power] for by in (-1, 0, 1)]
    for value in [*edges, *(int(value) for value in rng.integers(0, 1 << 46, 500))]:
        assert sim.dataplane.kernel_parts.bin_at(value) == bin_of(value) < BINS


@pytest.mark.parametrize(("name", "horizon"), [("quickstart", "20min"), ("bench_chat8", "1min")])
def test_whole_runs_are_equal(name: str, horizon: str, tmp_path: Path) -> None:
    """Control plane, spot, autoscaler, bill and records on top of either engine: the same tables."""
    changes = [f"horizon={horizon}", "records=all"]
    runs = [
        simulate(load_scenario(name, [*changes, f"engine={engine}"]), out=tmp_path / engine) for engine in ("reference", "compiled")
    ]
    for table in TABLES:
        one, other = (run.table(table) for run in runs)
        assert one.keys() == other.keys()
        for column, values in one.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(other[column], values, rtol=1e-9, atol=1e-9, err_msg=f"{table}.{column}")
            else:
                np.testing.assert_array_equal(other[column], values, err_msg=f"{table}.{column}")
    assert len(runs[0].table("requests")["request"]) > 1_000
    for run in runs:
        run.close()
