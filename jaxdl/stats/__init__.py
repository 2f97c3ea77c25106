"""Verdicts over seeds: which arm is better, by how much, and how sure that is.

Plain arrays in, plain records out. Read `verdicts.py` first. SciPy is imported where it is used:
training need not wait for it.

Imports: errors, optim.
"""

from jaxdl.stats.scores import AXES, ArmSummary, Scores, paired_differences, std, summarize
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
from jaxdl.stats.verdicts import (
  BETTER,
  EQUIVALENT,
  TOO_FEW_SEEDS,
  UNDECIDED,
  WORSE,
  Verdict,
  compare,
  format_seeds_needed,
  sentence,
  to_json,
)

__all__ = (
  "AXES",
  "BETTER",
  "EQUIVALENT",
  "MAX_EXACT",
  "MAX_SEEDS_NEEDED",
  "MIN_PAIRS_EQUIVALENT",
  "NUM_RESAMPLES",
  "TOO_FEW_SEEDS",
  "UNDECIDED",
  "WORSE",
  "ArmSummary",
  "Scores",
  "Verdict",
  "check_settings",
  "compare",
  "confidence_bounds",
  "format_seeds_needed",
  "holm",
  "min_pairs",
  "min_pairs_equivalent",
  "paired_differences",
  "seeds_needed",
  "sentence",
  "sign_flip_test",
  "std",
  "summarize",
  "to_json",
  "tost",
)
