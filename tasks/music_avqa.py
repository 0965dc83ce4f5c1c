"""MUSIC-AVQA: equality, and the published substring rule, by modality and type.

Source: facts of PAVE's tools/audio/music-avqa/calculate_acc.py @ ef6a93f.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.tasks.answers import final_answer
from tempeval.tasks.failed import scorer
from tempeval.tasks.means import parts
from tempeval.tasks.open_ended import sample

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
#: Modalities, and the types of question that each has.
TYPES = {
    "audio": ("counting", "comparative"),
    "visual": ("counting", "location"),
    "audio_visual": ("existential", "counting", "location", "comparative", "temporal"),
}
PARTS = (*TYPES, *(f"{modality}_{kind}" for modality, kinds in TYPES.items() for kind in kinds))


def _scored(doc: Doc, said: str, *, exact: bool, substring: bool) -> dict[str, Any]:
    modality, _, kind = doc["category"].lower().replace("-", "_").partition("/")
    score = float(exact)
    return {
        **sample(doc, said, score),
        **_named("exact", score, modality, kind),
        **_named("substring", float(substring), modality, kind),
        "overall_exact": {"score": score, "cluster": doc["cluster"]},
    }


@scorer(lambda doc: _scored(doc, "", exact=False, substring=False))
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score one text by both rules.

    Returns:
        `overall_<rule>`, `<modality>_<rule>` and `<modality>_<type>_<rule>` for the rules `exact`
        (the main one: equality without case and outer blanks) and `substring`.
    """
    said, known = final_answer(results[0]).lower(), doc["answers"][0].lower()
    return _scored(doc, said, exact=said == known, substring=known in said)


def _named(rule: str, score: float, modality: str, kind: str) -> dict[str, Any]:
    known = {f"{name}_{rule}": score for name in (modality, f"{modality}_{kind}")}
    return {f"overall_{rule}": score, **parts((f"{name}_{rule}" for name in PARTS), known)}
