"""Faults planted in the kernel are found by the random scenarios: a check of the check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sim

# Name, file, what is replaced, by what.
MUTANTS = [
    ("no cut at arrivals", "kernel_routing", "        wake_after(m, r, passed_ns(m, r))\n    if", "        pass\n    if"),
    ("cached tokens at a recompute", "kernel_queues", "    if m[q + Q_STARTED]:\n        m[q + Q_CACHED] = 0\n", ""),
    (
        "oldest victim",
        "kernel_batching",
        "m[q + Q_ADMISSION] > m[best + Q_ADMISSION]",
        "m[q + Q_ADMISSION] < m[best + Q_ADMISSION]",
    ),
    ("arrival before step end", "kernel", "if now_ns == wake_ns:", "if now_ns == wake_ns and now_ns != open_ns:"),
    (
        "no wake at the deadline of the head",
        "kernel_batching",
        "            wake_after(m, r, m[q + Q_DEADLINE_NS])",
        "            pass",
    ),
    ("KV limit off by one", "kernel_batching", "> kv:", ">= kv:"),
    ("no pull after an expiry", "kernel_batching", "            pull(m, r, 1)\n", ""),
    ("highest index at ties", "kernel_parts", "(m[tree + 2 * node] != least)", "(m[tree + 2 * node + 1] == least)"),
    ("late deadline", "kernel_queues", "m[NOW_NS] > m[q + Q_DEADLINE_NS]", "m[NOW_NS] >= m[q + Q_DEADLINE_NS]"),
    ("admission after a preemption", "kernel_batching", "if preempted or budget <= 0", "if budget <= 0"),
    (
        "no cut at a knot",
        "kernel_batching",
        "if m[s + S_KNOTS] > 1:",
        "if False:",
    ),
    (
        "a step beyond the knot",
        "kernel_steps",
        "- context + decoding - 1) // decoding",
        "- context + 2 * decoding - 1) // decoding",
    ),
    ("the last table entry for ever", "kernel_steps", "max(more, 0) * m[s + S_TOKEN_FX]", "0"),
    (
        "energy of the first piece",
        "kernel_steps",
        "    piece = tables + m[r + R_PIECE]\n",
        "    piece = tables + m[s + S_CONTEXTS]\n",
    ),
    ("fraction dropped", "kernel_steps", "m[r + R_FRACTION_FX] = end_fx & FRACTION_MASK", "m[r + R_FRACTION_FX] = 0"),
    (
        "no cut for one that others make way for",
        "kernel_routing",
        "if m[r + R_DECODING] < seats or m[r + R_BACKLOG] > 0:",
        "if False:",
    ),
    (
        "making way in vain",
        "kernel_batching",
        "        if place == NONE:\n            return False\n",
        "        if place == NONE:\n            break\n",
    ),
    (
        "the backlog goes last",
        "kernel_batching",
        "order, best_order = m[q + Q_SOURCE] == FROM_BACKLOG, m[best + Q_SOURCE] == FROM_BACKLOG",
        "order, best_order = m[q + Q_SOURCE] != FROM_BACKLOG, m[best + Q_SOURCE] != FROM_BACKLOG",
    ),
    (
        "a look into the backlog at every step",
        "kernel_batching",
        "asks = m[r + R_ASKS] == 1 and m[BACKLOGS] > 0",
        "asks = m[BACKLOGS] > 0",
    ),
    ("nobody hears of what was thrown back", "kernel_backlogs", "        m[OFFERED] = 0\n", "        pass\n"),
    (
        "a delay from the newest",
        "kernel_batcher",
        "oldest_ns = min(oldest_ns, m[q + Q_DISPATCHED_NS])",
        "oldest_ns = m[q + Q_DISPATCHED_NS]",
    ),
    (
        "a preferred size for the late",
        "kernel_batcher",
        "if best > 0 and (m[NOW_NS] < due_ns or m[s + S_DELAY_NS] == 0):",
        "if best > 0:",
    ),
    (
        "the largest preferred size passed",
        "kernel_batcher",
        "            if count > 0 and best == 0 and size + items > largest:\n                best = count\n",
        "",
    ),
    ("queue of a batcher off by one", "kernel_batcher", "    return room <= 0", "    return room < 0"),
    ("heads of queues forgotten", "kernel_routing", "    m[QUEUE_CHANGED] = 0\n", "    m[QUEUE_CHANGED] = 0\n    return\n"),
    (
        "a door for those who come back",
        "kernel",
        "        index = choose(m, f, q)\n",
        "        index = NONE if throttled(m, q) else choose(m, f, q)\n",
    ),
    (
        "one too many at the door",
        "kernel_queues",
        "np.uint64(64 - ADMITTED_BITS)) >= admitted",
        "np.uint64(64 - ADMITTED_BITS)) > admitted",
    ),
    (
        "a pull that knows no routes",
        "kernel_queues",
        "if fits(m, r, q) and not expired(m, q):",
        "if m[m[ABOVE_AT] + m[r + R_SPEC] * m[STREAMS] + m[q + Q_STREAM]] < NEVER_NS // 2 and not expired(m, q):",
    ),
    (
        "no cut for one that a new route brings",
        "kernel_routing",
        "            wake_after(m, r, passed_ns(m, r))\n    touch(m, r)\n",
        "            pass\n    touch(m, r)\n",
    ),
    (
        "a stale index after a route",
        "kernel_routing",
        "            wake_after(m, r, passed_ns(m, r))\n    touch(m, r)\n",
        "            wake_after(m, r, passed_ns(m, r))\n",
    ),
]
PLAY = """
import os
import sys
sys.path[:0] = {paths!r}
from hypothesis import HealthCheck, Phase, given, settings
from scenarios import Player, differences, scenarios
from sim.dataplane.compiled import CompiledPlane
from sim.dataplane.reference import ReferencePlane

@settings(
    max_examples=2_000, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(scenario=scenarios())
def check(scenario):
    one, other = (Player(engine, scenario).play().tables() for engine in (ReferencePlane, CompiledPlane))
    if differences(one, other):
        os._exit(3)  # at once, without the search for a smaller example

check()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module", "old", "new"), MUTANTS, ids=[mutant[0] for mutant in MUTANTS])
def test_a_fault_in_the_kernel_is_found(name: str, module: str, old: str, new: str, tmp_path: Path) -> None:
    """A copy of the package with one fault differs from the reference in some of 2,000 scenarios, or breaks a rule's own test."""
    assert sim.__file__ is not None
    shutil.copytree(Path(sim.__file__).parent, tmp_path / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "sim" / "dataplane" / f"{module}.py"
    text = source.read_text("utf-8")
    assert text.count(old) == 1
    source.write_text(text.replace(old, new), "utf-8")
    here = Path(__file__).parent
    code = PLAY.format(paths=[str(tmp_path), str(here), str(here.parent)])
    rules = [str(here / f"test_dataplane_{kind}.py") for kind in ("backlog", "batcher", "doors")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    rule_tests = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *rules]
    for words, found, says in ((["-c", code], 3, ""), (rule_tests, 1, "[CompiledPlane")):
        done = subprocess.run([sys.executable, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        if done.returncode:
            assert (done.returncode, says in done.stdout) == (found, True), done.stdout + done.stderr
            return
    pytest.fail(f"nobody noticed: {name}")
