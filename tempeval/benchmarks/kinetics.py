"""Kinetics-400 and Kinetics-700: human actions in ten-second clips from YouTube.

Source: Kay et al., arXiv 1705.06950; Carreira et al., arXiv 1907.06987; file forms and the order of
the classes as in open-mmlab/mmaction2 tools/data/parse_file_list.py @ 4d6c93474730
(`parse_kinetics_splits`), folders as in cvdfoundation/kinetics-dataset.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from tempeval.benchmarks.annotations import annotation, read_table
from tempeval.benchmarks.base import Archive, BadData, Benchmark, Counts
from tempeval.benchmarks.labels_files import NOTES, indices, label_doc
from tempeval.benchmarks.video_index import VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

QUESTION = "Which human action is shown in the video?"
EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi")
COLUMNS = ("label", "youtube_id", "time_start", "time_end")
#: File names of a split: mmaction2's, the host's of the videos, and the authors'.
_CSV = {
    "val": ("kinetics_val.csv", "val.csv", "validate.csv"),
    "train": ("kinetics_train.csv", "train.csv"),
}
#: Clips that replace damaged files of the original archives.
_REPLACEMENTS = ("replacement/replacement_for_corrupted_k400", "replacement_for_corrupted_k400")


def _csv_file(root: Path, split: str, folders: Sequence[str]) -> Path:
    """Return the list of a split, in `annotations/`, or in a folder named after the archive."""
    places = ("annotations", "", *(f"{folder}/annotations" for folder in folders), *folders)
    return annotation(root, *_CSV[split], places=places)


def _annotations(root: Path, split: str, *, folders: Sequence[str]) -> list[Path]:
    """Return the list of the split, and that of the training split, which makes the classes."""
    return [_csv_file(root, split, folders), _csv_file(root, "train", folders)]


def _labels(root: Path, *, folders: Sequence[str]) -> list[str]:
    """Return the classes of the training list, sorted with `_` for blanks as mmaction2 does."""
    path = _csv_file(root, "train", folders)
    facts = path.stat()
    return list(_classes(path, facts.st_mtime_ns, facts.st_size))


@lru_cache(maxsize=4)
def _classes(path: Path, _changed: int, _size: int) -> tuple[str, ...]:
    found = {label for _, label, *_ in _rows(path)}
    return tuple(sorted(found, key=lambda label: label.replace(" ", "_")))


def _rows(path: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield `path, line`, label (without double quotes), id, start and end of every clip.

    Raises:
        BadData: if a column or a value is missing.
    """
    for where, row in read_table(path, COLUMNS):
        name = row["label"].replace('"', "").strip()
        if not name:
            raise BadData(f"{where} has no label: {row}")
        yield where, name, row["youtube_id"], row["time_start"], row["time_end"]


def clip_name(video: str, start: str, end: str) -> str:
    """Return the stem of a clip's file: `<youtube id>_<start>_<end>`, six digits each.

    Args:
        video: YouTube id.
        start: in seconds; some lists write `104.0` for 104.
        end: in seconds.

    Raises:
        ValueError: if a time is no number.
    """
    return f"{video}_{int(float(start)):06d}_{int(float(end)):06d}"


def _read(root: Path, split: str, *, name: str, folders: Sequence[str]) -> Iterator[Doc]:
    path, labels_path = _annotations(root, split, folders=folders)
    index_of = indices(_labels(root, folders=folders), labels_path)
    replacements, videos = _videos(root, split, folders)
    for where, label, video, start, end in _rows(path):
        if label not in index_of:
            raise BadData(f"{where} has the label {label!r}, which {labels_path} does not have")
        try:
            clip = clip_name(safe_name(video, where), start, end)
        except (ValueError, OverflowError) as error:
            raise BadData(
                f"{where} has the times {start!r} and {end!r}; expected seconds"
            ) from error
        if "/" in clip:
            raise BadData(f"{where} has the id {video!r}; expected a YouTube id")
        yield label_doc(
            name,
            clip,
            replacements.find(clip) or videos.path_of(clip),
            label,
            index_of[label],
            question=QUESTION,
            noun="action",
            cluster=f"kinetics/{video}",
        )


