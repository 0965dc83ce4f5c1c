"""The Hugging Face copy that lmms-eval keeps of a benchmark, read from its caches. Never fetched.

lmms-eval prepares a data set once as Arrow files (`HF_DATASETS_CACHE`, or `HF_HOME/datasets`) and
unpacks its videos under `HF_HOME/<name>`. Both are only read here: what is not there is not asked
for, and no network is used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.benchmarks.base import BadData, MissingData

if TYPE_CHECKING:
    from tempeval.benchmarks.base import HubSource
    from tempeval.benchmarks.document import Doc


def is_cached(hub: HubSource, split: str) -> bool:
    """Tell whether a split of ours is in the cache, as prepared by lmms-eval or `load_dataset`."""
    return bool(_arrow_files(hub, split))


def read_cached(hub: HubSource, split: str) -> list[Doc]:
    """Return the documents of a split from the cache. A missing video is no error here.

    Args:
        hub: the copy.
        split: of ours.

    Raises:
        MissingData: if it is not in the cache.
        BadData: if the cached files are damaged, or their rows are not in the form that is known.
    """
    from datasets import Dataset

    files = _arrow_files(hub, split)
    if not files:
        raise MissingData(f"{hub.path} ({split}) is not in {_datasets_cache()}")
    rows = []
    for file in files:
        try:
            # The stored columns as they are: nothing is decoded.
            rows += Dataset.from_file(str(file)).data.to_pylist()
        except (OSError, ValueError) as error:
            raise BadData(f"{file} cannot be read: {error}") from error
    try:
        return list(hub.read(rows, _hf_home() / hub.cache_dir, split))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadData(
            f"{hub.path} ({split}) in {files[0].parent} is not in the form that lmms-eval 0.7 "
            f"reads ({error!r}). Use the official files instead"
        ) from error


def _hf_home() -> Path:
    return Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()


def _datasets_cache() -> Path:
    """Return where lmms-eval has `datasets` prepare its files."""
    names = ("LMMS_EVAL_DATASETS_CACHE", "HF_DATASETS_CACHE")
    found = next((os.environ[name] for name in names if os.environ.get(name)), None)
    return Path(found).expanduser() if found else _hf_home() / "datasets"


def _arrow_files(hub: HubSource, split: str) -> list[Path]:
    """Return the files of a split, of the copy that was prepared last; empty if there is none."""
    if split not in hub.splits:
        return []
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = hub.path.rpartition("/")
    stem, named = camelcase_to_snakecase(name), hub.splits[split]
    config = hub.configs.get(split) or "default"
    top = _datasets_cache() / f"{owner}___{stem}" / config
    copies = [info.parent for info in top.glob("*/*/dataset_info.json")]
    for copy in sorted(copies, key=lambda folder: folder.stat().st_mtime, reverse=True):
        whole = copy / f"{stem}-{named}.arrow"
        parts = sorted(copy.glob(f"{stem}-{named}-[0-9]*-of-[0-9]*.arrow"))
        if whole.is_file() or parts:
            return [whole] if whole.is_file() else parts
    return []
