"""Where do gradients vanish and explode, and how does that change the speed of learning?

  jaxdl run gradient_flow --workdir=DIR

trains MLPs of every activation x initializer x depth. At initialisation and after every epoch it
measures the gradient of each layer and the layer's shares of saturated and dead units. The config's
docstring lists the variants, their durations and their results.

The answer compares the reference arm with the arms that differ from it in one of the three
settings. The tables `vanishing_verdicts.csv` and `speed_verdicts.csv` have all other comparisons.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxdl import report, stats
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.errors import InputError, check_integer, show
from jaxdl.experiment import Experiment
from jaxdl.nn import models
from jaxdl.population import diagnostics
from jaxdl.population.results import EPOCHS_TO_TARGET, Population

from . import command_line, from_config

if TYPE_CHECKING:
  import pandas as pd

  from jaxdl.report.figures import Figure

_OWN_KEYS = ("activations", "initializers", "depths", "width")
_RATIO = "log10_gradient_ratio"
# Margin for log10 ratios: a factor of two.
_RATIO_MARGIN = float(np.log10(2))


class Cell(NamedTuple):
  """The settings in which the arms differ."""

  activation: str
  initializer: str
  depth: int  # hidden layers

  @property
  def name(self) -> str:
    """The name of the arm."""
    return f"{self.activation}/{self.initializer}/depth {self.depth}"


def create_experiment(config: ConfigDict) -> Experiment:
  """Returns the experiment: an arm per activation, initializer and depth.

  Raises:
    InputError: a key is unknown or missing, or a value is out of range.
  """
  for key in _OWN_KEYS:
    if key not in config:
      raise InputError(f"the config has no key {key!r}")
  check_integer("width", config.width, 1)
  depths = _values("depths", config.depths)
  for depth in depths:
    # The first hidden layer is compared with the last.
    check_integer("each of the depths", depth, 2, models.MAX_LAYERS)
  arms = {}
  for depth in depths:
    for activation in _values("activations", config.activations):
      for initializer in _values("initializers", config.initializers):
        arms[Cell(activation, initializer, depth).name] = from_config.create_arm(
          config,
          model=f"mlp({','.join([str(config.width)] * depth)})",
          activation=activation,
          kernel_initializer=initializer,
        )
  question = (
    "Do activation, initial weights and depth change how fast an MLP learns "
    f"{config.get('dataset', 'mnist')} with {config.get('optimizer', 'adam')}?"
  )
  return from_config.create_experiment(config, question, arms, _OWN_KEYS)


def _values(key: str, given: Iterable) -> list:
  """Returns the values of a config key; text with commas counts as several values."""
  values = []
  for value in given:
    texts = value.split(",") if isinstance(value, str) else [value]
    values += [text.strip() if isinstance(text, str) else text for text in texts]
  for value in values:
    if values.count(value) > 1:
      raise InputError(f"{key} has {show(value)} twice")
  if not values:
    raise InputError(f"{key} is empty")
  return values


def read_cell(arm: Arm) -> Cell:
  """Returns the settings in which an arm differs from others."""
  _, hidden = models.parse(arm.model)
  return Cell(arm.activation, arm.kernel_initializer, len(hidden))


def choose(experiment: Experiment, population: Population) -> Population:
  """Returns the reference arm and the arms one setting away from it; all if there is none."""
  if experiment.reference is None:
    return population
  centre = read_cell(experiment.arms[experiment.reference])

  def num_changes(arm: Arm) -> int:
    return sum(a != b for a, b in zip(read_cell(arm), centre, strict=True))

  return population.select([name for name, arm in population.arms.items() if num_changes(arm) <= 1])


def analyze(experiment: Experiment, _: Dataset, population: Population) -> report.Extra:
  """Returns sections, pictures and tables on the layers."""
  cells = {name: read_cell(arm) for name, arm in population.arms.items()}
  vanishing = vanishing_verdicts(experiment, population, cells)
  speed = speed_verdicts(experiment, population, cells)
  return report.Extra(
    sections=_sections(experiment, population, cells, vanishing, speed),
    pictures=_pictures(population, cells),
    tables={
      "layers": layers_table(population, cells),
      "vanishing": vanishing_table(population, cells),
      "vanishing_verdicts": _verdicts_frame(vanishing),
      "speed_verdicts": _verdicts_frame(speed),
    },
  )


# The settings that two arms share, and the verdict on them.
_Comparison = tuple[dict[str, Any], stats.Verdict]


# Tables.


def layers_table(population: Population, cells: Mapping[str, Cell]) -> "pd.DataFrame":
  """Returns a row per member, epoch (0: at initialisation) and layer (from 1, the output last).

  The output layer has no activation, so its shares of saturated and dead units are empty. Epochs
  after a member has diverged are left out.
  """
  import pandas as pd

  parts = []
  for name, cell in cells.items():
    observed = {s: _along(population, s, name) for s in diagnostics.STATISTICS}
    shape = observed["gradient_norm"].shape  # [S, E + 1, L]
    seed, epoch, layer = (axis.ravel() for axis in np.indices(shape))
    padding = [(0, 0), (0, 0), (0, 1)]  # for statistics that the output layer does not have
    columns = {"seed": np.array(population.seeds)[seed], "arm": name, **cell._asdict()}
    columns |= {"epoch": epoch, "layer": layer + 1}
    for statistic, values in observed.items():
      if values.shape != shape:
        values = np.pad(values, padding, constant_values=np.nan)
      columns[statistic] = values.ravel()
    kept = epoch <= _last_epochs(population, name)[seed]
    parts.append(pd.DataFrame(columns)[kept])
  return pd.concat(parts, ignore_index=True)


def _along(population: Population, statistic: str, name: str) -> np.ndarray:
  """Returns a statistic of an arm, `[S, E + 1, ...]`; NaN after a member's last whole epoch."""
  values = population.observations[statistic][name]
  ended = np.arange(values.shape[1]) > _last_epochs(population, name)[:, None]  # [S, E + 1]
  return np.where(ended[..., None], np.nan, values)


