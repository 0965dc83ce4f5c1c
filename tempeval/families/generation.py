"""What a checkpoint's generation settings may say: what of it is obeyed, set aside or refused.

transformers fills every generation setting that a call leaves open from the checkpoint's
`generation_config.json`. Some of these change what answers say, and lmms-eval's own wrappers obey
them; others change the shape of what comes back or which loop runs, for which an engine that feeds
batches on a shared prefix has to decide itself.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)

FILE = "generation_config.json"

#: Obeyed, with the value that changes nothing. `stop_strings` joins the stop strings of a request.
OBEYED: dict[str, Any] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "renormalize_logits": False,
    "min_length": 0,
    "min_new_tokens": 0,
    "stop_strings": None,
}
#: Obeyed where answers are drawn, with what transformers takes where nothing is said.
SAMPLING: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
#: Obeyed where a request searches with beams.
BEAMS: dict[str, Any] = {"length_penalty": 1.0, "early_stopping": False}
#: The request, the tokenizer or the engine decides: how long, with how many rows, from which loop
#: and cache, and what is returned. Of a checkpoint they are set aside.
DECIDED: dict[str, Any] = {
    **dict.fromkeys(("max_length", "max_new_tokens", "do_sample", "num_beams"), None),
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    **dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"), None),
    "decoder_start_token_id": None,
    "use_cache": True,
    "cache_implementation": None,
    "cache_config": None,
    "max_cache_len": None,
    "prefill_chunk_size": None,
    "low_memory": None,
    "return_dict_in_generate": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
    # These only guess tokens ahead and have the model check them.
    "use_mtp": None,
    "speculation_type": None,
    "prompt_lookup_num_tokens": None,
    "max_matching_ngram_size": None,
    "is_assistant": False,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "assistant_early_exit": None,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
    "assistant_ensemble_weight": None,
    "compile_config": None,
    "disable_compile": False,
    "continuous_batching_config": None,
    # Would hide scores that are not numbers, which fail a sample.
    "remove_invalid_values": False,
    "transformers_version": None,
    "_from_model_config": None,
}
#: Would change what answers say in a way that this engine does not follow.
REFUSED: dict[str, Any] = {
    "guidance_scale": 1.0,
    "watermarking_config": None,
    "token_healing": False,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "penalty_alpha": 0.0,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "max_time": None,
    "custom_generate": None,
}
KNOWN = {**OBEYED, **SAMPLING, **BEAMS, **DECIDED, **REFUSED}


def is_neutral(name: str, value: Any) -> bool:
    """Return True if a setting of this value changes nothing, as far as the engine decides."""
    if value is None or value is False or value == [] or value == {}:
        return True
    return name in KNOWN and bool(value == KNOWN[name])


def check_generation(config: Mapping[str, Any], source: str) -> None:
    """Refuse generation settings of a checkpoint that would change answers and are not followed.

    Settings that the installed transformers would obey and that are not known here count too.

    Args:
        config: by name, as in `generation_config.json`.
        source: what to name in errors.

    Raises:
        UnsupportedModel: naming setting and value.
    """
    for name, value in config.items():
        if is_neutral(name, value):
            continue
        if name in REFUSED:
            raise UnsupportedModel(
                f"{source} sets {name}={value!r}, which tempeval does not do; answers would differ "
                f"from what it asks for. Remove {name} there, or set it to null"
            )
        if name not in KNOWN and _of_transformers(name):
            raise UnsupportedModel(
                f"{source} sets {name}={value!r}, a generation setting of the installed "
                f"transformers that this version of tempeval does not know; set it to null, or "
                f"upgrade tempeval"
            )


def check_generation_file(folder: Path) -> None:
    """Check the generation settings of a checkpoint folder, if it has any, before weights load.

    Raises:
        UnsupportedModel: if the file cannot be read, or see `check_generation`.
    """
    path = folder / FILE
    if not path.is_file():
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModel(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UnsupportedModel(f"{path} is not a mapping of generation settings")
    check_generation(config, str(path))
    if idle := sorted(name for name in config if name not in KNOWN):
        _LOG.warning("%s: nothing reads %s", path, ", ".join(idle))


def read_generation(folder: Path, model: Any, tokenizer: Any) -> None:
    """Give a model that was loaded from a state dict the generation settings of its folder.

    Raises:
        UnsupportedModel: if they cannot be read.
    """
    import transformers

    if (folder / FILE).is_file():
        try:
            model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise UnsupportedModel(f"{folder / FILE} cannot be read: {error}") from error
    for name in ("eos_token_id", "pad_token_id"):
        if getattr(model.generation_config, name) is None:
            setattr(model.generation_config, name, getattr(tokenizer, name))


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end an answer: the checkpoint's own and the tokenizer's end of sequence.

    lmms-eval's own wrappers stop at the tokenizer's, transformers at the checkpoint's.
    """
    found: list[int] = []
    for ids in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        for number in ids if isinstance(ids, (list, tuple)) else (ids,):
            if number is not None and int(number) not in found:
                found.append(int(number))
    return found


def _of_transformers(name: str) -> bool:
    import transformers

    return hasattr(transformers.GenerationConfig(), name)
