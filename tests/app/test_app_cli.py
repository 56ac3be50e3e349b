"""The command line: exit codes, messages, what is printed where, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupt_kit import billcast, interrupt

import sim.studies.runner
from sim import open_run
from sim.app.cli import main
from sim.errors import RunError

BILLCAST = [sys.executable, "-m", "sim.app.cli"]
SHORT = ["scenario=peer_w3", "horizon=20s"]


def _outcome(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_prints_its_report_and_writes_its_folder(capsys, tmp_path):
    code, out, err = _outcome(capsys, "run", *SHORT, "out=result")
    assert (code, err) == (0, "")
    assert "INVOICE" in out
    assert "SLO" in out
    assert "result" in out
    run = open_run(tmp_path / "result")
    assert run.summary["requests"]["arrived"] > 0
    assert run.manifest["scenario"]["services"]["chat"]["workload"]["choice"] == "poisson"


def test_the_default_folder_is_below_outputs(capsys, tmp_path):
    assert _outcome(capsys, "run", *SHORT)[0] == 0
    [folder] = (tmp_path / "outputs" / "peer_w3").iterdir()
    assert json.loads((folder / "summary.json").read_text())["engine"]["name"] == "compiled"


BAD = ["hroizon=1h", "rate_per_s=-2", "seed=one", "model=llama-2-70b", "tensor_parallel=1", "warmup=9h"]


@pytest.mark.parametrize("command", ["run", "validate"])
def test_bad_input_shows_every_problem_and_leaves_nothing(command, capsys, tmp_path):
    code, out, err = _outcome(capsys, command, *SHORT, *BAD)
    assert (code, out) == (2, "")
    assert "5 problems" in err
    for path in (
        "hroizon = '1h'",
        "services.chat.workload.rate_per_s = -2.0",
        "seed = 'one'",
        "deployments.llama_70b.model",
        "warmup = '9h'",
    ):
        assert path in err
    assert "did you mean 'horizon'?" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_an_end_before_the_start(capsys):
    code, _, err = _outcome(capsys, "run", "horizon=-1h")
    assert code == 2
    assert "the end would be before the start" in err


def test_a_missing_trace_names_the_nearest_file(capsys, tmp_path):
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    code, _, err = _outcome(capsys, "run", "scenario=azure_chat_trace", "workload.path=trce.csv")
    assert code == 2
    assert "did you mean 'trace.csv'?" in err


def test_a_trace_that_is_not_given_is_asked_for(capsys):
    code, _, err = _outcome(capsys, "run", "scenario=azure_chat_trace")
    assert code == 2
    assert "services.chat.workload.path" in err
    assert "no trace is given" in err


def test_a_broken_row_is_bad_input_with_its_line(capsys, tmp_path):
    rows = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,many,109\n"
    (tmp_path / "trace.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")
    code, _, err = _outcome(capsys, "run", "scenario=azure_chat_trace", "workload.path=trace.csv", "out=result")
    assert code == 2
    assert "trace.csv" in err
    assert "3" in err
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.csv"]


def test_the_words_of_a_user_cannot_move_the_cursor(capsys):
    _, _, err = _outcome(capsys, "run", "\x1b[2Jx=1")
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RunError("the fleet is gone"), 1, "the run failed: the fleet is gone"),
        (ZeroDivisionError("division by zero"), 1, "failed: ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), 130, "stopped; nothing half-written is left"),
    ],
)
def test_what_goes_wrong_in_a_run_is_a_message_and_a_code(error, code, says, capsys, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sim.studies.runner, "simulate", broken)
    got, _, err = _outcome(capsys, "run", *SHORT)
    assert got == code
    assert says in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RunError("the fleet is gone")

    monkeypatch.setattr(sim.studies.runner, "simulate", broken)
    with pytest.raises(RunError):
        main(["run", *SHORT, "--debug"])


def test_ctrl_c_stops_a_run_and_leaves_nothing(tmp_path):
    with billcast("run", "scenario=bench_chat8", "horizon=3650d", "records=all", "out=result") as process:
        # Records on disk show that requests are being simulated.
        code, out, err = interrupt(process, lambda: any(tmp_path.rglob("requests.*.part.parquet")))
    assert (code, out, err.strip()) == (130, "", "billcast: stopped; nothing half-written is left")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_library_after_ctrl_c_is_a_stop(monkeypatch, capsys):
    """DuckDB turns the interrupt into an error of its own; the suite's other Ctrl-C test met it by chance."""

    def interrupted(*_: object, **__: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(sim.studies.runner, "simulate", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, out, err = _outcome(capsys, "run", *SHORT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out, err.strip()) == (130, "", "billcast: stopped; nothing half-written is left")


def test_help_answers_at_once_and_imports_nothing_heavy():
    heavy = "hydra omegaconf numpy simpy numba duckdb matplotlib rich scipy yaml"
    script = (
        "import sys; from sim.app.cli import main; main(['--help']); "
        f"sys.exit(' '.join(name for name in {heavy!r}.split() if name in sys.modules))"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 1)  # sys.exit('') is exit code 1 and an empty line
    assert all(name in done.stdout for name in ("run", "validate", "catalog", "doctor"))
    # 0.04 s on an idle machine; the bound is the design's.
    assert time.perf_counter() - began < 0.7


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_version(words, capsys):
    assert _outcome(capsys, *words) == (0, "billcast 0.1.0\n", "")


def test_no_command_shows_the_commands(capsys):
    code, out, _ = _outcome(capsys)
    assert code == 2
    assert "usage: billcast COMMAND" in out


def test_an_unknown_command_names_the_nearest(capsys):
    code, _, err = _outcome(capsys, "valdate")
    assert code == 2
    assert "did you mean 'validate'?" in err


def test_an_unknown_option_is_bad_input(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--no-such-option"])
    assert stopped.value.code == 2
    assert "usage: billcast run" in capsys.readouterr().err


def test_a_closed_pipe_is_no_traceback():
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([*BILLCAST, "catalog", "fits"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_plugin_adds_a_choice(capsys, tmp_path):
    (tmp_path / "night_owl.py").write_text(
        "from sim.policies.autoscalers.static import Static\n"
        "from sim.registry import register\n\n\n"
        '@register("autoscaler", "night_owl_of_a_test")\n'
        "class NightOwl(Static):\n"
        "    night: int = 1\n\n"
        "    def initial_replicas(self) -> int:\n"
        "        return self.night\n"
    )
    code, _, err = _outcome(
        capsys, "run", *SHORT, "--plugin", "night_owl.py", "autoscaler=night_owl_of_a_test", "night=2", "out=result"
    )
    assert (code, err) == (0, "")
    assert len(open_run("result").table("replicas")["replica"]) >= 2


def test_a_plugin_that_is_not_there_or_breaks_is_bad_input(capsys, tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module_of_a_test\n")
    for file, says in (("none.py", "there is no such Python file"), ("broken.py", "ModuleNotFoundError")):
        code, _, err = _outcome(capsys, "validate", *SHORT, "--plugin", file)
        assert code == 2
        assert says in err


def test_options_may_stand_among_settings(capsys, tmp_path):
    (tmp_path / "scenario").mkdir()
    (tmp_path / "scenario" / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - peer_w3\n  - _self_\nname: mine\n")
    code, out, err = _outcome(capsys, "validate", "scenario=mine", "--config-dir", str(tmp_path), "horizon=60s")
    assert (code, err) == (0, "")
    assert "capacity sheet of mine" in out


def test_a_taken_folder_is_one_problem_among_the_others(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine", "utf-8")
    assert main(["run", f"out={tmp_path / 'full'}", "rate_per_s=-1"]) == 2
    shown = capsys.readouterr().err
    assert "2 problems" in shown
    assert "out = " in shown
    assert "services.chat.workload.rate_per_s = -1.0" in shown


def test_a_plugin_that_wants_to_end_the_program_is_bad_input(tmp_path, capsys):
    plugin = tmp_path / "quits.py"
    plugin.write_text("raise SystemExit(3)\n", "utf-8")
    assert main(["run", "--plugin", str(plugin)]) == 2
    assert "cannot be imported: SystemExit: 3" in capsys.readouterr().err
