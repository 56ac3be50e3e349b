"""What a charge of the ledger is in the words of FOCUS: provider, service, unit, SKU, commitment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sim.catalog.loader import Catalog
from sim.domain.pricing import TERM_HOURS

# Names as the providers write them; clouds of the catalog.
PROVIDERS = {
    "aws": "AWS",
    "azure": "Microsoft",
    "gcp": "Google Cloud",
    "coreweave": "CoreWeave",
    "lambda": "Lambda",
    "runpod": "RunPod",
}
# Who sells a managed offer that is of no cloud, and services of managed offers; one that rents plain machines has none of its own.
SELLERS = {"modal": "Modal", "replicate": "Replicate", "runpod_serverless": "RunPod"}
_LEARNING = ("AI and Machine Learning", "Machine Learning")
_MANAGED = {
    "sagemaker": (*_LEARNING, "Amazon SageMaker", "Endpoint Usage"),
    "sagemaker_training": (*_LEARNING, "Amazon SageMaker", "Training Usage"),
    "sagemaker_batch": (*_LEARNING, "Amazon SageMaker", "Batch Transform Usage"),
    "vertex": (*_LEARNING, "Vertex AI", "Endpoint Usage"),
    "modal": ("Compute", "Serverless Compute", "Modal", "Container Usage"),
    "replicate": (*_LEARNING, "Replicate", "Deployment Usage"),
    "runpod_serverless": ("Compute", "Serverless Compute", "RunPod Serverless", "Worker Usage"),
}
_MACHINES = {"aws": "Amazon Elastic Compute Cloud", "azure": "Virtual Machines", "gcp": "Compute Engine"}
NOT_APPLICABLE = "Not Applicable"
VIRTUAL_MACHINES = "Virtual Machines"
_MACHINE = ("Compute", VIRTUAL_MACHINES)
# ServiceCategory, ServiceSubcategory, ServiceName and SkuMeter by category of the ledger; machines are named by their cloud.
_SERVICES = {
    "energy": ("Other", "Other (Other)", "Electricity", "Electricity"),
    "storage": ("Storage", "Other (Storage)", "Storage", "Storage"),
    "network": ("Networking", "Other (Networking)", "Networking", "Data Transfer"),
    "tokens": ("AI and Machine Learning", "Generative AI", "Token API", "Tokens"),
    "licence": ("Other", "Other (Other)", "Licences", "Licences"),
    "cluster": ("Compute", "Containers", "Cluster", "Cluster Time"),
    "monitoring": ("Management and Governance", "Observability", "Monitoring", "Monitoring"),
    "people": ("Other", "Other (Other)", "People", "Working Time"),
}
OF_MACHINES = ("compute", "minimum", "commitment", "commitment_waste")
# Purchase option -> category and type of the commitment discount.
SPEND, USAGE = "Spend", "Usage"
COMMITMENTS = {
    "reserved": (USAGE, "Reserved Instance"),
    "committed_use": (USAGE, "Committed Use Discount"),
    "savings_plan": (SPEND, "Savings Plan"),
    "flexible_committed_use": (SPEND, "Flexible Committed Use Discount"),
}
# Whose a commitment is that names no machine type.
_CLOUDS = {"azure": "azure", "flexible": "gcp", "committed": "gcp"}
CAPACITY_RESERVATION, CAPACITY_BLOCK, OWNED = "capacity_reservation", "capacity_block", "owned"
_AS_WRITTEN = ("B", "KB", "MB", "GB", "TB", "PB", "KiB", "MiB", "GiB", "TiB", "kWh", "USD", "GPU", "LCU")
_NO_PLURAL = _AS_WRITTEN[:-2]
_PRICE = re.compile(r"([0-9]+(?:\.[0-9]+)?) per ([A-Za-z0-9][A-Za-z0-9 -]*)")


@dataclass(frozen=True)
class Service:
    """What is bought: names of the specification's columns ServiceCategory, ServiceSubcategory, ServiceName and SkuMeter."""

    category: str
    subcategory: str
    name: str
    meter: str


def service_of(category: str, cloud: str, purchase: str = "") -> Service:
    """Return what a charge of a ledger category buys from a cloud, or from the managed offer that is its purchase option.

    Examples
    --------
    >>> service_of("minimum", "aws").name, service_of("energy", "aws").category, service_of("compute", "aws", "sagemaker").name
    ('Amazon Elastic Compute Cloud', 'Other', 'Amazon SageMaker')
    """
    if category in OF_MACHINES and purchase in _MANAGED:
        return Service(*_MANAGED[purchase])
    if category in OF_MACHINES:
        return Service(*_MACHINE, _MACHINES.get(cloud, "Machines"), "Compute Usage")
    return Service(*_SERVICES[category])


def unit_text(unit: str) -> str:
    """Return a unit as the specification writes it: capital words in the plural, joined by hyphens.

    Examples
    --------
    >>> [unit_text(unit) for unit in ("hour", "GB-month", "kWh", "GB", "metric-month", "GPU-hour")]
    ['Hours', 'GB-Months', 'kWh', 'GB', 'Metric-Months', 'GPU-Hours']
    """
    words = [
        word if word in _AS_WRITTEN else word.capitalize() for word in re.split("[- ]", unit.removesuffix(" committed")) if word
    ]
    last = words[-1]
    return "-".join([*words[:-1], last if last in _NO_PLURAL or last.endswith("s") else f"{last}s"])


@dataclass(frozen=True)
class Price:
    """A price as the ledger writes it: USD for one of a unit."""

    usd: Decimal
    unit: str


def price_of(text: str) -> Price | None:
    """Read the unit price of a ledger row; None where it is no single price.

    Examples
    --------
    >>> price_of("12.29 per hour"), price_of("0 per hour (interrupted early)")
    (Price(usd=Decimal('12.29'), unit='hour'), Price(usd=Decimal('0'), unit='hour'))
    >>> price_of("on request") is None
    True
    """
    match = _PRICE.match(text)
    return None if match is None else Price(Decimal(match[1]), match[2].strip())


def cloud_of_promise(row: Mapping[str, Any], catalog: Catalog) -> str:
    """Return the cloud of a row of `commitments:`: of its machine type, or by what was chosen.

    Examples
    --------
    >>> from sim.catalog.loader import load_catalog
    >>> rows = {"choice": "compute_savings_plan"}, {"choice": "flexible_committed_use"}, {"instance": "ct5lp-hightpu-4t"}
    >>> [cloud_of_promise(row, load_catalog()) for row in rows]
    ['aws', 'gcp', 'gcp']
    """
    machine = catalog.instances.get(row.get("instance", ""))
    return machine.cloud if machine else _CLOUDS.get(str(row["choice"]).split("_")[0], "aws")


def term_quantity(row: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return what a row of `commitments:` promises over its term, in machine hours or in USD, and whether it is paid by the month.

    Examples
    --------
    >>> term_quantity({"count": 2, "term": "1y"}), term_quantity({"usd_per_hour": "3.50", "term": "3y", "payment": "all_upfront"})
    (('17520', False), ('91980', False))
    """
    hours = TERM_HOURS.get(str(row.get("term", "")))
    monthly = row.get("payment") == "no_upfront"
    if hours is None:
        return None, monthly
    each = Decimal(row["count"]) if "count" in row else Decimal(str(row["usd_per_hour"]))
    return f"{(each * hours).normalize():f}", monthly
