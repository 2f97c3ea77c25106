"""Does the batch size matter: batch, stochastic or mini-batch gradient descent?

  jaxdl run compare_batch_sizes --workdir=DIR

trains the same network with batches of different sizes, with many seeds each, for the same number
of epochs. One more arm takes the whole training set as one batch, for about as long as training
with mini-batches takes. Then the script times one run of each arm alone, in several processes. The
config's docstring lists the variants.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ml_collections import ConfigDict

from jaxdl import forward, report, stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer, show
from jaxdl.experiment import Experiment
from jaxdl.population import timing, timing_process
from jaxdl.population.results import Population
from jaxdl.population.timing import MemberTimings

from . import command_line, from_config

if TYPE_CHECKING:
  import pandas as pd

# Results of the coursework, one run each: batch size, test accuracy, training time (s), inference
# time of the test set (s).
COURSEWORK = {
  "batch": (60_000, 0.7195, 6.09, 0.633),
  "stochastic": (1, 0.9760, 1042.9, 0.625),
  "mini_batch": (32, 0.9772, 47.7, 0.609),
}
# A batch size above the size of the training set means all of it.
WHOLE_SET = 2**31 - 1
_EQUAL_TIME = "batch_equal_time"
_TIMING_KEYS = ("timing_processes", "timing_rounds", "inference_rounds", "timing_margin")
# The words for verdicts on times over processes.
_WORDS = {stats.BETTER: "faster", stats.WORSE: "slower", stats.TOO_FEW_SEEDS: "too few processes"}
_OWN_KEYS = ("batch_sizes", "equal_time_epochs", *_TIMING_KEYS)


@dataclasses.dataclass(frozen=True)
class TimedExperiment(Experiment):
  """An experiment that also times its arms.

  Attributes:
    timing_processes: number of processes, one after the other, that time the arms.
    timing_rounds: number of times that a process times one epoch of each arm.
    inference_rounds: number of times that it times predicting the test set.
    timing_margin: the largest difference between inference times that counts as none, as a share of
      their median.
  """

  timing_processes: int = 16
  timing_rounds: int = 2
  inference_rounds: int = 20
  timing_margin: float = 0.05

  def __post_init__(self):
    super().__post_init__()
    for name in ("timing_processes", "timing_rounds", "inference_rounds"):
      check_integer(name, getattr(self, name), 1)
    if not isinstance(self.timing_margin, int | float) or not 0 < self.timing_margin < 1:
      raise InputError(f"timing_margin must be in (0, 1), not {show(self.timing_margin)}")


def create_experiment(config: ConfigDict) -> TimedExperiment:
  """Returns the experiment: an arm per batch size, and one more that trains the whole set longer.

  Raises:
    InputError: a key is missing or unknown, or a value is out of range.
  """
  for key in _OWN_KEYS:
    if key not in config:
      raise InputError(f"the config has no key {key!r}")
  arms = {
    name: from_config.create_arm(config, batch_size=size)
    for name, size in name_batch_sizes(config.batch_sizes).items()
  }
  check_integer("equal_time_epochs", config.equal_time_epochs, 0)
  if "batch" in arms and config.equal_time_epochs:
    arms[_EQUAL_TIME] = dataclasses.replace(arms["batch"], num_epochs=config.equal_time_epochs)
  question = f"Does the batch size of gradient descent matter for {config.get('dataset', 'mnist')}?"
  plain = from_config.create_experiment(config, question, arms, own_keys=_OWN_KEYS)
  settings = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
  return TimedExperiment(**settings, **{key: config[key] for key in _TIMING_KEYS})


def name_batch_sizes(sizes: Sequence[int]) -> dict[str, int]:
  """Returns name of the arm -> batch size.

  Size 0 is "batch", the whole set, and size 1 is "stochastic". All others are "mini_batch"; if
  there are several of these, their names end with the size.

  Raises:
    InputError: a size is not an integer >= 0, or occurs twice.
  """
  for size in sizes:
    check_integer("a batch size", size, 0)
    if list(sizes).count(size) > 1:
      raise InputError(f"batch size {size} is named twice")
  several = sum(size > 1 for size in sizes) > 1
  names = {0: "batch", 1: "stochastic"}
  return {
    names.get(size, f"mini_batch_{size}" if several else "mini_batch"): size or WHOLE_SET
    for size in sizes
  }


def observe(recipe, variables, hyper, train_set, validation, test) -> dict:
  """Counts correct test predictions, for curves that are only shown: nothing is chosen by them."""
  return {"test_correct": forward.evaluate(recipe, variables, test, hyper).correct}


def analyze(timed: TimedExperiment, dataset: Dataset, population: Population) -> report.Extra:
  """Times one run of each arm alone, and shows accuracy against time and examples."""
  import pandas as pd

  # Times do not depend on the values of the weights, so one seed is enough.
  measured = timing_process.time_in_processes(
    dataset,
    population.arms,
    processes=timed.timing_processes,
    train_rounds=timed.timing_rounds,
    inference_rounds=timed.inference_rounds,
    root_seed=timed.seed,
    slice_size=timed.slice_size,
  )
  verdicts = timing.compare(
    measured.inference, "inference_seconds", timed.timing_margin, timed.alpha
  )
  kinds = {"train_epoch": measured.train_epoch, "inference": measured.inference}
  tables = {
    "timings": pd.DataFrame(timing.columns(kinds)),
    "inference_verdicts": pd.DataFrame(_inference_records(verdicts)),
    "test_curves": curves_table(dataset, population, measured.train_epoch),
  }
  sections = [
    "## Accuracy, size and time",
    report.markdown_table(summary_rows(timed, dataset, population, measured)),
    _summary_note(timed, population, measured),
    "## Does the inference time depend on how a network was trained?",
    *_inference_sections(verdicts),
  ]
  return report.Extra(sections, _pictures(dataset, population, measured), tables)


def summary_rows(
  timed: TimedExperiment, dataset: Dataset, population: Population, measured: MemberTimings
) -> list[list[str]]:
  """Returns the table of accuracy, size and time, header first, with a row per arm.

  Times are medians with their range. Arms with the coursework's setting also show its numbers.
  """
  header = ["arm", "batch size", "epochs", "test accuracy, mean [95% interval]", "parameters"]
  header += ["bytes", "training of one run (s)", "inference of the test set (s)"]
  known = {name: COURSEWORK[name] for name in population.arms if is_coursework(timed, name)}
  if known:
    header += ["coursework, one run: accuracy", "training (s)", "inference (s)"]
  rows = [header]
  summaries = stats.summarize(population.scores("test_accuracy"), limits=(0, 1))
  for index, summary in enumerate(summaries):
    arm = population.arms[summary.arm]
    num_params = int(population.num_params[0, index])
    mean, low, high = (f"{100 * x:.2f}" for x in (summary.mean, summary.ci_low, summary.ci_high))
    row = [
      summary.arm,
      f"{min(arm.batch_size, len(dataset.train)):,}",
      str(arm.num_epochs),
      f"{mean} [{low}, {high}] %",
      f"{num_params:,}",
      f"{4 * num_params:,}",  # float32
      _median_and_range(arm.num_epochs * measured.train_epoch.of(summary.arm)),
      _median_and_range(measured.inference.of(summary.arm)),
    ]
    if summary.arm in known:
      _, accuracy, training, inference = known[summary.arm]
      row += [f"{100 * accuracy:.2f} %", f"{training:g}", f"{inference:g}"]
    elif known:
      row += ["", "", ""]
    rows.append(row)
  return rows


def is_coursework(timed: Experiment, name: str) -> bool:
  """Whether an arm and its data are the coursework's."""
  if name not in COURSEWORK:
    return False
  size = WHOLE_SET if name == "batch" else COURSEWORK[name][0]
  setting = Arm(  # all other settings have their defaults
    model="mlp",
    loss="categorical_cross_entropy",
    dropout_rate=0.0,
    batch_size=size,
    num_epochs=10,
    patience=None,
  )
  data = (timed.dataset, tuple(timed.classes), timed.num_train, timed.validation_fraction)
  return timed.arms[name] == setting and data == ("mnist", (), None, 0.0)


