"""The mini suite: rendered clips and tiny trained checkpoints that ship with the package."""
