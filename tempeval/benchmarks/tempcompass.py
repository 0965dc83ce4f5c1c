"""TempCompass: five temporal aspects in four question formats, on clips and their manipulations.

Source: Liu et al., "TempCompass", ACL Findings 2024; files as in llyx97/TempCompass @ e1b4631.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.annotations import annotation, read_json
from tempeval.benchmarks.base import BadData, Benchmark, Counts, HubSource
from tempeval.benchmarks.document import make_doc
from tempeval.benchmarks.video_index import VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

DIMENSIONS = ("action", "direction", "speed", "order", "attribute_change")
#: The copy that lmms-eval uses.
HUB = "lmms-eval/TempCompass"
FORMATS = ("multi-choice", "yes_no", "caption_matching", "captioning")
#: What a manipulation adds to the id of its source clip: `_reverse`, `_concat_0`, `_fast_2x`, ...
_SUFFIX = re.compile(r"(?:_[A-Za-z]+(?:_?\d{1,2}(?:[_.]\d)?x?)?)+$")
#: Two clips joined in one video, side by side or one after the other: `<id>_<id>_<0 to 2>`.
_JOINED = re.compile(r"(\d{5,})_(\d{5,})(?:_\d{1,2})?")
#: Source clips that official videos join: those of a line are one cluster.
_JOINED_SOURCES = (
    ("1021488277", "1058907236"),
    ("1024867412", "1034049020"),
    ("1034736653", "1043054206"),
    ("1041584314", "1069717165"),
    ("1047368344", "1054717541"),
    ("1049965795", "1060403198"),
    ("1053758117", "1055413730", "1055973887"),
    ("1059072773", "1059718130"),
    ("1063373449", "1082268005"),
    ("1064645467", "1067268403"),
    ("1067268406", "1067427023"),
    ("1073914229", "1076877854"),
    ("1080990179", "1086820415", "1089201973"),
    ("1085910917", "1086105089"),
    ("1086423566", "1094782389"),
    ("1091143117", "1094219575"),
    ("1096238125", "1098970151"),
)
_JOINED_WITH = {clip: joined[0] for joined in _JOINED_SOURCES for clip in joined}
#: `A. text`, `Caption A: text`, `Option 1: text`, `Information A: text`: one option a line.
_OPTION = re.compile(r"(?:(?:Caption|Option|Sentence|Information) ([A-D1-4]): |([A-D])\. )(.*)")


def source_clips(video: str) -> tuple[str, ...]:
    """Return the ids of the one or two clips that a video was made from."""
    whole = _SUFFIX.sub("", video) or video
    joined = _JOINED.fullmatch(whole)
    return (joined[1], joined[2]) if joined else (whole,)


def cluster_of(video: str) -> str:
    """Return the cluster of a video, which its id alone decides, whatever else a file holds.

    Videos that share a source clip are one cluster, through others too. Where a video that is none
    of the official ones joins two clips, the first of them decides.
    """
    first = source_clips(video)[0]
    return f"tempcompass/{_JOINED_WITH.get(first, first)}"


def options_of(question: str) -> list[str]:
    """Return the texts of the options that a question lists after its first line."""
    matches = map(_OPTION.fullmatch, question.split("\n")[1:])
    return [match[3] for match in matches if match]


def _annotations(root: Path, split: str) -> list[Path]:
    """Return the questions; for captioning also those a judge is asked; and the fine types."""
    found = [_questions(root, split)]
    if split == "captioning":
        found.append(_questions(root, "multi-choice"))
    meta = [folder / "meta_info.json" for folder in (root, found[0].parent, root / "annotations")]
    return found + [path for path in meta if path.is_file()][:1]


def _questions(root: Path, split: str) -> Path:
    name = f"{split}.json"
    return annotation(root, name, places=("questions", "", "annotations/questions"))


def _read(root: Path, split: str) -> Iterator[Doc]:
    path, *more = _annotations(root, split)
    found, captions = _by_video(path), split == "captioning"
    judged = _by_video(more.pop(0)) if captions else None
    fine = read_json(more[0]) if more else {}
    return _docs(found, judged, fine, VideoIndex(root, "videos", "video", ""), split, str(path))


def _docs(
    found: dict[str, Any],
    judged: dict[str, Any] | None,
    fine: Any,
    videos: VideoIndex,
    split: str,
    where: str,
) -> Iterator[Doc]:
    for video, aspects in found.items():
        file = videos.path_of(safe_name(video, where))
        for aspect, number, item in _items(aspects, f"{where}, video {video}"):
            question, answer = str(item["question"]), str(item["answer"])
            choices = ["yes", "no"] if split == "yes_no" else options_of(question)
            extra = {} if judged is None else _asked_of_judge(judged, video, aspect, where)
            yield make_doc(
                sample_id=f"{split}/{video}/{aspect}/{number}",
                video_id=f"tempcompass/{video}",
                cluster=cluster_of(video),
                video=file,
                question=question,
                choices=choices,
                answer_index=_index(answer, choices, split),
                answers=[answer],
                category=aspect,
                fine=_fine(fine, video, aspect),
                **extra,
            )


def _read_hub(rows: Iterable[Mapping[str, Any]], videos: Path, split: str) -> Iterator[Doc]:
    """Return the documents of lmms-eval's copy, which has no fine types."""
    found: dict[str, Any] = {}
    judged: dict[str, Any] | None = {} if split == "captioning" else None
    for row in rows:
        of = found.setdefault(row["video_id"], {})
        of.setdefault(row["dim"], []).append(row)
        if judged is not None:
            asked = {"question": row["mc_question"], "answer": row["mc_answer"]}
            judged.setdefault(row["video_id"], {}).setdefault(row["dim"], [asked])
    return _docs(found, judged, {}, VideoIndex(videos, "videos", ""), split, HUB)


