"""New data, not only new seeds: both the seeds and the test examples are a sample.

A verdict over seeds is about training again and testing on the same examples. The intervals here
are about new seeds and new examples of the same kind, by the analysis of crossed random effects
that radiology uses for readers and cases (Dorfman, Berbaum & Metz, 1992, Investigative Radiology
27:723; Gallas, 2006, Academic Radiology 13:353). In shape comments `N` is the number of examples.
"""

import dataclasses
import math

import numpy as np

from jaxdl.stats.scores import t_quantile


@dataclasses.dataclass(frozen=True)
class Crossed:
  """The difference of two accuracies for new seeds and new test examples; see `crossed_interval`.

  Attributes:
    num_seeds: S.
    num_examples: N.
    difference: mean over seeds and examples.
    low: lower end of its 95% interval; NaN where S < 2 or N < 2.
    high: upper end of it.
    seed_share: share of the variance of the difference that is due to seeds: more seeds reduce it.
    example_share: share that is due to examples: no number of seeds reduces it.
    both_share: share that is due to both together.
    resolution: the smallest difference that would be significant with infinitely many seeds; 0 if
      the variance due to examples is not told from zero.
  """

  num_seeds: int
  num_examples: int
  difference: float
  low: float
  high: float
  seed_share: float
  example_share: float
  both_share: float
  resolution: float


def crossed_interval(differences: np.ndarray, confidence: float = 0.95) -> Crossed:
  """Returns the interval of a mean difference over new seeds and new examples.

  With D_si = mu + S_s + T_i + (ST)_si, the variance of the mean is

    var(S) / S + var(T) / N + var(ST) / (S N).

  The mean squares give v_S = Var_s(mean_i D) / S, which estimates the first term and the third,
  v_T = Var_i(mean_s D) / N, the second and the third, and v_ST = MS_ST / (S N), the third. So the
  variance is v_S + v_T - v_ST, of which the part of the examples, v_T - v_ST, is at least 0. The
  interval is Student's, with the degrees of freedom of Satterthwaite (1946, Biometrics Bulletin
  2:110).

  Args:
    differences: [S, N], how right one arm is on an example less how right the other is, e.g. -1, 0
      or 1.
    confidence: of the interval.

  Raises:
    ValueError: the differences are not `[S, N]`.
  """
  d = np.asarray(differences, dtype=np.float64)
  if d.ndim != 2:
    raise ValueError(f"differences must be [S, N], got shape {d.shape}")
  num_seeds, num_examples = d.shape
  centre = float(d.mean()) if d.size else math.nan
  nan = math.nan
  nothing = Crossed(num_seeds, num_examples, centre, nan, nan, nan, nan, nan, nan)
  if min(d.shape) < 2:
    return nothing
  by_seed, by_example = d.mean(axis=1), d.mean(axis=0)  # [S], [N]
  rest = d - by_seed[:, None] - by_example + centre  # [S, N]
  degrees = num_seeds - 1, num_examples - 1, (num_seeds - 1) * (num_examples - 1)
  v_seeds = by_seed.var(ddof=1) / num_seeds
  v_examples = by_example.var(ddof=1) / num_examples
  v_both = (rest**2).sum() / degrees[2] / d.size
  of_examples = max(0.0, v_examples - v_both)
  total = v_seeds + of_examples
  if total <= 0:  # all differences are equal
    return nothing
  parts = (v_seeds, v_examples, v_both) if of_examples > 0 else (v_seeds, 0.0, 0.0)
  freedom = total**2 / sum(v**2 / n for v, n in zip(parts, degrees, strict=True))
  half = t_quantile((1 + confidence) / 2, freedom) * math.sqrt(total)
  of_seeds, of_both = max(0.0, v_seeds - v_both), min(v_both, v_seeds)
  return Crossed(
    num_seeds=num_seeds,
    num_examples=num_examples,
    difference=centre,
    low=centre - half,
    high=centre + half,
    seed_share=of_seeds / total,
    example_share=of_examples / total,
    both_share=of_both / total,
    resolution=t_quantile((1 + confidence) / 2, degrees[1]) * math.sqrt(of_examples),
  )
