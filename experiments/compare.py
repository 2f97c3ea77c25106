"""A question of your own: a dataset, a base, arms as changes to it, and margins.

  jaxdl compare FILE --workdir=DIR

`ml_collections_configs/compare.py` is a template of the config, with variants that run.
"""

from . import command_line, own_question

SCRIPT = command_line.Script(own_question.create_experiment, arm_keys_below=("base", "arms"))

if __name__ == "__main__":
  command_line.run(SCRIPT)
