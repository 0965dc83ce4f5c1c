"""lmms-eval model `tempeval_staged_sparse`: `tempeval.methods.staged_sparse`.

Without settings it is the paper's strategy (2): late layers let a frame attend to no earlier frame.
`--model_args strategies=1/3` chooses others; (3) alone is the same as `temporal_exit`.
"""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalStagedSparse(TempevalModel):
    """Chat path."""

    fixed_method = "staged_sparse"


class TempevalStagedSparseSimple(TempevalStagedSparse):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
