"""A tiny random LLaVA-OneVision in the original layout, and its forward pass by hand.

Nothing here uses transformers' class or the package's key map: names and shapes are written out as
the published checkpoints have them, and the reference computes from them.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tempeval.families.llava_onevision import LlavaOnevision
    from tempeval.video.clip import Clip

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
#: 5 patches of 14 pixels and a rest of 6 that no patch covers, as 384 = 27 x 14 + 6.
TILE, PATCH = 76, 14
SIDE, POOLED = 5, 3
VISION = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": TILE,
    "patch_size": PATCH,
}
TEXT = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000.0,
}
TOWER = "model.vision_tower.vision_tower.vision_model."
LINES = (
    "system user assistant You are a helpful assistant. Please answer with the letter only.",
    "Which way does the red square move? Does the blue square move to the left or to the right?",
    "What happens first? What happens last? How fast is it? Is it faster or slower than before?",
)
ADDED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def original_config(**changes: Any) -> dict[str, Any]:
    """Return a `config.json` with the published one's names."""
    sizes = (1, 2, 3)
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        **TEXT,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "sliding_window": 131072,
        "max_window_layers": 28,
        "rope_scaling": None,
        "torch_dtype": "bfloat16",
        "mm_vision_tower": "google/tiny-siglip",
        "vision_config": VISION,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_spatial_pool_mode": "bilinear",
        "mm_resampler_type": None,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "mm_vision_select_layer": -2,
        "mm_hidden_size": VISION["hidden_size"],
        "image_aspect_ratio": "anyres_max_4",
        "image_grid_pinpoints": [[TILE * w, TILE * h] for w in sizes for h in sizes],
    } | changes


