"""Every notebook runs from top to bottom in an empty folder and says what its result folders say; it is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import sim
from sim import open_run

NOTEBOOKS = sorted((Path(sim.__file__).resolve().parents[1] / "notebooks").rglob("*.ipynb"))
BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
MOST_S = 300

# What is asked of a notebook after its last cell, a Python expression; `_CHECKS` knows what it must be.
_QUESTIONS = {"01_first_run": "{'folders': [str(run.folder) for run in runs.values()], 'rows': list(comparison.values())}"}


@BY_NAME
def test_is_kept_without_outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    dirty = [cell.id for cell in cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None)]
    assert dirty == []


@BY_NAME
def test_says_first_what_it_is_for(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@BY_NAME
def test_runs_and_tells_what_its_folders_tell(path, tmp_path, monkeypatch):
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        folder = tmp_path / variable.lower()
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))
    home = tmp_path / "work"
    home.mkdir()
    notebook = nbformat.read(path, as_version=4)
    question = nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({_QUESTIONS[path.stem]}))")
    notebook.cells.append(question)
    NotebookClient(notebook, timeout=MOST_S, kernel_name="python3", resources={"metadata": {"path": str(home)}}).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert {name: out.text for name, made in outputs.items() for out in made if out.get("name") == "stderr"} == {}
    answer = json.loads(outputs[question.id][0].text)
    _CHECKS[path.stem](answer, home, outputs)


def _check_first_run(answer: dict[str, Any], home: Path, outputs: dict[str, Any]) -> None:
    """The table of the last part is that of the ledger and of the windows, and the HPA has bought service with money."""
    planned, elastic = (open_run(home / folder) for folder in answer["folders"])
    for run, row in zip((planned, elastic), answer["rows"], strict=True):
        assert round(row["usd"] * 1e9) == int(run.table("ledger")["amount_nano_usd"].sum())
        windows = run.table("windows")
        assert row["ttft_attainment"] == windows["good_ttft"].sum() / windows["total"].sum()
        assert row["abandoned"] == windows["abandoned"].sum()
    plan, hpa = answer["rows"]
    assert hpa["usd"] > plan["usd"]
    assert hpa["ttft_attainment"] > plan["ttft_attainment"] + 0.2
    assert planned.table("decisions")["policy"].tolist() == ["schedule"]
    assert set(elastic.table("decisions")["policy"]) == {"hpa"}
    figures = [name for name, made in outputs.items() if any("image/png" in out.get("data", {}) for out in made)]
    assert figures == ["demand", "latencies", "simulate-hpa", "own-figure"]


_CHECKS = {"01_first_run": _check_first_run}
