"""Tasks that score nothing: what they count is no quality, so no run of them is ranked."""

from __future__ import annotations

#: Why, and what to do, by name of the task; whatever version of it wrote the run.
UNSCORED = {
    "tempeval_egoschema": (
        "the answers are hidden, so no sample has a score",
        "Hand in the submission file of the run, or run tempeval_egoschema_subset",
    ),
}
