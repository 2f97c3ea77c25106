"""The experiment `mnist` with 64 seeds: three initializers, from the data to the verdicts."""

import time

import numpy as np

from jaxdl import answer as answer_lib
from jaxdl import experiment as experiment_lib
from jaxdl.population.progress import Progress

from .coursework import load_experiment
from .part import Part


def measure(part: Part):
  experiment, dataset = load_experiment(part, "compare_initializers", "mnist")
  start = time.perf_counter()
  population = experiment_lib.train_arms(experiment, dataset, progress=Progress(quiet=True))
  seconds = time.perf_counter() - start
  accuracy = population.metrics["test_accuracy"]  # [S, A]
  for place, arm in enumerate(population.arms):
    part.row(
      "test accuracy",
      arm=arm,
      seeds=len(accuracy),
      mean=float(np.nanmean(accuracy[:, place])),
      deviation=float(np.nanstd(accuracy[:, place], ddof=1)),
      epochs=float(population.epochs[:, place].mean()),
    )
  part.row(
    "time",
    seconds=seconds,
    compiling=population.compile_seconds,
    members=accuracy.size,
    at_a_time=population.chunks[0].chunk_size * population.chunks[0].chunk_arms,
  )
  verdicts = experiment_lib.compare(experiment, population)
  metric = next(iter(experiment.margins))
  part.row("answer", answer=answer_lib.answer(verdicts, metric, population))
  text = f"{experiment.dataset} with {len(accuracy)} seeds runs"
  part.check(text, f"{seconds:.0f} s", bool(np.isfinite(accuracy).all()))
