"""A finished run, opened again: its tables, its parameters, predictions by its members.

Nothing of the user's own is imported until something is predicted, so that a run whose model is
gone can still be read.
"""

import dataclasses
import datetime
import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import forward
from jaxdl.arm import Arm
from jaxdl.errors import InputError, one_line, unknown_name
from jaxdl.experiment import Experiment
from jaxdl.forward import Variables
from jaxdl.optim import metrics
from jaxdl.recipe import Form, Recipe, group_by_recipe
from jaxdl.report import CONFIG_FILE, PROVENANCE_FILE, params, tensorboard
from jaxdl.report.tables import read_members
from jaxdl.report.workdir import MEMBERS_FILE
from jaxdl.store import files

if TYPE_CHECKING:
  import pandas as pd

# Examples that pass through a model at once.
_SLICE_SIZE = 256


class OpenedRun:
  """A finished run.

  Attributes:
    workdir: its folder.
    config: every setting, as in `config.json`.
    experiment: what was run.
    class_names: `[C]`; empty if targets are numbers.
    provenance: where it comes from: versions, device, data, times.
  """

  def __init__(self, workdir: str | os.PathLike, arms: Mapping[str, Arm] | None = None):
    """Opens the run in a folder; see `open_run`."""
    self.workdir = files.expand_home(workdir)
    # Parameters may be large; they are checked when they are read.
    self._check_intact(lambda name: not name.startswith(f"{params.PARAMS}/"))
    self._kept: dict[str, tuple[tuple[int, ...], dict[str, np.ndarray]]] = {}
    self.config = self._read_json(CONFIG_FILE)
    # Kinds of experiments have settings of their own.
    known = {field.name for field in dataclasses.fields(Experiment)} & set(self.config)
    self.experiment = Experiment.from_json({name: self.config[name] for name in known})
    self._arms = {**self.experiment.arms, **(arms or {})}
    for name, arm in (arms or {}).items():
      if name not in self.experiment.arms:
        raise unknown_name("arm", name, self.experiment.arms)
      if arm.to_json() != self.experiment.arms[name].to_json():
        raise InputError(f"arm {name!r} is not the one that was trained")
    self.provenance = self._read_json(PROVENANCE_FILE)
    try:
      data = self.provenance["dataset"]
      self.class_names = tuple(data["class_names"])
      form: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in data["form"].items()
      }
      self._form = Form(**form)
    except (KeyError, TypeError) as error:
      raise InputError(
        f"the run in {str(self.workdir)!r} does not say what its data are: {error}"
      ) from error

  def __repr__(self) -> str:
    seeds, arms = self.experiment.num_seeds, ", ".join(map(one_line, self.experiment.arms))
    folder = one_line(self.workdir)
    return f"<run in {folder}: {one_line(self.experiment.question)} {seeds} seeds of {arms:.200}>"

  @property
  def input_shape(self) -> tuple[int, ...]:
    """The shape of one input."""
    return self._form.input_shape

  @property
  def members(self) -> "pd.DataFrame":
    """A row per member: status, epochs, metrics."""
    return read_members(self.workdir / MEMBERS_FILE)

  @property
  def curves(self) -> "pd.DataFrame":
    """A row per member and epoch: learning rate, losses, metrics."""
    import pandas as pd

    return pd.read_parquet(self.workdir / "curves.parquet")

  @property
  def verdicts(self) -> list[dict[str, Any]]:
    """The verdicts, as in `verdicts.json`."""
    return self._read_json("verdicts.json")

  def to_tensorboard(self, out: str | os.PathLike):
    """Writes TensorBoard's event files, a run per member, which other trackers import.

    Args:
      out: folder of all runs, `ARM/seed_N`; see `jaxdl.report.tensorboard`. It is created if it
        does not exist. Files of an earlier export are replaced, and nothing else.

    Raises:
      InputError: tensorboardX is not installed; the folder cannot be written, or something that no
        export has made stands in the place of what this one makes.
    """
    finished = datetime.datetime.fromisoformat(self.provenance["finished"]).timestamp()
    folder = files.expand_home(out)
    tensorboard.export(folder, self.experiment, self.members, self.curves, finished)

  def variables(self, arm: str, seed: int) -> dict[str, Any]:
    """Returns all collections of variables of a member, as flax takes them.

    Raises:
      InputError: there is no such member, or the run kept no parameters.
    """
    seeds, leaves = self._leaves(arm)
    if seed not in seeds:
      raise InputError(f"arm {arm!r} has no seed {seed}; it has {', '.join(map(str, seeds))}")
    return _at(leaves, seeds.index(seed))

  def params(self, arm: str, seed: int) -> Any:
    """Returns the parameters of a member, the collection `params`. Raises as `variables`."""
    return self.variables(arm, seed)["params"]

  def predict(self, inputs: Any, arm: str, seed: int | None = None) -> np.ndarray:
    """Returns the predictions of one member, or of the ensemble of all that did not diverge.

    Args:
      inputs: `[N, ...]`, in the form of the data that the run trained on.
      arm: name of the arm.
      seed: of the member; None: the mean over the ensemble.

    Returns:
      Probabilities `[N, C]` (`[N, L, C]` of sequences), or predicted numbers `[N, K]`.

    Raises:
      InputError: the inputs have another form, there is no such member, or the model cannot be
        imported.
    """
    inputs = self._check_inputs(inputs)
    members = self._trained(arm)
    if seed is not None:
      if seed not in members:
        raise InputError(f"arm {arm!r} has no member with seed {seed} that did not diverge")
      members = {seed: members[seed]}
    return np.mean([*self._predictions(arm, members, inputs).values()], axis=0)

  def predict_each(self, inputs: Any, arm: str) -> dict[int, np.ndarray]:
    """Returns seed -> predictions, as of `predict`, of all members that did not diverge."""
    inputs = self._check_inputs(inputs)
    return self._predictions(arm, self._trained(arm), inputs)

  def _predictions(
    self, arm: str, members: Mapping[int, Variables], inputs: jax.Array
  ) -> dict[int, np.ndarray]:
    apply = self._apply(arm)
    found = {seed: np.asarray(apply(variables, inputs)) for seed, variables in members.items()}
    if not self.class_names:
      return found
    return {seed: metrics.probabilities(outputs) for seed, outputs in found.items()}

  def _trained(self, arm: str) -> dict[int, Variables]:
    """Returns seed -> variables, of all members of an arm that did not diverge."""
    seeds, leaves = self._leaves(arm)
    table = self.members
    kept = set(table[(table.arm == arm) & (table.status != "diverged")].seed)
    if not kept:
      raise InputError(f"all members of arm {arm!r} diverged")
    return {
      seed: Variables.of(_at(leaves, place)) for place, seed in enumerate(seeds) if seed in kept
    }

  def apply(self, variables: dict[str, Any], inputs: Any, arm: str) -> jax.Array:
    """Returns the outputs of an arm's model, logits for classes, for some variables."""
    return self._apply(arm)(Variables.of(variables), self._check_inputs(inputs))

  def _apply(self, arm: str) -> Callable[[Variables, jax.Array], jax.Array]:
    (recipe,) = group_by_recipe({arm: self._arm(arm)}, self._form, lambda _: _SLICE_SIZE)
    return _program(recipe)

  def _arm(self, name: str) -> Arm:
    if name not in self._arms:
      raise unknown_name("arm", name, self._arms)
    return self._arms[name]

  def _leaves(self, arm: str) -> tuple[tuple[int, ...], dict[str, np.ndarray]]:
    self._arm(arm)
    if arm not in self._kept:
      self._check_intact(lambda name: name == f"{params.PARAMS}/{params.file_name(arm)}")
      self._kept[arm] = params.read(self.workdir / params.PARAMS, arm)
    return self._kept[arm]

  def _check_inputs(self, inputs: Any) -> jax.Array:
    inputs = np.asarray(inputs)
    form = self._form
    if inputs.ndim == 0 or inputs.shape[1:] != form.input_shape or len(inputs) == 0:
      raise InputError(
        f"inputs must have the shape [N, {', '.join(map(str, form.input_shape))}], not "
        f"{list(inputs.shape)}"
      )
    is_float = np.issubdtype(inputs.dtype, np.floating)
    if form.input_dtype == "uint8" and (is_float or inputs.min() < 0 or inputs.max() > 255):
      raise InputError("the run trained on images with integers from 0 to 255; give such inputs")
    return jnp.asarray(inputs.astype(form.input_dtype))

  def _check_intact(self, select: Callable[[str], bool]):
    files.check_intact(self.workdir, PROVENANCE_FILE, select)

  def _read_json(self, name: str) -> Any:
    file = self.workdir / name
    try:
      return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
      raise InputError(
        f"{str(self.workdir)!r} holds no finished run: there is no {name}"
      ) from error
    except (OSError, ValueError, RecursionError) as error:
      raise InputError(f"cannot read {str(file)!r}: {error}") from error


