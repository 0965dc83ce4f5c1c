"""MUSIC-AVQA: questions about what is seen and heard in videos of instruments.

Source: Li et al., "Learning to answer questions in dynamic audio-visual scenarios", CVPR 2022; file
forms as in GeWu-Lab/MUSIC-AVQA, slots filled as PAVE's clean_and_check_the_annotation.py does.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.annotations import annotation, read_items
from tempeval.benchmarks.base import Archive, BadData, Benchmark, Counts
from tempeval.benchmarks.document import make_doc, numbered_ids
from tempeval.benchmarks.video_index import VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

#: Official folders; the second one is misspelt in the archive, the third is how it should be.
REAL, SYNTHETIC = "MUSIC-AVQA-videos-Real", "MUCIS-AVQA-videos-Synthetic"
FOLDERS = (
    REAL,
    SYNTHETIC,
    "MUSIC-AVQA-videos-Synthetic",
    "videos",
    # Where the README of the repository wants both together.
    "data/video",
    "MUSIC-AVQA-Videos",
)
_UPDATE = "_update"
#: The last one is spelt so in the official files.
_KEYS = ("video_id", "question_id", "type", "question_content", "templ_values", "anser")
_SLOT = re.compile(r"<[^<>]*>")


def _annotations(root: Path, split: str) -> list[Path]:
    folder = "json_update" if split.endswith(_UPDATE) else "json"
    name = f"avqa-{split.removesuffix(_UPDATE)}.json"
    return [annotation(root, name, places=(f"data/{folder}", folder))]


def _read(root: Path, split: str) -> Iterator[Doc]:
    (path,) = _annotations(root, split)
    videos = VideoIndex(root, *FOLDERS)
    apart = not len(videos) or any((root / name).is_dir() for name in FOLDERS[:3])
    numbered = numbered_ids()
    for where, item in read_items(path, _KEYS):
        name = safe_name(str(item["video_id"]), where)
        own = root / (REAL if name[0].isdigit() else SYNTHETIC) / f"{name}.mp4"
        expected = own if apart else videos.path_of(name)
        modality, _, kind = "/".join(_texts(item["type"], where)).partition("/")
        yield make_doc(
            sample_id=numbered(str(item["question_id"])),
            video_id=f"music_avqa/{name}",
            video=videos.find(name) or expected,
            question=filled(item["question_content"], _texts(item["templ_values"], where), where),
            answers=[str(item["anser"])],
            category=f"{modality}/{kind}",
        )


def _texts(value: Any, where: str) -> list[str]:
    """Read a list that official files hold as the text of a JSON list, copies as that of Python."""
    found = value
    if isinstance(value, str):
        try:
            found = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
    if not isinstance(found, list):
        raise BadData(f"{where} has {value!r:.200}; expected the text of a list")
    return [str(text) for text in found]


def filled(question: str, values: list[str], where: str) -> str:
    """Return a question with its slots filled in order.

    Raises:
        BadData: if there are more or fewer values than slots.
    """
    if len(_SLOT.findall(question)) != len(values):
        raise BadData(f"{where} has {question!r} and {len(values)} values: one is needed per slot")
    parts = iter(values)
    return _SLOT.sub(lambda _: next(parts), question)


MUSIC_AVQA = Benchmark(
    name="music_avqa",
    title="MUSIC-AVQA",
    licence="MIT (repository); videos from YouTube, for research",
    access=(
        "1. Clone https://github.com/GeWu-Lab/MUSIC-AVQA: its data/json (and data/json_update) go "
        "into music_avqa/data/.\n"
        "2. Download the real (36.7 GB) and the synthetic videos (11.6 GB) linked there (Drive or "
        "Baidu, no registration) into music_avqa/.\n"
        "3. Run: tempeval data prepare music_avqa"
    ),
    tree=(
        "music_avqa/\n"
        "  data/json/avqa-{train,val,test}.json\n"
        "  data/json_update/avqa-{train,val,test}.json    the corrected version\n"
        "  MUSIC-AVQA-videos-Real/<8 digits>.mp4\n"
        "  MUCIS-AVQA-videos-Synthetic/<id>.mp4           (misspelt so in the archive)\n"
        "  (or all videos in videos/, data/video/ or MUSIC-AVQA-Videos/)"
    ),
    splits={
        "test": Counts(9_185, 6_399, "data/json; videos counted on data/json_update"),
        "test_update": Counts(9_129, 6_399, "data/json_update"),
        "val": Counts(4_595, 3_815, "data/json"),
        "val_update": Counts(4_568, 3_815, "data/json_update; videos counted on data/json"),
        "train": Counts(32_087, None, "README: 45,867 in all, less val and test of data/json"),
        "train_update": None,
    },
    annotations=_annotations,
    read=_read,
    archives=(Archive("MUSIC-AVQA-videos-*.zip"), Archive("MUCIS-AVQA-videos-*.zip")),
    tasks=("tempeval_music_avqa", "tempeval_music_avqa_update"),
    metrics="accuracy by modality and type: exact, and the published substring rule",
    notes=(
        "Both versions of the file have their own task; they are never mixed.",
        "Some question_id of data/json name two questions (55 in test, 27 in val; none of "
        "data/json_update). All are asked: the first keeps its id, the others have #2, #3, ... "
        "after it.",
    ),
)
