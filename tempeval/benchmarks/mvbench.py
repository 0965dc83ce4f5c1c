"""MVBench: twenty temporal tasks of two hundred questions each, on videos of eleven data sets.

Source: Li et al., "MVBench", CVPR 2024; files and folders as in OpenGVLab/Ask-Anything,
video_chat2/mvbench.ipynb @ 4dd8210.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from tempeval.benchmarks.annotations import annotation, read_items
from tempeval.benchmarks.base import BadData, Benchmark, Counts, HubSource
from tempeval.benchmarks.document import make_doc
from tempeval.benchmarks.video_index import FRAME_FOLDERS, VIDEO_EXTENSIONS, VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

_KEYS = ("video", "question", "candidates", "answer")
#: Frame rate of TVQA's frame folders (1/s).
TVQA_FPS = 3.0


class SubTask(NamedTuple):
    """One of the twenty tasks.

    Attributes:
        folder: official folder of its videos, under `video/`.
        part: whether its items have `start` and `end`.
        frames: whether its videos are frame folders.
    """

    folder: str
    part: bool = False
    frames: bool = False


SUB_TASKS: dict[str, SubTask] = {
    "action_sequence": SubTask("star/Charades_v1_480", part=True),
    "action_prediction": SubTask("star/Charades_v1_480", part=True),
    "action_antonym": SubTask("ssv2_video"),
    "fine_grained_action": SubTask("Moments_in_Time_Raw/videos"),
    "unexpected_action": SubTask("FunQA_test/test"),
    "object_existence": SubTask("clevrer/video_validation"),
    "object_interaction": SubTask("star/Charades_v1_480", part=True),
    "object_shuffle": SubTask("perception/videos"),
    "moving_direction": SubTask("clevrer/video_validation"),
    "action_localization": SubTask("sta/sta_video", part=True),
    "scene_transition": SubTask("scene_qa/video"),
    "action_count": SubTask("perception/videos"),
    "moving_count": SubTask("clevrer/video_validation"),
    "moving_attribute": SubTask("clevrer/video_validation"),
    "state_change": SubTask("perception/videos"),
    "fine_grained_pose": SubTask("nturgbd"),
    "character_order": SubTask("perception/videos"),
    "egocentric_navigation": SubTask("vlnqa"),
    "episodic_reasoning": SubTask("tvqa/frames_fps3_hq", part=True, frames=True),
    "counterfactual_inference": SubTask("clevrer/video_validation"),
}


#: Folder to another one that holds clips of the same data set, Charades, under the same names.
_SAME_CLIPS = {"sta/sta_video": "star/Charades_v1_480"}
#: The copy that lmms-eval uses, and where its videos lie elsewhere than in the notebook.
HUB = "OpenGVLab/MVBench"
_HUB_FOLDERS = {
    "star/Charades_v1_480": "star/Charades_segment",
    "sta/sta_video": "sta/sta_video_segment",
    "nturgbd": "nturgbd_convert",
    "tvqa/frames_fps3_hq": "tvqa/video_fps3_hq_segment",
    "ssv2_video": "ssv2_video_mp4",
}


def _annotations(root: Path, split: str) -> list[Path]:
    return [annotation(root, f"{split}.json", places=("json", "", "annotations"))]


def _read(root: Path, split: str) -> Iterator[Doc]:
    (path,) = _annotations(root, split)
    task = SUB_TASKS[split]
    videos = VideoIndex(
        root,
        f"video/{task.folder}",
        task.folder,
        # Clips of star and clevrer that were added later, in data0613.zip.
        f"video/data0613/{task.folder}",
        f"data0613/{task.folder}",
        extensions=FRAME_FOLDERS if task.frames else VIDEO_EXTENSIONS,
        depth=1 if task.frames else 3,
    )
    for number, (where, item) in enumerate(read_items(path, _KEYS)):
        part = _part(item, where) if task.part else None
        fps = TVQA_FPS if task.frames else None
        yield _doc(split, number, item, where, videos, part=part, fps=fps)


def _doc(
    split: str,
    number: int,
    item: Mapping[str, Any],
    where: str,
    videos: VideoIndex,
    *,
    part: tuple[float, float] | None = None,
    fps: float | None = None,
) -> Doc:
    question, choices, index = _question(item, where)
    name = safe_name(item.get("video"), where)
    start, end = part or (None, None)
    folder = SUB_TASKS[split].folder
    return make_doc(
        sample_id=f"{split}/{number}",
        video_id=f"mvbench/{folder}/{name}",
        # The same clip in two sub-tasks is one cluster.
        cluster=f"mvbench/{_SAME_CLIPS.get(folder, folder)}/{name}",
        video=videos.path_of(name),
        question=question,
        choices=choices,
        answer_index=index,
        answers=[choices[index]],
        category=split,
        start=start,
        end=end,
        fps=fps,
    )


def _read_hub(rows: Iterable[Mapping[str, Any]], videos: Path, split: str) -> Iterator[Doc]:
    """Return the documents of lmms-eval's copy, whose videos are cut to their parts already."""
    task = SUB_TASKS[split]
    folder = _HUB_FOLDERS.get(task.folder, task.folder)
    index = VideoIndex(videos, folder, f"video/{folder}", f"data0613/{folder}", depth=3)
    for number, row in enumerate(rows):
        yield _doc(split, number, dict(row), f"{HUB} ({split}), row {number}", index)


