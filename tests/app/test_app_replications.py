"""Replications and comparisons from the command line: what is printed, what is left, and never a made-up interval."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from interrupt_kit import billcast, interrupt

from sim import open_replications, open_run
from sim.app.cli import main
from sim.app.main_metrics import main_metrics
from sim.studies.collect import HIGH, LOW
from sim.studies.collect import TABLE as RESULTS

SHORT = ["scenario=peer_w3", "horizon=20s", "rate_per_s=4"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def _printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must succeed, and return what it printed: never wider than 80 columns, but for folders."""
    assert main(list(words)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert all(len(line) <= 80 for line in captured.out.splitlines() if "/" not in line)
    return captured.out


def _line(text: str, label: str) -> list[str]:
    """The cells of a table's row."""
    [line] = [line for line in text.splitlines() if line.startswith(label)]
    return line.removeprefix(label).split()


def test_a_run_with_replications_prints_intervals_and_keeps_every_replication(capsys, tmp_path):
    out = _printed(capsys, "run", *SHORT, "replications=2", "workers=1", "out=two")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "manifest.json", "rep-0000", "rep-0001", "replications.parquet", "summary.json"
    ]  # fmt: skip
    found = open_replications("two")
    estimate = found.estimate("requests.arrived")
    assert estimate.student is not None
    mean, low, to, high, deviation = _line(out, "arrived")
    assert (mean, to) == (f"{estimate.mean:.1f}".removesuffix(".0"), "to")
    assert float(low) == pytest.approx(estimate.student.low, abs=0.05)
    assert float(high) == pytest.approx(estimate.student.high, abs=0.05)
    assert float(deviation) == pytest.approx(estimate.standard_deviation, abs=0.05)
    assert "95 % Student intervals over 2 replications; the bootstrap's needs 6" in out
    assert "chat TTFT" in out.split("all requests together")[1]
    assert [open_run(f"two/rep-000{number}").manifest["replication"] for number in range(2)] == [0, 1]
    again = _printed(capsys, "report", "two")
    assert again.startswith(out)
    assert again.count("report/index.html") == 2


def test_shares_are_never_shown_above_one(capsys):
    """Student's interval of few attainments near 100 % reaches beyond; nothing more than possible is shown."""
    out = _printed(capsys, "run", *SHORT, "ttft_s=560ms", "replications=3", "workers=1", "out=shares")
    interval = open_replications("shares").interval("slo.chat.ttft.attainment")
    assert interval is not None
    assert interval.high > 1.0
    assert "100.00%" in _line(out, "chat SLO TTFT")
    assert not any("10" in cell.split(".")[0] and float(cell.rstrip("%")) > 100 for cell in out.split() if cell.endswith("%"))


def test_a_comparison_of_replications_has_intervals(capsys):
    for name, replicas in (("small", 1), ("large", 2)):
        _printed(capsys, "run", *SHORT, f"replicas={replicas}", "replications=3", "workers=1", f"out={name}")
    out = _printed(capsys, "compare", "small", "large")
    assert "deployments.llama_70b.autoscaler.replicas: 1 -> 2" in out
    assert "over 3 pairs of replications" in out
    small, large = open_replications("small"), open_replications("large")
    means = [side.mean("energy.kwh") for side in (small, large)]
    a, b, difference, low, to, high, _ = _line(out, "energy kWh")
    assert (float(a), float(b)) == pytest.approx(means, rel=1e-3)
    assert float(difference) == pytest.approx(means[1] - means[0], rel=5e-3)
    assert difference.startswith("+")  # the second replica idles
    assert to == "to"
    assert float(low) < float(difference) < float(high)
    paired = large.paired_difference(small, "latency.chat.tpot_s.mean")
    assert paired is not None
    assert paired.variance_ratio is not None
    assert _line(out, "chat TPOT mean")[-1] == f"/{paired.variance_ratio:.{0 if paired.variance_ratio >= 10 else 1}f}"


def test_single_runs_are_compared_without_an_interval(capsys):
    for name, replicas in (("one", 1), ("two", 2)):
        _printed(capsys, "run", *SHORT, f"replicas={replicas}", f"out={name}")
    out = _printed(capsys, "compare", "one", "two", "one")
    assert out.count("no interval: one replication") == 2
    assert "interval  " not in out
    assert " to " not in out
    assert "A and C are the same scenario" in out
    rows = [line for line in out.splitlines() if line.startswith("arrived")]
    assert [row.split()[-1] for row in rows] == ["0", "0"]