def original_shapes(
    text: dict[str, Any], vision: dict[str, Any], *, head: bool = True
) -> dict[str, tuple[int, ...]]:
    """Return every weight of a published checkpoint with its shape."""
    width, wide, heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    kv = width // heads * text["num_key_value_heads"]
    vocab, sight, mlp = text["vocab_size"], vision["hidden_size"], vision["intermediate_size"]
    patch, patches = vision["patch_size"], (vision["image_size"] // vision["patch_size"]) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, width),
        "model.norm.weight": (width,),
        "model.image_newline": (width,),
        "model.mm_projector.0.weight": (width, sight),
        "model.mm_projector.0.bias": (width,),
        "model.mm_projector.2.weight": (width, width),
        "model.mm_projector.2.bias": (width,),
        TOWER + "embeddings.patch_embedding.weight": (sight, 3, patch, patch),
        TOWER + "embeddings.patch_embedding.bias": (sight,),
        TOWER + "embeddings.position_embedding.weight": (patches, sight),
        TOWER + "post_layernorm.weight": (sight,),
        TOWER + "post_layernorm.bias": (sight,),
    }
    if head:
        shapes["lm_head.weight"] = (vocab, width)
    for number in range(text["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        for name, out, into in (
            ("self_attn.q_proj", width, width),
            ("self_attn.k_proj", kv, width),
            ("self_attn.v_proj", kv, width),
            ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", wide, width),
            ("mlp.up_proj", wide, width),
            ("mlp.down_proj", width, wide),
        ):
            shapes[f"{layer}{name}.weight"] = (out, into)
            if name[-6] in "qkv":
                shapes[f"{layer}{name}.bias"] = (out,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{name}.weight"] = (width,)
    for number in range(vision["num_hidden_layers"]):
        layer = f"{TOWER}encoder.layers.{number}."
        for name, out, into in (
            *((f"self_attn.{n}", sight, sight) for n in ("q_proj", "k_proj", "v_proj", "out_proj")),
            ("mlp.fc1", mlp, sight),
            ("mlp.fc2", sight, mlp),
        ):
            shapes[f"{layer}{name}.weight"] = (out, into)
            shapes[f"{layer}{name}.bias"] = (out,)
        for name in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}{name}.weight"] = shapes[f"{layer}{name}.bias"] = (sight,)
    return shapes


def original_state(seed: int = 0, *, head: bool = True) -> dict[str, torch.Tensor]:
    """Return random weights under the published names; every one of them changes the logits."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in original_shapes(TEXT, VISION, head=head).items():
        drawn = torch.randn(shape, generator=generator)
        if len(shape) >= 2 and "embed" not in name:
            drawn *= 1.5 / math.sqrt(math.prod(shape[1:]))
        elif "norm" in name and name.endswith("weight"):
            drawn = 1 + 0.2 * drawn
        elif name.endswith("bias"):
            drawn *= 0.2
        state[name] = drawn
    return state


def save_original_onevision(
    folder: Path,
    *,
    weights: str = "single",
    state: dict[str, torch.Tensor] | None = None,
    **config: Any,
) -> Path:
    """Save a folder as published: config, weights, and the files of a slow Qwen2 tokenizer.

    Args:
        folder: where to save.
        weights: `single` or `sharded` safetensors, or `bin`.
        state: other weights than `original_state()`.
        config: changes of `config.json`; None removes an entry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {k: v for k, v in original_config(**config).items() if v is not None or k not in config}
    (folder / "config.json").write_text(json.dumps(made))
    eos = {"eos_token_id": [base_vocabulary() + 2, base_vocabulary()], "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(eos))
    save_tokenizer(folder)
    save_weights(folder, original_state() if state is None else state, weights)
    return folder


def save_weights(folder: Path, state: dict[str, torch.Tensor], weights: str) -> None:
    """Write weights as one or two safetensors files, or as PyTorch's."""
    from safetensors.torch import save_file

    if weights == "bin":
        torch.save(state, folder / "pytorch_model.bin")
    elif weights == "single":
        save_file(state, folder / "model.safetensors")
    else:
        placed = {}
        for part in (1, 2):
            name = f"model-0000{part}-of-00002.safetensors"
            own = {k: v for n, (k, v) in enumerate(sorted(state.items())) if n % 2 == part - 1}
            save_file(own, folder / name)
            placed |= dict.fromkeys(own, name)
        index = {"metadata": {}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _trained() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(LINES, trainer)
    return bpe


def base_vocabulary() -> int:
    """Return the tokens before the added ones."""
    return int(_trained().get_vocab_size())


def save_tokenizer(folder: Path) -> None:
    """Write `vocab.json`, `merges.txt` and Qwen2's settings; placeholders are not among them."""
    bpe = _trained()
    bpe.model.save(str(folder))
    base = bpe.get_vocab_size()
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(base + n): {"content": token, "special": True, **flags}
            for n, token in enumerate(ADDED)
        },
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        # Qwen2's own, which knows no visuals: it must not be used.
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "added_tokens.json").write_text(
        json.dumps({token: base + n for n, token in enumerate(ADDED)})
    )
    special = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    special |= {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def load_original_onevision(folder: Path, **options: Any) -> LlavaOnevision:
    """Load a folder in float32 on the CPU."""
    from tempeval.families.base import LoadOptions
    from tempeval.families.llava_onevision import LlavaOnevision

    return LlavaOnevision.load(str(folder), LoadOptions(**{"dtype": "float32", **options}))


def square(clip: Clip) -> Clip:
    """Cut a clip of 84 px or more to the tower's size, so that its frames are not resized."""
    return replace(clip, frames=clip.frames[:, 4 : 4 + TILE, 6 : 6 + TILE].copy())


def encoded(text: str) -> list[int]:
    """Tokenize a chunk of prompt with a tokenizer made by hand."""
    from tokenizers import AddedToken

    bpe = _trained()
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ADDED])
    return list(bpe.encode(text, add_special_tokens=False).ids)


# The forward pass.

Vision = tuple[torch.Tensor, torch.Tensor]