def _question(item: Mapping[str, Any], where: str) -> tuple[str, list[str], int]:
    question, choices, answer = (item.get(key) for key in ("question", "candidates", "answer"))
    if not isinstance(question, str) or not isinstance(choices, list) or not choices:
        raise BadData(f"{where} has no question and candidates")
    texts = [str(choice) for choice in choices]
    if answer is None or str(answer) not in texts:
        raise BadData(f"{where} has the answer {answer!r}, which is none of its candidates")
    # Of equal candidates the last one is right, as in the official `qa_template`.
    return question, texts, len(texts) - 1 - texts[::-1].index(str(answer))


def _part(item: dict[str, Any], where: str) -> tuple[float, float]:
    """Return start and end in seconds; as official, a part begins no earlier than the video.

    A part that ends before it begins, or lies behind the end of its video, is a failure of its
    sample, when it is decoded: the official files are said to have some, and the others count.
    """
    start, end = (item.get(key) for key in ("start", "end"))
    if (
        not isinstance(start, (int, float))
        or not isinstance(end, (int, float))
        or not math.isfinite(start + end)
    ):
        raise BadData(f"{where} has start {start!r} and end {end!r}; expected seconds")
    return max(float(start), 0.0), float(end)


MVBENCH = Benchmark(
    name="mvbench",
    title="MVBench",
    licence="MIT (annotations); videos under the licences of eleven data sets",
    access=(
        "1. Download json/ and video/ of https://huggingface.co/datasets/OpenGVLab/MVBench "
        "(videos on its revision `video`) into mvbench/.\n"
        "2. Fine-grained pose: request NTU RGB+D (https://rose1.ntu.edu.sg/dataset/actionRecognition)"
        " and put its videos into mvbench/video/nturgbd/.\n"
        "3. Run: tempeval data prepare mvbench"
    ),
    tree=(
        "mvbench/\n"
        "  json/<task>.json   [{video, question, candidates, answer, start, end}]"
        "\n  video/star/Charades_v1_480/<video>     (and the other folders of the notebook)\n"
        "  video/data0613/star/, video/data0613/clevrer/    clips added later (data0613.zip)\n"
        "  video/tvqa/frames_fps3_hq/<clip>/00001.jpg ...   3 frames a second"
    ),
    splits={
        name: Counts(200, None, "paper: 20 tasks of 200 questions; videos recur")
        for name in SUB_TASKS
    },
    annotations=_annotations,
    read=_read,
    hub=HubSource(
        path=HUB,
        configs={name: name for name in SUB_TASKS},
        splits=dict.fromkeys(SUB_TASKS, "train"),
        cache_dir="mvbench_video",
        read=_read_hub,
    ),
    tasks=("tempeval_mvbench", *(f"tempeval_mvbench_{name}" for name in SUB_TASKS)),
    metrics="accuracy: letter only (strict), and the official rule",
    notes=(
        "Official protocol: 16 frames at the centres of equal segments "
        "(--sampling segment --num-frames 16).",
        "The official system text and the prefilled 'Best option:(' are left out.",
        "acc_official is the notebook's check_ans on the first line of the stripped answer, with "
        "'(' before it: the first word, full stops removed, only has to be contained in the right "
        "'(x)'. So an empty answer and '.' are right, 'Answer: (A)', 'A: ...' and '**A**' are "
        "wrong, and so is an option's text alone. Thinking comes off first; one without an end is "
        "wrong.",
        "acc_strict (ours) reads the letter that the first line means, never an option's text; an "
        "empty answer is wrong. acc_strict_macro is the mean over tasks.",
        "The same file in several tasks is one cluster, and so are the clips of one name in "
        "star/Charades_v1_480 and sta/sta_video, which both hold Charades.",
        "Parts (start, end in seconds) are cut by tempeval's wrappers. Stock lmms-eval models on "
        "the simple path see the whole video, so their scores on action_sequence, "
        "action_prediction, object_interaction and action_localization are not comparable, and "
        "they cannot read the frame folders of episodic_reasoning; those on the chat path see the "
        "part, and every image of a folder.",
        "A part that lies outside its video is a failure of its sample.",
        "The parts of episodic_reasoning are numbers of images from 1, round(seconds * 3), as "
        "official.",
        "lmms-eval's copy has videos that are cut already, and videos in place of frame folders: "
        "its scores are not those of the official files.",
    ),
)
