"""Names and references to methods: strings only, so that listing them imports no tensor library.

A chain is written `a+b`; settings go in brackets, as in
`pas[unit=position;offsets=0/0.25]+temporal_exit`. A method of others is written
`path/file.py:Class` or `package.module:Class`, or by the name of its entry point.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tempeval.errors import BrokenPlugin, InvalidSetting, TempevalError, UnknownName
from tempeval.extensions import Registry, is_reference, load_object
from tempeval.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tempeval.extensions import Extension
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

#: Entry-point group of methods in other packages.
GROUP = "tempeval.methods"
LIST_HINT = "List them with: tempeval list methods"
#: What a method may be called, so that it can be written in a chain and be a folder's name.
_NAME = re.compile(r"[a-z][a-z0-9_]*")

_OWN = (
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


def _read_entry(named: Extension, found: object) -> MethodEntry:
    cls = _checked(found)
    if cls.name != named.name:
        raise BrokenPlugin(
            named.path,
            f"the entry point is called {named.name!r} and the method {cls.name!r}; give both one "
            "name",
        )
    return entry_of(cls, named.path)


METHODS: Registry[MethodEntry] = Registry("method", GROUP, _OWN, _read_entry, LIST_HINT)

#: Classes that were named by file or module in this process, by the name that they then have, and
#: the reference that they were named by.
_REFERRED: dict[str, tuple[type[Method], str]] = {}


def method_names() -> list[str]:
    """Return every name a chain may use, `baseline` first; those of other packages are unread."""
    return [BASELINE, *sorted(METHODS.names())]


def method_class(name: str) -> type[Method]:
    """Import the class of a method.

    Args:
        name: of a method, `path/file.py:Class`, or `package.module:Class`. A class that was so
            referred to has a name of its own from then on, in this process.

    Raises:
        UnknownName: if there is no such method.
        BrokenPlugin: if it is another's and cannot be used.
    """
    if is_reference(name):
        return _referred(name)
    if name in _REFERRED:
        return _REFERRED[name][0]
    if name in METHODS:
        # What the table names is a method, or it has been refused.
        return typing.cast("type[Method]", load_object(METHODS[name].path))
    raise UnknownName("method", name, [*method_names(), *_REFERRED])


def load_method(text: str, **settings: Any) -> Method:
    """Build one method.

    Args:
        text: `name`, `path/file.py:Class` or `package.module:Class`; settings may follow in
            brackets.
        settings: more of its settings, by name.

    Raises:
        UnknownName: for a method or a setting that does not exist.
        BrokenPlugin: for a method of others that cannot be used.
        InvalidSetting: for a value that cannot be read, or a text that is not one method.
    """
    items = _split(text)
    if len(items) != 1 or items[0][0] == BASELINE:
        raise InvalidSetting(f"{text!r} is not one method; accepted: a name or a reference")
    name, given = items[0]
    if twice := sorted(set(given) & set(settings)):
        raise InvalidSetting(f"{name}.{twice[0]} is set twice, in {text!r} and as an argument")
    return build_method(name, {**given, **settings})


def entry_of(cls: type[Method], path: str) -> MethodEntry:
    """Describe a method of others, as far as its class says it.

    Args:
        cls: the method.
        path: how it is written, or `module:Class`.
    """
    lines = (inspect.getdoc(cls) or "").strip().splitlines()
    summary = lines[0].rstrip(".") if lines and "__doc__" in vars(cls) else "(no docstring)"
    if summary.startswith(f"{cls.__name__}("):  # what a dataclass says of itself
        summary = "(no docstring)"
    return MethodEntry(cls.name, path, summary, cls.paper, _overridden(cls), path, families=())


def parse_chain(text: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> Chain:
    """Read a chain such as `pas[unit=position]+path/file.py:Fade`.

    Args:
        text: methods joined by `+`; settings in brackets, separated by `;`, tuples by `/`.
        settings: more settings by method name; they may not repeat one given in brackets.

    Returns:
        The chain; `baseline` gives the empty one.

    Raises:
        UnknownName: for a method or a setting that does not exist.
        BrokenPlugin: for a method of others that cannot be used.
        InvalidSetting: for a value that cannot be read, or a malformed chain.
        ConflictingMethods: for two methods that modify the same.
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
        called = method_class(name).name
        more = extra.pop(called, {})
        if twice := sorted(set(given) & set(more)):
            raise InvalidSetting(
                f"{called}.{twice[0]} is set twice, in {text!r} and as an argument"
            )
        methods.append(build_method(name, {**given, **more}))
    if extra:
        unused = sorted(extra)[0]
        raise InvalidSetting(f"settings for {unused!r} given, but it is not part of {text!r}")
    return Chain(methods)


