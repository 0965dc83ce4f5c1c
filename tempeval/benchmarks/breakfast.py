"""Breakfast Actions: ten dishes and drinks, each take filmed by several cameras.

Source: Kuehne, Arslan and Serre, "The Language of Actions", CVPR 2014. The lists of videos are
those of yabufarha/ms-tcn @ 33ed91c0c757 (`groundTruth/`, `splits/`) or the authors' own
`segmentation_coarse/`. The activity is the last part of a video's name; frame labels are not read.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.benchmarks.annotations import read_lines
from tempeval.benchmarks.base import Archive, BadData, Benchmark, Counts, MissingData
from tempeval.benchmarks.labels_files import NOTES, label_doc
from tempeval.benchmarks.video_index import VideoIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

LABELS = (
    "cereals",
    "coffee",
    "friedegg",
    "juice",
    "milk",
    "pancake",
    "salat",
    "sandwich",
    "scrambledegg",
    "tea",
)
#: How the labels that are no English words read.
ALIASES = {"friedegg": "fried egg", "scrambledegg": "scrambled eggs", "salat": "fruit salad"}
QUESTION = "Which dish or drink is the person in the video preparing?"
#: Participants of the four splits: each is the test set of one fold.
SPLITS = {"s1": (3, 15), "s2": (16, 28), "s3": (29, 41), "s4": (42, 54)}
#: The archive's folder of the videos; every sample id begins with it.
VIDEOS = "BreakfastII_15fps_qvga_sync"
FOLDERS = (VIDEOS, f"videos/{VIDEOS}", "videos")
#: Cameras of the official videos; few kitchens had all of them.
CAMERAS = ("cam01", "cam02", "webcam01", "webcam02", "stereo")
EXTENSIONS = (".avi", ".mp4", ".mkv", ".webm")
#: The folder that is listed where MS-TCN's lists are missing.
COARSE = "segmentation_coarse"
#: Of the two channels of a stereo camera one is used, as for the frame labels.
_CHANNEL = "_ch1"
_NAME = re.compile(
    rf"P(?P<person>\d\d)(?:_(?P<camera>(?:web)?cam\d\d|stereo(?:01)?)_P(?P=person))?"
    rf"_(?P<activity>{'|'.join(LABELS)})(?:_ch[01])?\.txt"
)


@dataclass(frozen=True, order=True)
class _Clip:
    """One camera's video of one take."""

    person: int
    activity: str
    camera: str

    @property
    def path(self) -> str:
        """Official path, with the archive's folder: the sample id."""
        stem = f"P{self.person:02d}_{self.activity}"
        if self.camera == "stereo":
            stem += _CHANNEL
        return f"{VIDEOS}/P{self.person:02d}/{self.camera}/{stem}.avi"

    @property
    def split(self) -> str:
        return next(name for name, (a, b) in SPLITS.items() if a <= self.person <= b)


def _annotations(root: Path, split: str) -> list[Path]:
    """Return the files whose names, or lines, name the videos of a split.

    The first of these that is there: `groundTruth/*.txt` (one per video), `splits/*.bundle` (one
    video per line), `segmentation_coarse/<activity>/*.txt` (one per video, or per take).

    Raises:
        MissingData: if none is there.
    """
    files = _listed(root / "groundTruth", ".txt") or _listed(root / "splits", ".bundle")
    if not files:
        files = [path for label in LABELS for path in _listed(root / COARSE / label, ".txt")]
    if not files:
        raise MissingData(
            f"no list of videos in {root}: none of groundTruth/*.txt, splits/*.bundle and "
            f"{COARSE}/<activity>/*.txt"
        )
    if split == "all" or files[0].suffix == ".bundle":
        return files
    return [path for path in files if _clip(path.name, str(path)).split == split]


