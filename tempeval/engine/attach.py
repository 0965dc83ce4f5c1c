"""The only code that attaches to a model; it restores everything exactly, also after an exception.

Three attachments: a pre-hook on the text model (which tokens, which cache), a pre-hook per decoder
layer (rotary embedding, rows that `prune` ended), and one registered attention function, for the
text stack only. A chain with low-rank changes has a fourth, on linear maps (see `low_rank`). The
vision tower is untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from tempeval.engine.cache import PrefixCache, TailCache
from tempeval.engine.cache_keyword import given_cache
from tempeval.engine.low_rank import apply_low_rank
from tempeval.engine.query_shift import shift_queries
from tempeval.engine.rows import attend_prefix
from tempeval.engine.tail import attend_after_prefix
from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from tempeval.engine.plan import EnginePlan
    from tempeval.families.base import Family
    from tempeval.stages import RotaryPlan

ATTENTION_NAME = "tempeval"


class PrefixFilled(Exception):
    """Ends a prefix's forward once the last layer's keys and values are there.

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

    Raises:
        UnsupportedModel: on entering, if the model is attached already or a layer cannot be.
        InvalidSetting: on entering, if low-rank changes name a linear map that is not there.
    """

    def __init__(self, family: Family, plan: EnginePlan) -> None:
        self.family = family
        self.plan = plan
        self.kernels: set[str] = set()
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
        plan = self.plan.layers[number]
        if isinstance(self._cache, PrefixCache) and number:
            hidden = self._drop_rows(hidden, number)
        cos_sin = self._embedding(plan.rotary, hidden)
        if isinstance(self._cache, PrefixCache) and plan.rows is not None:
            cos_sin = (cos_sin[0][:, plan.rows], cos_sin[1][:, plan.rows])
            if number == 0:
                hidden = hidden[:, plan.rows]
        kwargs = {**kwargs, "position_embeddings": cos_sin}
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def _drop_rows(self, hidden: torch.Tensor, number: int) -> torch.Tensor:
        rows, before = self.plan.layers[number].rows, self.plan.layers[number - 1].rows
        if rows is None or (before is not None and len(before) == len(rows)):
            return hidden
        if before is None:
            return hidden[:, rows]
        # Rows are sorted and a subset of those before: find them among what is left.
        return hidden[:, torch.searchsorted(before, rows)]

    def _embedding(
        self, rotary: RotaryPlan, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        key = id(rotary)
        if key not in self._embeddings:
            if self._index is None:
                raise UnsupportedModel("a decoder layer ran outside its text model")
            angles = rotary.angles(self._index).to(hidden.device)
            angles = torch.cat([angles, angles], dim=-1)
            scale = rotary.attention_scaling
            self._embeddings[key] = (
                (angles.cos() * scale).to(hidden.dtype),
                (angles.sin() * scale).to(hidden.dtype),
            )
        return self._embeddings[key]

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
        """
        if isinstance(self._cache, TailCache):
            out, kernel = attend_after_prefix(
                query,
                key,
                value,
                self._cache,
                layer,
                self.plan,
                padding=self._padding,
                starts=self._starts,
                scale=scale,
            )
            self.kernels.add(kernel)
            return out
        plan = self.plan.layers[layer]
        if plan.codec is not None and self._cache is not None:
            stored = plan.codec.encode(key, value)
            self._cache.hold(layer, stored, keep_exact=self.plan.exact_prefill)
        if layer == len(self.plan.layers) - 1:
            raise PrefixFilled
        rotary = plan.rotary
        if rotary.query_shift is not None and rotary.shift_scale is not None:
            scales = rotary.shift_scale
            query = shift_queries(query, rotary, scales if plan.rows is None else scales[plan.rows])
        out, kernel = attend_prefix(query, key, value, plan, scale=scale)
        self.kernels.add(kernel)
        return out


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
