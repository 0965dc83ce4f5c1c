"""lmms-eval model `tempeval_staged_sparse`: temporal exit (`tempeval.methods.temporal_exit`)."""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalStagedSparse(TempevalModel):
    """Chat path."""

    fixed_method = "temporal_exit"


class TempevalStagedSparseSimple(TempevalStagedSparse):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
