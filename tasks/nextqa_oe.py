"""NExT-QA, open-ended: WUPS at two thresholds, by group and type of question.

Source: facts of doc-doc/NExT-OE eval_oe.py @ a83f8f5; the instruction after the question is that of
lmms-eval's `nextqa_oe_test`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.nextqa import PARTS, official_type, parts_of
from tempeval.metrics.unavailable import MetricUnavailable, or_none
from tempeval.metrics.wups import answer_score, clean
from tempeval.metrics.wups_words import nltk_words
from tempeval.tasks.answers import final_answer
from tempeval.tasks.documents import clip
from tempeval.tasks.failed import scorer
from tempeval.tasks.means import mean_of_known, parts
from tempeval.tasks.open_ended import sample
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
#: Metrics to the similarity below which a word counts a tenth.
THRESHOLDS = {"wups0": 0.0, "wups9": 0.9}
#: Scored over all questions only: end of a metric's name to arguments of `answer_score`.
VARIANTS: dict[str, dict[str, Any]] = {"strict": {"strict": True}, "modern": {"roots": "modern"}}
METRICS = tuple(
    name
    for base in THRESHOLDS
    for name in (base, *(f"{base}_{more}" for more in (*VARIANTS, *PARTS)))
)
#: The metrics that every question has.
_OVERALL = (*THRESHOLDS, *(f"{base}_{more}" for base in THRESHOLDS for more in VARIANTS))
_INSTRUCTION = "Answer a question using a short phrase or sentence."


def doc_to_text(doc: Doc) -> str:
    """Return the question, and the instruction on a line of its own."""
    return f"{doc['question'].strip()}\n{_INSTRUCTION}"


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question."""
    return ask(clip(doc), doc_to_text(doc))


def _sample(doc: Doc, said: str, scores: dict[str, Any], main: dict[str, Any]) -> dict[str, Any]:
    kinds = parts_of(official_type(doc["category"]))
    of_parts = {f"{base}_{part}": scores[base] for base in THRESHOLDS for part in kinds}
    return {
        **sample(doc, said, main.get("score")),
        **parts(METRICS, scores | of_parts),
        "wups0": main,
    }


def _unanswered(doc: Doc) -> dict[str, Any]:
    """Return the metrics of a question that failed: 0, for which no data are needed."""
    main = {"score": 0.0, "cluster": doc["cluster"]}
    return _sample(doc, "", dict.fromkeys(_OVERALL, 0.0), main)


@scorer(_unanswered)
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score one text.

    Without the NLTK data the sample's `score` is None (no other number stands in for it), and each
    metric that applies says why, for `mean` to report.

    Returns:
        `METRICS`, None for the groups and types that the question is not of, and what
        `open_ended.sample` gives. `wups0` is the main one, with its cluster.
    """
    kind, said = official_type(doc["category"]), final_answer(results[0])
    try:
        scores: dict[str, Any] = _scores(kind, said, doc["answers"])
        main: dict[str, Any] = {"score": scores["wups0"], "cluster": doc["cluster"]}
    except MetricUnavailable as error:
        main = {"unavailable": error.reason}
        scores = dict.fromkeys(_OVERALL, main)
    return _sample(doc, said, scores, main)


def _scores(kind: str, text: str, references: Sequence[str]) -> dict[str, float]:
    words = nltk_words()
    said, known = clean(text, words), [clean(reference, words) for reference in references]
    options = {"": {}, **{f"_{more}": arguments for more, arguments in VARIANTS.items()}}
    return {
        f"{base}{more}": answer_score(kind, said, known, threshold, words, **arguments)
        for base, threshold in THRESHOLDS.items()
        for more, arguments in options.items()
    }


def _mean(items: Sequence[Any]) -> float | None:
    """Return the mean over the samples to which a metric applies, 0 to 1; None without one.

    Raises:
        MetricUnavailable: if a sample has no score for want of data.
    """
    for item in items:
        if isinstance(item, dict) and "unavailable" in item:
            raise MetricUnavailable("WUPS", item["unavailable"])
    return mean_of_known([item["score"] if isinstance(item, dict) else item for item in items])


#: Of the main metric.
mean = or_none(_mean)
#: Of the others, which are missing for the same reason.
mean_unsaid = or_none(_mean, log=False)
