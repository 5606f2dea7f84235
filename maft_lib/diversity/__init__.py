"""Measures of diversity (Section 4.2, Appendix C), of finished debates and a scorer.

Each measure returns a tidy frame: `problem`, `value` and what else tells its rows apart. A problem
that says nothing (a single response to compare) has the value nan. `by_iteration` runs a measure over
a study, `mean_over_problems` takes means with standard errors. Knows no engine: what needs a model is
asked of `scorer` (see `backends.scorer`).
"""

from maft_lib.diversity.answers import consensus, disagreement, flips, follows_majority
from maft_lib.diversity.embeddings import embedding_dissimilarity
from maft_lib.diversity.likelihoods import (
    kl_by_own_likelihoods,
    kl_divergence,
    kl_from_base,
    negative_log_likelihood,
)
from maft_lib.diversity.over_problems import by_iteration, mean_over_problems
from maft_lib.diversity.styles import distinct_styles, knows_styles, style_separation

__all__ = [
    "by_iteration",
    "consensus",
    "disagreement",
    "distinct_styles",
    "embedding_dissimilarity",
    "flips",
    "follows_majority",
    "kl_by_own_likelihoods",
    "kl_divergence",
    "kl_from_base",
    "knows_styles",
    "mean_over_problems",
    "negative_log_likelihood",
    "style_separation",
]
