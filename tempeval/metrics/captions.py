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

#: Words of the longest answer that stands in for none (see `caption_score`): what the task's
#: `max_new_tokens` lets a model write, were every token a word.
LONGEST = 64
#: No word of a language, so that it matches no reference, its stems and synonyms included.
_NO_WORD = "qzxqzxq"

#: A prediction, None for a question without an answer, and its references.
Pair = tuple["str | None", tuple[str, ...]]


def caption_score(metric: str, pairs: Sequence[Pair]) -> float:
    """Return one score of a corpus; all scores of it are computed at once and kept.

    A question without an answer is worth no more than the worst answer to it. CIDEr and ROUGE-L
    are means over questions: it scores 0 in them, and its references stay in CIDEr's document
    frequencies. BLEU and METEOR are ratios of sums over the corpus, which say nothing against
    silence: left out, or empty, such a question would be worth more than a wrong answer, whose
    words count against precision; as many wrong words could be worth more than silence, which
    shortens the corpus under BLEU's brevity penalty. So it counts as an empty answer and as one of
    `LONGEST` words that no reference has (or as many as the longest answer), against its longest
    reference, and the lower of the two corpus scores holds. METEOR, without a brevity penalty, is
    lower with the words.

    Args:
        metric: one of `METRICS`.
        pairs: `(prediction, references)` per question; a reference at least.

    Returns:
        BLEU, METEOR and ROUGE-L from 0 to 1; CIDEr from 0 to 10.

    Raises:
        MetricUnavailable: without Java.
    """
    if all(said is None for said, _ in pairs):
        return 0.0
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

    unanswered = [number for number, (said, _) in enumerate(pairs) if said is None]
    predictions = {number: [_line(said or "")] for number, (said, _) in enumerate(pairs)}
    references = {number: [_line(r) for r in known] for number, (_, known) in enumerate(pairs)}
    with contextlib.redirect_stdout(io.StringIO()):  # they print their progress
        tokenizer = PTBTokenizer()
        known, said = (tokenizer.tokenize(_coco(texts)) for texts in (references, predictions))
        found: dict[str, float] = {}
        for name, scorer in (("rouge_l", Rouge()), ("cider", Cider())):
            mean, each = scorer.compute_score(known, said)
            each[unanswered] = 0.0
            found[name] = float(each.mean() if unanswered else mean)
        bounds = [said]
        if unanswered:
            known |= {number: [max(known[number], key=_length)] for number in unanswered}
            said = _with_wrong_words(said, unanswered)
            bounds.append(said)
        bleu = [Bleu(4).compute_score(known, bound, verbose=0)[0] for bound in bounds]
        least = [float(min(each)) for each in zip(*bleu, strict=True)]
        found |= dict(zip(METRICS[:4], least, strict=True))
        found["meteor"] = float(Meteor().compute_score(known, said)[0])
    return found


def _length(text: str) -> int:
    return len(text.split())


def _with_wrong_words(
    said: dict[int, list[str]], unanswered: Sequence[int]
) -> dict[int, list[str]]:
    """Return predictions in which unanswered questions have the longest wrong answer."""
    words = max(LONGEST, *(_length(text) for (text,) in said.values()))
    return said | {number: [" ".join([_NO_WORD] * words)] for number in unanswered}


def _line(text: str) -> str:
    """Return a text on one line: Java would count a carriage return inside as another answer."""
    return " ".join(text.split())


def _coco(texts: dict[int, list[str]]) -> dict[int, list[dict[str, Any]]]:
    return {number: [{"caption": text} for text in each] for number, each in texts.items()}
