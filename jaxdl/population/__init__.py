"""Populations: the functions of `jaxdl.train` mapped over seeds and arms, on any devices.

Arms are grouped by recipe, and each group has one compiled program. The members of a group, axes
`[S, A]`, are cut into chunks; the members of a chunk train at the same time. Workers take chunks
from one list and never wait for each other. Read `chunk.py` first: it trains one chunk.

Imports: errors, calls, settings, arm, batches, cpu, data, forward, member, nn, optim, recipe,
stats, store, train.
"""

from jaxdl.population.looks import Looks, until_decided
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
  "Looks",
  "Population",
  "check_seeds",
  "higher_is_better",
  "metric_names",
  "train_population",
  "until_decided",
)
