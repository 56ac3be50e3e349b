"""Energy and carbon on the terminal: who drew it, what kind of intensity it is, and how much of it is assumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from sim.report.cells import cell, labelled, new_table, significant
from sim.results.records import RunResult

_INTENSITIES = {
    "average": "average intensity of the grid (marginal is another number)",
    "marginal": "marginal intensity: what one more kWh takes, not the mean of the grid",
    "mixed": "average intensity of some grids and marginal of others: not to be compared",
}
_REPEATS = {
    "hour_of_year": "other years repeated by the hour of the year",
    "month_hour": "means of the month's hours",
}


def energy_table(summary: Mapping[str, Any]) -> Table | None:
    """Return energy and carbon by segment; None where there is one segment or none, whose numbers are the total."""
    segments = summary["energy"]["by_segment"]
    if len(segments) < 2:
        return None
    table = new_table("ENERGY AND CARBON", "service/segment", "kWh", "USD", "kg CO2", "Wh/1M", "g CO2/1M")
    for name, found in segments.items():
        per_tokens = (significant(found["wh_per_1m_tokens"]), significant(found["gco2_per_1m_tokens"]))
        table.add_row(cell(name), f"{found['kwh']:,.2f}", f"{found['usd']:,.2f}", f"{found['kgco2']:,.2f}", *per_tokens)
    table.caption = "at the meter, overheads and PUE included; per 1M tokens, prompt and output"
    return table


def energy_lines(result: RunResult) -> Iterator[Text]:
    """Yield the sums, what one may read from them, and what they rest on."""
    summary = result.summary
    energy = summary["energy"]
    where = "a line of the bill" if "energy" in summary["bill"]["by_category"] else "in the price of the machines"
    yield labelled("energy", f"{energy['kwh']:,.2f} kWh for {energy['usd']:,.2f} USD ({where}), {energy['kgco2']:,.2f} kg CO2")
    if energy["wh_per_1m_tokens"] is not None:
        wh, grams = significant(energy["wh_per_1m_tokens"]), significant(energy["gco2_per_1m_tokens"])
        yield labelled("", f"{wh} Wh and {grams} g CO2 per 1M tokens")
    if energy["intensity"] is not None:
        yield labelled("carbon", f"{_INTENSITIES[energy['intensity']]}; without that of making machines")
    assumed = {name: "-" if share is None else f"{share:.1%}" for name, share in energy["assumed_share"].items()}
    if any(share is not None for share in energy["assumed_share"].values()):
        of_each = (
            f"{assumed['kwh']} of the kWh (power, PUE)",
            f"{assumed['usd']} of the price",
            f"{assumed['kgco2']} of the carbon",
        )
        yield labelled("", f"assumed: {', '.join(of_each)}")
    yield from _files(result.manifest["sites"])


def _files(sites: Mapping[str, Mapping[str, Any]]) -> Iterable[Text]:
    """Say what prices and intensities by the hour came from, each grid once."""
    told = set()
    for site in sites.values():
        for kind, unit in (("price", "USD/kWh"), ("carbon", "g/kWh")):
            series = site[kind]
            line = f"{site['grid']} {kind}: {series['least']:.4g} to {series['most']:.4g} {unit} by the hour, {series['source']}"
            if not series["path"] or line in told:
                continue
            told.add(line)
            notes = [_REPEATS[series["repeated"]]] if series["repeated"] else []
            notes += [f"{series['filled_hours']:,} missing hours filled"] if series["filled_hours"] else []
            notes += [f"{series['negative_hours']:,} hours below 0"] if series["negative_hours"] else []
            yield labelled("", f"{line} ({'; '.join(notes)})" if notes else line)
