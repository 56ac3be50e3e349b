"""The whole input of a run: its dataclasses, their check, and what they resolve to."""

from sim.catalog.grid_reader import HourlyFile
from sim.scenario.batcher import DynamicBatcher
from sim.scenario.model import (
    Account,
    ColdStart,
    Deployment,
    Energy,
    Failure,
    Pool,
    RegionEnergy,
    Scenario,
    SegmentRules,
    Service,
    Slo,
    Spot,
    StageTime,
)
from sim.scenario.optimizations import Optimizations, Pruning, Speculative

__all__ = [
    "Account",
    "ColdStart",
    "Deployment",
    "DynamicBatcher",
    "Energy",
    "Failure",
    "HourlyFile",
    "Optimizations",
    "Pool",
    "Pruning",
    "RegionEnergy",
    "Scenario",
    "SegmentRules",
    "Service",
    "Slo",
    "Speculative",
    "Spot",
    "StageTime",
]
