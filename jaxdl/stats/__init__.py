"""Verdicts over seeds: which arm is better, by how much, and how sure that is.

Plain arrays in, plain records out. Read `verdicts.py` first. SciPy and statsmodels are imported
where they are used: what trains need not wait for them.

Imports: errors, optim.
"""

from jaxdl.stats.scores import AXES, ArmSummary, Scores, paired_differences, summarize
from jaxdl.stats.tests import (
  MAX_EXACT,
  MAX_SEEDS_NEEDED,
  NUM_RESAMPLES,
  check_settings,
  holm,
  min_pairs,
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
  "NUM_RESAMPLES",
  "TOO_FEW_SEEDS",
  "UNDECIDED",
  "WORSE",
  "ArmSummary",
  "Scores",
  "Verdict",
  "check_settings",
  "compare",
  "format_seeds_needed",
  "holm",
  "min_pairs",
  "paired_differences",
  "seeds_needed",
  "sentence",
  "sign_flip_test",
  "summarize",
  "to_json",
  "tost",
)