def chain_names(text: str) -> list[str]:
    """Return the names of the methods of a chain, none for `baseline`; settings unread.

    What is written as a reference is loaded, and called by its own name.

    Raises:
        InvalidSetting: for a malformed chain.
        BrokenPlugin: for a method of others that cannot be used.
    """
    names = [name for name, _ in _split(text) if name != BASELINE]
    return [method_class(name).name if is_reference(name) else name for name in names]


def split_chains(text: str) -> list[str]:
    """Split chains at the commas that are in no brackets."""
    parts = re.split(r",(?![^\[]*\])", text)
    return [part.strip() for part in parts if part.strip()]


def spelling(chain: Chain) -> str:
    """Return how a chain is written so that another process reads it: with its references."""
    texts = []
    for method in chain.methods:
        spec, name = method.spec(), method.name
        cls, reference = _REFERRED.get(name, (None, name))
        texts.append(spec.replace(name, reference, 1) if cls is type(method) else spec)
    return "+".join(texts) or BASELINE


def check_names(chains: Sequence[Chain]) -> None:
    """Refuse chains in which one name stands for two methods.

    Raises:
        BrokenPlugin: naming the method.
    """
    found: dict[str, type[Method]] = {}
    for chain in chains:
        for method in chain.methods:
            if found.setdefault(method.name, type(method)) is not type(method):
                raise BrokenPlugin(
                    repr(method.name),
                    "two methods of one command have this name; write "
                    '`name: ClassVar[str] = "..."` in one of the classes',
                )


def build_method(name: str, settings: Mapping[str, Any]) -> Method:
    """Build one method from strings or values.

    Args:
        name: as for `method_class`.
        settings: by name.

    Raises:
        UnknownName: for a setting that the method does not have.
        InvalidSetting: for a value that cannot be read.
        BrokenPlugin: if making it raises anything else.
    """
    cls = method_class(name)
    try:
        return read_settings(cls.name, cls, settings)
    except TempevalError:
        raise
    except Exception as error:
        raise BrokenPlugin(
            f"{name!r}", f"with these settings it raises {type(error).__name__}: {error}"
        ) from error


def _referred(reference: str) -> type[Method]:
    """Load what a reference names, and give it its name in this process."""
    try:
        cls = _checked(load_object(reference))
        standing = _standing(cls.name)
        if standing is cls:
            return cls
        if standing is not None:
            raise BrokenPlugin(
                reference,
                f"it is called {cls.name!r}, as a method of {METHODS.package_of(cls.name)} is; "
                'write `name: ClassVar[str] = "..."` in the class to call it otherwise',
            )
    except BrokenPlugin as error:
        raise BrokenPlugin(f"method {reference!r}", error.reason) from error
    _REFERRED[cls.name] = (cls, reference)
    return cls


def _standing(name: str) -> object:
    """Return the class that the table has for a name, or None."""
    if name not in METHODS:
        return None
    try:
        return load_object(METHODS[name].path)
    except BrokenPlugin:  # one that cannot be used keeps its name from nobody
        return None


