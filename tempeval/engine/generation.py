"""The generation settings that take effect: a request's, the checkpoint's, the engine's own."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.families.generation import (
    BEAMS,
    DECIDED,
    KNOWN,
    OBEYED,
    REFUSED,
    SAMPLING,
    check_generation,
    end_ids,
    is_neutral,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tempeval.families.base import Family

#: lmms-eval's generation keys that are not transformers'; those that no model here reads.
_HOST_KEYS = frozenset({"until", "max_gen_toks"})
_IDLE_KEYS = frozenset({"image_aspect_ratio", "visual_cot", "max_agentic_steps"})
#: What a request may set, besides `_HOST_KEYS`.
_ASKED = frozenset({*OBEYED, *SAMPLING, *BEAMS, "do_sample", "max_new_tokens", "num_beams"})
#: Settings that look at more of the prompt than single tokens, and so at a batch's padding.
_ALONE = (
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "sequence_bias",
    "min_length",
)
DEFAULT_NEW_TOKENS = 128
#: At and beyond these, sampling gives the likeliest token nearly always.
_COLD = {"temperature": 0.01, "top_p": 0.01}


@dataclass(frozen=True)
class Generation:
    """What takes effect for requests with the same generation arguments.

    Attributes:
        arguments: of transformers' `generate`, for a model without settings of its own.
        stops: strings that end an answer and are cut off, with what follows.
        end_ids: token ids that end one.
        pad_id: what follows an answer that ended before others of its batch.
        idle: settings of the checkpoint that were set aside.
        warnings: what a user would not expect.
    """

    arguments: Mapping[str, Any]
    stops: tuple[str, ...]
    end_ids: tuple[int, ...]
    pad_id: int
    idle: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def samples(self) -> bool:
        """Whether answers are drawn at random."""
        return bool(self.arguments["do_sample"])

    @property
    def alone(self) -> bool:
        """Whether questions have to be answered one by one, because a setting sees padding."""
        return any(name in self.arguments for name in _ALONE)

    def record(self) -> dict[str, Any]:
        """Return what took effect as JSON values, for a run's record."""
        found: dict[str, Any] = {
            **self.arguments,
            "eos_token_id": list(self.end_ids),
            "pad_token_id": self.pad_id,
            "until": list(self.stops),
        }
        if self.idle:
            found["not_used"] = dict(self.idle)
        if self.warnings:
            found["warnings"] = list(self.warnings)
        return found


def draws(gen_kwargs: Mapping[str, Any]) -> bool:
    """Say whether lmms-eval's generation arguments ask for sampling.

    Only where `do_sample` is true or `temperature > 0`, as in lmms-eval's own wrappers.
    """
    return bool(gen_kwargs.get("do_sample") or (gen_kwargs.get("temperature") or 0.0) > 0)


def most_new_tokens(gen_kwargs: Mapping[str, Any]) -> int:
    """Return the most tokens that a request's answer may have."""
    return int(
        gen_kwargs.get("max_new_tokens") or gen_kwargs.get("max_gen_toks") or DEFAULT_NEW_TOKENS
    )


def generation_of(family: Family, gen_kwargs: Mapping[str, Any]) -> Generation:
    """Resolve lmms-eval's generation arguments against a checkpoint's own settings.

    Greedy with one beam unless the request asks for more, as in lmms-eval's own wrappers. What the
    request does not name, but changes what answers say, is the checkpoint's (penalties, forbidden
    tokens, and where answers are drawn the temperature and which tokens may be drawn); what
    concerns length, rows, loops, caches and returned values is not.

    Args:
        family: the loaded model.
        gen_kwargs: of the request.

    Raises:
        UnknownName: for an argument that there is not.
        InvalidSetting: for one that is not accepted, or of another type.
        UnsupportedModel: for settings of the checkpoint that are not followed.
    """
    check_asked(gen_kwargs)
    own = _own_settings(family)
    check_generation(own, f"the generation settings of {family.pretrained!r}")
    asked = {k: v for k, v in gen_kwargs.items() if k in _ASKED and v is not None}
    arguments: dict[str, Any] = {
        "do_sample": draws(gen_kwargs),
        "max_new_tokens": most_new_tokens(gen_kwargs),
        "num_beams": int(asked.get("num_beams") or 1),
    }
    read = [name for name in OBEYED if name != "stop_strings"]
    warnings = []
    if arguments["do_sample"]:
        if not (asked.get("temperature") or 0.0) > 0:
            asked.pop("temperature", None)
        drawing = {name: asked.get(name, own.get(name, SAMPLING[name])) for name in SAMPLING}
        drawing = {k: v for k, v in drawing.items() if v is not None}
        if cold := _cold(drawing):
            warnings.append(_cold_warning(cold, drawing[cold], asked))
        neutral = {k for k in drawing if k not in ("temperature", "top_k", "top_p")}
        arguments |= {
            k: v for k, v in drawing.items() if k not in neutral or v not in (0.0, SAMPLING[k])
        }
    if arguments["num_beams"] > 1:
        read += BEAMS
    for name in read:
        value = asked.get(name, own.get(name))
        if not is_neutral(name, value):
            arguments[name] = value
    stops = _strings("until", gen_kwargs.get("until"))
    for source in (gen_kwargs, own):
        stops += _strings("stop_strings", source.get("stop_strings"))
    stops = tuple(dict.fromkeys(stop for stop in stops if stop))
    ends = end_ids(family.model, family.tokenizer)
    # The text of an answer is without special tokens, so that a stop among them would not be met.
    added = family.tokenizer.get_added_vocab()
    ends += [added[stop] for stop in stops if stop in added and added[stop] not in ends]
    pad = family.tokenizer.pad_token_id
    return Generation(
        arguments=arguments,
        stops=stops,
        end_ids=tuple(ends),
        pad_id=int(pad if pad is not None else ends[0] if ends else 0),
        idle=_set_aside(own, arguments),
        warnings=tuple(warnings),
    )


