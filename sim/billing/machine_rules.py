"""The written rules by which clouds turn the life of a machine into billed time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.domain.hardware import InstanceType
from sim.domain.pricing import LINUX, SUSE
from sim.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S


@dataclass(frozen=True)
class MachineRule:
    """How a cloud bills a machine beside its price: in which steps, at least how much, and what is free.

    Parameters
    ----------
    name : of the rule, for ledger rows. granularity_ns : the life is rounded up to whole ones of it, once, at its end.
    minimum_ns : charged at least. free_before_ns : a machine that its provider interrupts before this age costs nothing.
    whole_hours : by hours of its life; of a machine that its provider interrupts the hour that was begun costs nothing.
    from_boot : paid from the end of booting instead of from RUNNING.
    source : where the rule is written. confidence : "published" or "assumed".
    """

    name: str
    granularity_ns: int
    minimum_ns: int
    source: str
    confidence: str
    free_before_ns: int = 0
    whole_hours: bool = False
    from_boot: bool = False

    def billed_ns(self, life_ns: int) -> int:
        """Return the time billed for a machine that lived this long.

        Examples
        --------
        >>> ec2 = on_demand_rule("aws")
        >>> [ec2.billed_ns(life_ns) // NS_PER_S for life_ns in (59_200_000_000, 61_500_000_000, 90_000_000_000)]
        [60, 62, 90]
        """
        return max(-(-life_ns // self.granularity_ns) * self.granularity_ns, self.minimum_ns)

    def certain_ns(self, age_ns: int) -> int:
        """Return how much of a life is charged where the provider interrupts it at this age.

        Examples
        --------
        >>> suse, minute = SPOT_RULES["aws_suse"], NS_PER_MINUTE
        >>> [suse.certain_ns(age * minute) // minute for age in (59, 60, 150)]
        [0, 60, 120]
        >>> [SPOT_RULES["aws"].certain_ns(age * minute) // minute for age in (59, 60, 150)]
        [0, 60, 150]
        """
        if self.whole_hours:
            return age_ns // NS_PER_HOUR * NS_PER_HOUR
        return age_ns if age_ns >= self.free_before_ns else 0


_EC2 = "Amazon EC2 on-demand pricing and instance life cycle: Linux by the second, at least 60 s a start, nothing while pending"
_GCE = "Google Compute Engine VM pricing: by the second, at least one minute"
_TPU = "cloud.google.com/tpu/pricing: charges accrue while a node is READY, a chip and second"

EC2_ON_DEMAND = MachineRule("ec2_on_demand", NS_PER_S, NS_PER_MINUTE, f"{_EC2}; read 2026-11-23", "published")
EC2_SUSE = MachineRule(
    "ec2_suse",
    NS_PER_HOUR,
    0,
    "AWS whitepaper on reservation models, usage billing: SUSE Linux by the hour; read 2026-11-23",
    "published",
)
GCE_ON_DEMAND = MachineRule("gce_on_demand", NS_PER_S, NS_PER_MINUTE, f"{_GCE}; 2026-11-23, known text of the page", "published")
TPU_ON_DEMAND = MachineRule("cloud_tpu", NS_PER_S, 0, f"{_TPU}; read 2026-11-23", "published", from_boot=True)
AZURE_ON_DEMAND = MachineRule(
    "azure_per_second",
    NS_PER_S,
    0,
    "Azure virtual machine pricing: by the second in Running or Stopped; quoted 2026-11-23",
    "assumed",
)
LAMBDA_ON_DEMAND = MachineRule(
    "lambda_per_minute", NS_PER_MINUTE, 0, "Lambda: by the minute while running; 2026-11-23, rounding up from memory", "assumed"
)
RUNPOD_ON_DEMAND = MachineRule(
    "runpod_per_second",
    NS_PER_S,
    0,
    "docs.runpod.io/accounts-billing/billing: all compute by the second; read 2026-11-23",
    "published",
)
COREWEAVE_ON_DEMAND = MachineRule(
    "coreweave_per_minute", NS_PER_MINUTE, 0, "CoreWeave lists prices an hour; by the minute, rounded up, from memory", "assumed"
)
OTHER_ON_DEMAND = MachineRule("per_second", NS_PER_S, 0, "no rule known for this cloud: by the second, no minimum", "assumed")
# One's own machines: what they cost an hour does not depend on when they are switched on.
OWNED = MachineRule("owned", 1, 0, "amortisation by the hour, used or not", "assumed")
# The whole block is paid in advance; its machines cost nothing more.
PREPAID = MachineRule("capacity_block", 1, 0, "Amazon EC2 Capacity Blocks: the whole block up front; read 2026-11-23", "published")

_ON_DEMAND: Mapping[str, MachineRule] = {
    "aws": EC2_ON_DEMAND,
    "aws_suse": EC2_SUSE,
    "gcp": GCE_ON_DEMAND,
    "tpu": TPU_ON_DEMAND,
    "azure": AZURE_ON_DEMAND,
    "lambda": LAMBDA_ON_DEMAND,
    "runpod": RUNPOD_ON_DEMAND,
    "coreweave": COREWEAVE_ON_DEMAND,
}

_EC2_SPOT = "Amazon EC2 user guide, billing for interrupted spot instances: Linux interrupted by EC2 in the first hour is free"
_EC2_SPOT_SUSE = "whole hours, of which the one that EC2 interrupts is free and the one that the user ends is not"
_GCE_SPOT = "Google Compute Engine, spot VMs: free if preempted in the first minute"
_TPU_SPOT = "cloud.google.com/tpu/docs/preemptible: free if preempted in the first minute after creation"

SPOT_RULES: Mapping[str, MachineRule] = {
    "aws": MachineRule("ec2_spot", NS_PER_S, NS_PER_MINUTE, f"{_EC2_SPOT}; read 2026-11-23", "published", NS_PER_HOUR),
    "aws_suse": MachineRule(
        "ec2_spot_suse", NS_PER_HOUR, 0, f"{_EC2_SPOT}; SUSE: {_EC2_SPOT_SUSE}; read 2026-11-23", "published", whole_hours=True
    ),
    "gcp": MachineRule("gcp_spot", NS_PER_S, NS_PER_MINUTE, f"{_GCE_SPOT}; read 2026-11-23", "published", NS_PER_MINUTE),
    "tpu": MachineRule("tpu_spot", NS_PER_S, 0, f"{_TPU_SPOT}; read 2026-11-23", "published", NS_PER_MINUTE, from_boot=True),
    "azure": MachineRule("azure_spot", NS_PER_S, 0, "Azure spot: as its other machines; no free time known", "assumed"),
}


def on_demand_rule(offer: str) -> MachineRule:
    """Return the on-demand rule of an offer, a cloud or "tpu"; by the second without a minimum where none is known."""
    return _ON_DEMAND.get(offer, OTHER_ON_DEMAND)


def offer_of(instance: InstanceType, operating_system: str = LINUX) -> str:
    """Return what a machine is billed as: its cloud; "tpu" for hosts of TPU chips, which Google bills by chip; "aws_suse".

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> [offer_of(load_catalog().instances[name]) for name in ("p5.4xlarge", "ct5lp-hightpu-4t")]
    ['aws', 'tpu']
    """
    if operating_system == SUSE:
        return f"{instance.cloud}_{SUSE}"
    return "tpu" if instance.cloud == "gcp" and instance.accelerator.startswith("tpu-") else instance.cloud
