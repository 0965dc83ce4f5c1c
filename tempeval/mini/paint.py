"""From a scene to pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tempeval.mini.scene import BALL_COLOURS, LAMP_COLOURS, LAMP_HALF, PHASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tempeval.mini.scene import Phase, Scene

BOX_LEVEL = 30
TEXTURE = np.float32(6.0)
"""Standard deviation of the background's fixed grain, in grey levels."""
GRAIN = np.float32(2.0)
"""Standard deviation of the grain that differs from frame to frame, in grey levels."""


def paint_phase(scene: Scene, phase: Phase, ground: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draw one phase on a background; float `[H, W, 3]`, 0 to 255."""
    width, height = scene.size
    x = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    image = ground.copy()
    ball, box, lamp = (np.float32(opacity) for opacity in scene.opacity)
    if phase.box_half > 0:
        side = np.maximum(np.abs(x - scene.box[0]), np.abs(y - scene.box[1]))
        _blend(image, box * np.clip(phase.box_half - side + 0.5, 0, 1), (BOX_LEVEL,) * 3)
    if phase.lamp is not None:
        side = np.maximum(np.abs(x - scene.lamp[0]), np.abs(y - scene.lamp[1]))
        _blend(image, lamp * np.clip(LAMP_HALF - side + 0.5, 0, 1), LAMP_COLOURS[phase.lamp])
    distance = np.hypot(x - phase.ball[0], y - phase.ball[1])
    inside = np.clip(scene.radius - distance + 0.5, 0, 1)
    _blend(image, ball * inside, BALL_COLOURS[phase.ball_colour])
    return image


def paint_background(scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the slope and the fixed grain of the background; float `[H, W, 3]`."""
    width, height = scene.size
    level, slope_x, slope_y = scene.ground
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None]
    grain = TEXTURE * rng.standard_normal((height // 2, width // 2, 1), dtype=np.float32)
    across = np.array([1.0, 0.3, 0.0], dtype=np.float32) * np.float32(slope_x) * x
    down = np.array([0.0, 0.3, 1.0], dtype=np.float32) * np.float32(slope_y) * y
    ground: NDArray[np.float32] = np.float32(level) + across + down
    return ground + grain.repeat(2, axis=0).repeat(2, axis=1)


def paint_frames(scene: Scene, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
    """Draw frames of a scene as they are before encoding.

    Args:
        scene: what to draw.
        indices: frames of the file; all if not given.

    Returns:
        uint8 `[T, H, W, 3]`.
    """
    wanted = range(scene.num_frames) if indices is None else indices
    rng = np.random.default_rng(scene.noise)
    ground = paint_background(scene, rng)
    phases = [paint_phase(scene, scene.phases[phase], ground) for phase in range(PHASES)]
    frames = np.stack([phases[scene.phase_of_frame(index)] for index in wanted])
    grain = GRAIN * rng.standard_normal((*frames.shape[:3], 1), dtype=np.float32)
    return np.clip(np.rint(frames + grain), 0, 255).astype(np.uint8)


def _blend(
    image: NDArray[np.float32], mask: NDArray[np.float32], colour: tuple[int, int, int]
) -> None:
    """Lay a colour over an image in place, where the mask `[H, W]` says, 0 to 1."""
    image += mask[..., None].astype(np.float32) * (np.array(colour, dtype=np.float32) - image)
