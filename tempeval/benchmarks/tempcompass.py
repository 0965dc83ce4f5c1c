"""TempCompass: five temporal aspects in four question formats, on clips and their manipulations.

Source: Liu et al., "TempCompass", ACL Findings 2024; files as in llyx97/TempCompass @ e1b4631.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.base import BadData, Benchmark, Counts, first_file
from tempeval.benchmarks.document import make_doc
from tempeval.benchmarks.labels_files import read_json
from tempeval.benchmarks.video_index import VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

DIMENSIONS = ("action", "direction", "speed", "order", "attribute_change")
FORMATS = ("multi-choice", "yes_no", "caption_matching", "captioning")
#: What a manipulation adds to the id of its source clip: `_reverse`, `_double`, ...
_SUFFIX = re.compile(r"(?:_[A-Za-z]+\d*)+$")
#: `A. text`, `Caption A: text`, `Option 1: text`, `Information A: text`: one option a line.
_OPTION = re.compile(r"(?:(?:Caption|Option|Sentence|Information) ([A-D1-4]): |([A-D])\. )(.*)")


def source_clip(video: str) -> str:
    """Return the id of the clip that a clip was made from."""
    return _SUFFIX.sub("", video) or video


def options_of(question: str) -> list[str]:
    """Return the texts of the options that a question lists after its first line."""
    matches = map(_OPTION.fullmatch, question.split("\n")[1:])
    return [match[3] for match in matches if match]


def _annotations(root: Path, split: str) -> list[Path]:
    name = f"{split}.json"
    files = [first_file(root, f"questions/{name}", name, f"annotations/questions/{name}")]
    meta = [folder / "meta_info.json" for folder in (root, files[0].parent, root / "annotations")]
    return files + [path for path in meta if path.is_file()][:1]


def _read(root: Path, split: str) -> Iterator[Doc]:
    path, *meta = _annotations(root, split)
    found, fine = read_json(path), read_json(meta[0]) if meta else {}
    videos = VideoIndex(root, "videos", "video", "")
    if not isinstance(found, dict):
        raise BadData(
            f"{path} holds a {type(found).__name__}; expected {{video: {{aspect: [..]}}}}"
        )
    for video, aspects in found.items():
        name = safe_name(video, str(path))
        file = videos.path_of(name)
        for aspect, number, item in _items(aspects, f"{path}, video {video}"):
            question, answer = str(item["question"]), str(item["answer"])
            choices = ["yes", "no"] if split == "yes_no" else options_of(question)
            yield make_doc(
                sample_id=f"{split}/{name}/{aspect}/{number}",
                video_id=f"tempcompass/{name}",
                cluster=f"tempcompass/{source_clip(name)}",
                video=file,
                question=question,
                choices=choices,
                answer_index=_index(answer, choices, split),
                answers=[answer],
                category=aspect,
                fine=_fine(fine, name, aspect),
            )


def _items(aspects: Any, where: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for aspect, items in aspects.items() if isinstance(aspects, dict) else [("", None)]:
        if aspect not in DIMENSIONS or not isinstance(items, list):
            raise BadData(
                f"{where} has aspect {aspect!r}; expected lists by {', '.join(DIMENSIONS)}"
            )
        for number, item in enumerate(items):
            if not isinstance(item, dict) or not {"question", "answer"} <= set(item):
                raise BadData(f"{where}, {aspect} {number} has no question and answer")
            yield aspect, number, item


def _index(answer: str, choices: list[str], split: str) -> int:
    """Return the right option; -1 for an answer that is none of those listed."""
    text = answer if split == "yes_no" else re.sub(r"^(?:[^:.]{1,13}: |[A-D]\. )", "", answer)
    return choices.index(text) if text in choices else -1


def _fine(meta: Any, video: str, aspect: str) -> str:
    """Return the fine type that `meta_info.json` gives, else the aspect."""
    try:
        return str(meta[video]["eval_dim"][aspect]["type"])
    except (KeyError, TypeError):
        return aspect


TEMPCOMPASS = Benchmark(
    name="tempcompass",
    title="TempCompass",
    licence="Apache-2.0 (questions and code); videos from ShutterStock, for research",
    access=(
        "1. Clone https://github.com/llyx97/TempCompass: questions/ and meta_info.json go into "
        "tempcompass/.\n"
        "2. Download the videos as its README says, into tempcompass/videos/.\n"
        "3. Check: tempeval data check tempcompass"
    ),
    tree=(
        "tempcompass/\n"
        "  questions/{multi-choice,yes_no,caption_matching,captioning}.json\n"
        "  meta_info.json\n"
        "  videos/<id>.mp4      (<id>_reverse.mp4 and the like too)"
    ),
    splits={
        name: Counts(items, 410, "counted from the official files")
        for name, items in zip(FORMATS, (1_580, 2_453, 1_503, 2_004), strict=True)
    },
    annotations=_annotations,
    read=_read,
    tasks=(
        "tempeval_tempcompass",
        *(f"tempeval_tempcompass_{n}" for n in ("multi_choice", "yes_no", "caption_matching")),
        "tempeval_tempcompass_captioning_mcq",
        "tempeval_tempcompass_captioning",
    ),
    metrics="accuracy by aspect; mean of tasks and pooled; official rules and strict",
    notes=("A clip and its manipulations are one cluster.",),
)
