"""Which claims of textbooks hold for small networks? Each is tested in a setting of its own.

jaxdl run textbook:NAME --until_decided --workdir=DIR

`SETTINGS` has the settings by name, each with the claims that its run decides. The claims, their
metrics and their margins were written down before the runs. Where `tune` is given, the values in
`arms` were chosen by

jaxdl tune textbook:NAME --workdir=DIR

on validation data, with seeds of their own and equally many trials for every arm. The ledger,
`jaxdl run claims`, judges all claims. `smoke` has two seeds of a setting that takes seconds.
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxdl.errors import unknown_name

# Rates to try, for descent with and without momentum, and for Adam.
_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
_ADAM_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
# Seeds of settings that were changed after a run with the seed before, since it could not decide
# their claims or was unfair to an arm. `jaxdl tune` takes the one after a setting's.
_SECOND, _THIRD = 2, 4
# Margins, as shares: a percentage point, half of one, a fifth.
_POINT, _HALF, _FIFTH = 0.01, 0.005, 0.002


class Claimed(NamedTuple):
  """A claim, as comparisons that all have to hold.

  Attributes:
    name: short, for pictures.
    sentence: the claim, such that it is true or false.
    parts: (metric, arm, what is asserted of it as in `jaxdl.stats.ledger`, another arm or a number,
      margin) each. An arm of another setting is written SETTING:ARM. "spread of METRIC" is a run's
      distance from the median of its arm, of which more is better.
  """

  name: str
  sentence: str
  parts: tuple[tuple[str, str, str, str | float, float], ...]


class Setting(NamedTuple):
  """A network, its data, and arms that differ in what is claimed to matter."""

  question: str
  base: dict[str, Any]
  arms: dict[str, dict[str, Any]]
  margins: dict[str, float]  # metric -> margin; the run ends when the first is decided
  claims: tuple[Claimed, ...]
  dataset: str = "mnist"
  num_train: int = 2_500  # a fifth of them for validation; 0: all
  target_loss: float = 0.0
  tune: dict[str, dict[str, tuple]] | None = None
  tune_on: str = "val_accuracy"
  tune_seeds: int = 8
  note: str = ""  # on the values chosen
  num_seeds: int = 64
  until_decided: bool = True  # whether that is a budget, and the run ends once it is decided
  seed: int = 0
  chance: float = 0.1135  # share of the most frequent class: the accuracy of a run that diverged


def _rates(*arms: str, values: tuple[float, ...] = _RATES) -> dict[str, dict[str, tuple]]:
  return {name: {"learning_rate": values} for name in arms}


_MLP = {
  "model": "mlp(64, 64)",
  "loss": "categorical_cross_entropy",
  "optimizer": "sgd",
  "learning_rate": 0.1,
  "batch_size": 32,
  "num_epochs": 20,
  "patience": -1,
  "dropout_rate": 0.0,
  "kernel_initializer": "he_normal",
}
_ADAM = {**_MLP, "optimizer": "adam", "learning_rate": 0.001}
_MOMENTUM = {**_MLP, "optimizer": "momentum(0.9)", "learning_rate": 0.03}
# So large for 800 examples that it knows them by heart after a few epochs.
_LARGE = {**_ADAM, "model": "mlp(512, 512)", "num_epochs": 40}
_DEEP = {**_MLP, "model": "mlp(64, 64, 64, 64, 64, 64, 64, 64)"}
_NORMALISED = "mlp(64, 64, 64, 64, 64, 64, 64, 64, norm=batch)"
_RESNET = {
  **_MOMENTUM,
  "model": "resnet(32, width=4, norm=batch)",
  "num_epochs": 15,
  "batch_size": 64,
}

SETTINGS = {
  "batch_normalisation": Setting(
    "Does batch normalisation help a deep MLP?",
    _DEEP,
    {
      "plain": {"learning_rate": 0.03},
      "normalised": {"model": _NORMALISED, "learning_rate": 0.1},
      "plain_10x_rate": {"learning_rate": 0.3},
      "normalised_at_that_rate": {"model": _NORMALISED, "learning_rate": 0.3},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "batch norm: accuracy",
        "Batch normalisation makes a deep network more accurate.",
        (("test_accuracy", "normalised", "better", "plain", _HALF),),
      ),
      Claimed(
        "batch norm: rates",
        "At ten times the rate that is best without batch normalisation, a network without it "
        "loses accuracy, and one with it at most a point.",
        (
          ("test_accuracy", "normalised_at_that_rate", "not worse", "normalised", _POINT),
          ("test_accuracy", "plain", "better", "plain_10x_rate", _POINT),
        ),
      ),
    ),
    tune=_rates("plain", "normalised"),
    until_decided=False,
    seed=_THIRD,
  ),
  "batch_normalisation_speed": Setting(
    "Does batch normalisation speed up a deep MLP?",
    _DEEP,
    {"plain": {"learning_rate": 0.03}, "normalised": {"model": _NORMALISED, "learning_rate": 0.1}},
    {"epochs_to_target": 0.5},
    (
      Claimed(
        "batch norm: speed",
        "Batch normalisation makes a deep network reach a training loss of 0.1 in fewer epochs.",
        (("epochs_to_target", "normalised", "better", "plain", 0.5),),
      ),
    ),
    target_loss=0.1,
    tune=_rates("plain", "normalised"),
    tune_on="epochs_to_target",
    seed=_SECOND,
  ),
  "tiny_batches": Setting(
    "Which normalisation suits batches of two?",
    {**_MLP, "batch_size": 2, "num_epochs": 10},
    {
      "batch_norm": {"model": "mlp(64, 64, norm=batch)", "learning_rate": 0.003},
      "layer_norm": {"model": "mlp(64, 64, norm=layer)", "learning_rate": 0.03},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "tiny batches",
        "With two examples in a batch, layer normalisation is better than batch normalisation.",
        (("test_accuracy", "layer_norm", "better", "batch_norm", _HALF),),
      ),
    ),
    tune=_rates("batch_norm", "layer_norm", values=(0.001, 0.003, 0.01, 0.03, 0.1)),
  ),
  "residual_connections": Setting(
    "Do residual connections help a network of 32 layers?",
    _RESNET,
    {
      "residual": {"learning_rate": 0.03},
      "plain": {"model": "resnet(32, width=4, norm=batch, shortcut=none)", "learning_rate": 0.01},
    },
    {"test_accuracy": _POINT, "epochs_to_target": 0.5},
    (
      Claimed(
        "residual: speed",
        "Residual connections make a network of 32 layers reach a training loss of 0.2 in fewer "
        "epochs.",
        (("epochs_to_target", "residual", "better", "plain", 0.5),),
      ),
      Claimed(
        "residual: accuracy",
        "Residual connections make a network of 32 layers more accurate.",
        (("test_accuracy", "residual", "better", "plain", _POINT),),
      ),
    ),
    dataset="jaxdl.data.sklearn_tables:small_digits()",
    chance=0.1,
    num_train=0,
    target_loss=0.2,
    tune=_rates("residual", "plain", values=(0.003, 0.01, 0.03, 0.1, 0.3)),
  ),
  "weight_decay": Setting(
    "Does weight decay help an MLP that overfits, and in which form?",
    _LARGE,
    {
      "none": {"learning_rate": 0.002},
      "l2": {"l2": 1e-06, "learning_rate": 0.002},
      "decoupled": {"optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 1.0},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "weight decay",
        "Weight decay makes a network that overfits more accurate.",
        (("test_accuracy", "decoupled", "better", "none", _HALF),),
      ),
      Claimed(
        "AdamW against L2",
        "With Adam, decoupled weight decay is better than an L2 penalty.",
        (("test_accuracy", "decoupled", "better", "l2", _HALF),),
      ),
    ),
    num_train=1_000,
    # All arms may have the same rates, so that they differ by the penalty.
    tune={
      "none": {"learning_rate": (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01)},
      "l2": {"learning_rate": (0.0005, 0.001, 0.002), "l2": (1e-6, 1e-5, 1e-4)},
      "decoupled": {"learning_rate": (0.0005, 0.001, 0.002), "weight_decay": (0.01, 0.1, 1.0)},
    },
    tune_seeds=16,
    note="With 200 validation images, the best few of each arm are not told apart.",
    seed=_THIRD,
  ),
  "momentum": Setting(
    "Does momentum speed up gradient descent?",
    _MLP,
    {
      "plain": {"learning_rate": 0.3},
      "momentum": {"optimizer": "momentum(0.9)", "learning_rate": 0.03},
      "nesterov": {"optimizer": "nesterov(0.9)", "learning_rate": 0.03},
    },
    {"epochs_to_target": 0.25, "test_accuracy": _HALF},
    (
      Claimed(
        "momentum",
        "Momentum makes gradient descent converge in fewer epochs.",
        (("epochs_to_target", "momentum", "better", "plain", 0.25),),
      ),
      Claimed(
        "Nesterov",
        "Nesterov's momentum converges in fewer epochs than the classical one.",
        (("epochs_to_target", "nesterov", "better", "momentum", 0.25),),
      ),
    ),
    target_loss=0.1,
    tune={
      "plain": {"learning_rate": (0.03, 0.1, 0.2, 0.3, 0.5)},
      "momentum": {"learning_rate": (0.003, 0.01, 0.03, 0.1, 0.3)},
      "nesterov": {"learning_rate": (0.003, 0.01, 0.03, 0.1, 0.3)},
    },
    tune_on="epochs_to_target",
  ),
  "warmup": Setting(
    "Does a vision transformer need a warm-up of the learning rate?",
    {**_ADAM, "model": "vit(patch_size=2, width=32, depth=2, num_heads=4)", "num_epochs": 20},
    {
      "constant": {"learning_rate": 0.003},
      "warmup": {"schedule": "warmup(4)", "learning_rate": 0.01},
    },
    {"test_accuracy": _POINT},
    (
      Claimed(
        "warm-up",
        "A transformer is more accurate if the learning rate is warmed up.",
        (("test_accuracy", "warmup", "better", "constant", _POINT),),
      ),
    ),
    dataset="jaxdl.data.sklearn_tables:small_digits()",
    chance=0.1,
    num_train=0,
    tune=_rates("constant", "warmup", values=_ADAM_RATES),
  ),
  "schedules": Setting(
    "Which schedule of the learning rate is best?",
    _MOMENTUM,
    {
      "constant": {"learning_rate": 0.03},
      "step": {"schedule": "step(0.1, 7)", "learning_rate": 0.03},
      "cosine": {"schedule": "cosine", "learning_rate": 0.03},
      "one_cycle_half_epochs": {"schedule": "one_cycle", "num_epochs": 10, "learning_rate": 0.1},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "a falling rate",
        "A learning rate that falls in steps makes the network more accurate than a constant one.",
        (("test_accuracy", "step", "better", "constant", _HALF),),
      ),
      Claimed(
        "cosine against step",
        "A cosine schedule is better than one that falls in steps.",
        (("test_accuracy", "cosine", "better", "step", _HALF),),
      ),
      Claimed(
        "one cycle",
        "With one cycle of the rate, half of the epochs cost at most half a point of accuracy.",
        (("test_accuracy", "one_cycle_half_epochs", "not worse", "constant", _HALF),),
      ),
    ),
    tune=_rates(
      *("constant", "step", "cosine", "one_cycle_half_epochs"),
      values=(0.003, 0.01, 0.03, 0.1, 0.3),
    ),
    until_decided=False,
    seed=_SECOND,
  ),
  "he_and_glorot": Setting(
    "Which initialization suits which activation, in eight layers?",
    _DEEP,
    {
      "relu_he": {"learning_rate": 0.03},
      "relu_glorot": {"kernel_initializer": "glorot_normal", "learning_rate": 0.1},
      "tanh_he": {"activation": "tanh", "learning_rate": 0.1},
      "tanh_glorot": {
        "activation": "tanh",
        "kernel_initializer": "glorot_normal",
        "learning_rate": 0.1,
      },
    },
    {"epochs_to_target": 0.5, "test_accuracy": _HALF},
    (
      Claimed(
        "He for ReLU",
        "With ReLU, He's initialization learns in fewer epochs than Glorot's.",
        (("epochs_to_target", "relu_he", "better", "relu_glorot", 0.5),),
      ),
      Claimed(
        "Glorot for tanh",
        "With tanh, Glorot's initialization learns in fewer epochs than He's.",
        (("epochs_to_target", "tanh_glorot", "better", "tanh_he", 0.5),),
      ),
    ),
    target_loss=0.2,
    tune=_rates("relu_he", "relu_glorot", "tanh_he", "tanh_glorot"),
    tune_on="epochs_to_target",
  ),
  "zeros": Setting(
    "Does a network learn from weights that start at zero?",
    _MLP,
    {"he": {}, "zeros": {"kernel_initializer": "zeros"}},
    {"test_accuracy": _POINT},
    (
      Claimed(
        "zeros",
        "A network whose weights start at zero learns no more than the most frequent class.",
        (("test_accuracy", "zeros", "equivalent", 0.1135, _POINT),),
      ),
    ),
    num_seeds=16,
    until_decided=False,
    seed=_SECOND,
  ),
  "batch_size_and_rate": Setting(
    "Does a batch that is eight times as large need a larger learning rate?",
    _MLP,
    {
      "batch_16": {"batch_size": 16, "learning_rate": 0.2},
      "batch_128": {"batch_size": 128, "learning_rate": 0.5},
      "batch_128_same_rate": {"batch_size": 128, "learning_rate": 0.2},
      "batch_128_8x_rate": {"batch_size": 128, "learning_rate": 1.6},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "larger batches, larger rates",
        "A batch eight times as large needs a larger learning rate: its own best is better.",
        (("test_accuracy", "batch_128", "better", "batch_128_same_rate", _HALF),),
      ),
      Claimed(
        "linear scaling",
        "If the rate grows with the batch, without a warm-up, a batch eight times as large costs "
        "at most half a point of accuracy.",
        (("test_accuracy", "batch_128_8x_rate", "not worse", "batch_16", _HALF),),
      ),
    ),
    tune={
      "batch_16": {"learning_rate": (0.03, 0.1, 0.2, 0.3, 0.5)},
      "batch_128": {"learning_rate": (0.2, 0.3, 0.5, 1.0, 2.0)},
    },
    seed=_SECOND,
  ),
  "small_batches": Setting(
    "Do small batches generalise better than large ones?",
    _MLP,
    {
      "batch_16": {"batch_size": 16, "learning_rate": 0.3},
      "batch_512": {"batch_size": 512, "num_epochs": 100, "learning_rate": 0.5},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "small batches generalise",
        "With batches of 16, a network is more accurate on new data than with batches of 512 and "
        "five times as many epochs, each at its best of five rates.",
        (("test_accuracy", "batch_16", "better", "batch_512", _HALF),),
      ),
    ),
    tune={
      "batch_16": {"learning_rate": (0.03, 0.1, 0.2, 0.3, 0.5)},
      "batch_512": {"learning_rate": (0.1, 0.3, 0.5, 1.0, 2.0)},
    },
  ),
  "label_smoothing": Setting(
    "What does label smoothing do?",
    _LARGE,
    {"hard": {"learning_rate": 0.001}, "smooth": {"label_smoothing": 0.1, "learning_rate": 0.001}},
    {"test_accuracy": _HALF, "ece": _POINT},
    (
      Claimed(
        "label smoothing: accuracy",
        "Label smoothing makes a network that overfits more accurate.",
        (("test_accuracy", "smooth", "better", "hard", _HALF),),
      ),
      Claimed(
        "label smoothing: calibration",
        "Label smoothing makes the probabilities of such a network better calibrated.",
        (("ece", "smooth", "better", "hard", _POINT),),
      ),
    ),
    num_train=1_000,
    tune=_rates("hard", "smooth", values=_ADAM_RATES),
  ),
  "patience": Setting(
    "How patient should early stopping be?",
    {**_ADAM, "num_epochs": 60, "restore_best": True},
    {
      "patience_2": {"patience": 2, "learning_rate": 0.001},
      "patience_10": {"patience": 10, "learning_rate": 0.003},
      "never": {"restore_best": False, "learning_rate": 0.01},
    },
    {"test_accuracy": _HALF, "test_loss": 0.02},
    (
      Claimed(
        "more patience",
        "A patience of ten epochs gives more accurate networks than one of two.",
        (("test_accuracy", "patience_10", "better", "patience_2", _HALF),),
      ),
      Claimed(
        "early stopping: loss",
        "Early stopping lowers the loss on new data, each at its most accurate rate.",
        (("test_loss", "patience_10", "better", "never", 0.02),),
      ),
      Claimed(
        "early stopping: accuracy",
        "Early stopping makes the network more accurate on new data.",
        (("test_accuracy", "patience_10", "better", "never", _HALF),),
      ),
    ),
    tune=_rates("patience_2", "patience_10", "never", values=_ADAM_RATES),
  ),
  "augmentation": Setting(
    "Does augmentation help where there are few images?",
    {**_ADAM, "num_epochs": 60},
    {
      "plain": {"learning_rate": 0.003},
      "augmented": {"rotation_range": 10.0, "shift_range": 0.1, "learning_rate": 0.001},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "augmentation, few images",
        "Augmentation makes a network more accurate that has 800 images to learn from.",
        (("test_accuracy", "augmented", "better", "plain", _HALF),),
      ),
    ),
    num_train=1_000,
    tune=_rates("plain", "augmented", values=_ADAM_RATES),
    until_decided=False,
    seed=_SECOND,
  ),
  "twice_the_data": Setting(
    "Does augmentation help where there are twice as many images?",
    {**_ADAM, "num_epochs": 60},
    {
      "plain": {"learning_rate": 0.003},
      "augmented": {"rotation_range": 10.0, "shift_range": 0.1, "learning_rate": 0.003},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "more data against augmentation",
        "Twice the data is better than augmentation.",
        (("test_accuracy", "plain", "better", "augmentation:augmented", _HALF),),
      ),
    ),
    num_train=2_000,
    tune=_rates("plain", "augmented", values=_ADAM_RATES),
    until_decided=False,
    seed=_SECOND,
  ),
  "width_and_depth": Setting(
    "Is it better to be wide or deep, with 203,000 parameters?",
    _ADAM,
    {
      "wide": {"model": "mlp(256)", "learning_rate": 0.003},
      "deep": {"model": "mlp(159, 159, 159, 159)", "learning_rate": 0.001},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "depth against width",
        "With equally many parameters, a deep network is more accurate than a wide one.",
        (("test_accuracy", "deep", "better", "wide", _HALF),),
      ),
    ),
    tune=_rates("wide", "deep", values=_ADAM_RATES),
  ),
  "too_many_parameters": Setting(
    "Does a network suffer from a thousand parameters per example?",
    {**_ADAM, "num_epochs": 40},
    {
      "small": {"model": "mlp(32)", "learning_rate": 0.01},
      "large": {"model": "mlp(1024)", "learning_rate": 0.003},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "too many parameters",
        "A network with a thousand parameters per example is less accurate than one with thirty.",
        (("test_accuracy", "small", "better", "large", _HALF),),
      ),
    ),
    num_train=1_000,
    tune=_rates("small", "large", values=_ADAM_RATES),
  ),
  "dropout": Setting(
    "What does dropout do to a network that overfits?",
    _LARGE,
    {"none": {"learning_rate": 0.001}, "dropout": {"dropout_rate": 0.5, "learning_rate": 0.0003}},
    {"test_accuracy": _HALF, "ece": _POINT},
    (
      Claimed(
        "dropout, overfitting",
        "Dropout makes a network that overfits more accurate.",
        (("test_accuracy", "dropout", "better", "none", _HALF),),
      ),
      Claimed(
        "dropout: calibration",
        "Dropout makes the probabilities of such a network better calibrated.",
        (("ece", "dropout", "better", "none", _POINT),),
      ),
    ),
    num_train=1_000,
    tune=_rates("none", "dropout", values=(0.0001, 0.0003, 0.001, 0.003, 0.01)),
  ),
  "adam_and_sgd": Setting(
    "Adam or gradient descent with momentum?",
    _MLP,
    {
      "momentum": {"optimizer": "momentum(0.9)", "learning_rate": 0.03},
      "adam": {"optimizer": "adam", "learning_rate": 0.003},
      "adam_untuned": {"optimizer": "adam", "learning_rate": 0.001},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "momentum generalises better",
        "Gradient descent with momentum is more accurate on new data than Adam.",
        (("test_accuracy", "momentum", "better", "adam", _HALF),),
      ),
      Claimed(
        "Adam needs no tuning",
        "Adam at its default rate is at most half a point less accurate than momentum at its best "
        "of five rates.",
        (("test_accuracy", "adam_untuned", "not worse", "momentum", _HALF),),
      ),
    ),
    tune={
      "momentum": {"learning_rate": (0.003, 0.01, 0.03, 0.1, 0.3)},
      "adam": {"learning_rate": _ADAM_RATES},
    },
  ),
  "activations": Setting(
    "Which activation trains fastest in four layers, with the initialization made for it?",
    {**_MLP, "model": "mlp(64, 64, 64, 64)"},
    {
      "relu": {"learning_rate": 0.1},
      "tanh": {
        "activation": "tanh",
        "kernel_initializer": "glorot_normal",
        "learning_rate": 0.3,
      },
      "sigmoid": {
        "activation": "sigmoid",
        "kernel_initializer": "glorot_normal",
        "learning_rate": 1.0,
      },
      "gelu": {"activation": "gelu", "learning_rate": 0.1},
    },
    {"epochs_to_target": 0.5, "test_accuracy": _HALF},
    (
      Claimed(
        "ReLU against tanh",
        "ReLU reaches a training loss of 0.2 in fewer epochs than tanh.",
        (("epochs_to_target", "relu", "better", "tanh", 0.5),),
      ),
      Claimed(
        "tanh against sigmoid",
        "tanh reaches a training loss of 0.2 in fewer epochs than the sigmoid.",
        (("epochs_to_target", "tanh", "better", "sigmoid", 0.5),),
      ),
      Claimed(
        "GELU against ReLU",
        "GELU is more accurate than ReLU.",
        (("test_accuracy", "gelu", "better", "relu", _HALF),),
      ),
    ),
    target_loss=0.2,
    tune=_rates("relu", "tanh", "sigmoid", "gelu"),
    note="The sigmoid reaches the target at no rate; its rate is the one with the lowest loss.",
    tune_on="epochs_to_target",
    seed=_THIRD,
  ),
  "class_weights": Setting(
    "Do class weights help where half of the classes are rare?",
    {**_ADAM, "num_epochs": 40},
    {
      "equal": {"learning_rate": 0.01},
      "balanced": {"class_weight": "balanced", "learning_rate": 0.01},
    },
    {"f1": _POINT},
    (
      Claimed(
        "class weights",
        "Class weights raise the mean F1 of classes, half of which are rare in the training data.",
        (("f1", "balanced", "better", "equal", _POINT),),
      ),
    ),
    dataset="jaxdl.data.sklearn_tables:small_digits(rare=True)",
    chance=0.1,
    num_train=0,
    tune=_rates("equal", "balanced", values=_ADAM_RATES),
  ),
  "outliers": Setting(
    "Does a robust loss help where one target in ten is far off?",
    {**_ADAM, "model": "mlp(16)", "loss": "mean_squared_error", "num_epochs": 40, "batch_size": 16},
    {"squared": {"learning_rate": 0.003}, "huber": {"loss": "huber(0.5)", "learning_rate": 0.003}},
    {"mean_absolute_error": 0.02},
    (
      Claimed(
        "a robust loss",
        "Huber's loss predicts better than the squared error if one target in ten is an outlier.",
        (("mean_absolute_error", "huber", "better", "squared", 0.02),),
      ),
    ),
    dataset="jaxdl.data.sklearn_tables:diabetes(outliers=0.1)",
    num_train=0,
    tune=_rates("squared", "huber", values=_ADAM_RATES),
    tune_on="val_loss",
  ),
  "convolution": Setting(
    "Convolution or dense layers, with 62,000 parameters?",
    _ADAM,
    {
      "convolution": {"model": "lenet5", "learning_rate": 0.003},
      "dense": {"model": "mlp(78)", "learning_rate": 0.01},
    },
    {"test_accuracy": _HALF},
    (
      Claimed(
        "convolution",
        "With equally many parameters, convolution reads digits more accurately than dense layers.",
        (("test_accuracy", "convolution", "better", "dense", _HALF),),
      ),
    ),
    tune=_rates("convolution", "dense", values=_ADAM_RATES),
  ),
  "sources_of_chance": Setting(
    "Which matters more to the accuracy, the order of the data or the initial weights?",
    _MLP,
    {"order_varies": {"same_weights": True}, "weights_vary": {"same_order": True}},
    {"test_accuracy": _HALF},
    (
      Claimed(
        "order against weights",
        "With one set of initial weights, the order of the data spreads the accuracy more than "
        "initial weights do with one order.",
        (("spread of test_accuracy", "order_varies", "better", "weights_vary", 0.001),),
      ),
    ),
    until_decided=False,
  ),
}
VARIANTS = (*SETTINGS, "smoke")


def get_config(variant: str = "batch_normalisation") -> ConfigDict:
  """Returns the config of a setting, for `experiments.textbook` and `experiments.tune`."""
  if variant not in VARIANTS:
    raise unknown_name("variant", variant, VARIANTS)
  setting = SETTINGS["outliers" if variant == "smoke" else variant]
  config = ConfigDict()
  config.question = setting.question
  config.dataset = setting.dataset
  config.num_train = setting.num_train
  config.validation_fraction = 0.2
  config.target_loss = setting.target_loss
  config.base = ConfigDict(setting.base)
  config.arms = ConfigDict(setting.arms, sort_keys=False)
  config.margins = ConfigDict(setting.margins, sort_keys=False)
  config.num_seeds = setting.num_seeds
  config.seed = setting.seed
  if setting.tune is not None:
    config.tune = ConfigDict(setting.tune, sort_keys=False)
    config.tune_on = setting.tune_on
    config.tune_seeds = setting.tune_seeds
  if variant == "smoke":
    config.num_seeds = 2
    config.base.num_epochs = 2
  return config
