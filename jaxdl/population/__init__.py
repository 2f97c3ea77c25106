"""Populations: the functions of `jaxdl.train` mapped over seeds and arms, on any devices.

Arms are grouped by recipe, one compiled program each, and the members of a group, axes `[S, A]`,
are cut into chunks that train at the same time. Workers take chunks off one list, and none of them
ever waits for another. Read `chunk.py` first: how one chunk is trained.

Imports: errors, arm, batches, cpu, data, forward, nn, optim, stats, store, train.
"""

from jaxdl.population.population import check_seeds, train_population
from jaxdl.population.results import (
  CURVES,
  EPOCHS_TO_TARGET,
  RATES,
  Population,
  higher_is_better,
  metric_names,
)

__all__ = (
  "CURVES",
  "EPOCHS_TO_TARGET",
  "RATES",
  "Population",
  "check_seeds",
  "higher_is_better",
  "metric_names",
  "train_population",
)