def _listed(folder: Path, ending: str) -> list[Path]:
    """Return the files of a folder, sorted; hidden ones (of macOS) are left out."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / n for n in sorted(names) if n.endswith(ending) and not n.startswith(".")]


def _clip(name: str, where: str) -> _Clip:
    """Read `P03_cam01_P03_cereals.txt`, or `P03_cereals.txt` (then the camera is empty).

    Raises:
        BadData: if the name has another form, or a participant who is in no split.
    """
    found = _NAME.fullmatch(name)
    if found is None or not 3 <= int(found["person"]) <= 54:
        raise BadData(
            f"{where} has the name {name!r}; expected P03_cam01_P03_cereals.txt, with participants "
            f"P03 to P54 and the activities {', '.join(LABELS)}"
        )
    camera = (found["camera"] or "").replace("stereo01", "stereo")
    return _Clip(int(found["person"]), found["activity"], camera)


def _clips(root: Path, split: str, videos: VideoIndex) -> list[_Clip]:
    """Return the videos of a split, sorted by participant, activity and camera."""
    files = _annotations(root, split)
    if files and files[0].suffix == ".bundle":
        named = [
            (line.rpartition("/")[2], f"{path}, line {number}")
            for path in files
            for number, line in read_lines(path)
        ]
    else:
        named = [(path.name, str(path)) for path in files]
    clips = {_clip(name, where) for name, where in named}
    whole = {clip for clip in clips if clip.camera}
    takes = {clip for clip in clips if not clip.camera}
    found = sorted(whole.union(_of_takes(takes, videos)))
    return [clip for clip in found if split in ("all", clip.split)]


def _of_takes(takes: Iterable[_Clip], videos: VideoIndex) -> Iterator[_Clip]:
    """Yield the videos of takes whose cameras no list names: those on disk.

    A take without any video stands for one, which is missing, so that it is counted.
    """
    for take in takes:
        there = [
            clip
            for camera in CAMERAS
            if videos.find(_below(clip := _Clip(take.person, take.activity, camera)))
        ]
        yield from there or [_Clip(take.person, take.activity, CAMERAS[0])]


def _below(clip: _Clip) -> str:
    """Return the path of a video below the archive's folder."""
    return clip.path.partition("/")[2]


def _read(root: Path, split: str) -> Iterator[Doc]:
    videos = VideoIndex(root, *FOLDERS, extensions=EXTENSIONS, depth=3)
    for clip in _clips(root, split, videos):
        yield label_doc(
            "breakfast",
            clip.path,
            videos.path_of(_below(clip)),
            clip.activity,
            LABELS.index(clip.activity),
            question=QUESTION,
            noun="dish or drink",
            cluster=f"breakfast/P{clip.person:02d}_{clip.activity}",
            category=clip.split,
            camera=clip.camera,
        )


def _labels(_root: Path) -> list[str]:
    return list(LABELS)


_SOURCE = "MS-TCN's lists (one channel of a stereo camera)"
BREAKFAST = Benchmark(
    name="breakfast",
    title="Breakfast Actions",
    licence="see the project page; published for research",
    access=(
        "1. Download the videos and segmentation_coarse from the project page of the Serre lab: "
        "https://serre-lab.clps.brown.edu/resource/breakfast-actions-dataset (no registration).\n"
        "2. Better also download MS-TCN's data (https://github.com/yabufarha/ms-tcn, data.zip) "
        "and copy its breakfast/groundTruth and breakfast/splits: they name every video.\n"
        "3. Put everything in breakfast/ and run: tempeval data prepare breakfast"
    ),
    tree=(
        "breakfast/\n"
        "  groundTruth/P03_cam01_P03_cereals.txt    one per video: only its name is read\n"
        "  (or splits/test.split1.bundle to 4; or segmentation_coarse/<activity>/*.txt)\n"
        f"  {VIDEOS}/P03/cam01/P03_cereals.avi\n"
        f"  {VIDEOS}/P03/stereo/P03_cereals_ch1.avi"
    ),
    splits={"all": Counts(1_712, 1_712, _SOURCE), **dict.fromkeys(SPLITS)},
    annotations=_annotations,
    read=_read,
    labels=_labels,
    archives=(Archive(f"{VIDEOS}.tar*"), Archive(f"{COARSE}.tar*", annotations=True)),
    tasks=("tempeval_breakfast_choice", "tempeval_breakfast_list", "tempeval_breakfast_mcq"),
    metrics="top-1, macro-F1, top-1 by split",
    notes=(
        "Ten activities of whole videos; frame-wise segmentation metrics are not computed.",
        "All cameras of a take are evaluated, and are one cluster (participant and activity).",
        "Cameras: cam01, cam02, webcam01, webcam02 and stereo, as far as a kitchen had them. Of a "
        "stereo camera channel 1 is used (stereo01 in MS-TCN's names); channel 0 never stands in.",
        "Lists, the first that is there: groundTruth, splits, segmentation_coarse. Lists of takes "
        "without cameras stand for the videos on disk, and for one missing video if there is none.",
        "Splits are those of the participants: s1 P03-P15, s2 P16-P28, s3 P29-P41, s4 P42-P54. "
        "All are evaluated; top1_s1 to top1_s4 are the four test sets of the usual folds.",
        "Papers count 1,712 videos with one stereo channel; copies with both count more "
        "(CVML-TueAI/Breakfast-Actions on the hub: 284, 506, 532 and 667 in s1 to s4).",
        "_choice and _mcq word three labels as fried egg, scrambled eggs and fruit salad; _list "
        "shows and compares the official spelling, and top1_aliases accepts those three as well.",
        *NOTES,
    ),
)
