"""billcast: every request of months of ML serving, and what it costs.

The public names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Scenario": "sim.scenario",
    "load_scenario": "sim.app.conf",
    "open_replications": "sim.results.replications",
    "open_run": "sim.results.records",
    "pivot": "sim.results.pivot",
    "price_lives": "sim.studies.price",
    "register": "sim.registry",
    "replicate": "sim.studies.replicate",
    "simulate": "sim.studies.runner",
    "sweep": "sim.studies.sweep",
}
__all__ = [
    "Scenario",
    "__version__",
    "load_scenario",
    "open_replications",
    "open_run",
    "pivot",
    "price_lives",
    "register",
    "replicate",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sim' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
