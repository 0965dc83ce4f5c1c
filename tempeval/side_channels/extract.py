"""Make the features of a folder of videos once, one file each: `tempeval features`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.base_model import load_family as load_base_model
from tempeval.errors import BadSideChannel, BadVideo, InvalidSetting
from tempeval.mini.paths import located
from tempeval.side_channels.align import clip_span
from tempeval.side_channels.content import content_key
from tempeval.side_channels.shuffle import is_frame_folder
from tempeval.side_channels.stored import read_facts, write_features
from tempeval.versions import versions
from tempeval.video.clip import VIDEO_SUFFIXES, Sampling, VideoRef
from tempeval.video.folder import natural_key
from tempeval.video.pool import ClipRequest, ClipStream
from tempeval.video.stamp import content_stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.engine.encoder import DecodeOptions
    from tempeval.families.base import Family, LoadOptions
    from tempeval.side_channels.base import Channel
    from tempeval.video.clip import Clip, SideSpec

FAILURES = "failures.json"
#: Side channels that read files which are there already.
NOT_MADE = ("features",)
#: Side channels that run a base model.
NEED_MODEL = ("highfps",)


@dataclass(frozen=True)
class Video:
    """One video and the file of its features."""

    ref: VideoRef
    video_id: str
    target: Path

    @property
    def doc(self) -> dict[str, Any]:
        """What a side channel is told of it."""
        known: dict[str, Any] = {"video": self.ref.path, "video_id": self.video_id}
        return known if self.ref.fps is None else known | {"fps": self.ref.fps}


@dataclass
class Extracted:
    """What became of the videos.

    Attributes:
        written: features made.
        kept: features that were there already.
        failures: why there are none, by path of the video.
    """

    written: int = 0
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def find_videos(folder: Path, out: Path, fps: float | None = None) -> list[Video]:
    """Return the videos below a folder, in natural order.

    Args:
        folder: searched with its subfolders.
        out: folder of the features.
        fps: frame rate (1/s) of folders of images, which are then looked for instead of files.

    Raises:
        InvalidSetting: for no folder, no videos, or two of one name.
    """
    if not folder.is_dir():
        raise InvalidSetting(f"data {str(folder)!r} is not a folder; give one that holds videos")
    everything = [place for place in folder.rglob("*") if not place.name.startswith(".")]
    if fps is None:
        found = [p for p in everything if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    else:
        found = [place for place in everything if is_frame_folder(place)]
    if not found:
        what = ", ".join(sorted(VIDEO_SUFFIXES)) if fps is None else "folders of images"
        raise InvalidSetting(f"data {str(folder)!r} has no videos; accepted: {what}")
    videos: dict[str, Video] = {}
    for place in sorted(found, key=lambda p: natural_key(str(p.relative_to(folder)))):
        name = place.stem if fps is None else place.name
        if name in videos:
            raise InvalidSetting(
                f"{str(place)!r} and {videos[name].ref.path!r} have the same video id {name!r}, "
                "and features are named by it; extract them to two folders"
            )
        videos[name] = Video(VideoRef(str(place), fps=fps), name, out / f"{name}.safetensors")
    return list(videos.values())


def load_family(pretrained: str, options: LoadOptions, num_frames: int) -> Family:
    """Load a base model, and check that it takes so many frames.

    Args:
        pretrained: hub id, checkpoint folder, `mini`, or `mini:NAME`.
        options: how it is loaded.
        num_frames: per video.

    Raises:
        TempevalError: if the checkpoint cannot be loaded, or refuses the number of frames.
    """
    folder = located(pretrained)
    family = load_base_model(folder, options)
    family.check_sampling(Sampling(num_frames=num_frames))
    return family


def extract(
    videos: Sequence[Video],
    spec: SideSpec,
    channel: Channel,
    family: Family | None,
    decoding: DecodeOptions,
    *,
    num_frames: int = 8,
    overwrite: bool = False,
    progress: Callable[[Extracted], None] = lambda so_far: None,
) -> Extracted:
    """Write one file of features for each video that has none yet.

    A file is written whole or not at all, so a run that was stopped goes on where it was. Failures
    are also listed in `failures.json` beside the features.

    Args:
        videos: from `find_videos`.
        spec: the side channel.
        channel: the same, built.
        family: the base model, where the side channel uses one.
        decoding: how videos are decoded.
        num_frames: frames per video that a base model would see; they decide the size at which
            `highfps` decodes, and its number of frames if that is a factor.
        overwrite: make features again that are there.
        progress: called after every video.

    Raises:
        InvalidSetting: if there are features of other settings in the folder.
    """
    done = Extracted()
    if not videos:
        return done
    out = videos[0].target.parent
    facts = _facts(spec, family, num_frames)
    missing = [v for v in videos if overwrite or not _is_made(v, channel, facts)]
    done.kept = len(videos) - len(missing)
    out.mkdir(parents=True, exist_ok=True)
    progress(done)
    # Without a base model frames only tell how long the video is.
    sampling = Sampling(num_frames=num_frames if family else 2)
    resize = family.resize() if family else None
    requests = [
        ClipRequest(video, video.ref, sampling, resize, decoding.decoder) for video in missing
    ]
    with ClipStream(
        requests,
        workers=decoding.workers,
        timeout_s=decoding.timeout_s,
        memory_limit=decoding.memory_limit,
    ) as stream:
        for video, clip in stream:
            try:
                _write(video, clip, channel, facts)
                done.written += 1
            except BadVideo as error:
                done.failures[video.ref.path] = str(error)
            progress(done)
    _list_failures(out / FAILURES, done.failures)
    return done


@torch.no_grad()
def _write(video: Video, clip: Clip | BadVideo, channel: Channel, facts: dict[str, Any]) -> None:
    if isinstance(clip, BadVideo):
        raise clip
    side = channel.features(video.doc, clip)
    whole = clip_span(clip)
    own = {
        "video_id": video.video_id,
        "video": Path(video.ref.path).name,
        "video_stamp": _stamp(video),
        "video_content": content_key(video.ref.path),
        "source_stamp": _source_stamp(video, channel),
        "duration": None if whole is None else whole[1],
        "flags": list(clip.flags),
        "flops": side.flops,
        "packages": versions(),
    }
    part = channel.part_spans(video.doc, len(side.features)) if side.spans is None else None
    write_features(video.target, side, facts | own, part)


def _facts(spec: SideSpec, family: Family | None, num_frames: int) -> dict[str, Any]:
    """Return what features depend on besides the video."""
    facts: dict[str, Any] = {"side_channel": spec.name, "settings": dict(spec.settings)}
    if family is not None:
        facts["model"] = {
            "pretrained": family.pretrained,
            "revision": family.revision,
            "num_frames": num_frames,
            "dtype": str(family.model.dtype).removeprefix("torch."),
            **family.pixel_limits(),
        }
    return facts


def _is_made(video: Video, channel: Channel, facts: dict[str, Any]) -> bool:
    """Tell whether the features of a video are there, made of it, its source, and in this way.

    Raises:
        InvalidSetting: if they were made in another way.
    """
    if not video.target.exists():
        return False
    try:
        known = read_facts(video.target)
    except BadSideChannel:
        return False  # not whole: from another program, since ours writes whole files
    wanted = json.loads(json.dumps(facts))
    for key in ("side_channel", "settings", "model"):
        if known.get(key) != wanted.get(key):
            raise InvalidSetting(
                f"{str(video.target)!r} was made with {key} {known.get(key)}, not "
                f"{wanted.get(key)}; choose another -o, or pass --overwrite"
            )
    source = known.get("source_stamp", "")
    return bool(
        known.get("video_stamp") == _stamp(video) and source == _source_stamp(video, channel)
    )


def _stamp(video: Video) -> Any:
    stamp = content_stamp(video.ref.path)
    return None if stamp is None else list(stamp)


def _source_stamp(video: Video, channel: Channel) -> str:
    """Name what features come from besides the video, such as the file that is converted."""
    stamp = channel.stamp(video.doc)
    return stamp and hashlib.sha256(stamp.encode()).hexdigest()[:16]


def _list_failures(path: Path, failures: dict[str, str]) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    path.write_text(json.dumps(failures, indent=1) + "\n", "utf-8")
