"""BLEU, METEOR, ROUGE-L and CIDEr of the COCO caption evaluation, on tokens of the PTB tokenizer.

The programs are pycocoevalcap's: the tokenizer and METEOR run in Java.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tempeval.metrics.unavailable import MetricUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")
_INSTALL = (
    "it needs Java, and there is no `java` on PATH; install one "
    "(Debian, Ubuntu: apt-get install default-jre-headless; conda: conda install openjdk)"
)

#: A prediction and its references.
Pair = tuple[str, tuple[str, ...]]


def caption_score(metric: str, pairs: Sequence[Pair]) -> float:
    """Return one score of a corpus; all scores of it are computed at once and kept.

    Args:
        metric: one of `METRICS`.
        pairs: `(prediction, references)` per question; a reference at least.

    Returns:
        BLEU, METEOR and ROUGE-L from 0 to 1; CIDEr from 0 to 10.

    Raises:
        MetricUnavailable: without Java.
    """
    if shutil.which("java") is None:
        raise MetricUnavailable(metric, _INSTALL)
    return _scores(tuple(pairs))[metric]


@lru_cache(maxsize=4)
def _scores(pairs: tuple[Pair, ...]) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    predictions = {number: [_line(said)] for number, (said, _) in enumerate(pairs)}
    references = {number: [_line(r) for r in known] for number, (_, known) in enumerate(pairs)}
    with contextlib.redirect_stdout(io.StringIO()):  # they print their progress
        tokenizer = PTBTokenizer()
        known, said = (tokenizer.tokenize(_coco(texts)) for texts in (references, predictions))
        bleu = Bleu(4).compute_score(known, said, verbose=0)[0]
        found = dict(zip(METRICS[:4], map(float, bleu), strict=True))
        for name, scorer in (("meteor", Meteor()), ("rouge_l", Rouge()), ("cider", Cider())):
            found[name] = float(scorer.compute_score(known, said)[0])
    return found


def _line(text: str) -> str:
    """Return a text on one line: Java would count a carriage return inside as another answer."""
    return " ".join(text.split())


def _coco(texts: dict[int, list[str]]) -> dict[int, list[dict[str, Any]]]:
    return {number: [{"caption": text} for text in each] for number, each in texts.items()}
