"""EgoSchema: scored on the subset with public answers; on the full set, a file to hand in."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.tasks import multiple_choice
from tempeval.tasks.multiple_choice import LETTERS, parse_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Doc = dict[str, Any]
FILE_NAME = "egoschema_submission.json"
#: What the submission says where an answer names no option: none of the five, so it is wrong.
NO_ANSWER = -1
_LOG = logging.getLogger(__name__)


def process_subset(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one option; a bare digit is an index from 0."""
    return multiple_choice.scored(doc, parse_option(results[0], doc["choices"], digits=True))


def process_full(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Read an answer for the submission file; the right ones are hidden, so nothing is scored.

    Returns:
        `submission` (an item of the file), `answered` (1 where the text names one option),
        `chance`, `parse_failure`, a `score` of None, and what identifies the sample.
    """
    found = multiple_choice.scored(doc, parse_option(results[0], doc["choices"], digits=True))
    del found["acc"]
    letter = found["parsed"]
    index = NO_ANSWER if letter is None else LETTERS.index(letter)
    return {
        **found,
        "score": None,
        "answered": float(letter is not None),
        "submission": {"q_uid": doc["sample_id"], "index": index},
    }


def submission(items: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the official form `{q_uid: index}`, with `NO_ANSWER` where none was read."""
    return {str(item["q_uid"]): int(item["index"]) for item in items}


def write_submission(items: Sequence[Mapping[str, Any]], args: Any) -> None:
    """Write the submission file into the run's folder.

    lmms-eval's own command gives every model the same folder: a file with other answers stays, and
    the digest of the new one is in its name.

    Args:
        items: `submission` of every sample.
        args: of the host, whose `output_path` is the folder.

    Returns:
        None, the value of this "metric": nothing is scored.
    """
    answers = submission(items)
    folder = getattr(args, "output_path", None)
    if folder:
        _write(Path(folder), json.dumps(answers, indent=1) + "\n")
    else:
        _LOG.warning("no output path was given, so %s was not written", FILE_NAME)


def _write(folder: Path, text: str) -> None:
    path = folder / FILE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        path = path.with_name(f"{path.stem}_{digest}{path.suffix}")
        _LOG.warning("%s holds other answers; these are in %s", folder / FILE_NAME, path)
    path.write_text(text, encoding="utf-8")
