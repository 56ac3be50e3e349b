"""The page of a run: complete, alone, escaped, replaced whole."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_kit import charges, replica, scenario_of, traffic, write
from rich.console import Console

from sim.errors import InputError
from sim.report import html
from sim.report.figures import charts_of
from sim.report.html import PAGE, write_report
from sim.report.html_parts import inline_svg
from sim.report.terminal import render
from sim.results.records import RunResult, open_run
from sim.scenario import Slo

VOID = {"meta", "path", "use", "rect", "image", "circle"}


def small_run(folder: Path, name: str = "small", service: str = "chat") -> RunResult:
    """Two hours of one service."""
    scenario = scenario_of("2h", {service: Slo(ttft_s=0.3, attainment=0.9)}, name=name)
    parts = {("busy", service): 1_234_567_890, ("idle", ""): 10**9}
    return write(folder, scenario, traffic(scenario, 3600, 60), charges(scenario, parts, 2), replica(0, 0, 0, -1, 7200))


class Reader(HTMLParser):
    """Collects the text outside figures, the tags, and every address the page would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "svg" not in self.open and "style" not in self.open:
            self.words += data.split()


def test_every_file_is_there_and_the_page_is_well_formed_and_alone(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run")
    path = write_report(result)
    assert path == tmp_path / "run" / "report" / PAGE
    names = {f"{chart.name}.{kind}" for chart in charts_of(result) for kind in ("svg", "png")}
    assert {file.name for file in path.parent.iterdir()} == {PAGE, *names}
    reader = Reader(path.read_text("utf-8"))
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert "script" not in reader.tags
    assert all(link.startswith(("#", "data:image/png")) for link in reader.links)
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert path.stat().st_size < 1_500_000
    assert open_run(result.folder).summary == result.summary


def test_the_page_says_what_the_terminal_says(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run")
    console = Console(file=io.StringIO(), width=200)
    render(result, console)
    assert isinstance(console.file, io.StringIO)
    said = [word for word in console.file.getvalue().split() if not re.fullmatch(r"[\u2500-\u257f ]+", word)]
    words = Reader(write_report(result).read_text("utf-8")).words
    missing = [word for word in said if word not in words]
    # The place of the results is for the terminal alone.
    assert missing == ["results", str(result.folder)]


def test_settings_and_provenance_are_on_the_page(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run")
    page = write_report(result).read_text("utf-8")
    assert '<tr><th scope="row">services.chat.slo.ttft_s</th><td>0.3</td></tr>' in page
    assert f'<tr><th scope="row">scenario_hash</th><td>{result.manifest["scenario_hash"]}</td></tr>' in page
    assert '<tr><th scope="row">versions.python</th><td>3.11</td></tr>' in page
    assert '<td class="missed">MISSED</td>' in page


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The page of a run whose names are plain."""
    return Reader(write_report(small_run(tmp_path_factory.mktemp("plain") / "run")).read_text("utf-8"))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '" onload="x', "--> <img src=x>", "[red]x[/red]\x1b[2J", "</svg></table>"]
)
def test_names_from_data_are_only_text(tmp_path: Path, plain: Reader, name: str) -> None:
    result = small_run(tmp_path / "run", name=name, service=name)
    hostile = Reader(write_report(result).read_text("utf-8"))
    assert hostile.open == []
    assert hostile.tags - plain.tags <= {"clippath"}
    assert name.replace("\x1b", "?").split()[0] in hostile.words


def test_a_report_is_replaced_and_equal_runs_give_equal_pages(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run")
    page = write_report(result)
    before = page.read_bytes()
    (page.parent / "cost_stack.png").unlink()
    assert write_report(result).read_bytes() == before
    assert (page.parent / "cost_stack.png").exists()
    assert sorted(file.name for file in result.folder.iterdir() if "report" in file.name) == ["report"]


def test_another_folder_is_never_replaced(tmp_path: Path) -> None:
    result = small_run(tmp_path / "run")
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        write_report(result, home)
    with pytest.raises(InputError, match="is a file"):
        write_report(result, home / "thesis.txt")
    assert (home / "thesis.txt").read_text() == "years of work"
    assert write_report(result, home / "new" / "report").exists()


def test_a_report_that_fails_leaves_the_earlier_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = small_run(tmp_path / "run")
    page = write_report(result)
    before = {file.name: file.read_bytes() for file in page.parent.iterdir()}

    def stop(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(html, "page", stop)
    with pytest.raises(KeyboardInterrupt):
        write_report(result)
    assert {file.name: file.read_bytes() for file in page.parent.iterdir()} == before
    assert [file.name for file in result.folder.iterdir() if file.name.startswith(".")] == []


def test_a_run_without_rows_has_a_page(tmp_path: Path) -> None:
    result = write(tmp_path / "run", scenario_of("1h", {"chat": Slo()}))
    page = write_report(result).read_text("utf-8")
    assert "No request arrived in this run" in page
    assert "Nothing was billed in this run" in page


def test_ids_of_figures_do_not_meet() -> None:
    shape = '<path id="p1"/><g clip-path="url(#p1)"/><use xlink:href="#p1"/>'
    letter = '<use xlink:href="#DejaVuSans-41"/>'
    found = inline_svg(f'<?xml?><svg width="1pt"><!-- x --><metadata>\n</metadata>{shape}{letter}</svg>\n', "cost", 'a "b"')
    own = '<path id="cost-p1"/><g clip-path="url(#cost-p1)"/><use xlink:href="#cost-p1"/>'
    assert found == f'<svg role="img" aria-label="a &quot;b&quot;" width="1pt">{own}{letter}</svg>'
