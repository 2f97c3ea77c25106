"""What a run leaves in its working directory: tables, verdicts, pictures and a report.

What draws and what makes tables is imported where it is used: it takes longer to import than JAX,
and a run that trains first need not wait for it.
"""

import datetime
import html
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxdl import augment, files, metrics, stats, train
from jaxdl import experiment as experiment_lib
from jaxdl import store as store_lib
from jaxdl.arm import Arm
from jaxdl.devices import DeviceKind
from jaxdl.errors import InputError, one_line
from jaxdl.experiment import Experiment
from jaxdl.plan import Group
from jaxdl.population import RATES, Population
from jaxdl.types import Dataset

if TYPE_CHECKING:
  import pandas as pd

  from jaxdl.figures import Figure

CONFIG_FILE = "config.json"
# The folder of what `jaxdl.store` keeps of the run.
RUN = "run"
_PARTIAL = "partial"
_REFUSE = "choose another workdir, or replace what is there with --overwrite"
_FILES = (
  "provenance.json",
  "members.csv",
  "per_class.csv",
  "curves.parquet",
  "confusion.npz",
  "verdicts.json",
  "report.md",
)
_FIGURES, _TABLES = "figures", "tables"
_PACKAGES = (
  "jaxdl",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "numpy",
  "scipy",
  "statsmodels",
  "pandas",
  "matplotlib",
  "tensorflow-datasets",
)


class Extra(NamedTuple):
  """What one kind of experiment adds to its report."""

  sections: Sequence[str] = ()  # Markdown, after the pictures
  pictures: Sequence[tuple[str, str, "Figure"]] = ()  # (file name without suffix, caption, figure)
  tables: Mapping[str, "pd.DataFrame"] = {}  # file name without suffix -> table


