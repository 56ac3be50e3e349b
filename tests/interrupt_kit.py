"""Runs in a process of their own that are interrupted in the middle of their work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The longest that a process may take to begin, and to end after Ctrl-C.
PATIENCE_S = 120


def _listen() -> None:
    """A suite started in the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def billcast(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command line in a process of its own; whatever happens, it is gone at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sim.app.cli", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_listen,  # noqa: PLW1509  # the child becomes another program at once
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupt(process: subprocess.Popen[str], at_work: Callable[[], bool]) -> tuple[int, str, str]:
    """Press Ctrl-C once the process is at work; returns its exit code and what it printed and complained."""
    deadline = time.monotonic() + PATIENCE_S
    while not at_work():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err
