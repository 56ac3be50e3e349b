"""`billcast bill`: what it prints adds up, other programs can read it, and wrong words are said all at once."""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sim import load_scenario, open_run, simulate
from sim.app.cli import main

USD = re.compile(r"-?[\d,]+\.\d\d(?!\d)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hours across the end of a month, with a tap of tiers."""
    out = tmp_path_factory.mktemp("bill") / "run"
    simulate(load_scenario("quickstart", ["start=2026-09-30T22:00:00Z", "horizon=4h", "+taps.tiers=tiers", f"out={out}"]))
    return out


def _outcome(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _total(folder: Path) -> int:
    return int(open_run(folder).sql("SELECT sum(amount_nano_usd) AS n FROM ledger")["n"][0])


def test_without_a_question_it_is_the_invoice(folder: Path, capsys: Any) -> None:
    code, out, err = _outcome(capsys, "bill", folder)
    assert (code, err) == (0, "")
    assert "INVOICE" in out
    assert "of the bill rests on assumed prices" in out
    document = json.loads(_outcome(capsys, "bill", folder, "--json")[1])
    assert document["nano_usd"] == sum(line["amount_nano"] for line in document["rows"]) == _total(folder)


def test_a_printed_pivot_adds_up_to_the_cent(folder: Path, capsys: Any) -> None:
    code, out, _ = _outcome(capsys, "bill", folder, "--by", "month,service,segment", "--across", "use")
    assert code == 0
    rows = [[Decimal(word.replace(",", "")) for word in USD.findall(line)] for line in out.splitlines() if USD.search(line)]
    names = [line.split()[0] for line in out.splitlines() if USD.search(line)]
    for row in rows:
        assert sum(row[:-1]) == row[-1]
    cells = [row for row, name in zip(rows, names, strict=True) if re.fullmatch(r"\d{4}-\d\d", name)]
    lines = [line for line in out.splitlines() if USD.search(line)]
    single = [row for row, line in zip(rows, lines, strict=True) if " total " not in line and not line.startswith("TOTAL")]
    sums = [row for row, line in zip(rows, lines, strict=True) if " total " in line]
    for parts in (single, sums):
        assert [sum(column) for column in zip(*parts, strict=True)] == rows[-1]
    assert cells
    assert rows[-1][-1] == Decimal(_total(folder)).scaleb(-9).quantize(Decimal("0.01"))


def test_json_and_csv_are_exact(folder: Path, capsys: Any, tmp_path: Path) -> None:
    words = ("bill", folder, "--by", "hour,tier,pool", "--across", "use")
    document = json.loads(_outcome(capsys, *words, "--json")[1])
    assert sum(row["nano_usd"] for row in document["rows"]) == document["nano_usd"] == _total(folder)
    assert all(sum(row["nano_usd_by"].values()) == row["nano_usd"] for row in document["rows"])
    assert _outcome(capsys, *words, "--csv", tmp_path / "bill.csv") == (0, "", "")
    text = (tmp_path / "bill.csv").read_text("utf-8")
    assert _outcome(capsys, *words, "--csv", "-")[1] == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sum(Decimal(row["usd"]) for row in rows).scaleb(9) == _total(folder)
    assert list(rows[0])[:3] == ["hour", "tier", "pool"]


def test_the_dearest_rows_and_the_others(folder: Path, capsys: Any) -> None:
    every = json.loads(_outcome(capsys, "bill", folder, "--by", "hour,pool", "--json")[1])["rows"]
    code, out, _ = _outcome(capsys, "bill", folder, "--by", "hour,pool", "--top", "2")
    assert code == 0
    assert f"{len(every) - 2} others" in out
    best = max(every, key=lambda row: row["nano_usd"])
    assert best["hour"] in out.splitlines()[3]


@pytest.mark.parametrize("units", ["requests", "tokens", "users", "requests,tokens,users"])
def test_unit_costs_are_printed_and_exact(folder: Path, capsys: Any, units: str) -> None:
    code, out, _ = _outcome(capsys, "bill", folder, "--per", units, "--by", "month,segment")
    assert code == 0
    assert out.count("USD PER") == units.count(",") + 1
    document = json.loads(_outcome(capsys, "bill", folder, "--per", units, "--by", "segment", "--json")[1])
    assert sum(row["nano_usd"] for row in document["rows"]) == _total(folder)
    assert all(row["prompt_nano_usd"] + row["output_nano_usd"] == row["nano_usd"] for row in document["rows"])


def test_why_is_printed_and_adds_up(folder: Path, capsys: Any) -> None:
    code, out, _ = _outcome(capsys, "bill", folder, "--why", "2026-10")
    assert code == 0
    amounts = [Decimal(USD.findall(line)[0].replace(",", "")) for line in out[out.index("WHY") :].splitlines() if USD.search(line)]
    assert sum(amounts[:-1]) == amounts[-1]
    assert out.startswith("October 2026 cost ")
    document = json.loads(_outcome(capsys, "bill", folder, "--why", "2026-09", "--against", "2026-10", "--json")[1])
    total = document["total"]
    assert (
        sum(total["terms_nano_usd"].values()) == total["difference_nano_usd"] == total["after_nano_usd"] - total["before_nano_usd"]
    )
    code, out, _ = _outcome(capsys, "compare", folder, folder, "--why")
    assert code == 0
    assert "WHY B COST AS MUCH AS A" in out


def test_queries_are_answered(folder: Path, capsys: Any) -> None:
    code, out, _ = _outcome(capsys, "bill", folder, "--query", "hour_of_day")
    assert code == 0
    assert "usd_a_day" in out
    document = json.loads(_outcome(capsys, "bill", folder, "--query", "dearest_hours", "--json")[1])
    assert len(document["rows"]) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "mnth,servce"], ["did you mean 'month'", "did you mean 'service'"]),
        (["--by", ""], ["names no key"]),
        (["--by", "month,month"], ["named twice"]),
        (["--by", "client"], ["+taps.NAME=clients"]),
        (["--by", "month", "--top", "0"], ["no number of rows"]),
        (["--top", "3", "--across", "use"], ["with --by", "needs rows"]),
        (["--json", "--csv", "x.csv"], ["--csv"]),
        (["--by", "month", "--csv", "nowhere/x.csv"], ["cannot be written"]),
        (["--per", "token", "--by", "pool"], ["did you mean 'tokens'", "no requests of its own"]),
        (["--per", "tokens", "--across", "use"], ["--per"]),
        (["--why", "2026-11"], ["not a month of the run", "did you mean"]),
        (["--why", "2026-09"], ["first month"]),
        (["--why", "2026-10", "--by", "month"], ["without --by"]),
        (["--against", "2026-09"], ["needs --why"]),
        (["--query", "dearest"], ["did you mean 'dearest_hours'"]),
    ],
)
def test_wrong_words_are_said(folder: Path, capsys: Any, words: list[str], said: list[str]) -> None:
    code, out, err = _outcome(capsys, "bill", folder, *words)
    assert (code, out) == (2, "")
    text = " ".join(err.split())
    assert all(part in text for part in said), text
    assert "Traceback" not in err
