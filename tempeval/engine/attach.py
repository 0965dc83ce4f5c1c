"""The only code that attaches to a model; it restores everything exactly, also after an exception.

Three attachments: a pre-hook on the text model (which tokens, which cache), a pre-hook per decoder
layer (rotary embedding, rows that `prune` ended), and one registered attention function, for the
text stack only. A chain with low-rank changes has a fourth, on linear maps (see `low_rank`). The
vision tower is untouched.

Rows come in three ways, told apart by the cache: a prefix alone (`PrefixCache`, batch of 1); a
question ahead of its own pass, whose rows join those of the prefix in the layers that depend on it
(`QuestionCache`, batch of 1); and tails on a prefix that is there (`TailCache`, a batch of B).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from tempeval.engine.cache import (
    PlainKV,
    PrefixCache,
    QuestionCache,
    TailCache,
    Unshared,
    make_piece,
)
from tempeval.engine.cache_keyword import given_cache
from tempeval.engine.low_rank import apply_low_rank
from tempeval.engine.query_shift import shift_queries
from tempeval.engine.rows import attend_prefix
from tempeval.engine.scored import Scorer, evicted, pruned
from tempeval.engine.tail import attend_after_prefix
from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from tempeval.engine.plan import EnginePlan
    from tempeval.engine.scored import RowWeights
    from tempeval.families.base import Family
    from tempeval.stages import RotaryPlan, ScoreRequest, StoredKV

ATTENTION_NAME = "tempeval"


class Probed(Exception):
    """Ends a layer's attention once its queries and keys are known; nothing is attended."""


class PrefixFilled(Exception):
    """Ends a prefix's forward once the last layer's keys and values are there.

    Or where the next layer's rows depend on the question.

    Nothing reads the hidden states of prefix rows after that, so the last layer's attention and
    MLP, the norm and whatever follows are not computed.
    """


_ATTACHED: WeakKeyDictionary[nn.Module, Attachment] = WeakKeyDictionary()