def _summary_note(timed: TimedExperiment, population: Population, measured: MemberTimings) -> str:
  """Says how times were measured, and how long the arm of equal time really took."""
  text = (
    "Accuracies are means over seeds. Times are medians [least, most] of one member alone on one "
    f"device, in {timed.timing_processes} processes. The training time is the time of one epoch, "
    f"measured in {timed.timing_rounds} rounds per process in which the arms take turns, "
    "multiplied by the number of epochs. Inference is measured in "
    f"{timed.inference_rounds} such rounds. Compilation, which takes {_range(measured)} s per arm, "
    "is not included. Every repetition is in `tables/timings.csv`."
  )
  minis = [name for name in population.arms if name.startswith("mini_batch")]
  if _EQUAL_TIME in population.arms and minis:
    seconds = {
      name: population.arms[name].num_epochs * measured.train_epoch.of(name)
      for name in (_EQUAL_TIME, minis[0])
    }
    ratio = seconds[_EQUAL_TIME] / seconds[minis[0]]  # [P R]
    text += (
      f"\n\nThe number of epochs of {_EQUAL_TIME} is set in the config, so that a run can be "
      f"repeated. Its training time was {_median_and_range(ratio)} times that of {minis[0]}."
    )
  return text


def _inference_sections(verdicts: Sequence[stats.Verdict]) -> list[str]:
  """Returns the answer and the verdicts on inference times, with processes in place of seeds."""
  if not verdicts:
    return ["There is one arm only."]
  header = ["a", "b", "processes", "a - b (ms)", "95% interval", "p (Holm)", "margin (ms)"]
  rows = [[*header, "verdict"]]
  for v in verdicts:
    difference, low, high, margin = (
      report.number(1000 * x, ".3g") for x in (v.mean_difference, v.ci_low, v.ci_high, v.margin)
    )
    pair = [v.arm_a, v.arm_b, str(v.num_pairs), difference]
    rows.append([*pair, f"[{low}, {high}]", report.number(v.p_holm, ".3g"), margin])
    rows[-1].append(_WORDS.get(v.verdict, v.verdict))
  found = [row for row in rows[1:] if row[-1] in ("faster", "slower")]
  if found:
    answer = "Yes: " + "; ".join(f"{row[0]} is {row[-1]} than {row[1]}" for row in found) + "."
  elif all(v.verdict == stats.EQUIVALENT for v in verdicts):
    answer = "No: all arms are equivalent within the margin."
  else:
    answer = "Undecided: no arms are shown to differ, and not all are shown to be equivalent."
  note = (
    "The arms are the same network with different weights. A process's time is the median of its "
    "rounds, and differences are taken within processes. The verdicts are about this machine "
    "during this run, so they are not in `verdicts.json`, whose verdicts are the same in every run "
    "of this config."
  )
  return [f"**{answer}**", report.markdown_table(rows), note]


