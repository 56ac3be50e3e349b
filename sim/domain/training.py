"""How much of the datasheet a training run reaches: what the rows of the catalog's `training_efficiencies` become."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.domain.hardware import Provenance


@dataclass(frozen=True)
class Range:
    """A number that is known between bounds: nine of ten true values should lie inside.

    Parameters
    ----------
    low, mid, high : in ascending order.
    """

    low: float
    mid: float
    high: float


@dataclass(frozen=True)
class TrainingEfficiency:
    """Model FLOP/s of training as shares of the peak (MFU), for some accelerators, an arithmetic type and a size of models.

    Parameters
    ----------
    arithmetic : type whose dense peak is the denominator, "bf16" or "fp8". experts : whether it is for mixtures of experts.
    least_parameters, most_parameters : active parameters from (included) and to (excluded).
    in_run : while the job steps: restarts, lost work and everything that is no step left out.
    all_in : model FLOPs of the published run over all accelerator-hours that the model's card reports.
    accelerators : names of rows whose runs are behind the numbers. transferred_to : names to which they are carried over.
        Both empty: any accelerator, an assumption.
    """

    name: str
    arithmetic: str
    experts: bool
    least_parameters: float
    most_parameters: float
    in_run: Range
    all_in: Range
    provenance: Provenance
    accelerators: tuple[str, ...] = ()
    transferred_to: tuple[str, ...] = ()
    notes: str = field(default="")

    def validity(self, accelerator: str) -> str:
        """Return how an accelerator comes by these numbers: "fitted", "transferred" or "assumed"; an assumed row stays so."""
        if self.provenance.confidence == "assumed":
            return "assumed"
        if accelerator in self.accelerators:
            return "fitted"
        return "transferred" if accelerator in self.transferred_to else "assumed"