def recorded(found: Mapping[str, Generation]) -> dict[str, Any]:
    """Return what took effect in a run as JSON values: what tasks share, and `by_task` the rest.

    Args:
        found: by name of the task; those that generate.
    """
    records = {task: settings.record() for task, settings in found.items()}
    first = next(iter(records.values()), {})
    shared = {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in records.values())
    }
    rest = {
        task: {name: value for name, value in record.items() if name not in shared}
        for task, record in records.items()
    }
    return shared | ({"by_task": rest} if any(rest.values()) else {})


@contextmanager
def without_own_settings(model: Any) -> Iterator[None]:
    """Let `generate` see what it is given and nothing of the checkpoint's own settings."""
    import transformers

    own = model.generation_config
    model.generation_config = transformers.GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _own_settings(family: Family) -> dict[str, Any]:
    """Return what the checkpoint's settings say, without what is not set."""
    found: dict[str, Any] = family.model.generation_config.to_dict()
    return {name: value for name, value in found.items() if value is not None}


def check_asked(gen_kwargs: Mapping[str, Any]) -> None:
    """Refuse generation arguments that there are not, or that are not accepted.

    Raises:
        UnknownName: for the name of one that there is not.
        InvalidSetting: for one that is not accepted, with what to do instead.
    """
    for name, value in gen_kwargs.items():
        if name in _HOST_KEYS or name in _IDLE_KEYS or name in _ASKED:
            continue
        if name not in KNOWN:
            raise UnknownName("generation argument", name, {*_ASKED, *_HOST_KEYS})
        if name in REFUSED or name in DECIDED:
            if value is None or value == KNOWN[name]:
                continue
            instead = _INSTEAD.get(name, _LEAVE)
            raise InvalidSetting(f"generation argument {name}={value!r} is not accepted; {instead}")


_LEAVE = "leave it out: answers, caches and returned values have one form here"
_INSTEAD = {
    "max_length": "it counts the prompt too; give max_new_tokens",
    "eos_token_id": "answers end where the checkpoint and its tokenizer say; give until for more",
    "num_return_sequences": "a question has one answer; repeat the run with other seeds",
}


def _strings(name: str, given: Any) -> tuple[str, ...]:
    found = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(text, str) for text in found):
        raise InvalidSetting(f"{name}={given!r} is not a string or a list of strings")
    return found


def _cold(drawing: Mapping[str, Any]) -> str | None:
    """Return the setting that leaves sampling nothing to choose from, if there is one."""
    if drawing.get("top_k") == 1:
        return "top_k"
    return next((name for name, most in _COLD.items() if drawing.get(name, 1.0) <= most), None)


def _cold_warning(name: str, value: Any, asked: Mapping[str, Any]) -> str:
    whose = "the request's" if name in asked else "the checkpoint's"
    neutral = {"top_k": 0}.get(name, 1.0)
    return (
        f"sampling was asked for, but {whose} {name}={value} leaves the likeliest token alone: "
        f"answers will not vary. Give {name}={neutral} among the generation arguments to change it"
    )


def _set_aside(own: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a checkpoint's settings changes nothing, though it says something."""
    names = {*DECIDED, *SAMPLING, *BEAMS}
    quiet = {"eos_token_id", "pad_token_id", "bos_token_id", "transformers_version"}
    quiet |= {"_from_model_config", "max_new_tokens", "max_length", "do_sample"}
    return {
        name: value
        for name, value in own.items()
        if name in names - quiet and not is_neutral(name, value) and arguments.get(name) != value
    }
