"""The values that the six stages transform. Methods and families meet here and nowhere else.

Shapes: `P` prefix tokens (through the last visual token), `N` visual tokens, `D` hidden size,
`h` query heads, `h_kv` key/value heads, `d` head_dim, `F` frame segments (temporal grids).
Batch axis: what describes a prefix (`VisualTokens`, `Layout`, `RotaryPlan`, `PrefixTokens`,
`Measured`) has none, and keys and values of a prefix have a first axis of 1: it is one prefix. `B`
rows are the questions (beams, labels) that are answered on it, the first axis of every tail.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tempeval.video.clip import GridRule, SideSpec

#: Values of `RotaryPlan.axis`.
AXIS_ALL, AXIS_TEMPORAL, AXIS_HEIGHT, AXIS_WIDTH = -1, 0, 1, 2


@dataclass(frozen=True)
class Geometry:
    """Sizes of the text stack that methods scale to.

    Attributes:
        num_layers: decoder layers.
        num_heads: query heads per layer.
        num_kv_heads: key/value heads per layer.
        head_dim: channels per head; the rotary table has `head_dim // 2` frequencies.
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int


@dataclass(frozen=True)
class RunFacts:
    """What is known of base model and run before the first video: all that `bind` may depend on.

    Attributes:
        geometry: sizes of the text stack.
        axes: whether rotary channels encode time, height and width (M-RoPE); False for positions
            that count tokens.
        context_length: positions that the model was trained with (`max_position_embeddings`).
        frames_per_block: frames that the vision tower lets attend to one another; at 1 it does not
            matter which frames are encoded together.
        frames_per_grid: frames merged into one temporal grid.
        num_frames: frames planned per video.
        visual_tokens: most visual tokens planned for a prompt with one video.
        trained_with: methods that the checkpoint says it was trained with.
        revision: of the base model's weights; empty when unknown.
        chain_without_kv_cache: fingerprint of the bound chain apart from stage `kv_cache`;
            empty when unknown.
        grid_rules: what the chain's stage `tokens` makes of grids, as the plan of frames has it.
        feature_width: channels of the features before the projector; 0 when unknown.
        family_settings: see `Family.settings`.
        layers_with_frames: first layer in which the chain leaves no frame; None when unknown.
    """

    geometry: Geometry
    axes: bool
    context_length: int
    frames_per_block: int
    frames_per_grid: int
    num_frames: int
    visual_tokens: int
    trained_with: frozenset[str] = frozenset()
    revision: str = ""
    chain_without_kv_cache: str = ""
    grid_rules: tuple[GridRule, ...] = ()
    feature_width: int = 0
    family_settings: Mapping[str, str] = field(default_factory=dict)
    layers_with_frames: int | None = None


@dataclass(frozen=True)
class Pathway:
    """One run of a visual's tokens that has a grid of its own.

    Attributes:
        grid: (T, h, w).
        seconds_per_grid: time between its temporal grids in seconds.
    """

    grid: tuple[int, int, int]
    seconds_per_grid: float = 1.0


@dataclass(frozen=True)
class SideFeatures:
    """What a side channel (audio, 3D, more frames) says about one video, step by step in time.

    Attributes:
        features: `[T_k, h, w, C]`, float.
        spans: float64 `[T_k, 2]`, start and end of each step in seconds from the video's start;
            None when the source has no times: then it lasts as long as the video, in equal steps.
        source: file that it comes from, for messages; empty for the video.
        flops: floating-point operations that a model spent on it here; 0 where none ran.
    """

    features: torch.Tensor
    spans: torch.Tensor | None = None
    source: str = ""
    flops: float = 0.0