def _last_epochs(population: Population, name: str) -> np.ndarray:
  """Returns the last epoch that each seed of an arm finished, `[S]`; 0 if there is none."""
  index = list(population.arms).index(name)
  return population.epochs[:, index] - (population.status[:, index] == "diverged")


def vanishing_table(population: Population, cells: Mapping[str, Cell]) -> "pd.DataFrame":
  """Returns a row per member: log10 ratios, first to last hidden layer, at initialisation."""
  import pandas as pd

  parts = [
    pd.DataFrame(
      {
        "seed": population.seeds,
        "arm": name,
        **cell._asdict(),
        _RATIO: diagnostics.log10_ratio(_at_start(population, "gradient_norm", name)),
        "log10_error_ratio": diagnostics.log10_ratio(_at_start(population, "error_norm", name)),
      }
    )
    for name, cell in cells.items()
  ]
  return pd.concat(parts, ignore_index=True)


def _at_start(population: Population, statistic: str, name: str) -> np.ndarray:
  """Returns a statistic of an arm at initialisation, `[S, L]`."""
  return population.observations[statistic][name][:, 0]


def vanishing_verdicts(
  experiment: Experiment, population: Population, cells: Mapping[str, Cell]
) -> list[_Comparison]:
  """Compares each activation's gradient ratio at initialisation with that of the first activation.

  It compares arms with the same initializer and depth. "Better" means that less of the gradient is
  lost on the way to the first layer.
  """
  ratios = {
    name: diagnostics.log10_ratio(_at_start(population, "gradient_norm", name)) for name in cells
  }
  return _verdicts(experiment, population, cells, "activation", _RATIO, ratios, _RATIO_MARGIN, True)


def speed_verdicts(
  experiment: Experiment, population: Population, cells: Mapping[str, Cell]
) -> list[_Comparison]:
  """Compares each initializer's epochs to the target loss with those of the first initializer.

  It compares arms with the same activation and depth. A member that diverged counts as one that
  never reached the target, with `num_epochs` + 1; in the report's other verdicts it has no score.
  The list is empty without a target loss.
  """
  metric = EPOCHS_TO_TARGET
  if metric not in population.metrics:
    return []
  never = np.array([arm.num_epochs + 1.0 for arm in population.arms.values()])
  values = np.where(population.status == "diverged", never, population.metrics[metric])  # [S, A]
  epochs = dict(zip(population.arms, values.T, strict=True))
  margin = experiment.margins.get(metric, 1.0)
  return _verdicts(experiment, population, cells, "initializer", metric, epochs, margin, False)


