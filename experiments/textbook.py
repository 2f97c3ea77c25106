"""Which claims of textbooks hold for small networks? One setting of the list, until it is decided.

  jaxdl run textbook:NAME --until_decided --workdir=DIR

`ml_collections_configs/textbook.py` has the settings and the claims that each decides. The ledger,
`jaxdl run claims`, judges all of them.
"""

from . import command_line, own_question

SCRIPT = command_line.Script(own_question.create_experiment, arm_keys_below=("base", "arms"))

if __name__ == "__main__":
  command_line.run(SCRIPT)
