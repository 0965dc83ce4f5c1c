"""EgoSchema: scored on the subset with public answers; on the full set, a file to hand in."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.sources import load_docs
from tempeval.errors import TempevalError
from tempeval.tasks import multiple_choice
from tempeval.tasks.answers import NOTHING, Parsed
from tempeval.tasks.failed import scorer
from tempeval.tasks.options import parse_option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Doc = dict[str, Any]
FILE_NAME = "egoschema_submission.json"
#: Of a run over fewer than all questions, which is no submission.
PARTIAL_NAME = "egoschema_submission_partial.json"
#: What the submission says where an answer names no option. Ours: the official form knows 0 to 4.
NO_ANSWER = -1
_LOG = logging.getLogger(__name__)


@scorer(multiple_choice.unanswered)
def process_subset(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one option; a bare digit is an index from 0."""
    return multiple_choice.scored(doc, parse_option(results[0], doc["choices"], digits=True))


def _handed_in(doc: Doc, parsed: Parsed) -> dict[str, Any]:
    found = multiple_choice.scored(doc, parsed)
    del found["acc"]
    index = NO_ANSWER if parsed.index is None else parsed.index
    return {
        **found,
        "score": None,
        "answered": float(parsed.index is not None),
        "submission": {"q_uid": doc["sample_id"], "index": index},
    }


@scorer(lambda doc: _handed_in(doc, NOTHING))
def process_full(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Read an answer for the submission file; the right ones are hidden, so nothing is scored.

    Returns:
        `submission` (an item of the file), `answered` (1 where the text names one option),
        `chance`, `parse_failure`, a `score` of None, and what identifies the sample.
    """
    return _handed_in(doc, parse_option(results[0], doc["choices"], digits=True))


def submission(items: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return `{q_uid: index}`, the official form but for `NO_ANSWER` where none was read."""
    return {str(item["q_uid"]): int(item["index"]) for item in items}


def write_submission(items: Sequence[Mapping[str, Any]], args: Any) -> None:
    """Write the submission file: `{q_uid: index}` as JSON, which the validation server takes.

    A chosen file whose name ends in .csv is the table that Kaggle takes, `q_uid,answer`.
    It goes into the run's folder; that of a run over fewer than all questions has `PARTIAL_NAME`.
    lmms-eval's own command gives every model the same folder: a file with other answers stays, and
    the digest of the new one is in its name.

    Args:
        items: `submission` of every sample.
        args: of the host, whose `output_path` is the folder; or of `tempeval.run.rescore`, whose
            `submission_file` is the file.

    Returns:
        None, the value of this "metric": nothing is scored.

    Raises:
        TempevalError: if the file cannot be written.
    """
    answers = submission(items)
    text = json.dumps(answers, indent=1) + "\n"
    if chosen := getattr(args, "submission_file", None):
        path = Path(chosen)
        if path.suffix.lower() == ".csv":
            text = _csv(answers)
    elif folder := getattr(args, "output_path", None):
        whole = len(answers) >= len(load_docs({"benchmark": "egoschema", "split": "full"}))
        path = _free(Path(folder) / (FILE_NAME if whole else PARTIAL_NAME), text)
    else:
        _LOG.warning(
            "%s was not written: no --output_path (of lmms-eval) or --submission (of tempeval "
            "score) says where",
            FILE_NAME,
        )
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TempevalError(
            f"{path} cannot be written ({error.strerror}); choose another place"
        ) from error
    unanswered = sum(index == NO_ANSWER for index in answers.values())
    if unanswered:
        _LOG.warning(
            "%s: %d of %d answers name no option and are %d, which is ours: the official form knows"
            " 0 to 4 only, so the file may be refused; fill them in by hand",
            *(path, unanswered, len(answers), NO_ANSWER),
        )


def _csv(answers: Mapping[str, int]) -> str:
    return "".join(f"{name},{index}\n" for name, index in [("q_uid", "answer"), *answers.items()])


def _free(path: Path, text: str) -> Path:
    """Return a path at which there is no other text: its own, or one with the text's digest."""
    if not path.exists() or path.read_text(encoding="utf-8") == text:
        return path
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    other = path.with_name(f"{path.stem}_{digest}{path.suffix}")
    _LOG.warning("%s holds other answers; these are in %s", path, other)
    return other
