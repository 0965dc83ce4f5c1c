"""What can be wrong with, or special about, a source; the names that travel in `Clip.flags`."""

from __future__ import annotations

TRUNCATED = "truncated"
"""The file ends before its own header says it does: the end of the video is missing."""

CORRUPT_PACKETS = "corrupt_packets"
"""Some packets could not be read or decoded and were skipped, or were decoded as damaged."""

NO_TIMESTAMPS = "no_timestamps"
"""Some frames have no timestamp (NaN in `Clip.timestamps`)."""

UNORDERED_TIMESTAMPS = "unordered_timestamps"
"""Frames come out of the decoder in another order than their timestamps, which were sorted."""

TIME_GAP = "time_gap"
"""Otherwise regular timestamps jump by half a second or more: a part may be missing."""

NUMBER_GAPS = "number_gaps"
"""The numbers of a frame folder's images are not evenly spaced: images may be missing."""

SIZE_CHANGES = "size_changes"
"""The picture size changes inside the video; all frames are scaled to the first wanted one's."""

REPEATED_FRAMES = "repeated_frames"
"""The source has fewer distinct frames than were asked for, so some are shown more than once."""

END_CLAMPED = "end_clamped"
"""The asked-for end lies after the last frame; the clip stops at the last frame."""

SEQUENTIAL = "sequential"
"""A seek did not land on the wanted frame, so the whole file was decoded in order."""

ASSUMED_MATRIX = "assumed_matrix"
"""The colour matrix that the file names is not known; the default one (BT.601) was taken."""

DAMAGE = frozenset(
    {
        TRUNCATED,
        CORRUPT_PACKETS,
        NO_TIMESTAMPS,
        UNORDERED_TIMESTAMPS,
        TIME_GAP,
        NUMBER_GAPS,
        SIZE_CHANGES,
    }
)
"""Flags that say the source itself is defective: videos with one are counted as damaged."""

NOTES = frozenset({REPEATED_FRAMES, END_CLAMPED, SEQUENTIAL, ASSUMED_MATRIX})
"""Flags that inform about how a sound source was read; they count as no damage."""
