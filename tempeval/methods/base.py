"""`Method`: one paper's technique as pure functions of six stages; the defaults are identity.

`Chain`, the fold of methods, is in the same file: every stage has a default in the one and a fold
in the other, and a change to either needs both.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

from tempeval.errors import ConflictingMethods, InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from tempeval.engine.low_rank import LowRank
    from tempeval.stages import (
        Codec,
        Eviction,
        Geometry,
        Layout,
        PrefixTokens,
        RotaryPlan,
        RunFacts,
        ScoredPrune,
        Segments,
        VisualTokens,
    )
    from tempeval.video.clip import FramePlan

#: What stage `tokens` modifies, in the order of application, however a chain is written: `cells`
#: one by one, then whatever else (""), such as pooling whole grids, then which `tokens` are left,
#: then the order in which the text stack meets what the others made of the grids.
TOKENS_ORDER = ("cells", "", "tokens", "grid_order")

#: After a method that modifies this, no rotary channel encodes time alone.
AXIS = "axis"

#: What stage `positions` modifies, in the order of application, however a chain is written.
POSITIONS_ORDER = ("positions", "permutation", "inv_freq", "query_shift", "layers")


#: The stages by the names of their functions, in the order in which a sample meets them.
STAGES = ("frames", "tokens", "positions", "attention", "prune", "kv_cache")


@dataclass(frozen=True)
class Method:
    """One paper's technique: a frozen dataclass that overrides some of six pure stages.

    Fields are the paper's hyperparameters under the paper's names, each with a default. A method
    never touches a model: the engine asks the stages, and their values (`tempeval.stages`) say
    what it does. A stage that is not overridden changes nothing::

        @dataclass(frozen=True)
        class HalfPositions(Method):
            name: ClassVar[str] = "half_positions"
            modifies: ClassVar[frozenset[str]] = frozenset({"positions"})

            factor: float = 0.5

            def positions(self, rotary, layout, geometry):
                return replace(rotary, positions=rotary.positions * self.factor)

    The stages, in the order in which they are asked:

    ========== ======================= ==========================================================
    stage      once per                transforms
    ========== ======================= ==========================================================
    frames     run                     `FramePlan`: which frames, their order and groups
    tokens     video or image          `VisualTokens`: embeddings `[N, D]` and their `cells` `[N]`
    positions  prompt's prefix         `RotaryPlan`: float64 `[P, d/2]` positions, frequencies
    attention  prefix and layer        bool `[K, K]`: which segment attends to which
    prune      prefix and layer        bool `[P]`: which tokens go on, or a rule by scores
    kv_cache   layer                   how keys and values `[1, h_kv, P_l, d]` are held
    ========== ======================= ==========================================================

    A prefix is the prompt through its last visual token; it is computed once and serves every
    question about a video. No stage sees a question but through the scores that a `ScoredPrune` or
    an `Eviction` asks for; asking for the question's rows makes a prefix serve it alone. One video
    is one call: a batch of videos whose layouts are equal is one call of a stage for each, never a
    dimension of its tensors.

    What a stage needs to tell besides, it returns: whole multiples of frames as `FramePlan.unit`,
    what it will leave of the grids as `FramePlan.grid_rules`, operations spent on tokens as
    `VisualTokens.flops`, a longer context as `RotaryPlan.context_factor`, a prompt that reads
    exact keys as `Codec.exact_prefill`.

    Around the stages a method may override `bind` (fix what settings leave to the run), `resolve`
    (check them against the model), `labels` and `measured` (what a reader of its row must know),
    `settings` and `spec` (how it is recorded and spelt), and `low_rank` (a trained adapter of the
    text stack). A name that stands for several methods overrides `parts` and
    `without_kv_cache`.

    Attributes:
        name: what a chain calls it; unless the class says otherwise, the class's name in small
            letters with `_` between words.
        version: raised when the meaning of the same settings changes, so that old records and
            new ones are told apart.
        modifies: what the method changes, such as `positions`, `inv_freq`, `query_shift`,
            `permutation`, `tokens`, `exit`, `kv_cache` (any word will do); two methods of a chain
            that modify the same raise `ConflictingMethods`. Some words are read: those of
            `TOKENS_ORDER` and `POSITIONS_ORDER` order two stages (a method that drops or merges
            visual tokens modifies `tokens`), and after `axis` no rotary channel encodes time alone.
        paper: citation with a number, for listings.
        identity: settings under which the method changes nothing, if there are such; `tempeval
            verify` holds them against the baseline.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = "-"
    identity: ClassVar[dict[str, Any] | None] = None
    version: ClassVar[int] = 1
    modifies: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for stage in STAGES:
            # A field of that name would take the stage's place: each instance has it as a value.
            if stage in inspect.get_annotations(cls):
                raise InvalidSetting(
                    f"{cls.__name__}.{stage}: a setting may not have the name of a stage "
                    f"({', '.join(STAGES)}); give it another"
                )
        if "name" not in vars(cls):  # a subclass of a method is another method
            words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__)
            cls.name = words.lower()

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite; they would spread to every answer unnoticed.

        Raises:
            InvalidSetting: if a setting is NaN or infinite.
        """
        for f in fields(self):
            value = getattr(self, f.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not isfinite(number):
                    raise InvalidSetting(
                        f"{self.name}.{f.name}={number} is not a finite number; give one"
                    )

    def frames(self, plan: FramePlan) -> FramePlan:
        """Choose which frames, in which order, in which groups.

        Called before anything is decoded, also on an unbound method (see `bind`).
        """
        return plan

    def tokens(self, tokens: VisualTokens) -> VisualTokens:
        """Choose what visual tokens the frames become: merge, pool, drop, add.

        Called once per visual, images too. Dropped tokens are said by `VisualTokens.cells`.

        Args:
            tokens: as the family projects them; features before the projector and side channels
                are there where stage `frames` asked for them.
        """
        return tokens

    def positions(self, rotary: RotaryPlan, layout: Layout, geometry: Geometry) -> RotaryPlan:
        """Choose where each token sits in rotary space.

        Args:
            rotary: the family's positions, or what methods before this one made of them.
            layout: which rows of the prefix are visual, of which segment and cell. Where tokens
                were dropped and keep their positions, it is that of all cells.
            geometry: sizes of the text stack.
        """
        return rotary

    def attention(self, visible: torch.Tensor, layer: int, segments: Segments) -> torch.Tensor:
        """Restrict which segment may attend to which.

        Args:
            visible: bool `[K, K]`, rows attend to columns; causality comes on top.
            layer: 0-based decoder layer.
            segments: names of the K segments.
        """
        return visible

    def prune(
        self, kept: torch.Tensor, layer: int, prefix: PrefixTokens
    ) -> torch.Tensor | ScoredPrune:
        """Choose which tokens of the prefix go on in `layer`: rows of its states, keys and values.

        Called for every layer. What is known beforehand must be monotone over layers; what a score
        let go is gone from all later ones, whatever is answered for them.

        Args:
            kept: bool `[P]`, tokens that the plan has left so far.
            layer: 0-based decoder layer.
            prefix: the tokens, and names of their segments.

        Returns:
            bool `[P]`, a part of `kept`, where that is known before the first layer runs; or a
            `ScoredPrune`, which decides by scores that are measured at this layer.
        """
        return kept

    def kv_cache(self, layer: int, geometry: Geometry) -> Codec | Eviction | None:
        """Choose how the prefix keys and values of `layer` are held, and which; None: as they are.

        A `Codec` holds all rows (in few bits), an `Eviction` some, as they are or by a codec.
        """
        return None

    @property
    def low_rank(self) -> LowRank | None:
        """What the method adds to the text stack's linear maps (`low_rank`); None: none."""
        return None

    def without_kv_cache(self) -> Method | None:
        """Return what is left of the method when the prefix is held as it is; None for nothing."""
        return self if self.modifies.isdisjoint({"kv_cache", "eviction"}) else None

    def parts(self) -> tuple[Method, ...]:
        """Return the methods that do the work: others for a name that stands for several."""
        return (self,)

    def bind(self, facts: RunFacts) -> Method:
        """Fix whatever the settings leave to the run; called before `resolve` and every stage.

        The result must depend on nothing but the settings and `facts`, so that prefixes stay
        shareable and a resumed run binds the same.
        """
        return self

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Check the (bound) settings against a model; return what they resolved to.

        Raises:
            InvalidSetting: if a setting has no effect or no meaning on this model.
            UnsupportedModel: if the method cannot work on it.
        """
        return {}

    def labels(self, facts: RunFacts) -> tuple[str, ...]:
        """Return what a reader of this method's row must know, such as "swap, untrained".

        Labels are shown beside the name; they are no part of the spelling or the fingerprint.
        """
        return ()

    def measured(self, usages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Return labels that only the answers of a run tell, such as how much was quantised.

        Args:
            usages: of the samples that were answered, as in the samples files.
        """
        return ()

    def settings(self) -> dict[str, Any]:
        """Return all settings as JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def spec(self) -> str:
        """Return the shortest spelling that `parse_chain` reads back to this method."""
        parts = []
        for f in fields(self):
            value = getattr(self, f.name)
            if value != f.default:
                text = "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
                parts.append(f"{f.name}={text}")
        return f"{self.name}[{';'.join(parts)}]" if parts else self.name


class Chain:
    """Methods folded into one; `baseline` is the empty chain.

    Args:
        methods: the methods; their order does not matter within `positions`.

    Attributes:
        methods: the methods as they are written, which is how a chain is named.

    Raises:
        ConflictingMethods: if two of them modify the same thing.
    """

    def __init__(self, methods: Sequence[Method] = ()) -> None:
        owner: dict[str, Method] = {}
        for method in methods:
            if shared := sorted(method.modifies & owner.keys()):
                raise ConflictingMethods(
                    f"{owner[shared[0]].name!r} and {method.name!r} both modify "
                    f"{', '.join(map(repr, shared))}; use one of them, or methods that change "
                    "different things"
                )
            owner |= dict.fromkeys(method.modifies, method)
        self.methods = tuple(methods)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and self.methods == other.methods

    def __hash__(self) -> int:
        return hash(self.methods)

    def __repr__(self) -> str:
        return f"Chain({self.spec!r})"

    @property
    def name(self) -> str:
        """Names joined by `+`; `baseline` for the empty chain."""
        return "+".join(m.name for m in self.methods) or "baseline"

    @property
    def spec(self) -> str:
        """Names with non-default settings, joined by `+`."""
        return "+".join(m.spec() for m in self.methods) or "baseline"

    @cached_property
    def parts(self) -> tuple[Method, ...]:
        """The methods that are folded."""
        return tuple(part for method in self.methods for part in method.parts())

    @property
    def _named(self) -> list[Method]:
        """The methods as written, then those that they stand for."""
        return [*self.methods, *(part for part in self.parts if part not in self.methods)]

    @property
    def fingerprint(self) -> str:
        """Digest of every method, its version and all its settings; of others', the source too."""
        from tempeval.source_digest import foreign_code

        record = [
            [m.name, m.version, m.settings(), *foreign_code(type(m).__module__)]
            for m in self._named
        ]
        text = json.dumps(record, sort_keys=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return all settings of every method."""
        return {m.name: m.settings() for m in self._named}

    def frames(self, plan: FramePlan) -> FramePlan:
        """Fold stage `frames`."""
        for method in self.parts:
            plan = method.frames(plan)
        return plan

    def tokens(self, tokens: VisualTokens) -> VisualTokens:
        """Fold stage `tokens`, in the same order however the chain is written.

        What modifies `cells` comes first; what drops or merges `tokens` comes after those that
        need whole grids; `grid_order` comes last.
        """

        def rank(method: Method) -> int:
            ranks = [i for i, part in enumerate(TOKENS_ORDER) if part in method.modifies]
            return max(ranks, default=TOKENS_ORDER.index(""))

        for method in sorted(self.parts, key=rank):
            tokens = method.tokens(tokens)
        return tokens

    @property
    def low_rank(self) -> LowRank | None:
        """What the chain adds to the text stack's linear maps; one method at most has something."""
        return next((m.low_rank for m in self.parts if m.low_rank is not None), None)

    def positions(self, rotary: RotaryPlan, layout: Layout, geometry: Geometry) -> RotaryPlan:
        """Fold stage `positions` in the fixed order of `POSITIONS_ORDER`.

        Dropped tokens that keep their positions leave gaps, whatever methods make of positions:
        all cells are placed, and the rows of those that stay are taken.
        """
        whole, rows = layout.whole, layout.rows
        if whole is not None and rows is not None:
            return self.positions(whole.rotary, whole, geometry).select(rows)
        for method in self._placing():
            rotary = method.positions(rotary, layout, geometry)
        return rotary

    def _placing(self) -> list[Method]:
        def rank(method: Method) -> int:
            ranks = [i for i, part in enumerate(POSITIONS_ORDER) if part in method.modifies]
            return min(ranks, default=len(POSITIONS_ORDER))

        return sorted(self.parts, key=rank)

    def attention(self, visible: torch.Tensor, layer: int, segments: Segments) -> torch.Tensor:
        """Fold stage `attention`."""
        for method in self.parts:
            visible = method.attention(visible, layer, segments)
        return visible

    def prune(
        self, kept: torch.Tensor, layer: int, prefix: PrefixTokens
    ) -> tuple[torch.Tensor, tuple[ScoredPrune, ...]]:
        """Fold stage `prune`: what is known beforehand, then the rules that decide by scores.

        The rules are applied in the order of the chain, each to what is left.
        """
        from tempeval.stages import ScoredPrune

        rules = []
        for method in self.parts:
            found = method.prune(kept, layer, prefix)
            if isinstance(found, ScoredPrune):
                rules.append(found)
            else:
                kept = found
        return kept, tuple(rules)

    def kv_cache(self, layer: int, geometry: Geometry) -> Codec | Eviction | None:
        """Fold stage `kv_cache`: at most one method evicts, and one has a codec.

        With both, the codec holds what the eviction leaves.
        """
        from tempeval.stages import Eviction

        codec: Codec | None = None
        eviction: Eviction | None = None
        for method in self.parts:
            held = method.kv_cache(layer, geometry)
            if isinstance(held, Eviction):
                eviction = held
            elif held is not None:
                codec = held
        if eviction is None or codec is None:
            return eviction or codec
        return replace(eviction, codec=codec)

    def without_kv_cache(self) -> Chain:
        """Return the chain as a calibration runs it: with the prefix held as it is."""
        left = [method.without_kv_cache() for method in self.methods]
        return Chain([part for method in left if method is not None for part in method.parts()])

    def layers_with_frames(self, facts: RunFacts) -> int:
        """Count the first layers in which some frame is left; all where none leaves.

        Raises:
            InvalidSetting: if a method cannot tell its layers on this model.
        """
        import torch

        from tempeval.stages import PrefixTokens, Segments

        depth = facts.geometry.num_layers
        frames = -(-facts.num_frames // facts.frames_per_grid)
        segments = Segments(num_frames=frames, num_layers=depth)
        prefix = PrefixTokens.one_each(segments)
        kept = torch.ones_like(prefix.is_visual)
        for layer in range(depth):
            kept, _ = self.prune(kept.clone(), layer, prefix)
            if not bool(kept[prefix.of_frames].any()):
                return layer
        return depth

    def bind(self, facts: RunFacts) -> Chain:
        """Return the chain of parts, each bound to a run."""
        return Chain([m.bind(facts) for m in self.parts])

    def resolve(self, facts: RunFacts) -> dict[str, dict[str, Any]]:
        """Check every (bound) method against a model; return what the settings resolved to."""
        return {m.name: m.resolve(facts) for m in self.parts}

    def measured(self, usages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Return the labels that only the answers of a run tell; see `labels` for names."""
        several = len(self.parts) > 1
        return tuple(
            f"{method.name}: {label}" if several else label
            for method in self._placing()
            for label in method.measured(usages)
        )

    def labels(self, facts: RunFacts) -> tuple[str, ...]:
        """Return what a reader of this chain's row must know; empty where the name says it all.

        Labels of a method carry its name when there are several. A method that the checkpoint was
        trained with and that the chain lacks is named too.
        """
        several = len(self.parts) > 1
        found, seen = [], facts
        for method in self._placing():
            own = method.labels(seen)
            found += [f"{method.name}: {label}" if several else label for label in own]
            if AXIS in method.modifies:
                seen = replace(seen, axes=False)
        missing = sorted(facts.trained_with - {m.spec() for m in self.parts})
        return (*found, *(f"trained with {name}, run without it" for name in missing))
