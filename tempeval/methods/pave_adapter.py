"""An adapter of PAVE as it is used: read once, and its patch placed once per device and dtype."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import ref

from tempeval.engine.low_rank import Matrices
from tempeval.errors import UnsupportedModel
from tempeval.methods.pave_checkpoint import read_pave
from tempeval.methods.pave_patch import PavePatch
from tempeval.mini.paths import located_adapter
from tempeval.side_channels.registry import side_channel_class, split_side_text
from tempeval.video.clip import SideSpec

if TYPE_CHECKING:
    import torch

    from tempeval.engine.low_rank import LowRank
    from tempeval.methods.pave_checkpoint import PaveWeights


class Adapter:
    """Weights of a patch, and the patch as a run uses it.

    Args:
        weights: as they were read.
    """

    def __init__(self, weights: PaveWeights) -> None:
        self.weights = weights
        self._patches: dict[tuple[torch.device, torch.dtype, bool, bool], PavePatch] = {}
        self._matrices: ref[Matrices] | None = None

    @cached_property
    def is_silent(self) -> bool:
        """Whether the patch adds exactly nothing, as it does before any training."""
        state = self.weights.patch_state
        return not any(bool(state[f"output_norm.{name}"].any()) for name in ("weight", "bias"))

    @property
    def low_rank(self) -> LowRank | None:
        """The low-rank changes of the text stack; None where there are none.

        All who use them at one time share one mapping, which nobody else holds: what the engine
        makes of it, such as merged weights, goes with the last of them, though this adapter stays.
        """
        lora = self.weights.lora
        if lora is None:
            return None
        shared = None if self._matrices is None else self._matrices()
        if shared is None:
            shared = Matrices(lora.matrices)
            self._matrices = ref(shared)
        return replace(lora, matrices=shared)

    @cached_property
    def side(self) -> SideSpec | None:
        """The side channel that the patch was trained with; None if the file does not say.

        Its settings are as they are written: those that are of a machine, such as a folder, are
        not among them.

        Raises:
            TempevalError: if it is none that is known here.
        """
        text = self.weights.metadata.get("side_channel")
        if text is None:
            return None
        name, given = split_side_text(text)
        side_channel_class(name)
        return SideSpec(name, tuple(sorted(given.items())))

    @property
    def neighborhood(self) -> int | None:
        """Steps on each side that the patch was trained with; None for the equal partition.

        Raises:
            UnsupportedModel: if what the file says is no number.
        """
        text = self.weights.metadata.get("neighborhood", "none")
        if text != "none" and not text.isdecimal():
            raise UnsupportedModel(
                f"an adapter says neighborhood={text!r}; accepted: none, or a whole number from 0"
            )
        return None if text == "none" else int(text)

    def patch(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        kv_share: bool,
        use_3d_rope: bool | None = None,
    ) -> PavePatch:
        """Return the patch on a device, in a dtype.

        Args:
            device: where.
            dtype: in what.
            kv_share: see `PavePatch`.
            use_3d_rope: see `PavePatch`; None for what the adapter says, else without.

        Raises:
            InvalidSetting: if its heads have another width than rotary positions need.
        """
        rope = bool(self.weights.use_3d_rope if use_3d_rope is None else use_3d_rope)
        key = (device, dtype, kv_share, rope)
        if key not in self._patches:
            patch = PavePatch.from_state_dict(
                self.weights.patch_state,
                num_heads=self.weights.num_heads,
                kv_share=kv_share,
                use_3d_rope=rope,
            )
            self._patches[key] = patch.to(device, dtype)
        return self._patches[key]


def load_adapter(path: str) -> Adapter:
    """Read an adapter; the same one for chains that name the same unchanged file.

    Args:
        path: see `read_pave`; or a shipped one, as `mini:audio`.

    Raises:
        UnknownName: if no adapter of that name ships.
        UnsupportedModel: if it cannot be read.
        BadArchive: if it is an archive that cannot be unpacked.
    """
    place = Path(located_adapter(path)).expanduser()
    return _load(str(place), _stamp(place))


def _stamp(place: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and modification times, so that a changed file is read again."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@lru_cache(maxsize=2)
def _load(path: str, stamp: tuple[tuple[str, int, int], ...]) -> Adapter:
    return Adapter(read_pave(path))
