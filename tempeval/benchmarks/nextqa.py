"""NExT-QA: causal, temporal and descriptive questions about everyday videos, MC and open-ended.

Source: Xiao et al., "NExT-QA", CVPR 2021; file forms as in doc-doc/NExT-QA and doc-doc/NExT-OE.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.annotations import annotation, read_json, read_table, read_text
from tempeval.benchmarks.base import BadData, Benchmark, Counts, Fetch, HubSource, MissingData
from tempeval.benchmarks.document import make_doc, numbered_ids
from tempeval.benchmarks.video_index import VideoIndex, safe_name
from tempeval.metrics import wups_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

#: Question type to group: causal, temporal, descriptive. TP is counted with TN, as official.
GROUPS = {
    **dict.fromkeys(("CW", "CH"), "c"),
    **dict.fromkeys(("TN", "TP", "TC"), "t"),
    **dict.fromkeys(("DB", "DC", "DL", "DO"), "d"),
}
#: What scores are given for besides all questions: groups, then types. TP counts with TN.
PARTS = (*dict.fromkeys(GROUPS.values()), *(kind.lower() for kind in GROUPS if kind != "TP"))


def official_type(category: str) -> str:
    """Return the type that a question of a type is counted with: TP with TN, as official."""
    return "TN" if category == "TP" else category


def parts_of(category: str) -> tuple[str, str]:
    """Return which of `PARTS` a question counts in: its group and its official type."""
    kind = official_type(category)
    return GROUPS[kind], kind.lower()


_COLUMNS = ("video", "question", "answer", "qid", "type")
_OPTIONS = ("a0", "a1", "a2", "a3", "a4")
#: The copy that lmms-eval uses.
HUB = "lmms-eval/NExTQA"
#: Official video folders; videos lie in numbered folders below, as in VidOR.
FOLDERS = ("NExTVideo", "videos", "")


def _csv(root: Path, split: str) -> Path:
    name = f"{split}.csv"
    return annotation(root, name, places=("", "nextqa", "dataset/nextqa", "annotations"))


def _annotations_mc(root: Path, split: str) -> list[Path]:
    path = _csv(root, split)
    if "a0" not in _header(path):
        raise MissingData(f"{path} has no columns a0 to a4: it is the open-ended version")
    return [path]


def _annotations_oe(root: Path, split: str) -> list[Path]:
    path = _csv(root, split)
    if "a0" in _header(path):
        raise MissingData(f"{path} has columns a0 to a4: it is the multiple-choice version")
    added = _added(path, split)
    return [path] if added is None else [path, added]


def _header(path: Path) -> list[str]:
    return next(csv.reader(io.StringIO(read_text(path), newline="")), [])


def _added(path: Path, split: str) -> Path | None:
    """Return the file of second references, which official data have for the test split."""
    found = path.parent / f"add_reference_answer_{split}.json"
    return found if found.is_file() else None


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield `(where, row)`.

    Raises:
        BadData: if a column is missing, a row is cut, or a type of question is unknown.
    """
    for where, row in read_table(path, columns):
        if row["type"] not in GROUPS:
            raise BadData(f"{where} has type {row['type']!r}; expected one of {', '.join(GROUPS)}")
        yield where, row


def _video(root: Path, csv_path: Path) -> tuple[VideoIndex, Mapping[str, str]]:
    """Return the videos, and the map of a video to its place, where there is one."""
    for folder in (csv_path.parent, csv_path.parent.parent, root):
        path = folder / "map_vid_vidorID.json"
        if path.is_file():
            found = read_json(path)
            if not isinstance(found, dict):
                raise BadData(f"{path} is no object {{video: folder/video}}")
            return VideoIndex(root, *FOLDERS, depth=2), found
    return VideoIndex(root, *FOLDERS, depth=2), {}


def _read_mc(root: Path, split: str) -> Iterator[Doc]:
    (path,) = _annotations_mc(root, split)
    videos, places = _video(root, path)
    numbered = numbered_ids()
    for where, row in _rows(path, (*_COLUMNS, *_OPTIONS)):
        yield _doc_mc(row, where, numbered, videos, places)


def _doc_mc(
    row: Mapping[str, str],
    where: str,
    numbered: Callable[[str], str],
    videos: VideoIndex,
    places: Mapping[str, str],
) -> Doc:
    choices = [row[name] for name in _OPTIONS]
    if not row["answer"].isdigit() or int(row["answer"]) >= len(choices):
        raise BadData(f"{where} has answer {row['answer']!r}; expected 0 to 4")
    index = int(row["answer"])
    return _doc(row, where, numbered, videos, places, choices, index, [choices[index]])


def _read_oe(root: Path, split: str) -> Iterator[Doc]:
    path = _annotations_oe(root, split)[0]
    videos, places = _video(root, path)
    file = _added(path, split)
    more = {} if file is None else read_json(file)
    if not isinstance(more, dict) or not all(isinstance(by, dict) for by in more.values()):
        raise BadData(f"{file} is no object {{video: {{qid: answer}}}}")
    numbered = numbered_ids()
    for where, row in _rows(path, _COLUMNS):
        second = more.get(row["video"], {}).get(row["qid"])
        answers = [row["answer"], *([str(second)] if second is not None else [])]
        yield _doc(row, where, numbered, videos, places, [], -1, answers)


def _doc(
    row: Mapping[str, str],
    where: str,
    numbered: Callable[[str], str],
    videos: VideoIndex,
    places: Mapping[str, str],
    choices: list[str],
    index: int,
    answers: list[str],
) -> Doc:
    name = safe_name(row["video"], where)
    place = safe_name(places.get(name, name), where)
    return make_doc(
        sample_id=numbered(f"{name}_{row['qid']}"),
        video_id=f"nextqa/{name}",
        video=videos.find(place) or videos.path_of(place if videos.find(name) is None else name),
        question=row["question"],
        choices=choices,
        answer_index=index,
        answers=answers,
        category=row["type"],
    )


