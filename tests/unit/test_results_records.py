"""Results on disk: typed, ordered, byte-identical, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pytest
from billing_kit import write_small_run

import sim.results.records
from sim.errors import InputError
from sim.results.records import RunResult, RunWriter, open_run
from sim.schema import SCHEMA_VERSION, TABLES


def small_run(folder: Path, rows: int = 10_000) -> RunResult:
    """Write the small run into a folder."""
    with RunWriter(folder, rows) as writer:
        write_small_run(writer.spool)
        writer.merge()
        return writer.commit({"requests": {"arrived": 71}}, {"scenario": {"name": "small"}})


def event(number: int, time_ns: int) -> dict[str, object]:
    """A row of the events table."""
    return {"number": number, "time_ns": time_ns, "kind": "node_running", "subject": f"node {number}", "detail": ""}


def test_a_missing_whole_number_is_none(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        found = writer.merge().sql("SELECT * FROM (VALUES (1, 'a', 0.5), (NULL, NULL, NULL)) AS rows(number, word, share)")
    assert found["number"].tolist() == [1, None]
    assert found["word"].tolist() == ["a", None]
    assert str(found["share"].tolist()) == "[0.5, nan]"


def test_every_table_is_there_with_its_types_even_without_rows(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        writer.merge()
        result = writer.commit({}, {})
    for name, table in TABLES.items():
        path = result.folder / f"{name}.parquet"
        described = duckdb.connect().execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
        assert [(row[0], row[1]) for row in described] == [(column.name, column.type) for column in table.columns]
        assert all(len(values) == 0 for values in result.table(name).values())


def test_types_are_those_of_the_schema_when_there_are_rows(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run")
    for name, table in TABLES.items():
        described = duckdb.connect().execute(f"DESCRIBE SELECT * FROM '{result.folder / f'{name}.parquet'}'").fetchall()
        assert [(row[0], row[1]) for row in described] == [(column.name, column.type) for column in table.columns]
    ledger = result.table("ledger")
    assert ledger["amount_nano_usd"].dtype == np.int64
    assert ledger["quantity"].tolist() == [3600.0] * 3
    assert ledger["month"].tolist() == ["2026-01", "2026-01", "2026-02"]


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    first, second = small_run(tmp_path / "first"), small_run(tmp_path / "second")
    for name in TABLES:
        assert (first.folder / f"{name}.parquet").read_bytes() == (second.folder / f"{name}.parquet").read_bytes()


def test_how_rows_were_spooled_does_not_show(tmp_path: Path) -> None:
    whole, pieces = small_run(tmp_path / "whole"), small_run(tmp_path / "pieces", rows=2)
    for name in TABLES:
        for column, values in whole.table(name).items():
            np.testing.assert_array_equal(pieces.table(name)[column], values, err_msg=f"{name}.{column}")


@pytest.mark.parametrize("times_ns", [[5, 3, 9, 1, 1, 7], [1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("rows", [2, 100])
def test_rows_come_in_the_order_of_the_key(tmp_path: Path, times_ns: list[int], rows: int) -> None:
    with RunWriter(tmp_path / "run", rows) as writer:
        for number, time_ns in enumerate(times_ns):
            writer.spool.append("events", event(number, time_ns))
        found = writer.merge().table("events")
    assert list(zip(found["time_ns"].tolist(), found["number"].tolist(), strict=True)) == sorted(
        (time_ns, number) for number, time_ns in enumerate(times_ns)
    )


def test_a_table_of_very_many_parts(tmp_path: Path) -> None:
    """More parts than one connection writes, and more long tables than one connection merges."""
    times_ns = [number * 7 % 100 for number in range(100)]
    with RunWriter(tmp_path / "run", rows=2) as writer:
        for number, time_ns in enumerate(times_ns):
            writer.spool.append("events", event(number, time_ns))
            writer.spool.append("decisions", {
                "time_ns": number, "deployment": "llama", "policy": "static", "before": 1, "after": 2, "reason": str(number)
            })  # fmt: skip
        result = writer.merge()
        assert result.table("events")["time_ns"].tolist() == list(range(100))
        assert result.table("decisions")["reason"].tolist() == [str(number) for number in range(100)]
        assert len(result.table("windows")["start_ns"]) == 0


def test_arrays_and_rows_may_be_mixed(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", rows=3) as writer:
        writer.spool.append("events", event(0, 10))
        columns = {
            "number": np.arange(1, 6),
            "time_ns": np.full(5, 10),
            "kind": np.full(5, "x"),
            "subject": ["a"] * 5,
            "detail": [""] * 5,
        }
        writer.spool.extend("events", columns)
        writer.spool.append("events", event(6, 10))
        assert writer.spool.rows("events") == 7
        assert writer.merge().table("events")["number"].tolist() == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("rows", [2, 100])
def test_rows_of_equal_key_stay_in_the_order_in_which_they_came(tmp_path: Path, rows: int) -> None:
    def decision(reason: str) -> dict[str, object]:
        return {"time_ns": 5, "deployment": "llama", "policy": "static", "before": 1, "after": 2, "reason": reason}

    with RunWriter(tmp_path / "run", rows) as writer:
        writer.spool.append("decisions", decision("z"))
        writer.spool.extend("decisions", {name: [value] * 2 for name, value in decision("y").items()})
        writer.spool.append("decisions", decision("x"))
        assert writer.merge().table("decisions")["reason"].tolist() == ["z", "y", "y", "x"]


def test_wrong_columns_are_refused(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        with pytest.raises(ValueError, match=r"lacks columns \['detail'\] or has unknown columns \['detial'\]"):
            writer.spool.append("events", {"number": 0, "time_ns": 0, "kind": "", "subject": "", "detial": ""})
        with pytest.raises(ValueError, match="all of one length"):
            writer.spool.extend("events", {"number": [1, 2], "time_ns": [1], "kind": [""], "subject": [""], "detail": [""]})


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("merged", [False, True])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException], merged: bool) -> None:
    def fail() -> None:
        with RunWriter(tmp_path / "outputs" / "deep" / "run", rows=2) as writer:
            write_small_run(writer.spool)
            if merged:
                writer.merge()
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_until_the_commit_there_is_no_result(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer:
        write_small_run(writer.spool)
        writer.merge()
        assert not (tmp_path / "run").exists()
        writer.commit({}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(
        ["manifest.json", "summary.json", *(f"{name}.parquet" for name in TABLES)]
    )


def test_a_folder_with_something_in_it_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("keep me")
    with pytest.raises(InputError, match="not an empty folder"):
        RunWriter(tmp_path / "run")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "precious.txt"]


def test_a_folder_that_cannot_be_replaced_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for target in (".", tmp_path / "here", "../here"):
        with pytest.raises(InputError, match="is the current folder or a mount point"):
            RunWriter(target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda self: True)
    with pytest.raises(InputError, match="is the current folder or a mount point"):
        RunWriter("here")
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.mark.parametrize("name", ["file/run", "file/deep/run", "n" * 300, "deep/" + "n" * 250, "null\0byte"])
def test_where_nothing_can_be_written_is_said_before_the_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match=r"^out = .*cannot be written") as caught:
        RunWriter(tmp_path / name)
    assert [problem.path for problem in caught.value.problems] == ["out"]
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert small_run(tmp_path / "run").summary == {"requests": {"arrived": 71}}


def test_a_commit_needs_merged_tables(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run") as writer, pytest.raises(RuntimeError, match="merge"):
        writer.commit({}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_run_opens_again(tmp_path: Path) -> None:
    small_run(tmp_path / "it's a run")
    result = open_run(tmp_path / "it's a run")
    assert result.manifest == {"scenario": {"name": "small"}, "schema_version": SCHEMA_VERSION}
    total = result.sql("SELECT sum(amount_nano_usd) AS total, count(*) AS n FROM ledger")
    assert (total["total"].dtype, total["total"].tolist(), total["n"].tolist()) == (np.int64, [21_600_000_000], [3])
    assert np.isnan(result.table("windows")["ttft_p50_s"]).sum() == 2  # stream 2 completes nothing in two of its hours


def test_what_is_not_a_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        open_run(tmp_path / "missing")
    with pytest.raises(InputError, match=r"is not the result of a run: it has no summary.json"):
        open_run(tmp_path)
    result = small_run(tmp_path / "run")
    manifest = result.folder / "manifest.json"
    manifest.write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(InputError, match="has tables of version 99"):
        open_run(result.folder)
    with pytest.raises(InputError, match="is not a table of a run"):
        result.table("ledgers")


@pytest.mark.parametrize("end", ["", ";", " ; \n", " -- the account's rows"])
def test_a_query_may_end_as_people_end_them(tmp_path: Path, end: str) -> None:
    assert small_run(tmp_path / "run").sql(f"SELECT count(*) AS n FROM ledger{end}")["n"].tolist() == [3]


@pytest.mark.parametrize("content", ["{", "[]", "\u00e9"])
def test_a_damaged_summary_is_bad_input(tmp_path: Path, content: str) -> None:
    result = small_run(tmp_path / "run")
    (result.folder / "summary.json").write_text(content, "latin-1")
    with pytest.raises(InputError, match=r"summary.json.*is damaged"):
        open_run(result.folder)


def test_windows_carry_the_cost_of_their_streams(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run")
    windows = result.table("windows")
    hours = (windows["start_ns"] // 3_600_000_000_000).tolist()
    keys = zip(hours, windows["stream"].tolist(), strict=True)
    costs = dict(zip(keys, windows["cost_nano_usd"].tolist(), strict=True))
    # Hour 0: llama's accelerator (3.60) 3:1, coder's (3.60) to stream 2. Hour 1: llama 1:1. Hour 2: all 7.20 to stream 0.
    assert costs == {
        (0, 0): 2_700_000_000, (0, 1): 900_000_000, (0, 2): 3_600_000_000,
        (1, 0): 1_800_000_000, (1, 1): 1_800_000_000, (1, 2): 3_600_000_000,
        (2, 0): 7_200_000_000, (2, 1): 0, (2, 2): 0,
    }  # fmt: skip


def test_an_interrupt_while_the_writer_is_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sim.results.records, "Spool", interrupted)
    with pytest.raises(KeyboardInterrupt):
        RunWriter(tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []
