"""Optimizations of a deployment as a scenario states them."""

from __future__ import annotations

from dataclasses import dataclass

from sim.catalog.loader import Catalog
from sim.domain.models import Model
from sim.errors import Problems
from sim.perf import compression
from sim.perf.serving import Serving
from sim.perf.speculation import Speculation

# The draft that needs no model: tokens are looked up in the prompt.
NGRAM = "ngram"
MOST_SPARSITY = 0.95
MOST_PROPOSALS = 16
MOST_HIT = 0.99


@dataclass
class Pruning:
    """Unstructured pruning: smaller files, the same steps.

    Parameters
    ----------
    sparsity : share of the weights of the linear layers that is zero.
    entropy_coded : whether the files are; else a mask of one bit a weight says which are left.
    """

    sparsity: float = 0.6
    entropy_coded: bool = True


@dataclass
class Speculative:
    """Speculative decoding.

    Parameters
    ----------
    draft : catalog name of the model that proposes, on the same accelerators; "ngram" looks proposals up in the prompt.
    tokens : proposals of a step. acceptance : chance that a proposal is kept when those before it were.
    """

    draft: str = NGRAM
    tokens: int = 4
    acceptance: float = 0.7


@dataclass
class Optimizations:
    """What is done to a deployment's model beside the types of its weights and of its cache.

    Parameters
    ----------
    pruning : set for unstructured pruning. sparsity_2_4 : whether two of four weights are zero, with sparse kernels.
    speculative : set for speculative decoding. flash_attention : whether attention is fused.
    prefix_cache_hit : share of each prompt that is found in the prefix cache; all deployments of a service have the same.
    """

    pruning: Pruning | None = None
    sparsity_2_4: bool = False
    speculative: Speculative | None = None
    flash_attention: bool = True
    prefix_cache_hit: float = 0.0

    def applied(self, model: Model, weight_dtype: str, kv_dtype: str, catalog: Catalog) -> Serving:
        """Return what is served.

        Parameters
        ----------
        catalog : where a draft is found.
        """
        speculation = None
        if self.speculative is not None:
            draft = None if self.speculative.draft == NGRAM else catalog.models[self.speculative.draft]
            speculation = Speculation(draft, self.speculative.tokens, self.speculative.acceptance)
        pruning = None if self.pruning is None else compression.Pruning(self.pruning.sparsity, self.pruning.entropy_coded)
        return Serving(
            model,
            weight_dtype,
            kv_dtype,
            pruning=pruning,
            sparse_2_4=self.sparsity_2_4,
            speculation=speculation,
            flash_attention=self.flash_attention,
            prefix_cache_hit=self.prefix_cache_hit,
        )

    def problems(self, path: str, catalog: Catalog, problems: Problems) -> None:
        """Add everything that is wrong with the settings alone."""
        hit = self.prefix_cache_hit
        problems.check(0 <= hit <= MOST_HIT, f"{path}.prefix_cache_hit", hit, "is out of range", f"0 to {MOST_HIT:g}")
        if self.pruning is not None:
            share, allowed = self.pruning.sparsity, f"0 to {MOST_SPARSITY:g}"
            problems.check(0 <= share <= MOST_SPARSITY, f"{path}.pruning.sparsity", share, "is out of range", allowed)
            message = "cannot be had beside pruning without a pattern"
            problems.check(not self.sparsity_2_4, f"{path}.sparsity_2_4", self.sparsity_2_4, message, "one of the two")
        if self.speculative is not None:
            self._check_speculative(f"{path}.speculative", catalog, problems)

    def _check_speculative(self, path: str, catalog: Catalog, problems: Problems) -> None:
        speculative = self.speculative
        assert speculative is not None
        tokens, chance = speculative.tokens, speculative.acceptance
        problems.check(1 <= tokens <= MOST_PROPOSALS, f"{path}.tokens", tokens, "is out of range", f"1 to {MOST_PROPOSALS}")
        problems.check(0 <= chance <= 1, f"{path}.acceptance", chance, "is out of range", "0 to 1")
        known = [NGRAM, *catalog.models]
        problems.check(speculative.draft in known, f"{path}.draft", speculative.draft, "is no model", choices=known)