def _read_hub(rows: Iterable[Mapping[str, Any]], videos: Path, split: str) -> Iterator[Doc]:
    """Return the documents of lmms-eval's copy, of both versions."""
    index = VideoIndex(videos, "NExTVideo", "videos", "", depth=2)
    numbered = numbered_ids()
    for number, raw in enumerate(rows):
        where = f"{HUB} ({split}), row {number}"
        row = {key: "" if value is None else str(value) for key, value in raw.items()}
        if row["type"] not in GROUPS:
            raise BadData(f"{where} has type {row['type']!r}; expected one of {', '.join(GROUPS)}")
        if "a0" in row:
            yield _doc_mc(row, where, numbered, index, {})
        else:
            second = row.get("additional_ref_answer", "")
            answers = [row["answer"], *filter(None, [second])]
            yield _doc(row, where, numbered, index, {}, [], -1, answers)


def _hub(config: str, splits: dict[str, str]) -> HubSource:
    return HubSource(
        path=HUB,
        configs=dict.fromkeys(splits, config),
        splits=splits,
        cache_dir="nextqa",
        read=_read_hub,
    )


_ACCESS = (
    "1. Clone or download https://github.com/doc-doc/{repository} and put its dataset/nextqa/*.csv "
    "(and map_vid_vidorID.json) into {name}/.\n"
    "2. Download the videos (NExTVideo, linked there) and unpack them into {name}/NExTVideo/.\n"
    "3. Check: tempeval data check {name}"
)
_TREE = (
    "{name}/\n"
    "  {{train,val,test}}.csv             (or nextqa/, dataset/nextqa/)\n"
    "  map_vid_vidorID.json             {{video: folder/video}}\n"
    "{more}"
    "  NExTVideo/<folder>/<video>.mp4   (or NExTVideo/<video>.mp4)"
)
_LICENCE = "MIT (annotations); videos from YFCC100M through VidOR"

NEXTQA_MC = Benchmark(
    name="nextqa_mc",
    title="NExT-QA (MC)",
    licence=_LICENCE,
    access=_ACCESS.format(repository="NExT-QA", name="nextqa_mc"),
    tree=_TREE.format(name="nextqa_mc", more=""),
    splits={
        "test": Counts(8_564, 1_000, "doc-doc/NExT-QA test.csv"),
        "val": Counts(4_996, 570, "doc-doc/NExT-QA val.csv"),
        "train": Counts(34_132, 3_870, "paper, table 2"),
    },
    annotations=_annotations_mc,
    read=_read_mc,
    hub=_hub("MC", {"test": "test"}),
    tasks=("tempeval_nextqa_mc", "tempeval_nextqa_mc_val"),
    metrics="accuracy: all, by group (causal, temporal, descriptive) and type",
    notes=(
        "Papers report val or test: the two are never mixed.",
        "TP counts with TN (acc_tn), as official; acc_c, acc_t and acc_d pool their types.",
        "The official code compares indices and has no reader of texts: the reader is ours. "
        "Nothing is guessed, as lmms-eval does at random.",
    ),
)
NEXTQA_OE = Benchmark(
    name="nextqa_oe",
    title="NExT-QA (OE)",
    licence=_LICENCE,
    access=_ACCESS.format(repository="NExT-OE", name="nextqa_oe"),
    tree=_TREE.format(
        name="nextqa_oe", more="  add_reference_answer_test.json   second references\n"
    ),
    splits={
        "test": Counts(9_178, 1_000, "doc-doc/NExT-OE test.csv"),
        "val": Counts(5_343, 570, "doc-doc/NExT-OE val.csv"),
        "train": Counts(37_523, 3_870, "doc-doc/NExT-OE train.csv"),
    },
    annotations=_annotations_oe,
    read=_read_oe,
    hub=_hub("OE", {"test": "test", "val": "validation"}),
    fetch=Fetch(missing=wups_data.missing, get=wups_data.fetch),
    tasks=("tempeval_nextqa_oe", "tempeval_nextqa_oe_val"),
    metrics="WUPS@0 and @0.9: all, by group and type; official and strict (needs NLTK data)",
    notes=(
        "Papers report val or test: the two are never mixed.",
        "The test split has a second reference for each question of about half of its videos; the "
        "better score counts, at both thresholds (lmms-eval takes threshold 0 for the second).",
        "WUPS needs data of NLTK: WordNet 3.0, a tagger, and Punkt for answers of several "
        "sentences. `tempeval data prepare nextqa_oe` downloads them into tempeval's cache. "
        "Without them a run goes on and WUPS is None; `tempeval score` can score its answers "
        "later.",
        "wups0 and wups9 are official: the code with the versions that its requirements name. A "
        "word that is like no word of the other answer costs nothing there; wups0_strict and "
        "wups9_strict (ours) give such an answer 0.",
        "The answers of HGA that doc-doc/NExT-OE publishes for val score 14.76 (C), 14.90 (T), "
        "46.60 (D) and 21.48 (all) with wups0, as its README says.",
        "Later versions of NLTK give all words but nouns a common root, and so other scores: "
        "wups0_modern and wups9_modern.",
        "Some ids of train.csv name two questions. All are asked: the first keeps its id, the "
        "others have #2, #3, ... after it.",
        "TP counts with TN, as official. `yes.` is not `yes`: the full stop stays, as official.",
    ),
)
