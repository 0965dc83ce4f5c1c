"""Training of PAVE: a patch and low-rank changes on top of a frozen base model."""
