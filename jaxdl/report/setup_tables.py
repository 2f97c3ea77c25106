"""What was trained, as rows of text: the layers of every model, and the settings of every arm."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import NamedTuple

from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.model_summary import summary
from jaxdl.optim import losses
from jaxdl.recipe import form_of
from jaxdl.report.markdown import escape, markdown_table


class Settings(NamedTuple):
  """The settings of all arms."""

  differing: list[list[str]]  # a row per shown arm, header first; empty if no setting differs
  common: list[tuple[str, str]]  # the others: name, value


def settings(arms: Mapping[str, Arm], shown: Collection[str]) -> Settings:
  """Returns the settings of the arms that are shown, apart from those that all arms share."""
  described = {name: arm.to_json() for name, arm in arms.items()}
  fields = [field.name for field in dataclasses.fields(Arm)]
  first = next(iter(described.values()))
  differing = [f for f in fields if any(of[f] != first[f] for of in described.values())]
  rows = [["arm", *differing]]
  rows += [
    [name, *(str(of[f]) for f in differing)] for name, of in described.items() if name in shown
  ]
  common = [(f, str(first[f])) for f in fields if f not in differing]
  return Settings(rows if differing else [], common)


class Model(NamedTuple):
  """The layers of a model, and the arms that train it."""

  name: str
  arms: list[str]
  rows: list[list[str]]  # layer, kind, output shape, parameters; header first, total last


def models(arms: Mapping[str, Arm], dataset: Dataset) -> list[Model]:
  """Returns each different model of some arms, from its shapes alone: nothing is computed."""
  form = form_of(dataset)
  found: dict[tuple[str, int], Model] = {}
  for name, arm in arms.items():
    key = str(arm.model), losses.num_outputs(arm.loss, form.num_classes, form.target_shape)
    if key not in found:
      found[key] = Model(key[0], [], summary(arm, dataset).rows())
    found[key].arms.append(name)
  return list(found.values())


def setup_text(arms: Mapping[str, Arm], shown: Collection[str], dataset: Dataset) -> str:
  """Returns the models and settings of the arms that are shown as Markdown."""
  all_of = settings(arms, shown)
  parts = ["## Models and settings"]
  for model in models({name: arms[name] for name in shown}, dataset):
    who = f" ({', '.join(model.arms)})" if len(model.arms) < len(shown) else ""
    parts += [f"Model {escape(model.name)}{escape(who)}:", markdown_table(model.rows)]
  if all_of.differing:
    parts += ["Settings in which arms differ:", markdown_table(all_of.differing)]
  shared = [("setting", "value"), *all_of.common]
  return "\n\n".join([*parts, "Settings that all arms share:", markdown_table(shared)])