def _inference_records(verdicts: Sequence[stats.Verdict]) -> list[dict]:
  """Returns the rows of the table of verdicts on inference times (s) over processes."""
  renamed = {"num_pairs": "num_processes", "seeds_needed": "processes_needed"}
  left_out = ("num_seeds", "num_diverged_a", "num_diverged_b")
  return [
    {
      renamed.get(name, name): _WORDS.get(value, value) if name == "verdict" else value
      for name, value in stats.to_json(verdict).items()
      if name not in left_out
    }
    for verdict in verdicts
  ]


def _pictures(dataset: Dataset, population: Population, measured: MemberTimings) -> list[tuple]:
  """Returns pictures of accuracy against time and against examples, and of the times."""
  from jaxdl.report import line_plots

  by_time, by_examples = accuracy_curves(dataset, population, measured.train_epoch)
  note = "Nothing was chosen with these curves."
  return [
    (
      "accuracy_against_time",
      f"Test accuracy after every epoch against the training time of one run alone. {note}",
      line_plots.accuracy_against(by_time, x_label="training time of one run (s)"),
    ),
    (
      "accuracy_against_examples",
      f"Test accuracy after every epoch against the number of examples seen. {note}",
      line_plots.accuracy_against(by_examples, x_label="training examples seen"),
    ),
    *(
      (f"{kind}_times", f"Time of {text}, one member alone: all repetitions, and median.", figure)
      for kind, text, figure in (
        ("train_epoch", "one epoch of training", _draw(measured.train_epoch, "epoch")),
        ("inference", "predicting the test set", _draw(measured.inference, "test set")),
      )
    ),
  ]


