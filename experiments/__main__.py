"""The command `jaxdl`, also `python -m experiments`: runs the scripts of this folder.

  jaxdl demo                               a first comparison, which takes seconds, in runs/demo
  jaxdl run EXPERIMENT[:VARIANT] --workdir=DIR [--config.KEY=VALUE ...]
                                           run one of the experiments that `jaxdl list` shows
  jaxdl compare CONFIG.py[:VARIANT] --workdir=DIR
                                           answer a question of your own
  jaxdl tune CONFIG.py[:VARIANT] --workdir=DIR
                                           choose settings for each of its arms on validation data
  jaxdl predict --workdir=DIR --inputs=a.png,b.png
                                           predict classes of new images with a finished run
  jaxdl export --workdir=DIR --out=DIR     write a finished run as TensorBoard event files, for
                                           other trackers too
  jaxdl scores --scores=runs.csv --metric=acc --arm=arm --seed=seed --margin=0.01 --workdir=DIR
                                           compare scores from any other program
  jaxdl check WORKSHEET.toml ... [--workdir=DIR] [--answers]
                                           check hand calculations, line by line; `jaxdl list` has
                                           the names of examples
  jaxdl gradients [--module=my_net.py]     check gradients by hand against automatic differentiation
  jaxdl list                               list the names of experiments, models, optimizers, ...
  jaxdl help [COMMAND or EXPERIMENT]       explain one of these
  jaxdl --version

`jaxdl COMMAND --help` lists the flags of a command, `jaxdl run EXPERIMENT --help` those of an
experiment. Bad input gives a one-line error and exit status 2.
"""

import ast
import os
import pathlib
import runpy
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import NoReturn

import jaxdl
from jaxdl.errors import InputError, one_line, unknown_name

from . import CONFIGS

_HERE = pathlib.Path(__file__).parent
# Command -> the script that it starts.
_SCRIPTS = {
  "check": "check_worksheet",
  "compare": "compare",
  "demo": "compare_initializers",
  "export": "export",
  "gradients": "check_gradients",
  "predict": "predict",
  "scores": "compare_scores",
  "tune": "tune",
}
_COMMANDS = (*_SCRIPTS, "run", "list", "help")


def main():
  """Runs the command that the command line asks for; exits with its status."""
  command, *arguments = sys.argv[1:] or ["help"]
  try:
    match command:
      case "run":
        _start(*_experiment(arguments))
      case "compare" | "demo" | "tune":
        _start(_SCRIPTS[command], _with_config(command, arguments))
      case _ if command in _SCRIPTS:
        _start(_SCRIPTS[command], arguments)
      case "list":
        _take_nothing(command, arguments)
        print("\n".join(_list()), flush=True)
      case "help" | "--help" | "-h":
        print(_help(arguments), flush=True)
      case "--version":
        print(jaxdl.__version__)
      case _:
        raise unknown_name("command", command, _COMMANDS)
  except InputError as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    sys.exit(2)
  except BrokenPipeError:  # its reader, such as `head`, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _start(script: str, arguments: Sequence[str]) -> NoReturn:
  """Runs a script as `python -m` does, which finds modules in the current folder."""
  sys.path.insert(0, os.getcwd())
  sys.argv[1:] = arguments
  runpy.run_module(f"{__package__}.{script}", run_name="__main__", alter_sys=True)
  sys.exit()


def _experiment(arguments: Sequence[str]) -> tuple[str, list[str]]:
  """Returns the script of an experiment and its arguments, from `NAME[:VARIANT] --flag ...`."""
  configs = _configs()
  if not arguments or arguments[0].startswith("-"):
    raise InputError(f"jaxdl run needs an experiment, one of {', '.join(configs)}")
  name, colon, variant = arguments[0].partition(":")
  if name not in configs:
    raise unknown_name("experiment", name, configs)
  rest = list(arguments[1:])
  if not any(argument.lstrip("-").split("=")[0] == "config" for argument in rest):
    return name, [f"--config={CONFIGS / name}.py{colon}{variant}", *rest]
  if variant:
    raise InputError(f"give either the variant {variant!r} or --config")
  return name, rest


def _with_config(command: str, arguments: Sequence[str]) -> list[str]:
  """Returns the arguments of a script whose config is not given as a flag."""
  if command == "demo":
    config = CONFIGS / "compare_initializers.py"
    return [f"--config={config}:digits", "--workdir=runs/demo", *arguments]
  if not arguments or arguments[0].startswith("-"):
    return list(arguments)
  file, colon, variant = arguments[0].partition(":")
  if file in _configs():  # a file has a suffix
    file = f"{CONFIGS / file}.py"
  return [f"--config={file}{colon}{variant}", *arguments[1:]]


# As `jaxdl.load` takes them.
_DATA = (
  *("digits", "names of TFDS such as mnist or mnist[:10%]", "FILE.npz"),
  *("FILE.csv(target=COLUMN)", "FOLDER/", "package.module:function()"),
)


def _configs() -> list[str]:
  return sorted(path.stem for path in CONFIGS.glob("*.py"))


def _list() -> list[str]:
  """Returns lines on each experiment and its variants, then on each kind of names."""
  from jaxdl.nn import initializers, models
  from jaxdl.optim import losses, optimizers, schedules

  lines = ["Experiments, for `jaxdl run NAME[:VARIANT]`; the first variant is the default:"]
  for name in _configs():
    config = runpy.run_path(str(CONFIGS / f"{name}.py"))
    question = config["__doc__"].splitlines()[0]
    lines += [f"  {name}: {question}", *_wrap("", config["VARIANTS"], "    ")]
  kinds = {
    "Models": [*models.NAMES, *models.NETWORKS],
    "Activations": models.ACTIVATIONS,
    "Initializers": initializers.NAMES,
    "Losses": losses.NAMES,
    "Optimizers": optimizers.NAMES,
    "Schedules": schedules.NAMES,
    "Datasets": _DATA,
    "Worksheets": sorted(path.stem for path in (_HERE / "worksheets").glob("*.toml")),
  }
  lines.append("")
  for kind, known in kinds.items():
    lines += _wrap(f"{kind}: ", known)
  return [*lines, "", "Your own code is named by its import path: my_nets:Net(width=64)"]


def _wrap(label: str, names: Iterable[str], indent: str = "") -> list[str]:
  """Returns a label and names as lines that fit a terminal."""
  text = label + ", ".join(names)
  return textwrap.wrap(
    text, 100, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
  )


def _docstring(file: pathlib.Path) -> str:
  """Returns the docstring of a script or config, which is not run for that."""
  return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def _help(arguments: Sequence[str]) -> str:
  """Returns the text on a command or an experiment."""
  _take_nothing("help COMMAND", arguments[1:])
  topic = arguments[0] if arguments else "help"
  if topic in ("help", "list", "run"):
    return str(__doc__).rstrip()
  configs = _configs()
  if topic not in _SCRIPTS and topic not in configs:
    raise unknown_name("command or experiment", topic, [*_COMMANDS, *configs])
  script = [_docstring(_HERE / f"{_SCRIPTS[topic]}.py")] if topic in _SCRIPTS else []
  config = [_docstring(CONFIGS / f"{topic}.py")] if topic in configs else []
  return "\n\n".join(script + config)


def _take_nothing(command: str, arguments: Sequence[str]):
  if arguments:
    raise InputError(f"jaxdl {command} takes no {arguments[0]!r}")


if __name__ == "__main__":
  main()
