"""lmms-eval model `tempeval_staged_sparse`: `tempeval.methods.staged_sparse`.

Without settings it is the paper's recommended strategy (3), the same as `temporal_exit`;
`--model_args strategies=1/3` chooses others.
"""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalStagedSparse(TempevalModel):
    """Chat path."""

    fixed_method = "staged_sparse"


class TempevalStagedSparseSimple(TempevalStagedSparse):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
