"""Which service and seller a charge has in the FOCUS export, and what cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_results_focus import SERVICE_CATEGORIES, SUBCATEGORIES, a_run, machines, written

from sim.catalog.loader import load_catalog
from sim.errors import InputError
from sim.results.focus import write_focus
from sim.results.focus_services import PROVIDERS, SELLERS, service_of


@pytest.mark.parametrize(("instance", "purchase"), [("a-machine-of-mine", "on_demand"), ("p5.4xlarge", "owned")])
def test_machines_of_no_cloud_are_the_accounts_own(instance: str, purchase: str, tmp_path: Path) -> None:
    rows = written(a_run(tmp_path / "run", machines, instance=instance, purchase=purchase), tmp_path)
    assert {(row["ServiceProviderName"], row["ServiceName"]) for row in rows} == {("account", "Machines")}


@pytest.mark.parametrize(
    ("purchase", "instance", "seller", "service"),
    [
        ("sagemaker", "p5.4xlarge", "AWS", "Amazon SageMaker"),
        ("sagemaker_training", "p5.4xlarge", "AWS", "Amazon SageMaker"),
        ("vertex", "g2-standard-4", "Google Cloud", "Vertex AI"),
        ("flex_start", "g2-standard-4", "Google Cloud", "Compute Engine"),
        ("modal", "p5.4xlarge", "Modal", "Modal"),
        ("replicate", "p5.4xlarge", "Replicate", "Replicate"),
        ("runpod_serverless", "p5.4xlarge", "RunPod", "RunPod Serverless"),
    ],
)
def test_a_managed_offer_is_its_sellers_service(purchase: str, instance: str, seller: str, service: str, tmp_path: Path) -> None:
    """Whatever cloud lists the type of the machine."""
    rows = written(a_run(tmp_path / "run", machines, instance=instance, purchase=purchase), tmp_path)
    assert {(row["ServiceProviderName"], row["InvoiceIssuerName"], row["ServiceName"]) for row in rows} == {
        (seller, seller, service)
    }
    assert {SUBCATEGORIES[row["ServiceSubcategory"]] for row in rows} == {row["ServiceCategory"] for row in rows}


def test_every_managed_offer_of_the_catalog_has_a_seller(tmp_path: Path) -> None:
    for name in load_catalog().managed_offers:
        rows = written(a_run(tmp_path / name, machines, purchase=name), tmp_path)
        assert {row["ServiceProviderName"] for row in rows} <= {*PROVIDERS.values(), *SELLERS.values()}, name


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    result = a_run(tmp_path / "run", machines)
    with pytest.raises(InputError) as refused:
        write_focus(result, tmp_path / "focus.xlsx", "0.5")
    assert [problem.path for problem in refused.value.problems] == ["--focus", "--focus-version"]
    with pytest.raises(InputError, match="cannot be written"):
        write_focus(result, tmp_path / "nowhere" / "focus.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "category",
    ["compute", "minimum", "commitment_waste", "energy", "storage", "network", "tokens", "people", "cluster", "monitoring"],
)
@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure", "lambda", ""])
def test_every_category_has_a_service_of_the_specification(category: str, cloud: str) -> None:
    service = service_of(category, cloud)
    assert SUBCATEGORIES[service.subcategory] == service.category in SERVICE_CATEGORIES