def _verdicts(
  experiment, population, cells, varied, metric, values, margin, higher_is_better
) -> list[_Comparison]:
  """Compares the arms that differ only in `varied` with the first of them, group by group."""
  comparisons = []
  for shared, names in _groups(cells, varied):
    scores = stats.Scores(
      metric=metric,
      values=np.stack([values[name] for name in names], axis=1),  # [S, a]
      seeds=population.seeds,
      arms=tuple(names),
      axes=stats.AXES,
      higher_is_better=higher_is_better,
    )
    verdicts = stats.compare(
      scores,
      margin=margin,
      alpha=experiment.alpha,
      num_resamples=experiment.num_resamples,
      seed=experiment.seed,
      reference=names[0],
    )
    comparisons += [(shared, verdict) for verdict in verdicts]
  return comparisons


def _verdicts_frame(comparisons: list[_Comparison]) -> "pd.DataFrame":
  import pandas as pd

  return pd.DataFrame([{**shared, **stats.to_json(verdict)} for shared, verdict in comparisons])


def _groups(cells: Mapping[str, Cell], varied: str) -> Iterator[tuple[dict[str, Any], list[str]]]:
  """Yields the shared settings and the names of each group of two or more arms."""
  groups: dict[tuple, list[str]] = {}
  for name, cell in cells.items():
    shared = {key: value for key, value in cell._asdict().items() if key != varied}
    groups.setdefault(tuple(shared.items()), []).append(name)
  for shared, names in groups.items():
    if len(names) > 1:
      yield dict(shared), names


# The report.


def _sections(experiment, population, cells, vanishing, speed) -> list[str]:
  parts = ["## Layers at initialisation, and the speed of learning", _explanation(experiment)]
  for depth in dict.fromkeys(cell.depth for cell in cells.values()):
    rows = [_header(population)]
    rows += [_row(population, name, cell) for name, cell in cells.items() if cell.depth == depth]
    parts += [f"### Depth {depth}", report.markdown_table(rows)]
  first, deepest = next(iter(cells.values())), max(cell.depth for cell in cells.values())
  if vanishing:
    parts += [
      f"### Is less of the gradient lost on the way back than with {first.activation}?",
      f"Depth {deepest}: log10 of the gradient norm of the first hidden layer over that of the "
      "last, at initialisation; the margin is a factor of two. `tables/vanishing_verdicts.csv` has "
      "the other depths.",
      _verdict_table(vanishing, deepest),
    ]
  if speed:
    parts += [
      f"### Is the target loss reached earlier than from {report.escape(first.initializer)}?",
      f"Depth {deepest}: epochs to the target. A member that did not reach it, or diverged, counts "
      "as one epoch more than the number of epochs, so arms that never reach it are equal. "
      "`tables/speed_verdicts.csv` has the other depths.",
      _verdict_table(speed, deepest),
    ]
  return parts


def _explanation(experiment: Experiment) -> str:
  text = (
    f"Measured on the first {diagnostics.PROBE_SIZE} training images, before training. *Errors* "
    "are the gradients with respect to the pre-activations, *gradients* those with respect to the "
    "kernels, both as Frobenius norms. The factor per layer is the geometric mean of the ratios of "
    "neighbouring hidden layers, from the last back to the first: below 1 they vanish towards the "
    "input, above 1 they explode. A gradient is the product of a layer's input and its error. If "
    "an activation scales with its input, as ReLU does and tanh does near zero, inputs and errors "
    "change by the same factor from layer to layer, in opposite directions. All gradients then "
    "have the same size, and it is that size that matters, not their ratio. *Saturated* is the "
    "share of pairs of a hidden unit and an image for which the slope of the activation is below "
    f"{diagnostics.SATURATION:.0%} of its largest slope (for ReLU: for which its input is at most "
    "zero); *dead* is the share of units that are saturated on every image. Values are means over "
    "seeds; those of norms are geometric."
  )
  if experiment.target_loss is not None:
    text += f" The target is a training loss of {experiment.target_loss:g}."
  return text


def _header(population: Population) -> list[str]:
  header = ["activation", "initializer", "errors, factor per layer", "gradients, factor per layer"]
  header += ["gradient of the first layer", "saturated", "dead", "diverged"]
  if EPOCHS_TO_TARGET in population.metrics:
    header += ["reached the target", "after epochs"]
  return header