def _draw(timings: timing.Timings, what: str):
  from jaxdl.report import benchmark_plots

  rows = {arm: timings.of(arm) for arm in timings.arms}
  return benchmark_plots.timings(rows, x_label=f"seconds per {what}")


Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # arm -> (x [E], test accuracy [S, E])


def accuracy_curves(
  dataset: Dataset, population: Population, epoch_timings: timing.Timings
) -> tuple[Curves, Curves]:
  """Returns test accuracy after every epoch, against time and against examples seen.

  Args:
    dataset: the dataset of the population.
    population: the trained members, with the observations of `observe`.
    epoch_timings: times of one epoch of each arm; an arm's median stands for each of its epochs.

  Returns:
    Two mappings: arm -> (seconds `[E]`, accuracy `[S, E]`) and arm -> (examples `[E]`, accuracy
    `[S, E]`), with E epochs of that arm. Members that diverged are NaN.
  """
  by_time, by_examples = {}, {}
  for index, name in enumerate(population.arms):
    correct = population.observations["test_correct"][name][:, 1:].astype(float)  # [S, E]
    correct[~population.has_result[:, index]] = np.nan
    accuracy = correct / dataset.num_test
    epochs = np.arange(1, accuracy.shape[1] + 1)
    by_time[name] = (epochs * np.median(epoch_timings.of(name)), accuracy)
    by_examples[name] = (epochs * dataset.num_train, accuracy)
  return by_time, by_examples


def curves_table(
  dataset: Dataset, population: Population, epoch_timings: timing.Timings
) -> "pd.DataFrame":
  """Returns the curves of `accuracy_curves` as a table with a row per member and epoch."""
  import pandas as pd

  by_time, by_examples = accuracy_curves(dataset, population, epoch_timings)
  parts = []
  for name, (seconds, accuracy) in by_time.items():
    num_seeds, num_epochs = accuracy.shape
    columns = {
      "seed": np.repeat(population.seeds, num_epochs),
      "arm": name,
      "epoch": np.tile(np.arange(1, num_epochs + 1), num_seeds),
      "examples_seen": np.tile(by_examples[name][0], num_seeds),
      "seconds": np.tile(seconds, num_seeds),
      "test_accuracy": accuracy.ravel(),
    }
    parts.append(pd.DataFrame(columns))
  return pd.concat(parts, ignore_index=True)


def _median_and_range(values: np.ndarray) -> str:
  median, least, most = (f"{x:.3g}" for x in (np.median(values), values.min(), values.max()))
  return f"{median} [{least}, {most}]"


def _range(measured: MemberTimings) -> str:
  seconds = list(measured.compile_seconds.values())
  return f"{min(seconds):.1f} to {max(seconds):.1f}"


SCRIPT = command_line.Script(create_experiment, analyze, observe=observe)


if __name__ == "__main__":
  command_line.run(SCRIPT)
