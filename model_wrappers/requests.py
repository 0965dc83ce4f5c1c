"""lmms-eval instances to questions, for its chat path and its simple path."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from PIL import Image

from tempeval.engine.continuations import Continuations
from tempeval.engine.question import Picture, Question
from tempeval.errors import BadVideo, InvalidSetting
from tempeval.video.clip import VideoPath, VideoRef
from tempeval.video.frame_list import FrameList
from tempeval.video.stamp import content_stamp
from tempeval.video.still import read_rgb

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    Reader = Callable[[int, Any, Mapping[str, Any]], Question]

#: No generation arguments.
NOTHING: Mapping[str, Any] = MappingProxyType({})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def reader(kind: str, *, simple: bool, over: Mapping[str, Any] = NOTHING) -> Reader:
    """Return what reads requests of a type: from number, request and `task_dict` to a question.

    Args:
        kind: request type of lmms-eval.
        simple: whether the model is on the simple path.
        over: generation arguments of the run.
    """
    if kind == "loglikelihood":
        return score_question
    return partial(simple_question if simple else chat_question, over=over)


def chat_question(
    number: int, request: Any, docs: Mapping[str, Any], over: Mapping[str, Any] = NOTHING
) -> Question:
    """Read a `generate_until` instance of the chat path.

    Args:
        number: its position among the requests.
        request: arguments `(ctx, doc_to_messages, gen_kwargs, doc_id, task, split)`.
        docs: the host's `task_dict`.
        over: generation arguments of the run, over those of the request.
    """
    _, doc_to_messages, gen_kwargs, doc_id, task, split = request.args
    doc = docs[task][split][doc_id]
    messages = doc_to_messages(doc)
    return _generation(number, request, doc, messages, {**gen_kwargs, **over})


def simple_question(
    number: int, request: Any, docs: Mapping[str, Any], over: Mapping[str, Any] = NOTHING
) -> Question:
    """Read a `generate_until` instance of the simple path.

    Args:
        number: its position among the requests.
        request: arguments `(ctx, gen_kwargs, doc_to_visual, doc_id, task, split)`.
        docs: the host's `task_dict`.
        over: generation arguments of the run, over those of the request.
    """
    ctx, gen_kwargs, doc_to_visual, doc_id, task, split = request.args
    doc = docs[task][split][doc_id]
    messages = _simple_messages(ctx, doc_to_visual, doc)
    return _generation(number, request, doc, messages, {**gen_kwargs, **over})


def score_question(number: int, request: Any, docs: Mapping[str, Any]) -> Question:
    """Read a `loglikelihood` instance, which has the same form on both paths.

    Args:
        number: its position among the requests.
        request: arguments `(ctx, continuations, doc_to_visual, doc_id, task, split)`; the second
            is `Continuations` of one document, or as in the host's own tasks one text, or a
            function of the document that gives it.
        docs: the host's `task_dict`.
    """
    ctx, continuation, doc_to_visual, doc_id, task, split = request.args
    doc = docs[task][split][doc_id]
    if not isinstance(continuation, Continuations):
        text = continuation if isinstance(continuation, str) else str(continuation(doc))
        continuation = Continuations((text,))
    messages = _simple_messages(ctx, doc_to_visual, doc)
    return Question(
        number,
        tuple(messages),
        visuals_of(messages),
        kind="score",
        continuations=continuation,
        sample=_sample(request, doc),
        content=_content(doc),
    )


def is_padding(request: Any) -> bool:
    """Say whether the host made a request only so that all ranks have equally many."""
    return bool((request.metadata or {}).get("__padding_only__"))


def padding_sources(requests: Sequence[Any]) -> dict[int, int]:
    """Find the requests that need no answer of their own, because they repeat another as padding.

    Args:
        requests: of one type.

    Returns:
        The number of the repeated request by the number of the padding. A rank without documents
        has padding only, of which the first of each kind is asked.
    """
    first: dict[Hashable, int] = {}
    padding = []
    for number, request in enumerate(requests):
        key = (request.task_name, request.doc_id, request.idx)
        if is_padding(request):
            padding.append((number, key))
        else:
            first.setdefault(key, number)
    found = {number: first.setdefault(key, number) for number, key in padding}
    return {number: source for number, source in found.items() if number != source}


def _generation(
    number: int,
    request: Any,
    doc: Any,
    messages: Sequence[Mapping[str, Any]],
    gen_kwargs: Mapping[str, Any],
) -> Question:
    return Question(
        number,
        tuple(messages),
        visuals_of(messages),
        gen_kwargs=gen_kwargs,
        sample=_sample(request, doc),
        content=_content(doc),
    )


def _sample(request: Any, doc: Any) -> str:
    """Name the sample for journals: our tasks say who they are, others go by their place."""
    known = doc.get("sample_id") if isinstance(doc, dict) else None
    return f"{request.task_name}/{request.doc_id if known is None else known}/{request.idx}"


def _content(doc: Any) -> str:
    """Return the digest that our tasks give of a sample's content."""
    return str(doc.get("content_hash", "")) if isinstance(doc, dict) else ""


def _simple_messages(ctx: str, doc_to_visual: Any, doc: Any) -> list[dict[str, Any]]:
    visuals = doc_to_visual(doc) if callable(doc_to_visual) else doc_to_visual
    content = [_part(visual) for visual in visuals or ()]
    return [{"role": "user", "content": [*content, {"type": "text", "text": ctx}]}]


def _part(visual: Any) -> dict[str, Any]:
    if isinstance(visual, (str, Path)) and Path(visual).suffix.lower() not in IMAGE_SUFFIXES:
        return {"type": "video", "url": visual}
    return {"type": "image", "url": visual}


def visuals_of(messages: Sequence[Mapping[str, Any]]) -> tuple[VideoRef | Picture, ...]:
    """List what the placeholders of a chat stand for, in order.

    A video part is `{"type": "video", "url": path}` with optional `start_time`, `end_time`
    (seconds) and `fps` (of a frame folder); an image part has a path or a PIL image.
    """
    found: list[VideoRef | Picture] = []
    for message in messages:
        content = message["content"]
        for part in () if isinstance(content, str) else content:
            if part["type"] == "video":
                found.append(_video(part))
            elif part["type"] == "image":
                found.append(_picture(part.get("url", part.get("image"))))
    return tuple(found)


def _video(part: Mapping[str, Any]) -> VideoRef:
    url = part.get("url", part.get("video"))
    if isinstance(url, FrameList):
        return url.clip.ref
    if isinstance(url, VideoPath):
        return url.ref
    if not isinstance(url, (str, Path)):
        raise InvalidSetting(
            f"a video of type {type(url).__name__} was given; accepted is the path of a file or "
            "of a frame folder (with `fps` beside it)"
        )
    return VideoRef(str(url), part.get("start_time"), part.get("end_time"), part.get("fps"))


def _picture(image: Any) -> Picture:
    if isinstance(image, (str, Path)):
        path = str(image)
        return Picture(("image", path, content_stamp(path)), path)
    if not isinstance(image, Image.Image):
        raise InvalidSetting(
            f"an image of type {type(image).__name__} was given; accepted are paths and PIL images"
        )
    # As the model sees it: two palette images can have equal bytes, two 16-bit ones equal upper
    # halves.
    try:
        shown = read_rgb(image)
    except BadVideo as error:
        return Picture(("image", "unreadable", error.reason), image)  # its sample will say so
    return Picture(("image", shown.size, hashlib.sha256(shown.tobytes()).hexdigest()), shown)