@dataclass(frozen=True)
class VisualTokens:
    """Projected tokens of one video or image: what stage `tokens` transforms.

    Newline tokens are not among them: the family adds them after the fold, when it lays out the
    prompt; one that ends a row stays where a token with a cell in that row does. A batch of videos
    is a sequence of these, each with its own `cells`.

    Attributes:
        embeddings: `[N, D]` in prompt order. Without `cells` by grid, row, column, and
            `N == T * (lead + h * w)`; with `pathways`, theirs one after the other.
        grid: (T, h, w): temporal grids, rows, columns of merged tokens.
        seconds_per_grid: time between temporal grids in seconds (1.0 where unknown).
        kind: `video` or `image`.
        frames: decoded frames these tokens stand for.
        features: `[T, h, w, C]` features before the projector, only when asked for.
        lead: tokens of each temporal grid that come before its cells and have no place in it
            (1 where a tower's CLS token is kept).
        pathways: the runs of tokens when they are of several grids (slow and fast, or base image
            and tiles); empty for one run of `grid`.
        spans: float64 `[T, 2]`, start and end in seconds of what each temporal grid stands for,
            only when side channels are asked for; NaN without timestamps.
        side: side channels by their spec, those that the frame plan asks for.
        flops: floating-point operations that stage `tokens` spent; moving and pooling are free.
        cells: long `[N]`, which of those places each token stands for: any subset, grid by grid
            (`t * h * w + row * w + column`, lead tokens and earlier pathways counted too); -1 for
            a merged token that stands for none. None: all, in order.
        anchors: long `[N]`, the place whose position and temporal grid a token takes; needed where
            some cell is -1, and equal to `cells` elsewhere. None: `cells`.
        position_ids: what `cells` leave: `original` (a token has the position of its place, and
            text goes on where it would after all of them) or `renumbered` (tokens are counted one
            after another, as text is: with M-RoPE in all three axes). A method that drops tokens
            has it for a setting of this name, so that it is recorded.
    """

    embeddings: torch.Tensor
    grid: tuple[int, int, int]
    seconds_per_grid: float = 1.0
    kind: Literal["video", "image"] = "video"
    frames: int = 1
    features: torch.Tensor | None = None
    lead: int = 0
    pathways: tuple[Pathway, ...] = ()
    spans: torch.Tensor | None = None
    side: Mapping[SideSpec, SideFeatures] = field(default_factory=dict)
    flops: float = 0.0
    cells: torch.Tensor | None = None
    anchors: torch.Tensor | None = None
    position_ids: Literal["original", "renumbered"] = "original"

    @property
    def places(self) -> torch.Tensor:
        """Long `[N]`, the place whose position and temporal grid each token takes."""
        if self.anchors is not None:
            return self.anchors
        if self.cells is not None:
            return self.cells
        return torch.arange(self.num_tokens, device=self.embeddings.device)

    @property
    def num_tokens(self) -> int:
        """Number of visual tokens N."""
        return int(self.embeddings.shape[0])

    @property
    def runs(self) -> tuple[Pathway, ...]:
        """The pathways, or the one that `grid` is."""
        return self.pathways or (Pathway(self.grid, self.seconds_per_grid),)


@dataclass(frozen=True)
class Segments:
    """Names of the segments that `attention` and `prune` speak about.

    Segment 0 is the instruction (every non-visual prefix token), 1..F are the frames (temporal
    grids, numbered through all visuals of the prompt), F+1 is the question (prompt tokens after
    the last visual token, but for the last), F+2 is "last": the last prompt token and every
    generated one.

    Attributes:
        num_frames: F.
        num_layers: depth of the text stack, for depth-scaled layer ranges.
    """

    num_frames: int
    num_layers: int

    instruction: int = field(default=0, init=False)

    @property
    def frames(self) -> range:
        """Indices of the frame segments."""
        return range(1, self.num_frames + 1)

    @property
    def question(self) -> int:
        """Index of the question segment."""
        return self.num_frames + 1

    @property
    def last(self) -> int:
        """Index of the segment of the last prompt token and the generated ones."""
        return self.num_frames + 2

    @property
    def size(self) -> int:
        """Number of segments."""
        return self.num_frames + 3


