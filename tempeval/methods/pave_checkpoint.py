"""Checkpoints of PAVE: patch and LoRA, as released and as safetensors.

Source: github.com/dragonlzm/PAVE (`train_pave_w_feat.py`, `eval_pave_scanqa.py`), read for facts.
A released zip holds one folder with `non_lora_trainables.bin` (the patch), `adapter_config.json`
and peft's adapter, and a `config.json`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tempeval.archive_members import Limits
from tempeval.archives import extracted
from tempeval.console import visible
from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.methods.pave_patch import ROPE_HEAD, PavePatch, check_rope
from tempeval.methods.pave_state import AGGREGATOR, RELEASED_PREFIX, PatchSizes, checked_state
from tempeval.methods.peft_adapter import flat, has_adapter, paired, read_adapter, save_adapter
from tempeval.shards import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.engine.low_rank import LowRank

_LOG = logging.getLogger(__name__)

PATCH_FILE, OWN_FILE = "non_lora_trainables.bin", "pave.safetensors"
FORMAT = "tempeval-pave-1"
#: What every released checkpoint has and none says.
HEADS, NEWLINES = 4, "grid"
_LIMITS = Limits(max_bytes=16 << 30, max_members=1000)
_RESERVED = ("format", "num_heads", "kv_share", "use_3d_rope", "rank", "alpha")
#: Versions in the names of released checkpoints and of the official code's model classes, by
#: whether their patch has rotary positions.
#: Source: github.com/dragonlzm/PAVE @ ef6a93f, `libs/utils/train_utils.py`.
_VERSION = re.compile(r"v?5_1_([23])(?!\d)", re.IGNORECASE)
_HAS_ROPE = {"2": True, "3": False}


@dataclass(frozen=True, eq=False)
class PaveWeights:
    """A trained PAVE.

    Attributes:
        patch_state: the patch's weights under their bare official names.
        lora: low-rank changes of the text model; None for a patch alone.
        digest: hex SHA-256 over names, shapes and numbers; the same for the same weights in any
            layout.
        sizes: of the patch, read from its weights.
        num_heads: attention heads of the patch.
        kv_share: whether its values come from `k_linear`.
        use_3d_rope: whether it was trained with rotary positions; None where neither the checkpoint
            nor its name says, and heads of their width do not rule it out.
        mm_newline_position: where newline tokens lay in training; None if nothing says.
        says_newlines: whether the checkpoint itself says so; else all released ones have it.
        metadata: what was saved along (safetensors layout only).
    """

    patch_state: Mapping[str, torch.Tensor]
    lora: LowRank | None
    digest: str
    sizes: PatchSizes
    num_heads: int = HEADS
    kv_share: bool = True
    use_3d_rope: bool | None = False
    mm_newline_position: str | None = NEWLINES
    says_newlines: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    def patch(self) -> PavePatch:
        """Build the patch, in the dtype that was saved."""
        return PavePatch.from_state_dict(
            self.patch_state,
            num_heads=self.num_heads,
            kv_share=self.kv_share,
            use_3d_rope=bool(self.use_3d_rope),
        )


def read_pave(adapter: str | Path, cache: Path | None = None) -> PaveWeights:
    """Read a trained PAVE.

    Args:
        adapter: folder as released or as `save_pave` writes it, or an archive of one (possibly one
            folder deep).
        cache: where archives are unpacked; None for tempeval's cache.

    Raises:
        UnsupportedModel: if files or weights are missing, broken, unexpected or of another kind.
        BadArchive: if an archive cannot be unpacked, or may not be.
    """
    path = named = Path(adapter).expanduser()
    if not path.exists():
        raise UnsupportedModel(
            f"adapter={str(adapter)!r} is neither a folder nor a file; the published ones are zip "
            "files of huggingface.co/zhuomingliu/PAVE, to be downloaded first"
        )
    if path.is_file():
        if path.suffix == ".safetensors":
            return _read_own(path)
        if path.suffix in (".bin", ".pt", ".pth"):  # they are zip files too
            raise UnsupportedModel(
                f"adapter={str(adapter)!r} is one file of a checkpoint; give the folder it lies in"
            )
        path = extracted(path, cache, limits=_LIMITS).folder
    folder = _folder(path)
    own = folder / OWN_FILE
    return _read_own(own) if own.is_file() else _read_released(folder, (folder.name, named.name))


def save_pave(
    folder: Path,
    patch: PavePatch,
    lora: LowRank | None,
    *,
    rank: int,
    alpha: float,
    metadata: Mapping[str, str],
) -> None:
    """Write a trained PAVE in the released layout, and the same as one safetensors file.

    `pave.safetensors` is complete by itself, written last and replaced at once.

    Args:
        folder: made if need be.
        patch: the patch.
        lora: low-rank changes of the text model, if there are any.
        rank: r of the LoRA.
        alpha: its lora_alpha.
        metadata: saved along; `base_model` is read from it, and `mm_newline_position`, which is
            unknown where it is not there.

    Raises:
        InvalidSetting: if the LoRA's scale is not `alpha / rank`, or metadata has a reserved name.
    """
    if taken := [name for name in _RESERVED if name in metadata]:
        raise InvalidSetting(f"metadata may not have {', '.join(taken)}; tempeval sets it")
    if lora is not None and abs(lora.scale * rank - alpha) > 1e-6 * alpha:
        raise InvalidSetting(f"a LoRA of scale {lora.scale} is not of alpha={alpha}, rank={rank}")
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(patch.official_state(RELEASED_PREFIX), folder / PATCH_FILE)
    if lora is not None:
        save_adapter(folder, lora, rank=rank, alpha=alpha, base_model=metadata.get("base_model"))
    newlines = metadata.get("mm_newline_position")
    # The official config has the first; the others are what no shape tells.
    facts = {
        "mm_newline_position": newlines,
        "num_heads": patch.num_heads,
        "kv_share": patch.kv_share,
        "use_3d_rope": patch.use_3d_rope,
    }
    (folder / "config.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    own = patch.official_state(AGGREGATOR)
    header = {**metadata, "format": FORMAT}
    header |= {"num_heads": str(patch.num_heads), "kv_share": str(patch.kv_share).lower()}
    header |= {"use_3d_rope": str(patch.use_3d_rope).lower()}
    if lora is not None:
        own |= flat(lora)
        header |= {"rank": str(rank), "alpha": repr(float(alpha))}
    temporary = folder / f"{OWN_FILE}.partial"
    save_file(own, temporary, metadata=header)
    temporary.replace(folder / OWN_FILE)


def _folder(path: Path) -> Path:
    """Find the checkpoint in a folder, or in one of the folders inside."""
    names = (OWN_FILE, PATCH_FILE)
    inside = sorted(child for child in path.iterdir() if child.is_dir())
    found = [p for p in (path, *inside) if any((p / name).is_file() for name in names)]
    if not found:
        raise UnsupportedModel(f"{str(path)!r} has no {PATCH_FILE} and no {OWN_FILE}")
    if len(found) > 1 and found[0] != path:
        raise UnsupportedModel(
            f"{str(path)!r} holds several checkpoints: {', '.join(p.name for p in found)}; give one"
        )
    return found[0]


def _read_released(folder: Path, names: tuple[str, ...]) -> PaveWeights:
    state = dict(read_file(folder / PATCH_FILE))
    patch = {key: value for key, value in state.items() if AGGREGATOR in key}
    if others := sorted(state.keys() - patch.keys()):
        _LOG.warning(
            "%s holds %d weights besides the patch, such as %s; they are not used, as in the "
            "official code",
            folder / PATCH_FILE,
            len(others),
            visible(others[0]),
        )
    lora = read_adapter(folder) if has_adapter(folder) else None
    facts = _facts(folder / "config.json")
    classes = (facts.pop("model_class"), *names)
    facts.setdefault("use_3d_rope", next(filter(_told, map(_rope_of, classes)), None))
    return _made(patch, lora, folder / PATCH_FILE, **facts)


def _told(rope: bool | None) -> bool:
    return rope is not None


def _rope_of(name: str) -> bool | None:
    """Tell from the name of a checkpoint or model class whether its patch has positions."""
    found = _VERSION.search(name)
    return None if found is None else _HAS_ROPE[found[1]]


def _facts(path: Path) -> dict[str, Any]:
    """Return what the configuration beside a patch says; a released one has newlines alone.

    Released checkpoints all have newlines in a grid, also where nothing says so; ours say null
    where the base model has none.

    Raises:
        UnsupportedModel: if it cannot be read, or has values that are not accepted.
    """
    config: Any = {}
    if path.is_file():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UnsupportedModel(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        config = {}
    newlines = config.get("mm_newline_position", NEWLINES)
    facts: dict[str, Any] = {
        "mm_newline_position": None if newlines is None else str(newlines),
        "says_newlines": config.get("mm_newline_position") is not None,
        "model_class": str(config.get("model_class", "")),
    }
    for name, kind in (("num_heads", int), ("kv_share", bool), ("use_3d_rope", bool)):
        if name in config:
            if type(config[name]) is not kind:
                raise UnsupportedModel(f"{path} has {name}={config[name]!r}, not a {kind.__name__}")
            facts[name] = config[name]
    return facts


def _read_own(path: Path) -> PaveWeights:
    from tempeval.engine.low_rank import LowRank

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UnsupportedModel(f"cannot read {path}: {error}") from error
    if metadata.get("format") != FORMAT:
        raise UnsupportedModel(
            f"{path} is of format {metadata.get('format')!r}; supported is {FORMAT!r}"
        )
    weights = dict(read_file(path))
    patch = {key: value for key, value in weights.items() if key.startswith(AGGREGATOR)}
    rest = [(key, value) for key, value in weights.items() if key not in patch]
    try:
        heads, lora = int(metadata["num_heads"]), None
        if rest:
            rank = int(metadata["rank"])
            matrices = paired(rest, rank, str(path))
            lora = LowRank(float(metadata["alpha"]) / rank, matrices)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise UnsupportedModel(f"{path} has broken metadata: {error!r}") from error
    return _made(
        patch,
        lora,
        path,
        num_heads=heads,
        kv_share=metadata.get("kv_share") != "false",
        use_3d_rope=metadata.get("use_3d_rope") == "true",
        mm_newline_position=metadata.get("mm_newline_position"),
        says_newlines="mm_newline_position" in metadata,
        metadata={k: v for k, v in metadata.items() if k not in _RESERVED},
    )


def _made(
    patch: Mapping[str, torch.Tensor],
    lora: LowRank | None,
    path: Path,
    *,
    num_heads: int = HEADS,
    kv_share: bool = True,
    use_3d_rope: bool | None = False,
    mm_newline_position: str | None,
    says_newlines: bool,
    metadata: Mapping[str, str] | None = None,
) -> PaveWeights:
    try:
        named, sizes = checked_state(patch)
        if num_heads < 1 or sizes.hidden % num_heads:
            raise InvalidSetting(f"{num_heads} heads do not divide its width {sizes.hidden}")
        check_rope(sizes.hidden, num_heads, use_3d_rope=bool(use_3d_rope))
    except InvalidSetting as error:
        raise UnsupportedModel(f"{path}: {error}") from error
    rope = use_3d_rope
    if rope is None and sizes.hidden != num_heads * ROPE_HEAD:
        rope = False  # positions do not fit its heads
    return PaveWeights(
        patch_state=named,
        lora=lora,
        digest=_digest(named, lora, (num_heads, kv_share)),
        use_3d_rope=rope,
        sizes=sizes,
        num_heads=num_heads,
        kv_share=kv_share,
        mm_newline_position=mm_newline_position,
        says_newlines=says_newlines,
        metadata=metadata or {},
    )


def _digest(patch: Mapping[str, torch.Tensor], lora: LowRank | None, settings: object) -> str:
    whole = hashlib.sha256(repr((settings, lora and lora.scale)).encode())
    for part in (patch, flat(lora) if lora else {}):
        for key in sorted(part):
            tensor = part[key].contiguous()
            whole.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            whole.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
