"""What is special about a CPU core: layers and Adam's step in C++, behind one seam.

`matmul` is the product that layers call, `step.train_step` a step in the place of
`jaxdl.train.train_step`, and `step.gains` says where it is worth having. Everything works without
them. Read `matmul.py` first.

Imports: batches, forward, nn, optim, recipe, train.
"""
