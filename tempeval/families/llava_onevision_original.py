"""Load `lmms-lab/llava-onevision-qwen2-*-ov` as it was released into transformers' class.

Source: github.com/LLaVA-VL/LLaVA-NeXT, `llava/model/llava_arch.py` and
`llava/model/multimodal_encoder/siglip_encoder.py` (commit df17966), read for facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.errors import UnsupportedModel
from tempeval.families.generation import check_generation_file, read_generation
from tempeval.families.llava_onevision_config import build_config
from tempeval.families.llava_onevision_keys import checked_weights, renamed
from tempeval.families.llava_onevision_prompt import build_processor, load_tokenizer
from tempeval.families.loading import Checkpoint, check_text_stack, torch_device, torch_dtype
from tempeval.families.quantization import refuse_quantized
from tempeval.families.revision import check_no_adapter, revision_of
from tempeval.shards import read_shards

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from tempeval.families.base import LoadOptions


def load_original(folder: Path, config: Mapping[str, Any], options: LoadOptions) -> Checkpoint:
    """Load weights by a key map, and make the processor that the folder lacks.

    The vision tower is the copy inside the checkpoint. The official code deletes SigLIP's last
    layer and takes the output of the last one left, before the final norm: transformers' features
    of layer -1 in a tower of one layer less.

    Args:
        folder: checkpoint folder.
        config: its `config.json`.
        options: device and dtype.

    Raises:
        UnsupportedModel: if files or weights are missing, unexpected or of another kind.
        InvalidSetting: if the dtype or device is not accepted.
    """
    dtype, device = torch_dtype(options), torch_device(options)
    check_no_adapter(folder)
    refuse_quantized(str(folder), config, "the original layout")
    check_generation_file(folder)
    tokenizer = load_tokenizer(folder, config)
    built = build_config(config, tokenizer)
    weights = checked_weights(built, renamed(read_shards(folder)), str(folder))
    if isinstance(dtype, str):  # auto: as it was saved
        dtype = weights["model.language_model.embed_tokens.weight"].dtype
    model = _load_model(folder, built, weights, dtype, device)
    read_generation(folder, model, tokenizer)
    check_text_stack(str(folder), model.config.get_text_config())
    processor = build_processor(built, tokenizer)
    return Checkpoint(model.eval(), processor, built.model_type, revision_of(folder))


def _load_model(
    folder: Path,
    config: Any,
    weights: dict[str, torch.Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    import transformers

    where = {} if device.type == "cpu" else {"device_map": {"": str(device)}}
    try:
        model, report = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
            **where,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UnsupportedModel(f"cannot load {str(folder)!r}: {error}") from error
    wrong = {
        what: sorted(map(str, report[what]))
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if report[what]
    }
    if wrong:  # not seen: `checked_weights` compares names and shapes before
        raise UnsupportedModel(f"transformers took the weights of {str(folder)!r} with {wrong}")
    return model