@dataclass(frozen=True)
class RotaryPlan:
    """Where each token sits in rotary space: what stage `positions` transforms.

    A token with index < P reads its row of `positions`; a later one sits at
    `next_position + (index - P)` in every channel. The angle of channel c is
    `position[c] * inv_freq[c]`; channel c pairs head channels c and c + d/2.

    Attributes:
        positions: float64 `[P, d/2]`, position per prefix token and channel.
        axis: long `[d/2]`, which axis a channel encodes (`AXIS_TEMPORAL` ...; `AXIS_ALL` for 1-D).
        inv_freq: float32 `[d/2]`, radians per position.
        next_position: position of the first token after the prefix.
        step: float64 `[P]`, positions per temporal grid (the "bin") of the visual a token belongs
            to; 0 on other tokens.
        query_shift: float64 `[h, d/2]` in units of `shift_scale`, added to the query's position
            only; None for no shift.
        shift_scale: float64 `[P]`, positions per unit of shift on each prefix row (0: no shift).
        shift_scale_after: the same for every row after the prefix.
        attention_scaling: factor on cos and sin (YaRN and friends; 1 for plain rotary).
        layers: plans that replace this one in single layers.
        context_factor: how many times as many positions the model takes under this plan.
    """

    positions: torch.Tensor
    axis: torch.Tensor
    inv_freq: torch.Tensor
    next_position: float
    step: torch.Tensor
    query_shift: torch.Tensor | None = None
    shift_scale: torch.Tensor | None = None
    shift_scale_after: float = 0.0
    attention_scaling: float = 1.0
    layers: Mapping[int, RotaryPlan] = field(default_factory=dict)
    context_factor: float = 1.0

    @property
    def prefix_length(self) -> int:
        """Number of prefix tokens P."""
        return int(self.positions.shape[0])

    @property
    def temporal_channels(self) -> torch.Tensor:
        """Bool `[d/2]`: channels that encode time and nothing else."""
        return self.axis == AXIS_TEMPORAL

    def select(self, rows: torch.Tensor) -> RotaryPlan:
        """Return the plan of some prefix tokens, long `[P]`; later ones go on as they did."""
        scale = self.shift_scale
        return replace(
            self,
            positions=self.positions[rows.to(self.positions.device)],
            step=self.step[rows.to(self.step.device)],
            shift_scale=None if scale is None else scale[rows.to(scale.device)],
            layers={layer: plan.select(rows) for layer, plan in self.layers.items()},
        )

    def for_layer(self, layer: int) -> RotaryPlan:
        """Return the plan in force in `layer`."""
        return self.layers.get(layer, self)

    def identity(self) -> RotaryPlan:
        """Return a plan that rotates nothing (a positional knock-out of one layer)."""
        return replace(self, inv_freq=torch.zeros_like(self.inv_freq), layers={})

    def angles(self, index: torch.Tensor) -> torch.Tensor:
        """Look up rotary angles in radians.

        Args:
            index: long `[...]`, token indices; those below P read the table.

        Returns:
            float32 `[..., d/2]`.
        """
        index = index.to(self.positions.device)
        later = self.next_position + (index - self.prefix_length).double()
        positions = later.unsqueeze(-1).expand(*index.shape, self.positions.shape[1])
        if self.prefix_length:
            table = self.positions[index.clamp(max=self.prefix_length - 1)]
            positions = torch.where((index < self.prefix_length).unsqueeze(-1), table, positions)
        return positions.float() * self.inv_freq


@dataclass(frozen=True)
class Layout:
    """The shared prefix of a prompt: everything through its last visual token.

    Attributes:
        input_ids: long `[P]`, placeholder ids on visual tokens.
        is_visual: bool `[P]`.
        segment: long `[P]`, 0 for instruction, 1..F for frames (see `Segments`).
        grid_index: long `[P, 4]`: (pathway number, grid, row, column), pathways counted through
            all visuals of the prompt; -1 where a token has none (text, CLS, merged tokens, the
            newline that ends a video). A newline that ends a row is one more column of it.
        rotary: the family's native positions.
        visuals: grid of each pathway, (T, h, w), in prompt order, without newline columns; tokens
            of it may be gone.
        num_frames: F.
        whole: where tokens were dropped and keep their positions, the layout of all of them, which
            stage `positions` is asked about; else None.
        rows: long `[P]`, row of each token in `whole` (of its anchor where it is a merged one).
    """

    input_ids: torch.Tensor
    is_visual: torch.Tensor
    segment: torch.Tensor
    grid_index: torch.Tensor
    rotary: RotaryPlan
    visuals: tuple[tuple[int, int, int], ...]
    num_frames: int
    whole: Layout | None = None
    rows: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """Number of prefix tokens P."""
        return int(self.input_ids.shape[0])

    @property
    def num_visual_tokens(self) -> int:
        """Number of visual tokens in the prefix."""
        return int(self.is_visual.sum())


@dataclass(frozen=True)
class Tail:
    """What follows a stored prefix in one layer, and how much of it the cache has taken in.

    Attributes:
        keys: `[B, h_kv, T, d]` after rotary, as they were computed; padding on the left.
        values: `[B, h_kv, T, d]`.
        starts: column of each row's first token, B numbers.
        after: tokens after the prefix that are held when the rows read, B numbers.
        whole: whether the tail itself is read as it is held; else as it was computed.
    """

    keys: torch.Tensor
    values: torch.Tensor
    starts: Sequence[int]
    after: Sequence[int]
    whole: bool


