"""EgoSchema: one five-way question about each three-minute clip of Ego4D.

Source: Mangalam et al., "EgoSchema", NeurIPS 2023; file forms as in egoschema/EgoSchema.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.annotations import annotation, read_items, read_json
from tempeval.benchmarks.base import BadData, Benchmark, Counts, HubSource
from tempeval.benchmarks.document import make_doc
from tempeval.benchmarks.video_index import VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

#: The copy that lmms-eval uses.
HUB = "lmms-eval/egoschema"
#: The second one is what the archive of Kaggle makes of `videos/`.
FOLDERS = ("videos", "videos/videos", "good_clips_git", "")
_OPTIONS = tuple(f"option {index}" for index in range(5))


def _annotations(root: Path, split: str) -> list[Path]:
    """Return the questions; for the subset also its public answers, which the full set ignores."""
    names = ["questions.json", *(["subset_answers.json"] if split == "subset" else [])]
    return [annotation(root, name) for name in names]


def _read(root: Path, split: str) -> Iterator[Doc]:
    questions, *subset = _annotations(root, split)
    answers = _answers(subset[0]) if subset else {}
    videos = VideoIndex(root, *FOLDERS)
    keys = ("q_uid", "question", *_OPTIONS)
    for where, item in read_items(questions, keys):
        name, question, *choices = (str(item[key]) for key in keys)
        if not subset or name in answers:
            yield _doc(name, question, choices, answers.pop(name, -1), videos, where)
    if answers:
        raise BadData(f"{subset[0]} answers {next(iter(answers))!r}, which is in no question")


def _doc(
    name: str, question: str, choices: list[str], index: int, videos: VideoIndex, where: str
) -> Doc:
    return make_doc(
        sample_id=name,
        video_id=f"egoschema/{name}",
        video=videos.path_of(safe_name(name, where)),
        question=question,
        choices=choices,
        answer_index=index,
        answers=[choices[index]] if index >= 0 else [],
    )


def _read_hub(rows: Iterable[Mapping[str, Any]], videos: Path, split: str) -> Iterator[Doc]:
    """Return the documents of lmms-eval's copy, whose options begin with their letter."""
    index = VideoIndex(videos, "videos", "")
    for number, row in enumerate(rows):
        where = f"{HUB}, row {number}"
        choices = [re.sub(r"^[A-E][.)] ?", "", option) for option in row["option"]]
        if len(choices) != len(_OPTIONS):
            raise BadData(f"{where} has {len(choices)} options; expected {len(_OPTIONS)}")
        answer = -1 if split == "full" or row["answer"] is None else int(row["answer"])
        yield _doc(row["video_idx"], row["question"], choices, answer, index, where)


def _answers(path: Path) -> dict[str, int]:
    found = read_json(path)
    if not isinstance(found, dict) or not all(
        type(index) is int and 0 <= index < len(_OPTIONS) for index in found.values()
    ):
        raise BadData(f"{path} is no object {{q_uid: 0 to 4}}")
    return found


EGOSCHEMA = Benchmark(
    name="egoschema",
    title="EgoSchema",
    licence="Ego4D licence (videos), after signing; annotations as in its repository",
    access=(
        "1. Clone https://github.com/egoschema/EgoSchema: questions.json and subset_answers.json "
        "go into egoschema/.\n"
        "2. Accept the Ego4D licence (https://ego4ddataset.com) and download the clips as its "
        "README says: from Kaggle (accept the rules of the competition egoschema-public, then "
        "kaggle competitions download -c egoschema-public), from Wasabi or from Google Drive. Put "
        "them into egoschema/videos/, or the zip into egoschema/ and run: tempeval data prepare "
        "egoschema\n"
        "3. Full set: egoschema_submission.json goes to the validation server that the "
        "repository's README names. The Kaggle competition egoschema-public takes a CSV of "
        "q_uid,answer: tempeval score tempeval_egoschema --data-root ROOT --predictions "
        "egoschema_submission.json --submission egoschema.csv"
    ),
    tree=(
        "egoschema/\n"
        "  questions.json          [{q_uid, question, option 0 .. option 4}]\n"
        "  subset_answers.json     {q_uid: 0 to 4}, 500 of them\n"
        "  videos/<q_uid>.mp4      (or videos/videos/, good_clips_git/)"
    ),
    splits={
        "full": Counts(5_031, 5_031, "paper"),
        "subset": Counts(500, 500, "subset_answers.json"),
    },
    annotations=_annotations,
    read=_read,
    hub=HubSource(
        path=HUB,
        configs={"full": "GENERATION", "subset": "Subset"},
        splits={"full": "test", "subset": "test"},
        cache_dir="egoschema",
        read=_read_hub,
    ),
    tasks=("tempeval_egoschema", "tempeval_egoschema_subset"),
    metrics="accuracy (subset); submission file (full)",
    notes=(
        "The answers of the full set are hidden: its task writes the submission file.",
        "The subset is easier than the full set; the two are never mixed.",
        "egoschema_submission.json is {q_uid: 0 to 4}, with -1 where an answer names no single "
        "option. -1 is ours: the official form knows 0 to 4 only, so a file with it may be "
        "refused. A warning of the run says how many there are; fill them in by hand. Nothing is "
        "guessed, as lmms-eval does at random.",
        "A bare digit 0 to 4 is an index; the letter C before a text is none ('C moves ...' is the "
        "camera wearer).",
        "There is no official local scorer: acc is equality with subset_answers.json.",
    ),
)
