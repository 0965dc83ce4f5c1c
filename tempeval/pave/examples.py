"""What is learnt from: videos, each with its questions and their answers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting
from tempeval.side_channels.base import doc_of, video_id
from tempeval.video.clip import VideoPath, VideoRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tempeval.pave.config import DataSettings

#: Keys of a line of a JSONL file: those that it must have, and those that it may have.
NEEDED, OPTIONAL = ("video", "question", "answer"), ("video_id", "start", "end", "fps")


@dataclass(frozen=True)
class Example:
    """One question about one video.

    Attributes:
        video: the file or folder, and the part of it.
        video_id: names the video, for side channels that are looked up.
        messages: the chat up to the answer; one video part, no images.
        answer: what is to be said, without the end of the turn.
    """

    video: VideoRef
    video_id: str
    messages: tuple[Mapping[str, Any], ...]
    answer: str


@dataclass(frozen=True)
class Examples:
    """All that is learnt from.

    Attributes:
        items: the questions, in the order of the source.
        digest: names their content, for the record.
        origin: what the source is, for the record.
    """

    items: tuple[Example, ...]
    digest: str
    origin: str


def find_examples(
    data: DataSettings, progress: Callable[[int, int], None] | None = None
) -> Examples:
    """Return the examples of a source; rendered clips are rendered on first use.

    Args:
        data: which.
        progress: called with the number of clips rendered and their total.

    Raises:
        TempevalError: if the source does not exist, has no training data, or is malformed.
    """
    if data.source == "task":
        from tempeval.pave.task_examples import task_examples

        found = task_examples(str(data.task))
    elif data.source == "jsonl":
        found = jsonl_examples(Path(str(data.path)))
    else:
        found = _mini(data, progress)
    if not found.items:
        raise InvalidSetting(f"data.source={data.source!r} ({found.origin}) has no example")
    return found


def ask(video: VideoPath, text: str) -> tuple[Mapping[str, Any], ...]:
    """Return one user turn: a video, then a text."""
    part: dict[str, Any] = {"type": "video", "url": video}
    if video.fps is not None:
        part["fps"] = video.fps
    return ({"role": "user", "content": [part, {"type": "text", "text": text}]},)


def _mini(data: DataSettings, progress: Callable[[int, int], None] | None) -> Examples:
    from tempeval.mini.questions import prompt
    from tempeval.mini.side import side_suite
    from tempeval.mini.side_render import render_split

    suite = side_suite(data.source.removeprefix("mini_"))
    split = suite.train(data.clips, data.seed)
    folder = render_split(split, progress=progress)
    items = []
    for record in split.records():
        path = VideoPath(str(folder / record["video"]))
        text = prompt(record["question"], record["choices"])
        items.append(Example(path.ref, record["video_id"], ask(path, text), record["answer"]))
    origin = f"mini {suite.name} suite, version {suite.version}, training clips of seed {data.seed}"
    return Examples(tuple(items), split.digest, origin)


def jsonl_examples(path: Path) -> Examples:
    """Read a JSONL file; a path of a video is relative to its folder.

    Raises:
        InvalidSetting: naming the line and what is wrong with it.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"cannot read data.path={str(path)!r}: {error}") from error
    items = [
        _line(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    return Examples(tuple(items), digest_of(items, path.parent), path.name)


def _line(path: Path, number: int, text: str) -> Example:
    where = f"{path}, line {number}"
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InvalidSetting(f"{where} is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise InvalidSetting(f"{where} is not an object with {', '.join(NEEDED)}")
    for key in NEEDED:
        if not isinstance(record.get(key), str) or not record[key]:
            raise InvalidSetting(f"{where}: {key}={record.get(key)!r} must be a text")
    if unknown := sorted(record.keys() - {*NEEDED, *OPTIONAL}):
        known = ", ".join((*NEEDED, *OPTIONAL))
        raise InvalidSetting(f"{where}: no key {unknown[0]!r}; known: {known}")
    for key in OPTIONAL[1:]:
        value = record.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise InvalidSetting(f"{where}: {key}={value!r} must be a number")
    video = (path.parent / record["video"]).resolve()
    if not video.is_relative_to(path.parent.resolve()):
        raise InvalidSetting(f"{where}: video={record['video']!r} leaves the folder of the file")
    parts = {key: record.get(key) for key in OPTIONAL[1:]}
    clip = VideoPath(str(video), **parts)
    name = str(record.get("video_id") or video_id(doc_of(clip.ref)))
    return Example(clip.ref, name, ask(clip, record["question"]), record["answer"])


def digest_of(items: Iterable[Example], root: Path | None = None) -> str:
    """Name the content of examples: what is asked and answered about which video.

    Args:
        items: the examples.
        root: folder that paths are named relative to, so that a moved data set keeps its name.
    """
    whole = hashlib.sha256()
    for item in items:
        place = Path(item.video.path)
        if root is not None and place.is_relative_to(root.resolve()):
            place = place.relative_to(root.resolve())
        video = [str(place), item.video.start, item.video.end, item.video.fps]
        whole.update(json.dumps([video, item.video_id, _texts(item), item.answer]).encode())
    return whole.hexdigest()[:16]


def _texts(item: Example) -> list[Any]:
    """Return roles and texts, visuals as their types alone."""
    found = []
    for message in item.messages:
        content = message["content"]
        parts = [content] if isinstance(content, str) else content
        texts = [p if isinstance(p, str) else p.get("text", p["type"]) for p in parts]
        found.append([message["role"], texts])
    return found