class Workdir:
  """The directory of one run: claimed before the training, and filled after it, all at once."""

  def __init__(
    self,
    path: str | os.PathLike,
    experiment: Experiment,
    *,
    overwrite: bool = False,
    resume_anyway: bool = False,
    partial: bool = False,
  ):
    """Claims the directory, creating it where it is not there.

    Args:
      path: the directory.
      experiment: what is about to run. A run of the same experiment goes on where it was.
      overwrite: start anew, whatever is there.
      resume_anyway: go on with the run that is there although it was another config, another width,
        layers by another compiler or another JAX; what differs is recorded.
      partial: report what is trained so far, in a folder `partial` of its own, also while another
        process trains on.

    Raises:
      InputError: where the directory cannot be written, is in use, or holds another run.
    """
    self.path = pathlib.Path(path)
    if not str(path):
      raise InputError("workdir is empty")
    self._config = json.loads(json.dumps(experiment.to_json()))
    self._resume_anyway = resume_anyway
    self.resumed_anyway: list[str] = []  # in what the run that is there differs
    # The date for people; how long it takes by a clock that does not jump.
    self._started, self._clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    # Now, not when the run is over: the source may be edited while it runs.
    self._source = _source_revision()
    self.store, self._partial = store_lib.Store(self.path / RUN), partial
    if partial:
      if self.store.read_identity() is None:
        raise InputError(f"no run has begun in workdir {str(self.path)!r}: nothing to report")
      self.path /= _PARTIAL  # the report's own folder, and lock
    self._lock = files.Lock(self.path)
    try:
      if overwrite and not partial:
        with files.naming(self.path):
          shutil.rmtree(self.path / RUN, ignore_errors=True)
      else:
        self._check_config()
    except BaseException:
      self._lock.release()
      raise

  def _check_config(self):
    running = self.store.read_identity()
    if running is not None:
      there = {"config": running.get("config")}
      self._refuse_differences(there, {"config": self._config})
      return
    file = self.path / CONFIG_FILE
    if not file.exists():
      strangers = [name for name in _FILES if (self.path / name).exists()]
      if strangers:
        raise InputError(
          f"workdir {str(self.path)!r} holds a {strangers[0]} of no known run; {_REFUSE}"
        )
      return
    try:
      there = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
      raise InputError(f"cannot read {str(file)!r}: {error}; {_REFUSE}") from error
    for name, old, new in _differences(there, self._config):
      raise InputError(
        f"workdir {str(self.path)!r} holds a run of another config ({name}: {old!r} there, {new!r} "
        f"now); {_REFUSE}"
      )

  def claim(self, dataset: Dataset, groups: Sequence[Group], device: DeviceKind):
    """Says what is about to train here, before anything of it does.

    Args:
      dataset: as it will be trained on.
      groups: how its members are cut into chunks.
      device: what they train on.

    Raises:
      InputError: the run that is there is another one.
    """
    identity = {
      "config": self._config,
      "dataset_checksum": dataset.checksum,
      "jax": ".".join(jax.__version__.split(".")[:2]),  # so long as its major version is 0
      "device_kind": device.name,
      "programs": {str(group.index): _program_identity(group) for group in groups},
    }
    there = self.store.read_identity() if self._partial else self.store.claim(identity)
    self._refuse_differences(there, json.loads(json.dumps(identity)))

  def _refuse_differences(self, there: dict[str, Any], now: dict[str, Any]):
    found = [
      f"{name.removeprefix('config.')}: {old!r} there, {new!r} now"
      for name, old, new in _differences(there, now)
    ]
    if found and not self._resume_anyway:
      what = "of another config" if there["config"] != now["config"] else "that differs"
      raise InputError(
        f"workdir {str(self.path)!r} holds a run {what} ({found[0]:.300}); choose another workdir, "
        "start anew with --overwrite, or go on with what is there with --resume_anyway"
      )
    self.resumed_anyway += [text for text in found if text not in self.resumed_anyway]

  def __enter__(self) -> "Workdir":
    return self

  def __exit__(self, *_):
    self.store.close()
    self._lock.release()

  def commit(
    self,
    experiment: Experiment,
    dataset: Dataset,
    trained: Population,
    verdicts: Sequence[stats.Verdict],
    extra: Extra = Extra(),  # noqa: B008  (a tuple)
    shown: Population | None = None,
  ):
    """Writes the files of a run and moves them to their places, `config.json` last.

    Args:
      experiment: what was run.
      dataset: as it was trained on.
      trained: the population.
      verdicts: of `jaxdl.experiment.compare`.
      extra: what this kind of experiment adds.
      shown: the part of the population that pictures and tables of the report show; None: all.
    """
    # Without its config a directory is no run, so one that is interrupted while the files move is
    # not taken for one.
    replaces = (CONFIG_FILE, _FIGURES, _TABLES)
    with files.staging(self.path, replaces, last=(CONFIG_FILE,)) as stage:
      self._write(stage, experiment, dataset, trained, verdicts, extra, shown or trained)

  def _provenance(self, dataset: Dataset, trained: Population) -> dict[str, Any]:
    origin = {
      **provenance(dataset, trained),
      "source": self._source,
      "started": self._started.isoformat(timespec="seconds"),
      "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      "total_seconds": round(time.monotonic() - self._clock, 3),
    }
    return origin | ({"resumed_anyway": self.resumed_anyway} if self.resumed_anyway else {})

  def _write(self, stage, experiment, dataset, trained, verdicts, extra, shown):
    from jaxdl import figures

    (stage / _FIGURES).mkdir()
    pictures = [*_pictures(experiment, shown, dataset), *extra.pictures]
    for name, _, figure in pictures:
      figures.save(figure, stage / _FIGURES / name)
    if extra.tables:
      (stage / _TABLES).mkdir()
    for name, table in extra.tables.items():
      table.to_csv(stage / _TABLES / f"{name}.csv", index=False, lineterminator="\n")
    origin = self._provenance(dataset, trained)
    captions = [(name, caption) for name, caption, _ in pictures]
    text = markdown(experiment, shown, verdicts, origin, captions, extra.sections)
    (stage / "report.md").write_text(text, encoding="utf-8")
    _write_json(stage / "provenance.json", origin)
    _write_json(stage / "verdicts.json", [stats.to_json(verdict) for verdict in verdicts])
    members_table(trained).to_csv(stage / "members.csv", index=False, lineterminator="\n")
    per_class_table(trained).to_csv(stage / "per_class.csv", index=False, lineterminator="\n")
    curves_table(trained).to_parquet(stage / "curves.parquet", index=False)
    np.savez(stage / "confusion.npz", **_confusion_arrays(trained))
    _write_json(stage / CONFIG_FILE, self._config)