def _videos(root: Path, split: str, folders: Sequence[str]) -> tuple[VideoIndex, VideoIndex]:
    """Index the clips of a split: flat or in folders of labels, and those that replace others."""
    tops = ["", *(f"{folder}/" for folder in folders)]
    kinds = (split, f"videos_{split}", f"videos/{split}", "videos")
    places = [f"{top}{kind}" for kind in kinds for top in tops]
    replaced = [f"{top}{folder}" for folder in _REPLACEMENTS for top in tops]
    return (
        VideoIndex(root, *replaced, extensions=EXTENSIONS),
        VideoIndex(root, *places, extensions=EXTENSIONS, depth=2),
    )


def _kinetics(
    classes: int,
    folders: tuple[str, ...],
    val: Counts,
    train: Counts,
    note: str,
    archives: tuple[Archive, ...] = (),
    lists: str = "",
) -> Benchmark:
    name, top = f"kinetics{classes}", folders[0]
    return Benchmark(
        name=name,
        title=f"Kinetics-{classes}",
        licence="annotations CC BY 4.0; the videos belong to their makers on YouTube",
        access=(
            "1. Clone https://github.com/cvdfoundation/kinetics-dataset and run its downloader "
            f"and extractor for {top}; no registration.{lists}\n"
            f"2. Move or link the folder {top} to {name}/.\n"
            f"3. Run: tempeval data check {name}"
        ),
        tree=(
            f"{name}/\n"
            "  annotations/val.csv     label,youtube_id,time_start,time_end,split\n"
            "  annotations/train.csv   the same: it makes the label set (no training clip needed)\n"
            "  (or kinetics_val.csv and kinetics_train.csv; or validate.csv and train.csv)\n"
            "  val/<youtube id>_<start>_<end>.mp4, flat or in folders of labels"
        ),
        splits={"val": val, "train": train},
        annotations=partial(_annotations, folders=folders),
        read=partial(_read, name=name, folders=folders),
        labels=partial(_labels, folders=folders),
        archives=archives,
        tasks=tuple(f"tempeval_{name}_{variant}" for variant in ("choice", "list", "mcq")),
        metrics="top-1, macro-F1",
        notes=(
            "The label set is that of the training list, sorted as mmaction2 does.",
            "Clips of one YouTube video are one cluster.",
            "Labels are read without double quotes; a clip's times are cut to whole seconds.",
            note,
            *NOTES,
        ),
    )


KINETICS400 = _kinetics(
    400,
    ("k400", "kinetics400"),
    Counts(19_906, 19_881, "rows of the list, and clips at cvdfoundation/kinetics-dataset"),
    Counts(246_534, 240_258, "rows of the list, and clips at cvdfoundation/kinetics-dataset"),
    "Clips of replacement_for_corrupted_k400 stand in for damaged files of the same name.",
    (Archive("replacement_for_corrupted_k400.tgz", "replacement"),),
)
KINETICS700 = _kinetics(
    700,
    ("k700-2020", "kinetics700_2020", "kinetics700"),
    Counts(34_824, 34_824, "mmaction2's copy; the 2020 edition differs"),
    Counts(542_357, 542_357, "mmaction2's copy; the 2020 edition differs"),
    "Kinetics-700 and Kinetics-700-2020 differ: the digest of the lists says which one was run. "
    "The published counts are those of the former.",
    lists=(
        " These are the clips and lists of the edition of 2020. The lists of the edition of 2019 "
        "(34,824 clips in val) are "
        "https://storage.googleapis.com/deepmind-media/Datasets/kinetics700.tar.gz: for that "
        "edition put its train.csv and validate.csv into kinetics700/annotations/ and no other "
        "list; clips that only it has are not hosted there."
    ),
)
