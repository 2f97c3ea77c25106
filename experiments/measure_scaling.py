"""Measures the cost of checkpoints and the speed-up from workers, and fits a cost model.

  jaxdl run measure_scaling --workdir=DIR

writes scaling.json and scaling.md. The workers are those of a local Dask cluster, each with its own
core and one thread. Runs that are compared take turns, and every repetition is kept.
"""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from ml_collections import ConfigDict

from jaxdl import experiment as experiment_lib
from jaxdl import report
from jaxdl.arm import Arm
from jaxdl.errors import InputError
from jaxdl.experiment import Experiment
from jaxdl.population import dask as dask_lib
from jaxdl.population import devices, plan, timing
from jaxdl.population.dask import Cluster
from jaxdl.population.progress import Progress
from jaxdl.population.results import Population
from jaxdl.population.timing import Name
from jaxdl.store import files, interrupts, locks, store

from . import command_line

_MILLION = 1_000_000
_VALIDATION_FRACTION = 0.2
_FILES = ("scaling.json", "scaling.md")


class Size(NamedTuple):
  """The size of a run."""

  members: int
  epochs: int
  examples: int  # for training and validation together


class CostModel(NamedTuple):
  """A model of the duration of a run, in seconds.

  The duration is start + members / devices * (member + epochs * (epoch + examples * example)). The
  coefficients are at least 0 and minimize the squared relative errors.
  """

  start: float
  member: float
  epoch: float
  example: float

  def seconds(self, size: Size, num_devices: int) -> float:
    """Returns the predicted duration of a run, in seconds."""
    return float(np.dot(_terms(size, num_devices), self))


