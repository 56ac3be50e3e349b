"""Kernels of older versions are deleted, but never one that is in use."""

from __future__ import annotations

import ast
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.dataplane import kernel_cache
from sim.dataplane.kernel_cache import KEPT, KEPT_DAYS, cache_folder, prune

NOW_S = 1_800_000_000.0
DAY_S = 86_400


def _kernel(home: Path, name: str, days_old: float) -> Path:
    folder = home / f"kernel-{name}"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "advance.nbi").write_bytes(b"code")
    os.utime(folder, (NOW_S, NOW_S - days_old * DAY_S))
    return folder


def _names(home: Path) -> list[str]:
    return sorted(folder.name for folder in home.iterdir())


def test_only_what_is_old_and_not_among_the_latest_is_deleted(tmp_path: Path) -> None:
    latest = [_kernel(tmp_path, f"latest-{number}", KEPT_DAYS + number + 1.0) for number in range(KEPT - 1)]
    used = _kernel(tmp_path, "used", 0.0)
    old = [_kernel(tmp_path, f"old-{number}", KEPT_DAYS + KEPT + number) for number in range(3)]
    (tmp_path / "other").mkdir()
    assert prune(tmp_path, NOW_S) == [folder.name for folder in old]
    assert _names(tmp_path) == sorted([folder.name for folder in [*latest, used]] + ["other"])
    assert all((folder / "code" / "advance.nbi").read_bytes() == b"code" for folder in [*latest, used])


def test_what_was_used_lately_stays_however_many_there_are(tmp_path: Path) -> None:
    for number in range(KEPT + 5):
        _kernel(tmp_path, str(number), KEPT_DAYS - 0.01)
    before = _names(tmp_path)
    assert prune(tmp_path, NOW_S) == []
    assert _names(tmp_path) == before


def test_a_folder_that_another_process_begins_to_use_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process touches its folder after its age was read and before it was moved."""
    for number in range(KEPT):
        _kernel(tmp_path, f"latest-{number}", 0.0)
    old = _kernel(tmp_path, "old", KEPT_DAYS + 1.0)
    rename = Path.rename

    def touched_first(self: Path, target: Path) -> Path:
        if self == old:
            os.utime(self, (NOW_S, NOW_S))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", touched_first)
    before = _names(tmp_path)
    assert prune(tmp_path, NOW_S) == []
    assert _names(tmp_path) == before


def test_two_processes_that_prune_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has deleted the first folder by the time we move it."""
    for number in range(KEPT):
        _kernel(tmp_path, f"latest-{number}", 0.0)
    gone, old = _kernel(tmp_path, "a", KEPT_DAYS + 1.0), _kernel(tmp_path, "b", KEPT_DAYS + 2.0)
    rename = Path.rename

    def other_was_faster(self: Path, target: Path) -> Path:
        if self == gone:
            raise FileNotFoundError(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", other_was_faster)
    assert prune(tmp_path, NOW_S) == [old.name]
    assert gone.exists()


def test_the_folder_of_this_version_counts_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    began_s = time.time() - 1
    folder = cache_folder()
    os.utime(folder, (0, 0))
    assert cache_folder() == folder
    assert folder.stat().st_mtime >= began_s
    for number in range(KEPT):
        _kernel(folder.parent, str(number), 0.0)
    prune(folder.parent, time.time())
    assert folder.is_dir()


def test_an_empty_folder_is_announced_and_a_full_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # A sweep of an earlier test lets Hydra set up logging, which may switch off loggers that are there.
    monkeypatch.setattr(kernel_cache.log, "disabled", False)
    with caplog.at_level(logging.WARNING):
        folder = Path(kernel_cache.kernel_folder.__wrapped__())
        assert [record.getMessage() for record in caplog.records] == ["compiling kernels, once (about 20 s)"]
        caplog.clear()
        (folder / "advance.nbi").touch()
        kernel_cache.kernel_folder.__wrapped__()
    assert caplog.records == []


@pytest.mark.slow
def test_the_first_run_says_that_it_compiles_and_the_second_does_not(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sim.app.cli", "run", "scenario=peer_w3", "horizon=5s"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    first, second = (
        subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stderr for _ in range(2)
    )
    assert first.strip() == "compiling kernels, once (about 20 s)"
    assert second == ""


def test_the_name_of_the_folder_depends_on_everything_the_kernel_takes_constants_from() -> None:
    """Arrays' types and the cache itself are all that the kernel's files may import from elsewhere."""
    covered = {module.__name__ for module in kernel_cache.CONSTANTS}
    imported = set()
    for path in Path(kernel_cache.__file__).parent.glob(kernel_cache.PATTERN):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sim.") and path.stem != "kernel_cache":
                names = {alias.name for alias in node.names}
                if not node.module.startswith("sim.dataplane.kernel") and not names <= {"IntArray", "FloatArray"}:
                    imported.add(node.module)
    assert imported == covered
