"""Verdicts over seeds: which arm is better, by how much, and how sure that is.

Plain arrays in, plain records out. Read `verdicts.py` first. SciPy is imported where it is used:
training need not wait for it.

Imports: errors, optim.
"""

from jaxdl.stats.anytime import compare_anytime, log_e_values
from jaxdl.stats.crossed import Crossed, crossed_interval
from jaxdl.stats.resampled import corrected_test, corrected_tost
from jaxdl.stats.scores import (
  AXES,
  ArmSummary,
  Scores,
  paired_differences,
  std,
  summarize,
  worst,
  worst_so_far,
)
from jaxdl.stats.sequential import (
  LOOK_EVERY,
  MIN_BUDGET,
  compare_looks,
  looks,
  median_unbiased,
  nominal_levels,
  undecided_arms,
)
from jaxdl.stats.tasks import (
  Interval,
  interquartile_mean,
  mean_over_tasks,
  probability_of_improvement,
)
from jaxdl.stats.tests import (
  MAX_EXACT,
  MAX_SEEDS_NEEDED,
  MIN_PAIRS_EQUIVALENT,
  NUM_RESAMPLES,
  check_settings,
  confidence_bounds,
  holm,
  min_pairs,
  min_pairs_equivalent,
  seeds_needed,
  sign_flip_test,
  tost,
)
from jaxdl.stats.unpaired import permutation_test, welch_interval, welch_tost
from jaxdl.stats.verdicts import (
  ANYTIME,
  BETTER,
  EQUIVALENT,
  FIXED,
  GROUP_SEQUENTIAL,
  RESAMPLED,
  TOO_FEW_SEEDS,
  UNDECIDED,
  UNPAIRED,
  WORSE,
  Verdict,
  compare,
  compare_with_best,
  count_pairs,
  may_be_best,
  to_json,
)
from jaxdl.stats.wording import format_seeds_needed, sentence

__all__ = (
  "ANYTIME",
  "AXES",
  "BETTER",
  "EQUIVALENT",
  "FIXED",
  "GROUP_SEQUENTIAL",
  "LOOK_EVERY",
  "MAX_EXACT",
  "MAX_SEEDS_NEEDED",
  "MIN_BUDGET",
  "MIN_PAIRS_EQUIVALENT",
  "NUM_RESAMPLES",
  "RESAMPLED",
  "TOO_FEW_SEEDS",
  "UNDECIDED",
  "UNPAIRED",
  "WORSE",
  "ArmSummary",
  "Crossed",
  "Interval",
  "Scores",
  "Verdict",
  "check_settings",
  "compare",
  "compare_anytime",
  "compare_looks",
  "compare_with_best",
  "confidence_bounds",
  "corrected_test",
  "corrected_tost",
  "count_pairs",
  "crossed_interval",
  "format_seeds_needed",
  "holm",
  "interquartile_mean",
  "log_e_values",
  "looks",
  "may_be_best",
  "mean_over_tasks",
  "median_unbiased",
  "min_pairs",
  "min_pairs_equivalent",
  "nominal_levels",
  "paired_differences",
  "permutation_test",
  "probability_of_improvement",
  "seeds_needed",
  "sentence",
  "sign_flip_test",
  "std",
  "summarize",
  "to_json",
  "tost",
  "undecided_arms",
  "welch_interval",
  "welch_tost",
  "worst",
  "worst_so_far",
)