class Attachment:
    """Context manager that runs a family's text stack under a plan.

    One attachment serves one layout. Attachments on one model do not nest: the second raises.

    Args:
        family: the loaded base model.
        plan: the folded chain.

    Attributes:
        kernels: names of the attention kernels that ran.
        narrowed: the plan as the scores of the last prefix narrowed it.

    Raises:
        UnsupportedModel: on entering, if the model is attached already or a layer cannot be.
        InvalidSetting: on entering, if low-rank changes name a linear map that is not there.
    """

    def __init__(self, family: Family, plan: EnginePlan) -> None:
        self.family = family
        self.plan = plan
        self.kernels: set[str] = set()
        self.narrowed = plan
        self._seen: dict[ScoreRequest, RowWeights] = {}
        self._probe: tuple[torch.Tensor, torch.Tensor] | None = None
        self._probing = False
        self._handles: list[RemovableHandle] = []
        self._attention: list[nn.Module] = []
        self._undo_low_rank: Callable[[], None] | None = None
        self._previous = ""
        self._cache: PrefixCache | TailCache | None = None
        self._index: torch.Tensor | None = None
        self._padding: torch.Tensor | None = None
        self._starts: list[int] = []
        self._embeddings: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __enter__(self) -> Attachment:
        text_model: Any = self.family.text_model
        attention: list[Any] = [layer.self_attn for layer in self.family.layers]
        if any(module in _ATTACHED for module in attention):
            raise UnsupportedModel(
                "this model has an attachment already; leave it before entering another"
            )
        if len(self.plan.layers) != len(attention):
            raise UnsupportedModel(
                f"the plan has {len(self.plan.layers)} layers, the model {len(attention)}"
            )
        AttentionInterface.register(ATTENTION_NAME, attention_forward)
        AttentionMaskInterface.register(ATTENTION_NAME, no_mask)
        self._previous = text_model.config._attn_implementation
        try:
            text_model.set_attn_implementation(ATTENTION_NAME)
            self._handles.append(
                text_model.register_forward_pre_hook(self._before_model, with_kwargs=True)
            )
            for number, layer in enumerate(self.family.layers):
                hook = _LayerHook(self, number)
                self._handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
            for module in attention:
                _ATTACHED[module] = self
                self._attention.append(module)
            if self.plan.low_rank is not None:
                self._undo_low_rank = apply_low_rank(text_model, self.plan.low_rank)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._undo_low_rank is not None:
            self._undo_low_rank()
            self._undo_low_rank = None
        for module in self._attention:
            _ATTACHED.pop(module, None)
        self._attention.clear()
        text_model: Any = self.family.text_model
        text_model.set_attn_implementation(self._previous)
        self._cache = self._index = self._padding = None
        self._embeddings.clear()
        self._seen = {}

    def _before_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        cache = given_cache(kwargs)
        if not isinstance(cache, (PrefixCache, TailCache)):
            raise UnsupportedModel(
                f"an attached model takes a PrefixCache or TailCache, not {type(cache).__name__}; "
                "call it through tempeval.engine"
            )
        index = kwargs.get("position_ids")
        if index is None or index.ndim != 2:
            shape = None if index is None else tuple(index.shape)
            raise UnsupportedModel(
                f"an attached model takes a token index [B, L] as position_ids, not {shape}"
            )
        self._cache, self._index = cache, index
        self._embeddings = {}
        known = cache.prefix.plan if isinstance(cache, TailCache) else None
        self.narrowed = self.plan if known is None else known
        self._seen = {}
        if isinstance(cache, QuestionCache):
            self._seen = dict(cache.unshared.measured)
        self._padding = None
        mask = kwargs.get("attention_mask")
        if isinstance(cache, TailCache) and mask is not None:
            tail = mask[:, cache.prefix.length :] == 0
            self._padding = tail if bool(tail.any()) else None
        if isinstance(cache, TailCache) and self.plan.stores:
            self._starts = self._first_columns(cache, index.shape[0])
        # Causality and padding are the attention function's; the layers get no mask.
        return args, {**kwargs, "attention_mask": None}

    def _first_columns(self, cache: TailCache, rows: int) -> list[int]:
        """Return where each row's tail begins; padding that ends a row (of labels) is no matter."""
        if self._padding is None:
            return [0] * rows
        found: list[int] = self._padding[:, : cache.prompt_length].sum(1).tolist()
        return found

    def _before_layer(
        self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        rows: torch.Tensor | None = None
        if isinstance(self._cache, PrefixCache):
            hidden = self._enter_prefix(self._cache, hidden, number)
            rows = self.narrowed.layers[number].rows
        elif isinstance(self._cache, QuestionCache):
            hidden = self._enter_question(self._cache, hidden, number)
            if number >= self._cache.unshared.first:
                rows = self._scorer(number, self._cache.going).rows
        cos_sin = self._embedding(self.narrowed.layers[number].rotary, hidden, rows)
        kwargs = {**kwargs, "position_embeddings": cos_sin}
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def _enter_prefix(self, cache: PrefixCache, hidden: torch.Tensor, number: int) -> torch.Tensor:
        """Drop rows that leave before a layer, by the plan and by scores.

        Raises:
            PrefixFilled: where the layer's rows depend on the question.
        """
        hidden = self._drop_rows(hidden, number)
        if number == self.plan.first_unshared:
            cache.unshared = Unshared(number, hidden, dict(self._seen))
            raise PrefixFilled
        return self._prune(hidden, number, question=0)

    def _enter_question(
        self, cache: QuestionCache, hidden: torch.Tensor, number: int
    ) -> torch.Tensor:
        """Put the prefix's rows before the question's, from the first unshared layer on."""
        first, count = cache.unshared.first, cache.prompt_length
        if number < first:
            if number > self.plan.last_asked:
                raise PrefixFilled
            return hidden
        if number == first and cache.unshared.hidden is not None:
            hidden = torch.cat([cache.unshared.hidden, hidden], dim=1)
        elif cache.asking:
            prefix, question = hidden[:, :-count], hidden[:, -count:]
            hidden = torch.cat([self._drop_rows(prefix, number), question], dim=1)
        else:
            hidden = self._drop_rows(hidden, number)
        hidden = self._prune(hidden, number, question=cache.going)
        if cache.asking and number > self.plan.last_asked:
            cache.asking = False
            hidden = hidden[:, :-count]
        return hidden

    def _drop_rows(self, hidden: torch.Tensor, number: int) -> torch.Tensor:
        rows = self.narrowed.layers[number].rows
        before = self.narrowed.layers[number - 1].rows if number else None
        if rows is None or (before is not None and len(before) == len(rows)):
            return hidden
        if before is None:
            return hidden[:, rows]
        # Rows are sorted and a subset of those before: find them among what is left.
        return hidden[:, torch.searchsorted(before, rows)]

    def _prune(self, hidden: torch.Tensor, number: int, *, question: int) -> torch.Tensor:
        """Apply the scored rules of a layer to the hidden states that enter it.

        Args:
            hidden: `[1, n + question, D]`.
            number: the layer.
            question: how many rows of it, the last ones, are the question's.
        """
        for rule in self.narrowed.layers[number].rules:
            scorer, request, query = self._scorer(number, question), rule.request, None
            seen = self._seen.get(request)
            if request.layer == "own" and request.rows is not None:
                query, key = self._queries_and_keys(number, hidden, scorer)
                seen = scorer.weigh(request, query, key)
            measured = scorer.measured(request, seen, hidden, query)
            hidden, kept = pruned(rule, measured, hidden)
            renumber = rule.positions == "renumbered"
            self.narrowed = self.narrowed.narrowed(number, kept, renumber=renumber)
        self._seen = {}
        return hidden

    def _scorer(self, number: int, question: int) -> Scorer:
        """Return what measures at a layer."""
        attention: Any = self.family.layers[number].self_attn
        scale = getattr(attention, "scaling", None) or self.family.geometry.head_dim**-0.5
        return Scorer(self.narrowed, number, question, scale)

    def _queries_and_keys(
        self, number: int, hidden: torch.Tensor, scorer: Scorer
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run a layer up to its queries and keys, with every row that enters it."""
        layer: Any = self.family.layers[number]
        rotary = self.narrowed.layers[number].rotary
        self._probing = True
        try:
            with suppress(Probed):
                layer.self_attn(
                    hidden_states=layer.input_layernorm(hidden),
                    position_embeddings=self._angles(rotary, scorer.rows.unsqueeze(0), hidden),
                    attention_mask=None,
                )
        finally:
            self._probing = False
        found, self._probe = self._probe, None
        if found is None:
            raise UnsupportedModel(
                f"layer {number} of {type(self.family).__name__} gives no queries and keys ahead "
                "of its attention; ask for scores of the previous layer"
            )
        query, key = found
        return self._shifted(query, rotary, scorer.rows), key

    def _shifted(self, query: torch.Tensor, rotary: RotaryPlan, rows: torch.Tensor) -> torch.Tensor:
        """Shift queries of any rows, prefix and question."""
        if rotary.query_shift is None or rotary.shift_scale is None:
            return query
        length = len(rotary.shift_scale)
        inside = rotary.shift_scale.to(rows.device)[rows.clamp(max=length - 1)]
        scales = torch.where(rows < length, inside, float(rotary.shift_scale_after))
        return shift_queries(query, rotary, scales)

    def _embedding(
        self, rotary: RotaryPlan, hidden: torch.Tensor, rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin of the rows that enter a layer.

        Args:
            rotary: positions in force.
            hidden: for its type and device.
            rows: long `[n]`, token indices of the rows; None for those that the model was given.
        """
        if self._index is None:
            raise UnsupportedModel("a decoder layer ran outside its text model")
        if rows is not None and isinstance(self._cache, QuestionCache):
            return self._angles(rotary, rows.unsqueeze(0), hidden)
        key = id(rotary)
        if key not in self._embeddings:
            self._embeddings[key] = self._angles(rotary, self._index, hidden)
        cos, sin = self._embeddings[key]
        return (cos, sin) if rows is None else (cos[:, rows], sin[:, rows])

    @staticmethod
    def _angles(
        rotary: RotaryPlan, index: torch.Tensor, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin `[B, L, d]` of tokens, in the type of the hidden states."""
        angles = rotary.angles(index).to(hidden.device)
        angles = torch.cat([angles, angles], dim=-1)
        scale = rotary.attention_scaling
        return (angles.cos() * scale).to(hidden.dtype), (angles.sin() * scale).to(hidden.dtype)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Run one layer's attention; the cache has been updated. Returns `[B, h, S, d]`.

        Raises:
            PrefixFilled: in the last layer of a prefix.
            Probed: where only queries and keys were wanted.
        """
        if self._probing:
            self._probe = query, key
            raise Probed
        if isinstance(self._cache, QuestionCache):
            return self._attend_question(self._cache, layer, query, key, value, scale)
        if isinstance(self._cache, TailCache):
            return self._attend_tail(self._cache, layer, query, key, value, scale)
        plan = self.narrowed.layers[layer]
        last = layer == len(self.plan.layers) - 1
        if not last or plan.eviction is not None:  # nothing else reads the last layer's queries
            query = self._shift_prefix(query, layer)
        held = self._held(layer, query, key, value)
        if held is not None and isinstance(self._cache, PrefixCache):
            self._cache.hold(layer, *held, keep_exact=self.plan.exact_prefill)
        if last:
            raise PrefixFilled
        self._see_prefix_rows(layer, query, key)
        out, kernel = attend_prefix(query, key, value, plan, scale=scale)
        self.kernels.add(kernel)
        return out

    def _held(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[StoredKV, torch.Tensor | None] | None:
        """Return how a layer's prefix is held, and which of its rows (None: all).

        None where it is held as it is, or where the question decides.
        """
        plan = self.narrowed.layers[layer]
        if plan.eviction is None:
            return None if plan.codec is None else (plan.codec.encode(key, value), None)
        request, scorer = plan.eviction.request, self._scorer(layer, 0)
        if request.of_question:
            return None
        seen = None if request.rows is None else scorer.weigh(request, query, key)
        return evicted(plan.eviction, key, value, scorer.measured(request, seen, query=query))

    def _see_prefix_rows(self, layer: int, query: torch.Tensor, key: torch.Tensor) -> None:
        """Measure attention of prefix rows for the rules of the next layer."""
        for request in self._asked_of(layer, of_question=False):
            self._seen[request] = self._scorer(layer, 0).weigh(request, query, key)

    def _asked_of(self, layer: int, *, of_question: bool) -> list[ScoreRequest]:
        """Return what the rules of the next layer ask of the attention of this one."""
        if layer + 1 == len(self.plan.layers):
            return []
        asked = [rule.request for rule in self.narrowed.layers[layer + 1].rules]
        return [
            request
            for request in asked
            if request.layer == "previous"
            and request.rows is not None
            and request.of_question == of_question
        ]

    def _shift_prefix(self, query: torch.Tensor, layer: int) -> torch.Tensor:
        """Shift the queries of the prefix rows present in a layer."""
        rotary, rows = self.narrowed.layers[layer].rotary, self.narrowed.layers[layer].rows
        if rotary.query_shift is None or rotary.shift_scale is None:
            return query
        scales = rotary.shift_scale
        return shift_queries(query, rotary, scales if rows is None else scales[rows])

    def _attend_tail(
        self,
        cache: TailCache,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        out, kernel = attend_after_prefix(
            query,
            key,
            value,
            cache,
            layer,
            self.narrowed,
            padding=self._padding,
            starts=self._starts,
            scale=scale,
        )
        self.kernels.add(kernel)
        return out

    def _attend_question(
        self,
        cache: QuestionCache,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Attend ahead of a question's own pass, and keep what it decides about the prefix."""
        plan, last = self.narrowed.layers[layer], layer == len(self.plan.layers) - 1
        out = torch.empty_like(query)
        count = query.shape[2] - cache.going
        if layer >= cache.unshared.first:
            own = self._shift_prefix(query[:, :, :count], layer)
            keys, values = (
                s[:, :, :count].clone(memory_format=torch.contiguous_format) for s in (key, value)
            )
            plain = make_piece(PlainKV(keys, values), plan.segment)
            held = self._held(layer, own, keys, values)
            cache.own[layer] = plain if held is None else make_piece(held[0], plan.segment, held[1])
            if self.plan.exact_prefill:
                cache.own_exact[layer] = plain
            if not last:
                self._see_prefix_rows(layer, own, keys)
                part, kernel = attend_prefix(own, keys, values, plan, scale=scale)
                self.kernels.add(kernel)
                out[:, :, :count] = part
        if cache.asking:
            asking, *tail = (s[:, :, count:] for s in (query, key, value))
            # The shift of queries is in place: what is measured after it sees them shifted.
            out[:, :, count:] = self._attend_tail(cache, layer, asking, tail[0], tail[1], scale)
            self._decide(cache, layer, asking, (tail[0], tail[1]))
        if last:
            raise PrefixFilled
        return out

    def _decide(
        self,
        cache: QuestionCache,
        layer: int,
        query: torch.Tensor,
        tail: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        """Measure attention of the question's rows, for the next layer and for what is held."""
        scorer, plan = self._scorer(layer, cache.prompt_length), self.narrowed.layers[layer]
        pieces = cache.pieces(layer, prompt=True)
        for request in self._asked_of(layer, of_question=True):
            self._seen[request] = scorer.weigh_pieces(request, query, tail, pieces)
        if plan.eviction is None or not plan.eviction.request.of_question:
            return
        request, (exact,) = plan.eviction.request, pieces
        seen = scorer.weigh_pieces(request, query, tail, pieces)
        measured = scorer.measured(request, seen)
        if request.queries:
            named = scorer.named(request) - len(scorer.present)
            measured = replace(measured, queries=query[0][:, named])
        if isinstance(exact.held, PlainKV):
            stored, rows = evicted(plan.eviction, exact.held.keys, exact.held.values, measured)
            cache.own[layer] = make_piece(stored, plan.segment, rows)


class _LayerHook:
    def __init__(self, attachment: Attachment, number: int) -> None:
        self.attachment, self.number = attachment, number

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.attachment._before_layer(self.number, args, kwargs)


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Run attention for an attached text stack; registered with transformers as `tempeval`.

    Args:
        module: the layer's attention module.
        query: `[B, h, S, d]`, after rotary.
        key: `[B, h_kv, T, d]`, after the cache's update.
        value: `[B, h_kv, T, d]`.
        attention_mask: always None (the text model's pre-hook removes it).
        scaling: factor on the scores; `d ** -0.5` when None.
        kwargs: ignored.

    Returns:
        `[B, S, h, d]` and None.

    Raises:
        UnsupportedModel: if the module is not attached.
    """
    attachment = _ATTACHED.get(module)
    if attachment is None:
        raise UnsupportedModel(
            f"attention implementation {ATTENTION_NAME!r} is set on a module without attachment"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = attachment.attend(int(cast("int", module.layer_idx)), query, key, value, scale)
    return out.transpose(1, 2).contiguous(), None


def no_mask(*args: Any, **kwargs: Any) -> None:
    """Build no mask: the attention function knows causality and padding itself."""
