"""The model of an arm as a table of its layers, as `jaxdl.summary` shows it."""

import jax
import jax.numpy as jnp

from jaxdl import forward
from jaxdl.arm import Arm
from jaxdl.data.dataset import Dataset
from jaxdl.nn import own
from jaxdl.nn.layer_table import LayerTable, layer_table
from jaxdl.population import own_check
from jaxdl.recipe import form_of, group_by_recipe, hyperparams


def summary(arm: Arm, dataset: Dataset) -> LayerTable:
  """Returns the layers of an arm's model on a dataset: output shapes and numbers of parameters.

  Args:
    arm: the arm.
    dataset: which the arm is to train on.

  Returns:
    A table that prints itself; `rows()` has its cells. Functions that are no modules, such as
    activations and poolings, have no row.

  Raises:
    InputError: the model does not fit the dataset.

  Examples:
    >>> import jaxdl
    >>> arm = jaxdl.Arm(model="mlp(8)", loss="categorical_cross_entropy", dropout_rate=0.0)
    >>> print(jaxdl.summary(arm, jaxdl.load("digits")))
    layer      kind     output   parameters
    ---------  -------  -------  ----------
    Dense_0    Dense    [B, 8]        6,280
    Dropout_0  Dropout  [B, 8]            0
    Dense_1    Dense    [B, 10]          90
    ---------  -------  -------  ----------
    total                             6,370
  """
  (recipe,) = group_by_recipe({"arm": arm}, form_of(dataset), lambda _: arm.batch_size)
  variables = own_check.member_shapes(recipe, hyperparams(arm, recipe)).variables.collections()
  model = forward.create_model(recipe)

  def apply(variables, inputs):
    prepared = forward.prepare(recipe, inputs)
    if recipe.is_own:
      return own.apply(model, variables, prepared, native=True)[0]
    return model.apply(variables, prepared)

  shape = (1, *recipe.form.input_shape)
  return layer_table(
    apply, variables, jax.ShapeDtypeStruct(shape, jnp.dtype(recipe.form.input_dtype))
  )
