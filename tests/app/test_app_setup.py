"""Set-up: a wrong Python is refused, an installed tree needs no network, a wheel carries its configs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sim
from sim.app.conf import config_dir

ROOT = Path(sim.__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").is_file(), reason="not a checkout")


def _make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # What an outer make was called with must not reach this one.
    outer = ("MAKE", "MFLAGS", "ARGS", "TESTS", "PYTHON")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(outer)}
    return subprocess.run(
        ["make", *words], cwd=folder, env=kept | environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with what make needs, and a `python` that says which version it is and does nothing else."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _fake_python(folder: Path, major: int, minor: int) -> Path:
    """Write an interpreter that runs `-c` with another version, and refuses everything else."""
    path = folder / "fake-python"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || exit 9\nexec {sys.executable} -c "import sys; sys.version_info = ({major}, {minor}, 0); $2"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7)])
def test_a_wrong_python_is_refused_with_what_is_needed(version, copy):
    python = _fake_python(copy, *version)
    done = _make(copy, "run", f"PYTHON={python}")
    assert done.returncode == 2
    assert f"billcast needs Python 3.11, 3.12 or 3.13, and {python} is {version[0]}.{version[1]}" in done.stderr
    assert "make PYTHON=/path/to/python3.12 run" in done.stderr
    assert not (copy / ".venv").exists()


def test_no_python_at_all_is_said(copy, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("make", "sh", "test", "echo"):
        (tools / name).symlink_to(str(shutil.which(name)))
    done = _make(copy, "run", PATH=str(tools))
    assert done.returncode == 2
    assert "billcast needs Python 3.11, 3.12 or 3.13, and none was found on PATH" in done.stderr


def test_an_installed_tree_is_not_installed_again(copy):
    """With newer stamps make goes straight to the command, so it works without a network."""
    binaries = copy / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "billcast", "pytest"):
        (binaries / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (binaries / name).chmod(0o755)
    for name in (".installed", ".installed-dev"):
        (copy / ".venv" / name).touch()
    assert _make(copy, "run", "ARGS=horizon=1h seed=2").stdout == "billcast run horizon=1h seed=2\n"
    assert _make(copy, "test").stdout == "pytest -n auto\n"


def test_a_changed_pyproject_is_installed_again(copy):
    binaries = copy / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "billcast"):
        (binaries / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (binaries / name).chmod(0o755)
    stamp = copy / ".venv" / ".installed"
    stamp.touch()
    os.utime(stamp, (1, 1))
    first, second = _make(copy, "run").stdout, _make(copy, "run").stdout
    assert "python -m pip install" in first
    assert second == "billcast run\n"


def test_validate_needs_the_data(copy):
    binaries = copy / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").touch()
    for name in (".installed", ".installed-dev"):
        (copy / ".venv" / name).touch()
    done = _make(copy, "validate", BILLCAST_DATA=str(copy / "none"))
    assert done.returncode == 2
    assert "measured data not found at BILLCAST_DATA=" in done.stderr


def test_ci_runs_lint_and_tests_and_is_executable():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make lint" in script.read_text()
    assert script.read_text().index("make lint") < script.read_text().index("make test")


def test_an_editable_install_reads_the_configs_of_the_checkout():
    assert config_dir() == ROOT / "configs"


@pytest.mark.slow
def test_a_wheel_carries_its_configs(tmp_path):
    """Builds a wheel, unpacks it, and lists its scenarios from there; needs what a build needs."""
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("billcast-*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    shipped = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    assert {path.relative_to(unpacked / "sim/configs") for path in (unpacked / "sim/configs").rglob("*.yaml")} == shipped
    assert (unpacked / "sim/catalog/instances.yaml").is_file()
    script = (
        "from sim.app.conf import config_dir, load_scenario, scenario_names; "
        "print(config_dir()); print(*scenario_names()); print(load_scenario('peer_w3').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    folder, names, loaded = done.stdout.splitlines()
    assert Path(folder) == unpacked / "sim" / "configs"
    assert "quickstart" in names.split()
    assert loaded == "peer_w3"