@dataclass(frozen=True)
class Reading:
    """What a batch reads of a prefix and of its tails: keys and values of each part.

    Attributes:
        shared: `[1, h_kv, c, d]` each, the prefix's first tokens, the same for all rows.
        own: `[1 or B, h_kv, P - c, d]` each, its other tokens as each row finds them; None for
            none.
        tail: `[B, h_kv, T, d]` each.
    """

    shared: tuple[torch.Tensor, torch.Tensor]
    own: tuple[torch.Tensor, torch.Tensor] | None
    tail: tuple[torch.Tensor, torch.Tensor]


class OpenKV(Protocol):
    """Stored keys and values, decoded for as long as one layer attends to them."""

    def read(self, tail: Tail) -> Reading:
        """Return what the rows of a batch read."""
        ...


class StoredKV(Protocol):
    """Keys and values of one layer's prefix, as a codec holds them.

    `after` is the number of tokens that have followed the prefix by then: what is held in few bits
    may depend on it.
    """

    def opened(self) -> OpenKV:
        """Decode, in the compute dtype."""
        ...

    def extended(self, keys: torch.Tensor, values: torch.Tensor) -> StoredKV | None:
        """Return the store with `[1, h_kv, Q, d]` more tokens of a sequence.

        None where what is held does not depend on what follows: then these are held beside it.
        """
        ...

    def nbytes(self, after: int) -> int:
        """Bytes of the prefix and of what follows, scales and zero points included."""
        ...

    def in_few_bits(self, after: int) -> tuple[int, int]:
        """Count the keys and the values of the prefix's tokens that are in few bits."""
        ...


class Codec(Protocol):
    """How a layer's prefix keys and values are held: what stage `kv_cache` returns.

    `str(codec)` names the settings that decide how many tokens it quantises.
    """

    @property
    def exact_prefill(self) -> bool:
        """Whether the prompt reads the prefix as it was, and only later tokens what is held.

        Such a prefix serves one question. One layer's codec speaks for all.
        """
        ...

    def encode(self, keys: torch.Tensor, values: torch.Tensor) -> StoredKV:
        """Take `[1, h_kv, P_l, d]` keys (after rotary) and values of the rows present in a layer.

        Returns:
            What is kept; it shares no storage with what was given.
        """
        ...

    def first_in_few_bits(self, prefix: int, after: int) -> tuple[int, int]:
        """Count the first keys and values of a sequence that are in few bits.

        Args:
            prefix: tokens of the prefix in a layer.
            after: tokens that have followed it.
        """
        ...


#: Rows of a prompt that scores are asked of, by name: `last` is the last prompt token, `question`
#: every prompt token after the prefix (the last one too), `frames` the visual prefix tokens,
#: `prefix` all prefix tokens.
RowName = Literal["last", "question", "frames", "prefix"]
#: Names of rows that lie after the prefix: scores of theirs differ from question to question.
TAIL_ROWS: frozenset[str] = frozenset({"last", "question"})
#: Whether kept tokens keep their positions, or are numbered anew without gaps.
PositionsKept = Literal["original", "renumbered"]


@dataclass(frozen=True)
class PrefixTokens:
    """The tokens of a prefix, as stages `prune` and `kv_cache` see them; on the CPU.

    Attributes:
        segment: long `[P]`, segment of each token (see `Segments`).
        is_visual: bool `[P]`.
        grid_index: long `[P, 4]` (see `Layout`).
        segments: names of the segments, and the depth of the text stack.
    """

    segment: torch.Tensor
    is_visual: torch.Tensor
    grid_index: torch.Tensor
    segments: Segments

    @classmethod
    def of(cls, layout: Layout, num_layers: int) -> PrefixTokens:
        """Return the tokens of a layout."""
        segments = Segments(num_frames=layout.num_frames, num_layers=num_layers)
        return cls(layout.segment.cpu(), layout.is_visual.cpu(), layout.grid_index.cpu(), segments)

    @classmethod
    def one_each(cls, segments: Segments) -> PrefixTokens:
        """Return a prefix with one token per segment: what is known before the first video."""
        names = torch.arange(segments.question)
        nowhere = torch.full((len(names), 4), -1)
        return cls(names, names != segments.instruction, nowhere, segments)

    @property
    def of_frames(self) -> torch.Tensor:
        """Bool `[P]`: tokens of frame segments."""
        return self.segment != self.segments.instruction


