"""Tables of a population, as pandas data frames."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl import stats
from jaxdl.optim import metrics
from jaxdl.population.results import Population

if TYPE_CHECKING:
  import pandas as pd


def members_table(population: Population) -> "pd.DataFrame":
  """Returns a row per member, ordered by seed.

  Values are missing where a member diverged, or was not trained because its arm was decided.
  """
  import pandas as pd

  num_seeds, num_arms = population.status.shape
  has_result = population.has_result.ravel()
  columns: dict[str, Any] = {
    "seed": np.repeat(population.seeds, num_arms),
    "arm": list(population.arms) * num_seeds,
    "status": population.status.ravel(),
    "epochs": population.epochs.ravel(),
    "best_epoch": pd.array(population.best_epoch.ravel(), dtype="Int64"),
    "num_params": population.num_params.ravel(),
  }
  columns["best_epoch"][population.best_epoch.ravel() == 0] = pd.NA
  # Without a validation set, these columns exist but have no values.
  columns |= dict.fromkeys(("train_loss", "val_loss", "val_accuracy"), np.nan)
  columns |= {name: values.astype(float).ravel() for name, values in population.metrics.items()}
  if len(population.class_names) == 2:
    for name, (row, column) in {"tn": (0, 0), "fp": (0, 1), "fn": (1, 0), "tp": (1, 1)}.items():
      columns[name] = pd.array(population.confusion[:, :, row, column].ravel(), dtype="Int64")
      columns[name][~has_result] = pd.NA
  columns["train_seconds"] = population.train_seconds.ravel()
  return pd.DataFrame(columns)


def write_csv(file: pathlib.Path, table: "pd.DataFrame") -> None:
  """Writes a table, with the same bytes on every system."""
  table.to_csv(file, index=False, lineterminator="\n")


def read_members(file: pathlib.Path) -> "pd.DataFrame":
  """Returns the table of members in a file."""
  import pandas as pd

  # An arm may be called "1", which is no number here, or "None", which is not missing.
  return pd.read_csv(file, dtype={"arm": str}, keep_default_na=False, na_values=[""])


def curves_table(population: Population) -> "pd.DataFrame":
  """Returns a row per member and trained epoch, ordered by seed; epochs count from 1."""
  import pandas as pd

  num_epochs = population.curves["train_loss"].shape[-1]
  epoch = np.arange(1, num_epochs + 1)
  seed, arm, step = np.nonzero(epoch <= population.epochs[..., None])
  columns = {
    "seed": np.array(population.seeds)[seed],
    "arm": np.array(list(population.arms), dtype=object)[arm],
    "epoch": epoch[step],
  }
  columns |= {name: curve[seed, arm, step] for name, curve in population.curves.items()}
  return pd.DataFrame(columns)


def per_class_table(population: Population) -> "pd.DataFrame":
  """Returns a row per trained member and class: number of examples, precision, recall and F1."""
  import pandas as pd

  num_seeds, num_arms, num_classes = population.confusion.shape[:3]
  size = num_arms * num_classes
  scores = metrics.per_class(population.confusion)  # [S, A, C] each
  columns = {
    "seed": np.repeat(population.seeds, size),
    "arm": np.tile(
      np.repeat(np.array(list(population.arms), dtype=object), num_classes), num_seeds
    ),
    "class": list(population.class_names) * (num_seeds * num_arms),
    "num_examples": population.confusion.sum(axis=-1).ravel(),
  }
  columns |= {
    name: score.ravel() for name, score in zip(("precision", "recall", "f1"), scores, strict=True)
  }
  return pd.DataFrame(columns)[np.repeat(population.is_trained.ravel(), num_classes)]


def arms_table(population: Population, verdicts: Sequence[stats.Verdict]) -> "pd.DataFrame":
  """Returns a row per metric of the verdicts and arm, best first, with its verdict.

  Args:
    population: the trained members.
    verdicts: in which one arm is compared with each other arm.
  """
  import pandas as pd

  rows = []
  for metric in dict.fromkeys(v.metric for v in verdicts):
    about = {v.arm_a: v for v in verdicts if v.metric == metric}
    scores = population.scores(metric)
    summaries = {summary.arm: summary for summary in stats.summarize(scores)}
    for rank, arm in enumerate(scores.best_first, 1):
      row = {"metric": metric, "rank": rank, **dataclasses.asdict(summaries[arm])}
      if arm in about:
        v = about[arm]
        row |= {"compared_with": v.arm_b, "mean_difference": v.mean_difference}
        row |= {"verdict": v.verdict, "beyond_margin": v.beyond_margin}
        row["may_be_best"] = v.may_be_best
      rows.append(row)
  return pd.DataFrame(rows)


def confusion_arrays(population: Population) -> dict[str, np.ndarray]:
  """Returns name -> array, with confusion matrices `[S, A, C, C]` and the names of their axes."""
  arrays = {
    "confusion": population.confusion,
    "seeds": np.array(population.seeds),
    "arms": np.array(list(population.arms)),
    "class_names": np.array(population.class_names),
  }
  if population.confusion_at_half is not None:
    arrays["confusion_at_half"] = population.confusion_at_half
  return arrays


def prediction_arrays(population: Population) -> dict[str, np.ndarray]:
  """Returns name -> array: mean predictions of numbers, `[A, N, K]`, and the targets."""
  return {
    "predictions": population.mean_probabilities,
    "targets": population.test_targets,
    "arms": np.array(list(population.arms)),
  }


def correct_arrays(population: Population) -> dict[str, np.ndarray]:
  """Returns name -> array: which test examples each member predicts right, as packed bits.

  `numpy.unpackbits(correct, axis=-1, count=num_examples)` is `[S, A, N]`, zeros for a member that
  diverged or was not trained. Where each seed has its own examples, `labels` is `[S, N]`.
  """
  targets = population.test_targets
  labels = targets.ravel() if population.resampling is None else targets.reshape(len(targets), -1)
  arrays = {
    "correct": population.correct,
    "correct_at_half": population.correct_at_half,
    "num_examples": np.array(labels.shape[-1]),
    "labels": labels,
    "seeds": np.array(population.seeds),
    "arms": np.array(list(population.arms)),
  }
  return {name: array for name, array in arrays.items() if array is not None}
