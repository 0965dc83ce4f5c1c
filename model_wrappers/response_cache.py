"""lmms-eval's `--use_cache`: for tempeval models, a journal in the cache's folder.

lmms-eval's own cache keeps texts: a text that comes back has lost what it cost, scores of choices
are no text, and neither the weights, the code nor the videos are part of its key. A journal keeps
answers with their usage, under keys of all that they depend on, and tries a failed question
again. So the answers of a tempeval model go there, and none of them into lmms-eval's database.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Folder of the journals in that of the cache; under it one for each model and its arguments.
FOLDER = "tempeval"
_INSTALLED = "_tempeval_journal"


def install() -> None:
    """Give lmms-eval's cache the way to `use_cache` of a model, in this process.

    Models without it are cached as ever; a second call does nothing.
    """
    cache = importlib.import_module("lmms_eval.caching.response_cache").ResponseCache
    original = cache.execute
    if getattr(original, _INSTALLED, False):
        return

    @functools.wraps(original)
    def execute(self: Any, lm: Any, reqtype: str, requests: Sequence[Any]) -> Any:
        use_cache = getattr(lm, "use_cache", None)
        if use_cache is None:
            return original(self, lm, reqtype, requests)
        use_cache(journal_of(self))
        return getattr(lm, reqtype)(requests)

    setattr(execute, _INSTALLED, True)
    cache.execute = execute


def journal_of(cache: Any) -> Path:
    """Return the folder of the journal that stands in for an lmms-eval cache.

    Jobs of other models or other arguments share a cache, but write no journal at the same time.
    """
    root = Path(cache._cache_root or Path(cache.db_path).parent)
    name = hashlib.sha256(str(cache.model_fingerprint).encode()).hexdigest()[:16]
    return root / FOLDER / name
