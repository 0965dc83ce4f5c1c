"""Names to methods: strings only, so that listing them imports no tensor library.

A chain is written `a+b`; settings go in brackets, as in
`pas[unit=position;offsets=0/0.25]+temporal_exit`.
"""

from __future__ import annotations

import importlib
import re
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.methods.base import Chain, Method


@dataclass(frozen=True)
class MethodEntry:
    """One line of the method table.

    Attributes:
        name: what the user writes.
        path: `module:Class`.
        summary: one line for `tempeval list methods` and the README.
        paper: citation with a number.
        stages: the stages it changes.
        code: what it was written from: official code @ commit where there is any.
        trained: whether its paper trains the model with it; None for a probe.
        families: where it works; elsewhere it is refused by name.
    """

    name: str
    path: str
    summary: str
    paper: str
    stages: tuple[str, ...]
    code: str
    trained: bool | None = False
    families: tuple[str, ...] = ("qwen_vl", "llava_onevision", "video_llava")


#: A vision tower that attends across frames, so that it matters which are encoded together.
_ACROSS_FRAMES = ("qwen_vl", "video_llava (original layout)")

BASELINE = "baseline"

METHODS: dict[str, MethodEntry] = {
    entry.name: entry
    for entry in (
        MethodEntry(
            "intp",
            "tempeval.methods.intp:INTP",
            "more frames than the tower and the context were made for: rearrange and rope_scale "
            "together, with static kv_quant where kv_bits is below 16",
            "INTP, arXiv 2409.12963",
            ("frames", "positions", "kv_cache"),
            "none public; its parts, as below",
            families=_ACROSS_FRAMES,
        ),
        MethodEntry(
            "kv_quant",
            "tempeval.methods.kv_quantization:KVQuant",
            "keys and values but the newest 128 are held in 2, 4 or 8 bits",
            "KIVI, arXiv 2402.02750; static: INTP, arXiv 2409.12963, Eq 3.7",
            ("kv_cache",),
            "jy-yuan/KIVI @ 876b4d2; static: none public",
        ),
        MethodEntry(
            "pas",
            "tempeval.methods.pas:PAS",
            "phase aggregated smoothing: query heads look from slightly shifted times",
            "Phase Aggregated Smoothing, arXiv 2511.10979",
            ("positions",),
            "paper; the public demo differs",
        ),
        MethodEntry(
            "pave",
            "tempeval.methods.pave:PAVE",
            "a trained patch adds what a side channel (audio, 3D, more frames) says to the visual "
            "tokens, and its LoRA to the text stack",
            "PAVE, arXiv 2503.19794",
            ("frames", "tokens"),
            "dragonlzm/PAVE",
            trained=True,
        ),
        MethodEntry(
            "rearrange",
            "tempeval.methods.rearrange:Rearrange",
            "the vision tower sees strided subsequences of the frames instead of short pieces",
            "INTP, arXiv 2409.12963",
            ("frames",),
            "none public; tower: PKU-YuanGroup/Video-LLaVA @ 984e65b",
            families=_ACROSS_FRAMES,
        ),
        MethodEntry(
            "reverse_order",
            "tempeval.methods.order_probes:ReverseOrder",
            "probe: frames N..1, each with its own temporal id",
            "Causality Matters, Reverse Order, arXiv 2508.11576",
            ("tokens", "positions"),
            "paper",
            trained=None,
        ),
        MethodEntry(
            "reverse_pe",
            "tempeval.methods.order_probes:ReversePE",
            "probe: frames 1..N with the temporal ids N..1",
            "Causality Matters, Reverse PE, arXiv 2508.11576",
            ("positions",),
            "paper",
            trained=None,
        ),
        MethodEntry(
            "rope_scale",
            "tempeval.methods.rope_scale:RopeScale",
            "rotary frequencies for more positions than the model was trained with: ntk, linear "
            "or both",
            "INTP, arXiv 2409.12963, Eq 3.5 and 3.6",
            ("positions",),
            "none public",
        ),
        MethodEntry(
            "slowfast",
            "tempeval.methods.slowfast:SlowFast",
            "few frames with all their tokens, then all frames pooled to few tokens each",
            "SlowFast-LLaVA, arXiv 2407.15841",
            ("frames", "tokens"),
            "apple/ml-slowfast-llava @ 6551895",
        ),
        MethodEntry(
            "staged_sparse",
            "tempeval.methods.staged_sparse:StagedSparse",
            "questions see the last frame only (1), frames see no earlier frame (2), frames leave "
            "(3), in part of the depth; strategies=2 unless set",
            "Causality Matters, strategies (1) to (3), arXiv 2508.11576",
            ("attention", "prune"),
            "paper",
        ),
        MethodEntry(
            "temporal_exit",
            "tempeval.methods.temporal_exit:TemporalExit",
            "frame tokens leave the model after 20/28 of its depth",
            "Causality Matters, strategy (3), arXiv 2508.11576",
            ("prune",),
            "paper",
        ),
        MethodEntry(
            "vrope",
            "tempeval.methods.vrope:VRoPE",
            "each rotary channel measures a token's place in its frame from one of four corners",
            "VRoPE, arXiv 2502.11664",
            ("positions",),
            "johncaged/VRoPE @ 6a7adbc",
            trained=True,
        ),
    )
}


