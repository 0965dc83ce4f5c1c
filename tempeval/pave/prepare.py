"""Everything before the first step: the base model, the examples, the encoded videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.engine.base_model import load_family
from tempeval.errors import InvalidSetting
from tempeval.families.base import LoadOptions
from tempeval.mini.paths import cache_dir, located
from tempeval.pave.encode import Eyes, open_store, refuse_too_many
from tempeval.pave.examples import find_examples
from tempeval.pave.features import MemoryStore
from tempeval.pave.units import find_videos, make_units

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.errors import BadVideo
    from tempeval.families.base import Family
    from tempeval.pave.batch import Unit
    from tempeval.pave.config import TrainConfig
    from tempeval.pave.examples import Examples
    from tempeval.pave.features import Seen
    from tempeval.pave.units import Videos

    Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prepared:
    """All that training reads.

    Attributes:
        family: the frozen base model.
        examples: what is learnt from.
        videos: theirs.
        training, held_out: units to train on, and to measure on.
        eyes: gives what the frozen parts see.
        content: digest of the content of the videos and their side channels.
        bad: what is wrong with unusable videos, by number.
    """

    family: Family
    examples: Examples
    videos: Videos
    training: list[Unit]
    held_out: list[Unit]
    eyes: Eyes
    content: str
    bad: dict[int, BadVideo]

    def seen(self, video: int) -> Seen:
        """Return a video as the frozen parts see it.

        Raises:
            InvalidSetting: if it is gone from the cache.
            BadVideo: if there is no cache, and it cannot be used any more.
        """
        ref, video_id = self.videos.items[video]
        found = self.eyes.get(ref, video_id)
        if found is None:
            raise InvalidSetting(
                f"the features of {ref.path!r} are gone from the cache, or the file was changed; "
                "start again with --resume"
            )
        return found


def prepare(config: TrainConfig, accelerator: Any, report: Report) -> Prepared:
    """Load the base model, find the examples, and encode their videos.

    With several processes and a cache on disk, each encodes its share.

    Args:
        config: of the training.
        accelerator: accelerate's own.
        report: gets stage, number done, and total.

    Raises:
        TempevalError: for settings or data that cannot be used.
    """
    with accelerator.main_process_first():
        examples = find_examples(config.data, lambda done, total: report("render", done, total))
    family = load_base(config, str(accelerator.device))
    data = config.data
    videos = find_videos(examples.items, data.limit, data.held_out, config.training.seed)
    store = open_store(config.feature_cache, cache_dir() / "pave-features")
    eyes = Eyes(family, config.base.frames, config.side_channel, store)
    content = eyes.content(videos.items)
    bad = _encode(eyes, videos, accelerator, isinstance(store, MemoryStore), report)
    refuse_too_many(bad, len(videos.items), data.max_failures)
    training, held_out = make_units(
        family, examples.items, videos, config.training.questions_per_video, bad
    )
    return Prepared(family, examples, videos, training, held_out, eyes, content, bad)


def load_base(config: TrainConfig, device: str) -> Family:
    """Load the base model as a configuration says, on a device."""
    base = config.base
    folder = located(base.pretrained)
    options = LoadOptions(
        device=device,
        dtype=base.dtype,
        position_rule=base.position_rule,
        revision=base.revision,
        min_pixels=base.min_pixels,
        max_pixels=base.max_pixels,
        visual_token_budget=base.visual_token_budget,
        system_prompt=base.system_prompt,
        mm_newline_position=base.mm_newline_position,
    )
    return load_family(folder, options)


def _encode(
    eyes: Eyes, videos: Videos, accelerator: Any, everywhere: bool, report: Report
) -> dict[int, BadVideo]:
    def progress(done: int, total: int) -> None:
        report("encode", done, total)

    if everywhere or accelerator.num_processes == 1:
        return eyes.encode_all(videos.items, progress)
    from accelerate.utils import gather_object

    rank, processes = accelerator.process_index, accelerator.num_processes
    numbers = range(rank, len(videos.items), processes)
    found = eyes.encode_all([videos.items[n] for n in numbers], progress)
    shared: list[tuple[int, BadVideo]] = gather_object(
        [(numbers[n], error) for n, error in found.items()]
    )
    return dict(sorted(shared))
