"""Chat turns: a clip, then a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tempeval.video.clip import VideoPath


def ask(clip: VideoPath, text: str) -> list[dict[str, Any]]:
    """Return one user turn: a clip, then a text.

    The video part carries `fps` (frames per second) when the clip is a frame folder.
    """
    video: dict[str, Any] = {"type": "video", "url": clip}
    if clip.fps is not None:
        video["fps"] = clip.fps
    return [{"role": "user", "content": [video, {"type": "text", "text": text}]}]