def padded(size: Size, batch_size: int) -> Size:
  """Returns a size whose examples include the padding of the last batch, which is computed too.

  Validation examples are included; they need no padding.
  """
  num_train = math.floor(size.examples * (1 - _VALIDATION_FRACTION))
  batch_size = min(batch_size, num_train)
  num_batches = -(-num_train // batch_size)
  return size._replace(examples=num_batches * batch_size + size.examples - num_train)


def fit(sizes: Sequence[Size], num_devices: int, seconds: Sequence[float]) -> CostModel:
  """Fits the model to runs of these sizes that took `seconds` on `num_devices` devices."""
  weights = 1 / np.asarray(seconds)
  terms = np.array([_terms(size, num_devices) for size in sizes])
  found, _ = scipy.optimize.nnls(terms * weights[:, None], np.ones(len(sizes)))
  return CostModel(*map(float, found))


def _terms(size: Size, num_devices: int) -> list[float]:
  share = size.members / num_devices
  epochs = share * size.epochs
  return [1.0, share, epochs, epochs * size.examples]


def main(config: ConfigDict):
  """Measures, and writes and prints the results."""
  workdir = pathlib.Path(command_line.WORKDIR.value)
  if not command_line.OVERWRITE.value and any((workdir / name).exists() for name in _FILES):
    raise InputError(f"workdir {str(workdir)!r} holds measurements; replace them with --overwrite")
  with locks.Lock(workdir):
    files.check_replaceable(workdir, _FILES, _FILES[0])
    found = measure(config, command_line.DATA_DIR.value)
    text = markdown(found)
    with files.staging(workdir, _FILES[0]) as stage:
      (stage / "scaling.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
      (stage / "scaling.md").write_text(text, encoding="utf-8")
  print(text)


def measure(config: ConfigDict, data_dir: str | None) -> dict[str, Any]:
  """Returns all measurements, for `json.dumps`."""
  found = {"device": devices.workers()[0].device_kind, "num_cores": devices.num_cores()}
  found["checkpoints"] = _measure_checkpoints(config, data_dir)
  with dask_lib.connect(num_workers=1) as one, dask_lib.connect(num_workers=2) as two:
    found["scaling"] = _measure_scaling(config, data_dir, {"one": one, "two": two})
    found["empty_chunks"] = _measure_empty_chunks(config.num_empty_chunks, two)
    found["cost_model"] = _measure_cost(config, data_dir, two)
  return found


def _experiment(config: ConfigDict, size: Size, train_all: bool = False) -> Experiment:
  arm = Arm(
    model=config.model,
    loss="binary_cross_entropy",
    batch_size=config.batch_size,
    num_epochs=size.epochs,
    patience=None,
  )
  return Experiment(
    question="How long does it take?",
    arms={"arm": arm},
    dataset=config.dataset,
    classes=tuple(config.classes),
    num_train=None if train_all else size.examples,
    validation_fraction=_VALIDATION_FRACTION,
    num_seeds=size.members,
    seed=config.seed,
    chunk_size=1,
  )


@contextlib.contextmanager
def _stored() -> Iterator[store.Store]:
  with interrupts.temporary_folder("jaxdl-scaling-") as folder:
    one = store.Store(pathlib.Path(folder))
    one.claim({"config": {}})
    yield one
    one.close()


def _take_turns(
  names: Sequence[Name], measure: Callable[[Name], float], config: ConfigDict
) -> dict[Name, list[float]]:
  """Measures every name once per round; returns name -> measurements, one per round."""
  found: dict[Name, list[float]] = {name: [] for name in names}
  for order in timing.draw_orders(names, config.rounds, config.seed):
    for name in order:
      found[name].append(measure(name))
  return found


def _measure_checkpoints(config: ConfigDict, data_dir: str | None) -> dict[str, Any]:
  """Times the same population with a store, as in experiments, and without one."""
  size = Size(config.checkpoint_members, config.checkpoint_epochs, 0)
  experiment = _experiment(config, size, train_all=True)
  dataset = experiment_lib.load_dataset(experiment, data_dir)

  def train(with_store: bool) -> float:
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
      one = stack.enter_context(_stored()) if with_store else None
      experiment_lib.train_arms(experiment, dataset, store=one, progress=Progress(quiet=True))
      return time.perf_counter() - start

  train(True)  # compiles and imports, which must not count
  seconds = _take_turns(["with", "without"], lambda name: train(name == "with"), config)
  ratios = np.array(seconds["with"]) / seconds["without"]
  return {**seconds, "cost": _spread(ratios - 1), "members": size.members, "epochs": size.epochs}


def _train_on(
  where: Cluster, experiment: Experiment, data_dir: str | None, dataset: Any
) -> tuple[float, Population]:
  """Trains on a cluster; returns the time in seconds, and the population."""
  with _stored() as one:
    source = experiment_lib.Source(experiment.dumps(), data_dir, dataset.checksum)
    job = dask_lib.Job(source, where.device, str(one.folder), pinned=True)
    start = time.perf_counter()
    population = experiment_lib.train_arms(
      experiment,
      dataset,
      groups=experiment_lib.plan_groups(experiment, dataset, where.device),
      store=one,
      execute=lambda *arguments: where.train(job, *arguments),
      progress=Progress(quiet=True),
    )
    return time.perf_counter() - start, population


def _measure_scaling(config, data_dir, clusters: dict[str, Cluster]) -> dict[str, Any]:
  size = Size(config.scaling_members, config.scaling_epochs, config.scaling_train)
  experiment = _experiment(config, size)
  dataset = experiment_lib.load_dataset(experiment, data_dir)
  for where in clusters.values():
    _train_on(where, experiment, data_dir, dataset)  # compiles, on every worker

  def train(name: str) -> float:
    return _train_on(clusters[name], experiment, data_dir, dataset)[0]

  seconds = _take_turns(list(clusters), train, config)
  speedup = np.array(seconds["one"]) / seconds["two"]
  return {**seconds, "speedup": _spread(speedup), **size._asdict()}


def _nothing(_: plan.Chunk) -> None:
  """Does nothing, as the task of an empty chunk."""


def _measure_empty_chunks(num_chunks: int, where: Cluster) -> dict[str, Any]:
  chunks = [plan.Chunk(0, seed, 0, 1, 1) for seed in range(num_chunks)]
  start = time.perf_counter()
  done = sum(1 for _ in where.map(_nothing, chunks))
  seconds = time.perf_counter() - start
  return {"num_chunks": done, "seconds": seconds, "seconds_per_chunk": seconds / done}


def _measure_cost(config, data_dir, where: Cluster) -> dict[str, Any]:
  """Fits the cost model to some runs on two workers, and checks its prediction of another."""
  sizes = [Size(*map(int, size)) for size in (*config.fitted, config.predicted)]
  runs = {}
  for size in sizes:
    experiment = _experiment(config, size)
    runs[size] = experiment, data_dir, experiment_lib.load_dataset(experiment, data_dir)
    _train_on(where, *runs[size])  # compiles, on every worker
  seconds = _take_turns(sizes, lambda size: _train_on(where, *runs[size])[0], config)
  medians = [float(np.median(seconds[size])) for size in sizes]
  computed = [padded(size, config.batch_size) for size in sizes]
  model = fit(computed[:-1], 2, medians[:-1])
  predicted = model.seconds(computed[-1], 2)
  large = padded(Size(_MILLION, 20, 12_396), config.batch_size)
  return {
    "runs": [[*size, s] for size, s in zip(sizes[:-1], medians[:-1], strict=True)],
    "seconds": [seconds[size] for size in sizes],
    "model": model._asdict(),
    "checked_on": [*sizes[-1], medians[-1]],
    "predicted_seconds": predicted,
    "relative_error": predicted / medians[-1] - 1,
    "million_members_hours": {
      str(num): model.seconds(large, num) / 3600 for num in (1, 2, 100, 1000)
    },
  }


def _spread(values: np.ndarray) -> dict[str, float]:
  return {"median": float(np.median(values)), "min": float(min(values)), "max": float(max(values))}


def markdown(found: dict[str, Any]) -> str:
  """Returns the measurements as Markdown."""
  cost, scaling = found["checkpoints"]["cost"], found["scaling"]["speedup"]
  empty, model = found["empty_chunks"], found["cost_model"]
  rows = [
    ["members", "epochs", "images", "seconds"],
    *([f"{x:g}" for x in r] for r in model["runs"]),
  ]
  hours = [
    ["cores", "hours"],
    *([n, f"{h:,.0f}"] for n, h in model["million_members_hours"].items()),
  ]
  terms = ", ".join(f"{name} {value:.3g} s" for name, value in model["model"].items())
  members, epochs, examples, seconds = model["checked_on"]
  return "\n\n".join(
    [
      f"{found['num_cores']} cores of {report.escape(found['device'])}.",
      f"Checkpoints and commits: {100 * cost['median']:+.1f}% of the time "
      f"({100 * cost['min']:+.1f} to {100 * cost['max']:+.1f}%, "
      f"{len(found['checkpoints']['with'])} rounds).",
      f"Two workers against one: {scaling['median']:.2f} times as fast "
      f"({scaling['min']:.2f} to {scaling['max']:.2f}).",
      f"{empty['num_chunks']:,} empty chunks: {empty['seconds']:.1f} s, "
      f"{1000 * empty['seconds_per_chunk']:.2f} ms each.",
      "Runs on two workers:",
      report.markdown_table(rows),
      f"Cost model: {terms}. Checked on {members} members, {epochs} epochs, {examples:,} images: "
      f"{model['predicted_seconds']:.1f} s predicted, {seconds:.1f} s measured. "
      "The last batch of an epoch counts as a full one.",
      "A million members, 20 epochs of 12,396 images:",
      report.markdown_table(hours),
    ]
  )


if __name__ == "__main__":
  command_line.main(main)
