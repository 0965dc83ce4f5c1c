"""ScanNet scenes as videos: the folders of posed frames that ScanQA and SQA3D are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.benchmarks.video_index import FRAME_FOLDERS, VideoIndex

if TYPE_CHECKING:
    from pathlib import Path

#: PAVE's folder of 32 frames per scene first, then EmbodiedScan's and other usual names.
FOLDERS = ("posed_images_new", "posed_images", "scannet/posed_images_new", "scannet/posed_images")
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