@dataclass(frozen=True)
class ScoreRequest:
    """What a rule wants to know of a layer, measured in the forward that it decides about.

    Attention weights are float32 softmax over everything that a row may attend to, exact to
    rounding however the kernels cut it into pieces; only the columns of the prefix are handed on.

    Attributes:
        rows: rows whose attention is measured; None for no attention.
        layer: whose attention: of the layer before the rule's (`previous`, as it ran: FastV,
            PruneVid), or of the rule's own before anything is dropped (`own`: PyramidDrop, and
            always in stage `kv_cache`).
        per_head: whether heads stay apart; else their mean is taken.
        per_row: whether rows stay apart; else their mean is taken.
        hidden: hand on the hidden states that enter the layer (stage `prune` only).
        queries: hand on the queries of the rows, as they attend (after rotary; own layer).
    """

    rows: RowName | None = None
    layer: Literal["previous", "own"] = "previous"
    per_head: bool = False
    per_row: bool = False
    hidden: bool = False
    queries: bool = False

    @property
    def of_question(self) -> bool:
        """Whether the answer differs from question to question, so that nothing is shared."""
        return self.rows in TAIL_ROWS


@dataclass(frozen=True)
class Measured:
    """What a `ScoreRequest` is answered with.

    Shapes: `n` prefix tokens present, `h` query heads, `R` rows that were asked for, `D` hidden
    size, `d` head_dim.

    Attributes:
        layer: 0-based decoder layer of the rule.
        tokens: long `[n]`, which prefix tokens are present, ascending.
        prefix: the whole prefix.
        attention: float32 `[n]`, `[h, n]`, `[R, n]` or `[h, R, n]`; None where not asked for.
        hidden: `[n, D]`, hidden states of the tokens that enter the layer; None likewise.
        hidden_rows: `[R, D]`, of the rows that were asked for.
        queries: `[h, R, d]` of the rows; None likewise.
    """

    layer: int
    tokens: torch.Tensor
    prefix: PrefixTokens
    attention: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    hidden_rows: torch.Tensor | None = None
    queries: torch.Tensor | None = None

    @property
    def is_visual(self) -> torch.Tensor:
        """Bool `[n]`: visual tokens among those present."""
        return self.prefix.is_visual.to(self.tokens.device)[self.tokens]

    @property
    def segment(self) -> torch.Tensor:
        """Long `[n]`: their segments."""
        return self.prefix.segment.to(self.tokens.device)[self.tokens]


@dataclass(frozen=True)
class Chosen:
    """What a `ScoredPrune` decided.

    Attributes:
        kept: bool `[n]`, of the tokens present.
        hidden: `[kept, D]`, what the kept tokens go on as where others are merged into them; None
            for as they are.
    """

    kept: torch.Tensor
    hidden: torch.Tensor | None = None


@dataclass(frozen=True)
class ScoredPrune:
    """A rule of stage `prune` that decides in the forward, by what it asked to be measured.

    Attributes:
        choose: from what was measured to bool `[n]` or a `Chosen`; a pure function.
        request: what is measured. One that names the question's rows makes the prefix unshared
            from this layer on: the layers below serve all questions, the others are computed for
            each question on its own.
        positions: whether tokens keep their positions from this layer on, or are numbered anew:
            then each channel's positions of what is left are ranked from 0 without gaps, and the
            question goes on after the largest.
    """

    choose: Callable[[Measured], torch.Tensor | Chosen]
    request: ScoreRequest = field(default_factory=ScoreRequest)
    positions: PositionsKept = "original"


@dataclass(frozen=True)
class Eviction:
    """Which rows of a layer's prefix are held: what stage `kv_cache` may return.

    Positions stay: keys are held after rotary.

    Attributes:
        choose: from keys `[h_kv, n, d]`, values `[h_kv, n, d]` and what was measured to the rows
            that stay: long `[m]` for all heads, or `[h_kv, m]` for each; indices below n, each
            once. A pure function.
        request: what is measured. One that names the question's rows is answered once the prompt
            has been read: the prompt reads everything, generated tokens read what is held, and
            what is held serves one question (the prefix is computed once all the same).
        codec: how the rows that stay are held; None for as they are.
    """

    choose: Callable[[torch.Tensor, torch.Tensor, Measured], torch.Tensor]
    request: ScoreRequest = field(default_factory=lambda: ScoreRequest(layer="own"))
    codec: Codec | None = None
