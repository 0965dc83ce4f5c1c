"""What tiny models are asked: a clip of noise, and turns of a chat."""

from __future__ import annotations

from typing import Any

import numpy as np

from tempeval.video.clip import Clip


def random_clip(
    num_frames: int = 8,
    height: int = 84,
    width: int = 84,
    *,
    seconds_per_frame: float | None = 0.5,
    seed: int = 0,
) -> Clip:
    """Smooth random frames that differ in time; no timestamps when `seconds_per_frame` is None."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, height // 14, width // 14, 3), dtype=np.uint8)
    frames = coarse.repeat(14, axis=1).repeat(14, axis=2)
    step = np.nan if seconds_per_frame is None else seconds_per_frame
    return Clip(
        frames=frames,
        timestamps=np.arange(num_frames, dtype=np.float64) * np.float64(step),
        indices=np.arange(num_frames),
        source=f"random-{seed}",
        source_frames=num_frames,
        source_size=(height, width),
        source_fps=None if seconds_per_frame is None else 1 / seconds_per_frame,
    )


def user_message(*parts: str) -> list[dict[str, Any]]:
    """One user turn; the parts `<video>` and `<image>` are placeholders, the rest is text."""
    kinds = {"<video>": {"type": "video"}, "<image>": {"type": "image"}}
    content = [kinds.get(part, {"type": "text", "text": part}) for part in parts]
    return [{"role": "user", "content": content}]
