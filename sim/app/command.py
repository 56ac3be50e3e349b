"""What every command has: a summary, arguments, something to do, and an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

Arguments = argparse.Namespace


@dataclass(frozen=True)
class Command:
    """One subcommand: a line for the overview, how its arguments are declared, and what it does."""

    summary: str
    declare: Callable[[argparse.ArgumentParser], None]
    act: Callable[[Arguments], int]
