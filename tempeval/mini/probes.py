"""Extra losses that teach where things are and how they move; thrown away after training.

With the answers as the only signal a tiny model stays at chance for long: an answer needs both what
a token shows and when, and neither half is rewarded alone. Linear probes on the visual tokens
reward the first half, and probes where the model answers reward nearly right motion. The model that
ships has no trace of them but its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from tempeval.mini.questions import KINDS
from tempeval.mini.scene import BALL_COLOURS, BOX_HALF, LAMP_COLOURS, PHASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.mini.models.base import TokenGrid
    from tempeval.mini.scene import Scene

KIND_NAMES = [kind.name for kind in KINDS]
ABOUT_MOTION = [KIND_NAMES.index("ball_direction"), KIND_NAMES.index("ball_speed")]
REACH = 56
"""Pixels by which places and motions are divided: half the longest side of a clip."""
DISTANCE_WEIGHT = 4.0
"""Weight of losses on places and sizes beside those on classes."""


class Probes(nn.Module):
    """Linear readers; the first output of `ball`, `lamp` and `box` says whether it is here.

    Args:
        hidden_size: size of a visual token.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.ball = nn.Linear(hidden_size, 1 + 2 + len(BALL_COLOURS))
        self.lamp = nn.Linear(hidden_size, 1 + len(LAMP_COLOURS))
        self.box = nn.Linear(hidden_size, 1 + 1)
        self.motion = nn.Linear(hidden_size, 2)
        self.distance = nn.Linear(hidden_size, 1)

    def motion_loss(self, states: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        """Return how badly the probes read the ball's motion where the model answers about it.

        Args:
            states: float `[B, kinds, hidden_size]`, the states that name the answers.
            scenes: the `B` scenes.

        Returns:
            The summed losses, a scalar.
        """
        ends = torch.tensor([(scene.phases[0].ball, scene.phases[-1].ball) for scene in scenes])
        motion = (ends[:, 1] - ends[:, 0]) / REACH  # [B, 2]
        about_ball = states[:, ABOUT_MOTION]
        found = self.motion(about_ball)  # [B, 2, 2]
        distance = self.distance(about_ball[:, 1])
        loss = _distance(found, motion[:, None].expand_as(found))
        return loss + _distance(distance[:, 0], motion.norm(dim=1))

    def place_loss(
        self, visual: torch.Tensor, grid: TokenGrid, scenes: Sequence[Scene]
    ) -> torch.Tensor:
        """Return how badly the probes read the visual tokens of scenes.

        Args:
            visual: float `[B, grids, cells, hidden_size]`, without tokens that lead a grid.
            grid: of the clips; every phase covers the same number of grids.
            scenes: the `B` scenes, all of one size.

        Returns:
            The summed losses, a scalar.
        """
        width, height = scenes[0].size

        def token_at(place: tuple[float, float]) -> int:
            row = min(int(place[1] * grid.rows / height), grid.rows - 1)
            column = min(int(place[0] * grid.columns / width), grid.columns - 1)
            return row * grid.columns + column

        times = [number * PHASES // grid.grids for number in range(grid.grids)]
        rows = [(scene, scene.phases[time]) for scene in scenes for time in times]
        ball_at = torch.tensor([token_at(phase.ball) for _, phase in rows])
        box_at = torch.tensor([token_at(scene.box) for scene, _ in rows])
        lamp_at = torch.tensor([token_at(scene.lamp) for scene, _ in rows])
        place = torch.tensor([phase.ball for _, phase in rows]) / REACH - 1
        colour = torch.tensor([list(BALL_COLOURS).index(phase.ball_colour) for _, phase in rows])
        lit = torch.tensor([phase.lamp is not None for _, phase in rows])
        lamp_colour = torch.tensor(
            [list(LAMP_COLOURS).index(phase.lamp) for _, phase in rows if phase.lamp]
        )
        half = torch.tensor([phase.box_half for _, phase in rows])

        here, ball = _read(self.ball(visual), ball_at)
        loss = functional.cross_entropy(here, ball_at)
        loss = loss + _distance(ball[:, :2], place) + functional.cross_entropy(ball[:, 2:], colour)
        here, lamp = _read(self.lamp(visual), lamp_at)
        loss = loss + functional.cross_entropy(here[lit], lamp_at[lit])
        loss = loss + functional.cross_entropy(lamp[lit], lamp_colour)
        here, box = _read(self.box(visual), box_at)
        loss = loss + functional.cross_entropy(here[half > 0], box_at[half > 0])
        return loss + _distance(box[:, 0], half / max(BOX_HALF) - 0.5)


def _read(outputs: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split outputs `[B, grids, tokens, n]` into who is here `[rows, tokens]` and what is `at`."""
    flat = outputs.flatten(0, 1)  # [rows, tokens, n]
    return flat[..., 0], flat[torch.arange(len(flat)), at, 1:]


def _distance(found: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return DISTANCE_WEIGHT * functional.smooth_l1_loss(found, true, beta=0.1)
