"""Chat turns: a clip, then a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.video.frame_list import FrameList

if TYPE_CHECKING:
    from tempeval.video.clip import VideoPath


def ask(clip: VideoPath, text: str) -> list[dict[str, Any]]:
    """Return one user turn: a clip, then a text.

    The video part carries `fps` (frames per second) when the clip is a frame folder, which is then
    a list of its images, and its `start_time` and `end_time` (s) when it is a part of a video:
    lmms-eval's own chat models read these, ours read the clip.
    """
    video: dict[str, Any] = {"type": "video", "url": clip if clip.fps is None else FrameList(clip)}
    for key, value in (
        ("fps", clip.fps),
        ("start_time", clip.start),
        ("end_time", clip.end),
    ):
        if value is not None:
            video[key] = value
    return [{"role": "user", "content": [video, {"type": "text", "text": text}]}]