def _row(population: Population, name: str, cell: Cell) -> list[str]:
  """Returns the row of an arm in the table of its depth."""
  index = list(population.arms).index(name)
  gradients = _at_start(population, "gradient_norm", name)
  row = [cell.activation, cell.initializer]
  row += [
    _geometric_mean(diagnostics.attenuation(_at_start(population, statistic, name)))
    for statistic in ("error_norm", "gradient_norm")
  ]
  row.append(_geometric_mean(gradients[:, 0]))
  row += [f"{_at_start(population, share, name).mean():.1%}" for share in ("saturated", "dead")]
  num_seeds = int(population.is_trained[:, index].sum())
  row.append(f"{(population.status[:, index] == 'diverged').sum()} of {num_seeds}")
  if EPOCHS_TO_TARGET in population.metrics:
    epochs = population.metrics[EPOCHS_TO_TARGET][:, index]
    reached = epochs[epochs <= population.arms[name].num_epochs]  # NaN, diverged, is not
    row += [f"{len(reached)} of {num_seeds}", f"{reached.mean():.1f}" if len(reached) else "-"]
  return row


def _geometric_mean(values: np.ndarray) -> str:
  """Returns the geometric mean of values `[S]`; zeros count as the smallest normal float32."""
  tiny = float(np.finfo(np.float32).tiny)
  return f"{np.exp(np.log(np.maximum(values.astype(float), tiny)).mean()):.2g}"


def _verdict_table(comparisons: list[_Comparison], depth: int) -> str:
  """Returns the verdicts of one depth as a table of the report."""
  verdicts = [verdict for shared, verdict in comparisons if shared["depth"] == depth]
  return report.markdown_table(report.verdict_rows(verdicts))


# Pictures.


def _pictures(population: Population, cells: Mapping[str, Cell]) -> list[tuple[str, str, "Figure"]]:
  from jaxdl.report import layer_plots

  labels = {
    "gradient_norm": "gradient norm",
    "error_norm": "error norm",
    "saturated": "saturated share",
  }
  captions = {
    "gradient_norm": "Norm of the gradient of each layer's kernel at initialisation; the last "
    "layer is the output. Where a line rises, the gradient vanishes towards the input.",
    "error_norm": "Norm of the gradient with respect to each layer's pre-activations at "
    "initialisation, which is the error that backpropagation delivers to the layer.",
    "saturated": "Share of pairs of a hidden unit and an image for which the activation is flat, "
    "at initialisation; for ReLU these are the zeros, about half of all pairs.",
  }
  pictures = [
    (
      f"{statistic}_at_initialisation",
      captions[statistic],
      layer_plots.layer_profile(
        _profiles(population, cells, statistic), y_label=label, log_y=statistic != "saturated"
      ),
    )
    for statistic, label in labels.items()
  ]
  deepest = max(cell.depth for cell in cells.values())
  for statistic in ("gradient_norm", "saturated"):
    along = {
      (cell.initializer, cell.activation): _hidden(_along(population, statistic, name), cell)
      for name, cell in cells.items()
      if cell.depth == deepest
    }
    pictures.append(
      (
        f"{statistic}_along_training",
        f"{labels[statistic].capitalize()} of the first and the last hidden layer over "
        f"epochs, depth {deepest}. A line ends where its members diverged.",
        layer_plots.layer_training(
          along, y_label=labels[statistic], log_y=statistic != "saturated"
        ),
      )
    )
  return pictures


def _profiles(
  population: Population, cells: Mapping[str, Cell], statistic: str
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
  """Returns a statistic at initialisation, (depth, activation) -> initializer -> `[S, L]`."""
  profiles: dict[tuple[str, str], dict[str, np.ndarray]] = {}
  for name, cell in cells.items():
    panel = profiles.setdefault((f"depth {cell.depth}", cell.activation), {})
    panel[cell.initializer] = _at_start(population, statistic, name)
  return profiles


def _hidden(values: np.ndarray, cell: Cell) -> np.ndarray:
  """Returns the hidden layers of a statistic, `[..., L - 1]`."""
  return values[..., : cell.depth]


SCRIPT = command_line.Script(
  create_experiment, analyze, choose, observe=diagnostics.layer_statistics
)


if __name__ == "__main__":
  command_line.run(SCRIPT)