def open_run(workdir: str | os.PathLike, arms: Mapping[str, Arm] | None = None) -> OpenedRun:
  """Opens a finished run: its config, tables, parameters and predictions.

  Args:
    workdir: its folder.
    arms: name -> arm as it was trained; only needed for predictions of arms whose model has no
      importable name.

  Raises:
    InputError: the folder holds no finished run, or an arm is another one than was trained.

  Examples:
    >>> import jaxdl
    >>> arm = jaxdl.Arm(model="mlp(8)", loss="categorical_cross_entropy", num_epochs=1)
    >>> result = jaxdl.compare(
    ...   "digits",
    ...   {"mlp": arm},
    ...   seeds=2,
    ...   margins={"test_accuracy": 0.01},
    ...   workdir="runs/small",
    ...   progress=False,
    ... )
    >>> run = jaxdl.open_run("runs/small")
    >>> run.predict(jaxdl.load("digits").test.inputs[:3], "mlp").shape
    (3, 10)
  """
  return OpenedRun(workdir, arms)


def _at(leaves: Mapping[str, np.ndarray], place: int) -> dict[str, Any]:
  """Returns the collections of the member at a place of the seeds' axis."""
  member = {path: leaf[place] for path, leaf in leaves.items()}
  return flax.traverse_util.unflatten_dict(member, sep="/")


@functools.lru_cache(maxsize=32)
def _program(recipe: Recipe) -> Callable[[Variables, jax.Array], jax.Array]:
  return jax.jit(functools.partial(forward.predict, recipe))