def beside_table(trained: Population, evidence: Sequence[tuple[str, str, float]]) -> str:
  """Returns a Markdown table of somebody's single runs beside the spread over seeds found here.

  Args:
    trained: the population.
    evidence: (arm, metric, value), rates in [0, 1].
  """
  rows = [["arm", "metric", "one seed there", "here: mean", "std", "range", "inside"]]
  for arm, metric, value in evidence:
    scale, unit = (100, "%") if metric in RATES else (1, "")
    values = trained.scores(metric).values[:, list(trained.arms).index(arm)]
    values = values[np.isfinite(values)]
    if len(values) == 0:
      rows.append([arm, metric, f"{scale * value:.4g}{unit}", "-", "-", "-", "-"])
      continue
    spread = f"{scale * values.std(ddof=1):.3g}{unit}" if len(values) > 1 else "-"
    low, high = values.min(), values.max()
    rows.append(
      [
        arm,
        metric,
        f"{scale * value:.4g}{unit}",
        f"{scale * values.mean():.4g}{unit}",
        spread,
        f"{scale * low:.4g}{unit} to {scale * high:.4g}{unit}",
        "yes" if low <= value <= high else "below" if value < low else "above",
      ]
    )
  return markdown_table(rows)


def members_table(trained: Population) -> "pd.DataFrame":
  """Returns a row per member, seeds outermost; what a diverged member does not have is missing."""
  import pandas as pd

  num_seeds, num_arms = trained.status.shape
  diverged = (trained.status == "diverged").ravel()
  columns: dict[str, Any] = {
    "seed": np.repeat(trained.seeds, num_arms),
    "arm": list(trained.arms) * num_seeds,
    "status": trained.status.ravel(),
    "epochs": trained.epochs.ravel(),
    "best_epoch": pd.array(trained.best_epoch.ravel(), dtype="Int64"),
    "num_params": trained.num_params.ravel(),
  }
  columns["best_epoch"][trained.best_epoch.ravel() == 0] = pd.NA
  # Without a validation set its columns are empty, not missing.
  columns |= dict.fromkeys(("train_loss", "val_loss", "val_accuracy"), np.nan)
  columns |= {name: values.astype(float).ravel() for name, values in trained.metrics.items()}
  if len(trained.class_names) == 2:
    for name, (row, column) in {"tn": (0, 0), "fp": (0, 1), "fn": (1, 0), "tp": (1, 1)}.items():
      columns[name] = pd.array(trained.confusion[:, :, row, column].ravel(), dtype="Int64")
      columns[name][diverged] = pd.NA
  columns["train_seconds"] = trained.train_seconds.ravel()
  return pd.DataFrame(columns)


def curves_table(trained: Population) -> "pd.DataFrame":
  """Returns a row per member and epoch that it trained, seeds outermost, epochs from 1."""
  import pandas as pd

  num_epochs = trained.curves["train_loss"].shape[-1]
  epoch = np.arange(1, num_epochs + 1)
  seed, arm, step = np.nonzero(epoch <= trained.epochs[..., None])
  columns = {
    "seed": np.array(trained.seeds)[seed],
    "arm": np.array(list(trained.arms), dtype=object)[arm],
    "epoch": epoch[step],
  }
  columns |= {name: curve[seed, arm, step] for name, curve in trained.curves.items()}
  return pd.DataFrame(columns)


def per_class_table(trained: Population) -> "pd.DataFrame":
  """Returns a row per member and class: how many examples, precision, recall, F1."""
  import pandas as pd

  num_seeds, num_arms, num_classes = trained.confusion.shape[:3]
  size = num_arms * num_classes
  scores = metrics.per_class(trained.confusion)  # [S, A, C] each
  columns = {
    "seed": np.repeat(trained.seeds, size),
    "arm": np.tile(np.repeat(np.array(list(trained.arms), dtype=object), num_classes), num_seeds),
    "class": list(trained.class_names) * (num_seeds * num_arms),
    "num_examples": trained.confusion.sum(axis=-1).ravel(),
  }
  columns |= {
    name: score.ravel() for name, score in zip(("precision", "recall", "f1"), scores, strict=True)
  }
  return pd.DataFrame(columns)


def _confusion_arrays(trained: Population) -> dict[str, np.ndarray]:
  arrays = {
    "confusion": trained.confusion,
    "seeds": np.array(trained.seeds),
    "arms": np.array(list(trained.arms)),
    "class_names": np.array(trained.class_names),
  }
  if trained.confusion_at_half is not None:
    arrays["confusion_at_half"] = trained.confusion_at_half
  return arrays


def _program_identity(group: Group) -> dict[str, Any]:
  plan = group.plan._asdict()
  if not plan["cpu_layers"]:
    del plan["cpu_layers"]  # as in runs from before there was a choice
  return plan


