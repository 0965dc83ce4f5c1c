"""Which weights a run used: the commit of a hub checkpoint, or a digest of a folder's files."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from tempeval.errors import InvalidSetting, UnsupportedModel

#: What decides a model's answers: weights, configs, processor, tokenizer, chat template.
CONTENT_PATTERNS = (
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "pytorch_model*.bin",  # Video-LLaVA was released so; read with weights_only=True
)

_BLOCK_BYTES = 1 << 22


def local_folder(pretrained: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint; fetch a hub id into the cache first.

    Args:
        pretrained: folder or hub id.
        revision: branch, tag or commit of a hub id.

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
        return Path(
            snapshot_download(pretrained, revision=revision, allow_patterns=list(CONTENT_PATTERNS))
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UnsupportedModel(
            f"{pretrained!r} is neither a folder nor a checkpoint on the hub or in its cache: "
            f"{error}"
        ) from error


def revision_of(folder: Path) -> str:
    """Name the content of a checkpoint folder.

    Returns:
        The commit sha if the folder is a snapshot of the hub's cache, else `sha256:` and the
        digest of all files that decide answers (it does not depend on where the folder lies).
    """
    if folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name):
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


def check_files(folder: Path, *, needs_template: bool = True) -> None:
    """Check that a folder holds all that a vision-language checkpoint needs.

    Args:
        folder: checkpoint folder.
        needs_template: whether a chat template is among it.

    Raises:
        UnsupportedModel: naming what is missing.
    """
    needed = {
        "configuration": ("config.json",),
        "processor configuration": ("preprocessor_config.json", "processor_config.json"),
        "tokenizer": ("tokenizer.json", "vocab.json"),
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
    missing = [name for name in _weight_files(folder) if not (folder / name).is_file()]
    if missing:
        raise UnsupportedModel(
            f"checkpoint {str(folder)!r} lacks {', '.join(missing)}; weights load from safetensors "
            "only. Download it again, or convert it with save_pretrained"
        )


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    names = ("tokenizer_config.json", "processor_config.json")
    return any("chat_template" in _read_json(folder / n) for n in names if (folder / n).is_file())


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    return sorted(set(_read_json(index).get("weight_map", {}).values()))


def _read_json(path: Path) -> dict[str, dict[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}
