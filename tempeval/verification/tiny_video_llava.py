"""Tiny random Video-LLaVA checkpoints: the Hugging Face port, and the layout as released."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

SIDE, PATCH = 56, 14
#: Tokens of a frame: CLS and 4 x 4 patches.
PER_FRAME = 1 + (SIDE // PATCH) ** 2
WIDTH, LAYERS = 128, 4

LINES = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives",
    "helpful, detailed, and polite answers to the human's questions. USER: ASSISTANT:",
    "Which way does the red square move? Does the blue square move to the left or to the right?",
    "What happens first? What happens last? How fast is it? Is it faster or slower than before?",
    "A. left B. right C. up D. down yes no true false option question video image frame time",
)

#: As the port's own on the hub: visuals first, then texts, a space after each.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ message['content'][0]['text'] + ' ' }}{% else %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}"
    "{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def save_sentencepiece(folder: Path) -> Path:
    """Train a Llama-like SentencePiece model (BPE, byte fallback), with the files of a slow one."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=written,
        model_type="bpe",
        vocab_size=420,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        pad_id=-1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.model"
    path.write_bytes(written.getvalue())
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
    settings |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings |= {"model_max_length": 3072, "legacy": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def text_sizes(vocab_size: int) -> dict[str, Any]:
    """Sizes of a tiny Vicuna."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": 192,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def save_tiny_port(
    folder: Path, *, chat_template: str | None = None, seed: int = 0, **config: Any
) -> Path:
    """Save a random `VideoLlavaForConditionalGeneration` with its processor.

    Args:
        folder: where to save.
        chat_template: none, as at the port's release, or a template.
        seed: of the random weights.
        config: overrides of the configuration.
    """
    import transformers
    from tokenizers import AddedToken

    from tempeval.families.video_llava_tokenizer import load_tokenizer

    tokenizer = load_tokenizer(save_sentencepiece(folder).parent)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (folder / name).unlink()
    added = [AddedToken(t, special=True, normalized=False) for t in ("<image>", "<video>", "<pad>")]
    tokenizer.add_tokens(added)
    tokenizer.pad_token = "<pad>"  # noqa: S105 - not a password
    token_id = tokenizer.convert_tokens_to_ids
    text = text_sizes(len(tokenizer)) | {"model_type": "llama"}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1000.0}
    vision = {"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 96}
    vision |= {"num_hidden_layers": 3, "num_attention_heads": 4, "projection_dim": 32}
    made = transformers.VideoLlavaConfig(
        text_config=text,
        vision_config=vision | {"image_size": SIDE, "patch_size": PATCH},
        image_token_index=token_id("<image>"),
        video_token_index=token_id("<video>"),
        image_seq_length=PER_FRAME - 1,
        video_seq_length=8 * PER_FRAME,
        **config,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.VideoLlavaForConditionalGeneration(made).eval()
    scale_up(model)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    transformers.VideoLlavaProcessor(
        image_processor=transformers.VideoLlavaImageProcessor(**size),
        video_processor=transformers.VideoLlavaVideoProcessor(**size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=made.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=chat_template,
    ).save_pretrained(folder)
    return folder


def scale_up(model: torch.nn.Module, factor: float = 4.0) -> None:
    """Scale weights of two or more dimensions, so that logits depend on positions and video."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(factor)


def original_state(vocab_size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of the released layout: both towers, projector, Vicuna, old buffers."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.LlamaConfig(**text_sizes(vocab_size))
        language = transformers.LlamaForCausalLM(config).eval()
    scale_up(language)
    state = {key: value.clone() for key, value in language.state_dict().items()}
    for layer in range(LAYERS):
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    # Heads of 64 channels, as the released tower has: its sizes are read from the shapes.
    tower: dict[str, Any] = {
        "width": 128,
        "layers": 3,
        "mlp": 96,
        "image": SIDE,
        "patch": PATCH,
        "scale": 0.1,
    }
    state |= random_tower_state(prefix="model.video_tower.video_tower.", seed=seed, **tower)
    images = random_tower_state(prefix="model.image_tower.image_tower.", seed=seed + 1, **tower)
    state |= {key: value for key, value in images.items() if "temporal" not in key}
    generator = torch.Generator().manual_seed(seed + 2)
    for number, into in (("0", 128), ("2", WIDTH)):
        weight = 0.1 * torch.randn(WIDTH, into, generator=generator)
        state[f"model.mm_projector.{number}.weight"] = weight
        state[f"model.mm_projector.{number}.bias"] = 0.1 * torch.randn(WIDTH, generator=generator)
    return state


def original_config(vocab_size: int, **changes: Any) -> dict[str, Any]:
    """`config.json` as released, with tiny sizes."""
    config = {
        "model_type": "llava",
        "architectures": ["LlavaLlamaForCausalLM"],
        "hidden_act": "silu",
        "mm_image_tower": "LanguageBind/LanguageBind_Image",
        "mm_video_tower": "LanguageBind/LanguageBind_Video_merge",
        "mm_hidden_size": 128,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "use_mm_proj": True,
        "tune_mm_mlp_adapter": False,
        "tokenizer_model_max_length": 3072,
        "tokenizer_padding_side": "right",
        "pad_token_id": 0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.31.0",
        "use_cache": True,
    }
    return config | text_sizes(vocab_size) | changes


def save_tiny_original(folder: Path, *, weights: str = "bin", seed: int = 0, **config: Any) -> Path:
    """Save the released layout.

    Args:
        folder: where to save.
        weights: `bin` for two PyTorch shards with an index, `bin_no_index`, `safetensors` for two
            shards with an index, `single` for one safetensors file.
        seed: of the random weights.
        config: changes of `config.json`; None removes an entry.
    """
    import sentencepiece

    path = save_sentencepiece(folder)
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
    made = {k: v for k, v in original_config(size, **config).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(made))
    save_original_weights(folder, original_state(size, seed), weights)
    return folder


def save_original_weights(folder: Path, state: dict[str, torch.Tensor], weights: str) -> None:
    """Write weights in one of the forms of `save_tiny_original`."""
    from safetensors.torch import save_file

    if weights == "single":
        save_file(state, folder / "model.safetensors")
        return
    stem, suffix = (
        ("model", "safetensors") if weights == "safetensors" else ("pytorch_model", "bin")
    )
    keys = sorted(state)
    placed: dict[str, str] = {}
    for number, part in enumerate((keys[::2], keys[1::2]), start=1):
        name = f"{stem}-{number:05d}-of-00002.{suffix}"
        shard = {key: state[key] for key in part}
        if suffix == "bin":
            torch.save(shard, folder / name)
        else:
            save_file(shard, folder / name)
        placed |= dict.fromkeys(part, name)
    if weights != "bin_no_index":
        index = {"metadata": {"total_size": 0}, "weight_map": placed}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def load_video_llava(folder: Path, **options: Any) -> Any:
    """Load a folder in float32 on the CPU."""
    from tempeval.families.base import LoadOptions
    from tempeval.families.video_llava import VideoLlava

    return VideoLlava.load(str(folder), LoadOptions(**{"dtype": "float32", **options}))


def random_tower_state(
    *,
    width: int,
    layers: int,
    mlp: int,
    image: int,
    patch: int,
    block: int = 8,
    seed: int = 0,
    scale: float = 0.3,
    prefix: str = "",
) -> dict[str, torch.Tensor]:
    """Return random weights of a tower under the checkpoint's own names."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int, around: float = 0.0) -> torch.Tensor:
        return around + scale * torch.randn(*shape, generator=g)

    state = {
        "embeddings.class_embedding": rand(width),
        "embeddings.patch_embedding.weight": rand(width, 3, patch, patch),
        "embeddings.position_embedding.weight": rand(1 + (image // patch) ** 2, width),
    }
    norms = ["pre_layrnorm", "post_layernorm"]
    linears = {}
    for n in range(layers):
        layer = f"encoder.layers.{n}"
        state[f"{layer}.temporal_embedding"] = rand(1, block, width)
        norms += [f"{layer}.{x}" for x in ("layer_norm1", "layer_norm2", "temporal_layer_norm1")]
        for attention in ("self_attn", "temporal_attn"):
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linears[f"{layer}.{attention}.{name}"] = (width, width)
        linears |= {f"{layer}.mlp.fc1": (mlp, width), f"{layer}.mlp.fc2": (width, mlp)}
    for name in norms:
        state |= {f"{name}.weight": rand(width, around=1.0), f"{name}.bias": rand(width)}
    for name, (out, into) in linears.items():
        state |= {f"{name}.weight": rand(out, into), f"{name}.bias": rand(out)}
    return {prefix + key: value for key, value in state.items()}