def provenance(dataset: Dataset, trained: Population) -> dict[str, Any]:
  """Returns where a population comes from: command, versions, devices, data, seconds, chunks."""
  devices = jax.local_devices()
  return {
    "command": [pathlib.Path(sys.executable).name, *sys.orig_argv[1:]],
    "python": platform.python_version(),
    "versions": {name: _version(name) for name in _PACKAGES},
    "platform": devices[0].platform,
    "device_kind": devices[0].device_kind,
    "device_count": len(devices),
    "matmul_precision": jax.config.jax_default_matmul_precision or "default",
    "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "dataset": {
      "name": dataset.name,
      "checksum": dataset.checksum,
      "num_train": len(dataset.train),
      "num_validation": len(dataset.validation),
      "num_test": len(dataset.test),
    },
    "compile_seconds": round(trained.compile_seconds, 3),
    "train_seconds": round(float(trained.train_seconds.sum()), 3),
    "num_workers": trained.num_workers,
    "programs": [plan._asdict() for plan in trained.chunks],
    "halved_chunks": list(trained.split_chunks),
    "missing_seeds": list(trained.missing_seeds),
    "failures": dict(trained.failures),
    "chunk_size": trained.chunks[0].chunk_size if len(trained.chunks) == 1 else None,
  }


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _source_revision() -> dict[str, Any]:
  """Returns the git revision of this source and whether it was changed since; None: unknown."""
  git = ["git", "-C", str(pathlib.Path(__file__).parent)]
  try:
    run = [
      subprocess.run(
        [*git, *command], capture_output=True, text=True, check=True, timeout=10
      ).stdout
      for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
    ]
  except (OSError, subprocess.SubprocessError):
    return {"revision": None, "clean": None}
  return {"revision": run[0].strip(), "clean": not run[1].strip()}


def _pictures(
  experiment: Experiment, trained: Population, dataset: Dataset
) -> list[tuple[str, str, "Figure"]]:
  """Returns (file name without suffix, caption, figure) of the pictures that every report has."""
  from jaxdl import comparison_plots, plots

  metric = next(iter(experiment.margins))
  pictures = [
    (
      "learning_curves",
      "Learning curves: mean over seeds with its 95% interval, a thin line per seed.",
      plots.learning_curves(trained),
    ),
    (
      "metric_distribution",
      f"{metric} of every seed, lines joining the arms of one seed; mean with its 95% interval.",
      plots.metric_distribution(trained, metric),
    ),
    (
      "confusion_matrices",
      "Confusion matrices on the test set, counts summed over seeds.",
      plots.confusion_matrices(trained),
    ),
    (
      "worst_mistakes",
      "The test images that all arms and seeds together are most wrong about.",
      plots.worst_mistakes(trained, dataset.test.images),
    ),
  ]
  if any(_changes_rate(arm) for arm in trained.arms.values()):
    figure = comparison_plots.learning_rates(trained)
    pictures.append(("learning_rates", "The learning rate of each epoch's first step.", figure))
  for arm in trained.arms.values():
    if not arm.augmentation.is_identity:
      caption = "Training images, the originals on the left, as augmentation shows them."
      pictures.append(("augmentation", caption, _augmentation_picture(experiment, dataset, arm)))
      break
  return pictures


def _changes_rate(arm: Arm) -> bool:
  return arm.schedule.strip() != "constant" or arm.plateau_patience is not None


def _augmentation_picture(
  experiment: Experiment, dataset: Dataset, arm: Arm, num_images: int = 5, num_variants: int = 7
) -> "Figure":
  """Draws what an arm's augmentation makes of the first training images."""
  from jaxdl import comparison_plots

  originals = dataset.train.images[:num_images]  # [K, H, W, D]
  keys = jax.random.split(train.seed_key(experiment.seed, 0), (num_variants, len(originals)))
  augmented = [augment.random_affine(row, train.scale(originals), arm.augmentation) for row in keys]
  return comparison_plots.augmented_images(originals, np.stack(augmented, axis=1))