_ITEM = re.compile(r"(?P<name>[A-Za-z0-9_]+)(?:\[(?P<settings>[^\[\]]*)\])?")


def method_names() -> list[str]:
    """Return every name a chain may use, `baseline` first."""
    return [BASELINE, *sorted(METHODS)]


def method_class(name: str) -> type[Method]:
    """Import the class of a method.

    Raises:
        UnknownName: if there is no such method.
    """
    if name not in METHODS:
        raise UnknownName("method", name, method_names())
    module, attribute = METHODS[name].path.split(":")
    return typing.cast("type[Method]", getattr(importlib.import_module(module), attribute))


def parse_chain(text: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> Chain:
    """Read a chain such as `pas[unit=position]+temporal_exit`.

    Args:
        text: methods joined by `+`; settings in brackets, separated by `;`, tuples by `/`.
        settings: more settings by method name; they may not repeat one given in brackets.

    Returns:
        The chain; `baseline` gives the empty one.

    Raises:
        UnknownName: for a method or a setting that does not exist.
        InvalidSetting: for a value that cannot be read, or a malformed chain.
        ConflictingMethods: for two methods that modify the same thing.
    """
    from tempeval.methods.base import Chain

    extra = {name: dict(values) for name, values in (settings or {}).items()}
    methods = []
    items = _split(text)
    for name, given in items:
        if name == BASELINE:
            if len(items) > 1 or given:
                raise InvalidSetting(
                    f"method {text!r}: 'baseline' stands alone and has no settings; remove it"
                )
            continue
        more = extra.pop(name, {})
        if twice := sorted(set(given) & set(more)):
            raise InvalidSetting(f"{name}.{twice[0]} is set twice, in {text!r} and as an argument")
        methods.append(build_method(name, {**given, **more}))
    if extra:
        unused = sorted(extra)[0]
        raise InvalidSetting(f"settings for {unused!r} given, but it is not part of {text!r}")
    return Chain(methods)


def chain_names(text: str) -> list[str]:
    """Return the names in a chain as they are written, none for `baseline`; settings unread.

    Raises:
        InvalidSetting: for a malformed chain.
    """
    return [name for name, _ in _split(text) if name != BASELINE]


def build_method(name: str, settings: Mapping[str, Any]) -> Method:
    """Build one method from strings or values.

    Raises:
        UnknownName: for a setting that the method does not have.
        InvalidSetting: for a value that cannot be read.
    """
    return read_settings(name, method_class(name), settings)


def _split(text: str) -> list[tuple[str, dict[str, str]]]:
    items: list[tuple[str, dict[str, str]]] = []
    for part in text.strip().split("+"):
        match = _ITEM.fullmatch(part.strip())
        if not match:
            raise InvalidSetting(
                f"method {text!r} is not of the form 'a+b' or 'a[setting=value;other=1/2]+b'"
            )
        given: dict[str, str] = {}
        for pair in filter(None, (match["settings"] or "").split(";")):
            key, sep, value = pair.partition("=")
            if not sep:
                raise InvalidSetting(f"method {text!r}: setting {pair!r} is not 'name=value'")
            if key.strip() in given:
                raise InvalidSetting(
                    f"{match['name']}.{key.strip()} is set twice in {text!r}; leave one of them out"
                )
            given[key.strip()] = value.strip()
        items.append((match["name"], given))
    return items