def test_what_has_little_in_common_is_said(capsys):
    _printed(capsys, "run", *SHORT, "replications=3", "workers=1", "out=first")
    _printed(capsys, "run", *SHORT, "replication=2", "replications=2", "workers=1", "out=later")
    _printed(capsys, "run", *SHORT, "replication=7", "out=apart")
    _printed(capsys, "run", *SHORT, "seed=2", "replications=2", "workers=1", "out=other_seed")
    assert "no interval: one replication in common" in _printed(capsys, "compare", "first", "later")
    assert "no interval: no replication in common" in _printed(capsys, "compare", "first", "apart")
    out = _printed(capsys, "compare", "first", "other_seed")
    assert "the seeds differ: the pairs share no random numbers" in out
    assert "seed: 1 -> 2" in out


def test_what_cannot_be_compared(capsys, tmp_path):
    assert main(["compare", "none"]) == 2
    assert "2 to 26 folders" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["compare", "empty", "none"]) == 2
    assert "is not the result of a run" in capsys.readouterr().err


def test_bad_numbers_of_replications_are_refused(capsys, tmp_path):
    assert main(["run", *SHORT, "replications=0", "workers=0"]) == 2
    err = capsys.readouterr().err
    assert "2 problems" in err
    assert "1 to 10000" in err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_with_replications_has_means_and_intervals(capsys, tmp_path):
    settings = [*SHORT, "replicas=1,2", "replications=1,3", "out=all"]
    out = _printed(capsys, "sweep", *settings)
    assert "means over replications ± half of their 95 % Student interval" in out
    connection = duckdb.connect()
    found = connection.execute(f"SELECT * FROM read_parquet('all/{RESULTS}')")
    columns = [column[0] for column in found.description]
    rows = [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
    connection.close()
    assert [row["replications"] for row in rows] == [1, 3, 1, 3] == [row["setting.replications"] for row in rows]
    alone, several = rows[:2]
    assert (alone["bill.total_usd" + LOW], alone["bill.total_usd" + HIGH]) == (None, None)
    replications = open_replications(tmp_path / "all" / several["folder"])
    for metric in ("bill.total_usd", "latency.chat.ttft_s.p95", "slo.chat.all.attainment", "requests.completed", "energy.kwh"):
        estimate = replications.estimate(metric)
        assert estimate.student is not None
        assert (several[metric], several[metric + LOW], several[metric + HIGH]) == (
            estimate.mean, estimate.student.low, estimate.student.high
        )  # fmt: skip
    before = (tmp_path / "all" / RESULTS).read_bytes()
    _printed(capsys, "collect", "all")
    assert (tmp_path / "all" / RESULTS).read_bytes() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_nothing_of_replications(tmp_path, workers):
    words = ["scenario=bench_chat8", "horizon=3650d", "records=all", "replications=3", f"workers={workers}", "out=deep/runs"]
    with billcast("run", *words) as process:
        code, out, err = interrupt(process, lambda: any(tmp_path.glob("deep/.runs*/.rep-*/**/*.part.parquet")))
    assert (code, out) == (130, "")
    assert "nothing half-written is left" in err
    assert list(tmp_path.iterdir()) == []


def test_a_failing_replication_fails_the_run(capsys, tmp_path):
    (tmp_path / "fails.py").write_text(FAILS, "utf-8")
    assert main(["run", *SHORT, "autoscaler=fails_in_replications", "replications=2", "workers=2", "--plugin", "fails.py"]) == 1
    assert "no such luck" in capsys.readouterr().err
    assert not list(tmp_path.glob("outputs/**/rep-*"))


FAILS = '''
from sim.policies.autoscalers.static import Static
from sim.registry import register

@register("autoscaler", "fails_in_replications")
class Fails(Static):
    """Breaks."""
    def decide(self, view):
        raise ZeroDivisionError("no such luck")
'''


def test_every_main_metric_writes_its_values():
    paths = ["bill.total_usd", "slo.chat.ttft.attainment", "latency.chat.ttft_s.p95", "requests.failed"]
    found = main_metrics(paths)
    written = {metric.label: (metric.text(0.98765), metric.difference(-0.0125), metric.clipped(-1.0)) for metric in found}
    assert written == {
        "bill USD": ("0.9877", "-0.0125", "0"),
        "chat SLO TTFT": ("98.76%", "-1.2 pp", "0.00%"),
        "chat TTFT p95": ("988 ms", "-12.5 ms", "0 s"),
        "failed": ("1.0", "-0.0", "0"),
    }