def markdown(
  experiment: Experiment,
  trained: Population,
  verdicts: Sequence[stats.Verdict],
  origin: dict[str, Any],
  pictures: Iterable[tuple[str, str]],
  sections: Sequence[str],
) -> str:
  """Returns the report: question, answer, tables, pictures, then how it was made."""
  primary = next(iter(experiment.margins))
  data = origin["dataset"]
  parts = [
    f"# {escape(experiment.question)}",
    _partial_text(trained),
    f"**{escape(experiment_lib.answer(list(verdicts), primary))}**",
    "\n".join(f"- {escape(experiment_lib.sentence(v))}." for v in verdicts if v.metric == primary),
    f"{escape(data['name'])}, classes {escape(', '.join(trained.class_names))}: "
    f"{data['num_train']:,} training, {data['num_validation']:,} validation and "
    f"{data['num_test']:,} test images; {len(trained.seeds)} seeds of each of "
    f"{len(trained.arms)} arms. {_stopping_text(trained)}",
    "## Verdicts",
    _verdict_table(verdicts),
    _VERDICT_NOTE,
    "## Arms",
    _arms_table(trained),
    _per_class_text(trained),
    "## Pictures",
    *(
      f"![{escape(caption)}]({_FIGURES}/{name}.png)\n\n{escape(caption)}"
      for name, caption in pictures
    ),
    *sections,
    "## How it was made",
    _provenance_text(origin),
  ]
  return "\n\n".join(part for part in parts if part) + "\n"


def _partial_text(trained: Population) -> str:
  """Says what is missing; nothing where nothing is."""
  if not trained.missing_seeds:
    return ""
  planned = len(trained.seeds) + len(trained.missing_seeds)
  missing = ", ".join(map(str, trained.missing_seeds[:20]))
  more = ", ..." if len(trained.missing_seeds) > 20 else ""
  lines = [
    f"**Partial: {len(trained.seeds)} of {planned} seeds have finished with all of their arms.** "
    f"Missing: {missing}{more}."
  ]
  lines += [
    f"- Chunk {escape(name)} failed: {escape(reason[:200])} (`{RUN}/failures/{name}.txt`)"
    for name, reason in trained.failures.items()
  ]
  return "\n\n".join([lines[0], "\n".join(lines[1:])]).strip()


_VERDICT_NOTE = (
  "Differences are a minus b, paired by seed, with their 95% interval (Student's t). p is that of "
  "the sign-flip permutation test, Holm-corrected over the pairs of a metric. *equivalent* means "
  "that two one-sided t tests put the difference within the margin; *undecided* that neither a "
  "difference nor equivalence is shown."
)


def verdict_rows(verdicts: Sequence[stats.Verdict]) -> list[list[str]]:
  """Returns a table of verdicts, header first, rates in percentage points."""
  header = ["metric", "a", "b", "pairs", "diverged a, b", "a - b", "95% interval"]
  header += ["p (Holm)", "margin", "verdict", "seeds needed"]
  return [header, *(_verdict_row(verdict) for verdict in verdicts)]


def _verdict_row(v: stats.Verdict) -> list[str]:
  scale, unit, form = (100, " pt", "+.3f") if v.metric in RATES else (1, "", "+.3g")
  capped = v.seeds_needed == stats.MAX_SEEDS_NEEDED
  needed = "" if v.seeds_needed is None else f"{'>= ' if capped else ''}{v.seeds_needed:,}"
  return [
    v.metric,
    v.arm_a,
    v.arm_b,
    str(v.num_pairs),
    f"{v.num_diverged_a}, {v.num_diverged_b}",
    f"{scale * v.mean_difference:{form}}{unit}",
    f"[{scale * v.ci_low:{form}}, {scale * v.ci_high:{form}}]",
    f"{v.p_holm:.3g}",
    f"{scale * v.margin:g}{unit}",
    v.verdict,
    needed,
  ]


def text_table(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows, header first, aligned for a terminal, which obeys none of what is in them."""
  rows = [[one_line(cell) for cell in row] for row in rows]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
  return "\n".join(
    line.rstrip() for line in [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
  )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows, header first, as a Markdown table, every cell escaped."""
  lines = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows]
  return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


# What is markup anywhere ($ begins a formula, ~ strikes out), between words, and in front. A single
# underscore inside a word is plain text, and names are easier to read and to search without it.
_MARKUP = r"[\\`*\[\]|$~]|(?<![^\W_])_|_(?![^\W_])|(?<!\S)#|^[-+](?= )|^-(?=[ -]*-[ -]*-[ -]*$)"


def escape(text: object) -> str:
  """Makes text from a config or a dataset safe to stand in a line of Markdown or a table cell.

  It is shown as it is, but for characters that cannot be seen, as those that turn the direction of
  writing: they become escape sequences.
  """
  text = html.escape(one_line(text), quote=False)
  text = re.sub(_MARKUP, r"\\\g<0>", text)
  return re.sub(r"^(\d{1,9})([.)])(?= |$)", r"\1\\\2", text)  # a numbered list


def _verdict_table(verdicts: Sequence[stats.Verdict]) -> str:
  return markdown_table(verdict_rows(verdicts)) if verdicts else "There is one arm only."


