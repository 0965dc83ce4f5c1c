"""ScanNet scenes as videos: the folders of posed frames that ScanQA and SQA3D are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.benchmarks.video_index import FRAME_FOLDERS, VideoIndex
from tempeval.video.sampling import SCENES

if TYPE_CHECKING:
    from pathlib import Path

#: PAVE's folder of 32 frames per scene first, then EmbodiedScan's and other usual names.
FOLDERS = (*SCENES, *(f"scannet/{name}" for name in SCENES))
#: Fine print of both benchmarks.
NOTES = (
    "A scene is a cluster.",
    "Frames are .jpg files only: depth maps (.png) beside them are not read. Of "
    "posed_images_new/<scene> (PAVE's) they are the first 32 in order of number, the last one "
    "repeated where there are fewer; posed_images/<scene> (EmbodiedScan's, of the whole scan) is "
    "sampled like any video.",
)
#: A scene has no time base; a second a view makes the views' order a time.
FPS = 1.0
ACCESS = (
    "ScanNet: sign the terms of use (http://www.scan-net.org, by e-mail); put the posed frames of "
    "each scene into {name}/posed_images_new/<scene>/*.jpg (32 per scene for PAVE's features)."
)


def scene_index(root: Path) -> VideoIndex:
    """Return where the frame folders of the scenes lie."""
    return VideoIndex(root, *FOLDERS, extensions=FRAME_FOLDERS)


def scene_id(name: str) -> str:
    """Return the video id, and cluster, of a scene: the same in ScanQA and SQA3D."""
    return f"scannet/{name}"
