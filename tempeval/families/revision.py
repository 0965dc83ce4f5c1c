"""Which weights a run used: the commit of a hub checkpoint, or a digest of a folder's files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tempeval.errors import InvalidSetting, UnsupportedModel

#: What decides a model's answers: weights, configs, processor, tokenizer, chat template.
CONTENT_PATTERNS = (
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "adapter_model.bin",
    "pytorch_model*.bin",  # Video-LLaVA was released so; read with weights_only=True
)
_WITHOUT_WEIGHTS = ("*.json", "*.txt", "*.model", "*.jinja")

ADAPTER_CONFIG = "adapter_config.json"
_BLOCK_BYTES = 1 << 22


def local_folder(pretrained: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return the folder of a checkpoint; fetch a hub id into the cache first.

    Args:
        pretrained: folder or hub id.
        revision: branch, tag or commit of a hub id.
        weights: whether the files of weights are fetched too.

    Raises:
        UnsupportedModel: if there is no such folder, and no such hub id (or no network).
        InvalidSetting: if a folder is given with a revision.
    """
    folder = Path(pretrained).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise InvalidSetting(
                f"revision={revision!r} goes with a hub id; {pretrained!r} is a folder, whose "
                "content names its revision"
            )
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = CONTENT_PATTERNS if weights else _WITHOUT_WEIGHTS
        return Path(snapshot_download(pretrained, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UnsupportedModel(
            f"{pretrained!r} is neither a folder nor a checkpoint on the hub or in its cache: "
            f"{error}"
        ) from error


def adapter_place(pretrained: str, revision: str | None = None) -> Path | None:
    """Return the folder of a checkpoint that is an adapter in peft's files and no whole model.

    Args:
        pretrained: folder or hub id.
        revision: of a hub id.

    Returns:
        None for anything else; whether that is a checkpoint is for others to say.

    Raises:
        UnsupportedModel: for an adapter with trained parts outside its low-rank changes.
    """
    folder = Path(pretrained).expanduser()
    if not folder.is_dir():
        if folder.exists() or pretrained.startswith((".", "/", "~")):
            return None
        if not _is_hub_adapter(pretrained, revision):
            return None
        folder = local_folder(pretrained, revision)
    if not (folder / ADAPTER_CONFIG).is_file() or _has_weights(folder):
        return None
    if (folder / "non_lora_trainables.bin").is_file():
        raise UnsupportedModel(
            f"{str(folder)!r} is an adapter with trained parts outside its LoRA "
            "(non_lora_trainables.bin); one of PAVE is given as adapter= of method pave, another "
            "has to be merged into its base model"
        )
    return folder


def adapted_base(place: Path) -> tuple[str, str | None]:
    """Return folder or hub id, and revision, of the base model that an adapter names.

    Args:
        place: folder with `adapter_config.json`.

    Raises:
        UnsupportedModel: if it names none.
    """
    settings = _read_json(place / ADAPTER_CONFIG)
    base: Any = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UnsupportedModel(
            f"{place / ADAPTER_CONFIG} has base_model_name_or_path={base!r}, so the base model of "
            "this adapter is not known; write its folder or hub id there"
        )
    revision: Any = settings.get("revision")
    return base, None if Path(base).expanduser().is_dir() else revision


def check_no_adapter(folder: Path) -> None:
    """Refuse a whole model that still has an adapter beside it.

    transformers adds such an adapter to weights that it was perhaps merged into.

    Raises:
        UnsupportedModel: naming the files.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        names = sorted(path.name for path in folder.glob("adapter_*"))
        raise UnsupportedModel(
            f"checkpoint {str(folder)!r} holds a whole model and an adapter ({', '.join(names)}): "
            "merged already, it would count twice. Move the adapter elsewhere if it is merged; if "
            "not, give the adapter in a folder of its own, with base_model_name_or_path"
        )


def _has_weights(folder: Path) -> bool:
    patterns = ("model*.safetensors", "pytorch_model*.bin", "model.safetensors.index.json")
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _is_hub_adapter(pretrained: str, revision: str | None) -> bool:
    """Tell whether a hub id has an adapter's configuration and no model's."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    for name, there in (("config.json", False), (ADAPTER_CONFIG, True)):
        try:
            hf_hub_download(pretrained, name, revision=revision)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
            continue
        return there
    return False


def revision_of(folder: Path) -> str:
    """Name the content of a checkpoint folder.

    Returns:
        The commit sha if the folder is a snapshot of the hub's cache, else `sha256:` and the
        digest of all files that decide answers (it does not depend on where the folder lies).
    """
    from tempeval.shards import is_snapshot

    if is_snapshot(folder):
        return folder.name
    return "sha256:" + content_digest(folder)


def content_digest(folder: Path) -> str:
    """Return the hex SHA-256 over names and contents of the checkpoint's files, in name order."""
    files = {path.name: path for pattern in CONTENT_PATTERNS for path in folder.glob(pattern)}
    whole = hashlib.sha256()
    for name in sorted(files):
        part = hashlib.sha256()
        with files[name].open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                part.update(block)
        whole.update(f"{name}\0{part.hexdigest()}\n".encode())
    return whole.hexdigest()


def check_files(folder: Path, *, needs_template: bool = True, weights: bool = True) -> None:
    """Check that a folder holds all that a vision-language checkpoint needs.

    Args:
        folder: checkpoint folder.
        needs_template: whether a chat template is among it.
        weights: whether the files of weights are.

    Raises:
        UnsupportedModel: naming what is missing.
    """
    from tempeval.shards import weight_files  # imports torch, which names and refusals do without

    check_no_adapter(folder)
    needed = {
        "configuration": ("config.json",),
        "processor configuration": ("preprocessor_config.json", "processor_config.json"),
        "tokenizer": ("tokenizer.json", "vocab.json", "tokenizer.model"),
    }
    for what, names in needed.items():
        if not any((folder / name).is_file() for name in names):
            raise UnsupportedModel(
                f"checkpoint {str(folder)!r} has no {what} ({' or '.join(names)}); save it with "
                "save_pretrained, or download it again"
            )
    if needs_template and not _has_chat_template(folder):
        raise UnsupportedModel(
            f"checkpoint {str(folder)!r} has no chat template (chat_template.jinja or "
            "chat_template.json, or in tokenizer_config.json); use an instruction-tuned checkpoint"
        )
    if weights:
        weight_files(folder, safetensors=True)


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    names = ("tokenizer_config.json", "processor_config.json")
    return any("chat_template" in _read_json(folder / n) for n in names if (folder / n).is_file())


def _read_json(path: Path) -> dict[str, dict[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}