def _stages() -> dict[str, Callable[..., Any]]:
    """Return the functions of a method that the engine calls, by name."""
    from tempeval.methods.base import Method

    return {
        name: value
        for name, value in vars(Method).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def _overridden(cls: type[Method]) -> tuple[str, ...]:
    """Return the stages that a class has a function of its own for, in their order."""
    from tempeval.methods.base import STAGES, Method

    return tuple(name for name in STAGES if getattr(cls, name) is not getattr(Method, name))


def _checked(found: object) -> type[Method]:
    """Refuse what is no method, or one that could not be run or would be misread.

    Raises:
        BrokenPlugin: with the reason.
    """
    from tempeval.methods.base import STAGES, Method

    if not (isinstance(found, type) and issubclass(found, Method)) or found is Method:
        what = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise BrokenPlugin(
            str(found), f"{what} is not a method; subclass tempeval.Method and name the class"
        )
    named = found.__name__
    if not _NAME.fullmatch(found.name) or found.name == BASELINE:
        raise BrokenPlugin(
            named,
            f"it is called {found.name!r}; accepted: small letters, digits and _, not 'baseline'",
        )
    own = vars(found).get("__annotations__", {})
    settings = [key for key, hint in own.items() if "ClassVar" not in str(hint)]
    if settings and "__dataclass_params__" not in vars(found):
        raise BrokenPlugin(
            named,
            f"its settings ({', '.join(settings)}) would be ignored; write "
            "@dataclass(frozen=True) above the class",
        )
    try:
        hints = typing.get_type_hints(found)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise BrokenPlugin(
            named, f"the type of a setting cannot be read: {error}; import it outside TYPE_CHECKING"
        ) from error
    for field in fields(found):
        _check_hint(f"{named}.{field.name}", hints[field.name])
        if field.default_factory is not dataclasses.MISSING:
            raise BrokenPlugin(
                named, f"setting {field.name!r} has a default_factory; give a tuple as default"
            )
    for name, function in _stages().items():
        _check_signature(named, name, getattr(found, name), function)
    if all(getattr(found, key) is getattr(Method, key) for key in (*STAGES, "parts", "low_rank")):
        mine = [key for key, value in vars(found).items() if inspect.isfunction(value)]
        public = [key for key in mine if not key.startswith("_")]
        has = f", and has {', '.join(public)}" if public else ""
        raise BrokenPlugin(
            named, f"it changes nothing: it lacks all of the stages {', '.join(STAGES)}{has}"
        )
    return found


def _check_hint(label: str, hint: Any) -> None:
    """Refuse the type of a setting that cannot be read from a chain."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal or hint in (int, float, bool, str, type(None)):
        return
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        _check_hint(label, args[0])
        return
    if args and origin is not tuple and str(origin) in _UNIONS:
        for part in args:
            _check_hint(label, part)
        return
    raise BrokenPlugin(
        label,
        f"setting {label} is of type {hint}; accepted: int, float, bool, str, Literal, "
        "tuple[X, ...] of these, and `| None`",
    )


_UNIONS = ("typing.Union", "<class 'types.UnionType'>", "<class 'typing.Union'>")


def _check_signature(cls: str, name: str, function: Any, wanted: Callable[..., Any]) -> None:
    """Refuse a stage that cannot be called as the engine calls it."""
    expected = inspect.signature(wanted)
    if not inspect.isfunction(function):
        raise BrokenPlugin(cls, f"its {name} is a {type(function).__name__}, not a function")
    try:
        inspect.signature(function).bind(*expected.parameters)
    except TypeError as error:
        raise BrokenPlugin(
            cls,
            f"its {name} takes {inspect.signature(function)}, where {expected} is expected",
        ) from error


_ITEM = re.compile(
    r"(?P<name>[A-Za-z0-9_]+|[^\[\]]+:[A-Za-z_][A-Za-z0-9_]*)(?:\[(?P<settings>[^\[\]]*)\])?"
)


def _split(text: str) -> list[tuple[str, dict[str, str]]]:
    items: list[tuple[str, dict[str, str]]] = []
    for part in _items(text):
        match = _ITEM.fullmatch(part)
        if not match:
            place = re.sub(r"\[.*", "", part)
            if place.endswith(".py"):
                raise InvalidSetting(
                    f"method {text!r} names a file and no class; write {place}:Class"
                )
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


def _items(text: str) -> list[str]:
    """Split a chain at each `+` that is in no brackets and in no path."""
    found: list[str] = []
    for part in re.split(r"\+(?![^\[]*\])", text.strip()):
        # A path goes on until it names its class.
        if found and "/" in found[-1] and not _ITEM.fullmatch(found[-1].strip()):
            found[-1] += f"+{part}"
        else:
            found.append(part)
    return [part.strip() for part in found]