def _by_video(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise BadData(
            f"{path} holds a {type(found).__name__}; expected {{video: {{aspect: [..]}}}}"
        )
    return found


def _asked_of_judge(judged: Any, video: str, aspect: str, where: str) -> dict[str, Any]:
    """Return the multiple-choice question that a judge answers from a caption, as official.

    It is the first one of the video and aspect, whose letters may differ from the caption's.
    """
    try:
        first = judged[video][aspect][0]
        return {"judge_question": str(first["question"]), "judge_answer": str(first["answer"])}
    except (KeyError, IndexError, TypeError) as error:
        raise BadData(
            f"{where} has a caption of {video} ({aspect}), for which multi-choice.json beside it "
            "has no question"
        ) from error


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
    """Return the right option; -1 for an answer that is none of those listed.

    Captioning's pieces of information are more than the answer's text ("{'subject': ...}"), so the
    answer's letter counts there.
    """
    if split == "captioning":
        index = "ABCD".find(answer[:1]) if re.match(r"[A-D]\. ", answer) else -1
        return index if index < len(choices) else -1
    text = answer if split == "yes_no" else re.sub(r"^(?:[^:.]{1,13}: |[A-D]\. )", "", answer)
    return choices.index(text) if text in choices else -1


def _fine(meta: Any, video: str, aspect: str) -> str:
    """Return the fine type that `meta_info.json` gives; order has none, as official."""
    try:
        return aspect if aspect == "order" else str(meta[video]["eval_dim"][aspect]["type"])
    except (KeyError, TypeError):
        return ""


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
        "  videos/<id>.mp4      (also <id>_reverse, <id>_concat_<n>, <id>_<id>_<n>)"
    ),
    splits={
        name: Counts(items, 410, "counted from the official files")
        for name, items in zip(FORMATS, (1_580, 2_453, 1_503, 2_004), strict=True)
    },
    annotations=_annotations,
    read=_read,
    hub=HubSource(
        path=HUB,
        configs={name: name for name in FORMATS},
        splits=dict.fromkeys(FORMATS, "test"),
        cache_dir="tempcompass",
        read=_read_hub,
    ),
    tasks=(
        "tempeval_tempcompass",
        *(f"tempeval_tempcompass_{n}" for n in ("multi_choice", "yes_no", "caption_matching")),
        "tempeval_tempcompass_captioning_mcq",
        "tempeval_tempcompass_captioning",
    ),
    metrics="accuracy by aspect; mean of tasks and pooled; official rules and strict",
    notes=(
        "A clip, its manipulations and the videos it is joined with are one cluster: 188 of them.",
        "avg is what the official code prints with --disable_llm; mean_of_tasks is the plain mean "
        "of the three formats, pooled the mean over their questions; no official overall exists.",
        "Official multiple choice does not match '(A)', 'a' or an option's text alone, and takes "
        "'A. <text of B>' by its letter; avg_strict reads the former and refuses the latter.",
        "Official yes/no looks at first letters: 'not sure' and 'Nothing' are no, 'yesterday' is "
        "yes, 'It is yes' is unmatched; avg_strict wants the word.",
        "Official caption matching compares whole strings: 'Caption A:' and a sentence without its "
        "full stop are unmatched, and a sentence that contains ': ' is cut there.",
        "avg_strict against the judge of the official results: of reka-core's published answers "
        "that the judge rated right, it reads 944 of 965 (multiple choice), 1,108 of 1,113 "
        "(caption matching) and 1,598 of 1,598 (yes/no) as the right option. 21 and 1 stay unread: "
        "they paraphrase an option, or name several. 4 captions are read as the other one, which "
        "is the one that they name. Of those rated wrong it reads 5 of 615 and 11 of 390 as "
        "right: they name the right option, and the judge objects to the reasons given for it.",
        "Official captioning adds up -1 for a missing reply of the judge (avg_official).",
        "Captions need a judge: off unless TEMPEVAL_JUDGE names a command (prompt in, answer out) "
        "or the URL of a chat-completions endpoint (with TEMPEVAL_JUDGE_MODEL, and "
        "TEMPEVAL_JUDGE_KEY if it wants one). Its instructions are worded here; only the form of "
        "the reply and the rule that reads it are official.",
        "lmms-eval's copy has no fine types, so those metrics need the official meta_info.json.",
    ),
)