def vision_reference(state: dict[str, torch.Tensor], frames: Any) -> Vision:
    """Return features and projected tokens, both pooled: `[T, 9, C]` and `[T, 9, D]`.

    Args:
        state: original weights.
        frames: uint8 `[T, TILE, TILE, 3]`, at the tower's size, so that nothing is resized.
    """
    pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = F.conv2d(
        pixels,
        state[TOWER + "embeddings.patch_embedding.weight"],
        state[TOWER + "embeddings.patch_embedding.bias"],
        stride=PATCH,
    )
    x = x.flatten(2).transpose(1, 2) + state[TOWER + "embeddings.position_embedding.weight"]
    heads = VISION["num_attention_heads"]
    for number in range(VISION["num_hidden_layers"]):
        layer = f"{TOWER}encoder.layers.{number}."
        normed = _layer_norm(state, layer + "layer_norm1", x)
        q, k, v = (
            _linear(state, f"{layer}self_attn.{n}_proj", normed).unflatten(-1, (heads, -1))
            for n in "qkv"
        )
        weight = torch.einsum("tqhd,tkhd->thqk", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("thqk,tkhd->tqhd", weight.softmax(-1), v).flatten(2)
        x = x + _linear(state, layer + "self_attn.out_proj", mixed)
        wide = _linear(state, layer + "mlp.fc1", _layer_norm(state, layer + "layer_norm2", x))
        x = x + _linear(state, layer + "mlp.fc2", F.gelu(wide, approximate="tanh"))
    projected = _linear(state, "model.mm_projector.0", x)
    projected = _linear(state, "model.mm_projector.2", F.gelu(projected))
    return _pool(x), _pool(projected)


def video_tokens(state: dict[str, torch.Tensor], tokens: torch.Tensor, newline: str) -> Any:
    """Lay `[T, 9, D]` out with newline tokens: `grid` after each row, `one_token` at the end."""
    token = state["model.image_newline"]
    if newline == "one_token":
        return torch.cat([tokens.flatten(0, 1), token[None]])
    rows = tokens.unflatten(1, (POOLED, POOLED))
    ends = token.expand(*rows.shape[:2], 1, -1)
    return torch.cat([rows, ends], dim=2).flatten(0, 2)


def text_reference(state: dict[str, torch.Tensor], parts: Sequence[Any]) -> torch.Tensor:
    """Return logits `[N, V]` of a prompt in parts: lists of ids, and embeddings `[n, D]`."""
    table = state["model.embed_tokens.weight"]
    x = torch.cat([table[torch.tensor(p)] if isinstance(p, list) else p for p in parts])
    heads, kv = TEXT["num_attention_heads"], TEXT["num_key_value_heads"]
    turned = _rotation(len(x), TEXT["hidden_size"] // heads)
    hidden = torch.full((len(x), len(x)), -torch.inf).triu(1)
    for number in range(TEXT["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        normed = _rms(state, layer + "input_layernorm", x)
        q = turned(_linear(state, layer + "self_attn.q_proj", normed).unflatten(-1, (heads, -1)))
        k = turned(_linear(state, layer + "self_attn.k_proj", normed).unflatten(-1, (kv, -1)))
        v = _linear(state, layer + "self_attn.v_proj", normed).unflatten(-1, (kv, -1))
        k, v = (t.repeat_interleave(heads // kv, dim=1) for t in (k, v))
        weight = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1]) + hidden
        mixed = torch.einsum("hqk,khd->qhd", weight.softmax(-1), v).flatten(1)
        x = x + _linear(state, layer + "self_attn.o_proj", mixed)
        normed = _rms(state, layer + "post_attention_layernorm", x)
        gate = F.silu(_linear(state, layer + "mlp.gate_proj", normed))
        wide = gate * _linear(state, layer + "mlp.up_proj", normed)
        x = x + _linear(state, layer + "mlp.down_proj", wide)
    head = state.get("lm_head.weight", table)
    return _rms(state, "model.norm", x) @ head.T


@torch.no_grad()
def video_logits(
    state: dict[str, torch.Tensor],
    frames: Any,
    question: str,
    newline: str,
    patch: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return logits of a whole prompt with one video.

    Args:
        state: original weights.
        frames: as `vision_reference` takes them.
        question: text.
        newline: `grid` or `one_token`.
        patch: from features to what is added to projected tokens.
    """
    features, tokens = vision_reference(state, frames)
    if patch is not None:
        tokens = tokens + patch(features)
    before = encoded(f"{SYSTEM}<|im_start|>user\n")
    after = encoded(f"\n{question}<|im_end|>\n<|im_start|>assistant\n")
    return text_reference(state, [before, video_tokens(state, tokens, newline), after])


def _linear(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[name + ".weight"], state.get(name + ".bias"))


def _layer_norm(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], state[name + ".weight"], state[name + ".bias"], 1e-6)


def _rms(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    mean = x.square().mean(-1, keepdim=True)
    return x * (mean + TEXT["rms_norm_eps"]).rsqrt() * state[name + ".weight"]


def _rotation(length: int, width: int) -> Callable[[torch.Tensor], torch.Tensor]:
    half = width // 2
    frequency = TEXT["rope_theta"] ** (-torch.arange(half) / half)
    angle = torch.arange(length)[:, None, None] * frequency  # [N, 1, half]

    def turn(x: torch.Tensor) -> torch.Tensor:
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    return turn


def _pool(x: torch.Tensor) -> torch.Tensor:
    """Average bilinearly from 5 x 5 to 3 x 3, sampled at the centres of the new cells."""
    ratio = SIDE / POOLED
    centre = ((torch.arange(POOLED) + 0.5) * ratio - 0.5).clamp(0, SIDE - 1)
    low = centre.floor().long().clamp(max=SIDE - 2)
    share = centre - low
    mix = torch.zeros(POOLED, SIDE)
    mix[torch.arange(POOLED), low] = 1 - share
    mix[torch.arange(POOLED), low + 1] = share
    grid = x.unflatten(1, (SIDE, SIDE))
    return torch.einsum("ay,bx,tyxc->tabc", mix, mix, grid).flatten(1, 2)