def _arms_table(trained: Population) -> str:
  """One row per arm and metric: n, mean with interval, spread; both decision thresholds."""
  rows = [["metric", "arm", "n", "diverged", "mean", "95% interval", "std", "min", "max"]]
  for metric in [*trained.metrics, "epochs"]:
    scale, unit = (100, "%") if metric in RATES else (1, "")
    for arm in stats.summarize(trained.scores(metric)):
      values = [scale * x for x in (arm.mean, arm.ci_low, arm.ci_high, arm.std, arm.min, arm.max)]
      mean, low, high, std, least, most = (f"{x:.4g}{unit}" for x in values)
      counts = [str(arm.n), str(arm.num_diverged)]
      rows.append(
        [
          _metric_label(metric, trained),
          arm.arm,
          *counts,
          mean,
          f"{low} to {high}",
          std,
          least,
          most,
        ]
      )
  return markdown_table(rows)


def _per_class_text(trained: Population) -> str:
  """Returns a table of precision, recall and F1 by class, with more than two classes."""
  if len(trained.class_names) == 2:
    return ""
  rows = [["class", "arm", "precision", "recall", "F1"]]
  scores = 100 * np.stack(metrics.per_class(trained.confusion))  # [3, S, A, C]
  for index, label in enumerate(trained.class_names):
    for place, arm in enumerate(trained.arms):
      kept = scores[:, trained.status[:, place] != "diverged", place, index]  # [3, S]
      rows.append([label, arm, *(_mean_and_std(values) for values in kept)])
  note = (
    "Mean over seeds ± standard deviation, in percent. Precision, recall and F1 in the tables "
    "above are macro averages, the mean over classes; since every image has one label, the micro "
    "average of all three is the accuracy."
  )
  return f"## Classes\n\n{markdown_table(rows)}\n\n{note}"


def _mean_and_std(values: np.ndarray) -> str:
  if len(values) == 0:
    return "-"
  return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def _metric_label(metric: str, trained: Population) -> str:
  """Says at which decision threshold an accuracy is taken, where there is one."""
  if trained.confusion_at_half is None or metric not in RATES:
    return metric
  if metric.endswith("_at_half"):
    return f"{metric.removesuffix('_at_half')} (threshold 0.5)"
  thresholds = sorted({f"{arm.threshold:g}" for arm in trained.arms.values()})
  return f"{metric} (threshold {', '.join(thresholds)})"


def _stopping_text(trained: Population) -> str:
  total = trained.status.size
  stopped, diverged = (int((trained.status == s).sum()) for s in ("early_stopped", "diverged"))
  params = ", ".join(f"{n:,}" for n in sorted(set(trained.num_params.ravel().tolist())))
  text = f"{params} parameters. {stopped} of {total} members stopped early"
  return text + (f"; **{diverged} diverged**." if diverged else "; none diverged.")


def _provenance_text(origin: dict[str, Any]) -> str:
  versions = ", ".join(f"{k} {v}" for k, v in origin["versions"].items() if v is not None)
  revision = origin["source"]["revision"] or "unknown"
  clean = {True: "clean", False: "with uncommitted changes", None: "state unknown"}[
    origin["source"]["clean"]
  ]
  lines = [
    f"command: {' '.join(origin['command'])}",
    f"source: {revision}, {clean}",
    f"device: {origin['device_count']} x {origin['device_kind']} ({origin['machine']})",
    f"time: {origin['total_seconds']:.0f} s in all, {origin['compile_seconds']:.0f} s compiling, "
    f"{origin['train_seconds']:.0f} s training and testing, the sum over workers",
    f"data: {origin['dataset']['name']}, SHA-256 {origin['dataset']['checksum']}",
    f"Python {origin['python']}, {versions}",
  ]
  return "\n".join(f"- {escape(line)}" for line in lines) + (
    "\n\nEvery number is in `members.csv`, `curves.parquet`, `confusion.npz` and `verdicts.json`; "
    "every setting in `config.json`."
  )


def _differences(old: Any, new: Any, name: str = "") -> Iterable[tuple[str, Any, Any]]:
  """Yields (name, old value, new value) for every leaf in which two configs differ."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in dict.fromkeys([*old, *new]):
      inner = f"{name}.{key}" if name else key
      yield from _differences(old.get(key), new.get(key), inner)
  elif old != new:
    yield name, old, new


def _write_json(file: pathlib.Path, value: Any):
  file.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
