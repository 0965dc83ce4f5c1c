import json
from collections import Counter
from pathlib import Path

import pytest

import tempeval.tasks
from tempeval.errors import UnknownName
from tempeval.mini.paths import checkpoint, is_mini, located
from tempeval.mini.questions import ASPECTS, KINDS
from tempeval.mini.suite import NUM_CLIPS, digest, suite_clips, suite_records

SHIPPED = Path(tempeval.tasks.__file__).parent / "mini" / "annotations.jsonl"
DIGEST = "3a300e54478b3a08"


def test_the_suite_is_what_was_recorded() -> None:
    assert digest() == DIGEST, "the suite changed: raise VERSION, ship new annotations, retrain"


def test_shipped_annotations_are_the_renderers() -> None:
    shipped = [json.loads(line) for line in SHIPPED.read_text("utf-8").splitlines()]
    assert shipped == suite_records()


def test_counts() -> None:
    records = suite_records()
    assert NUM_CLIPS >= 100
    assert len(records) >= 600
    assert {record["aspect"] for record in records} == set(ASPECTS)
    assert min(Counter(record["video_id"] for record in records).values()) >= 6
    assert len({record["sample_id"] for record in records}) == len(records)
    assert len({record["content_hash"] for record in records}) == len(records)


def test_answers_are_balanced_and_among_the_choices() -> None:
    records = suite_records()
    for kind in KINDS:
        answers = Counter(r["answer"] for r in records if r["kind"] == kind.name)
        assert set(answers) == set(kind.choices)
        assert len(set(answers.values())) == 1


def test_answers_of_different_kinds_do_not_tell_on_each_other() -> None:
    """No answer to one kind should predict the answer to another, but for pairs of one fact."""
    records = suite_records()
    table = {kind.name: [r["answer"] for r in records if r["kind"] == kind.name] for kind in KINDS}
    linked = {("lamp_first", "lamp_last"), ("colour_before", "colour_after")}
    for i, one in enumerate(KINDS):
        for other in KINDS[i + 1 :]:
            if (one.name, other.name) in linked:
                continue
            pairs = Counter(zip(table[one.name], table[other.name], strict=True))
            best = sum(
                max(count for (a, _), count in pairs.items() if a == answer)
                for answer in one.choices
            )
            assert best / NUM_CLIPS < other.chance + 0.2, (one.name, other.name)


def test_files_folders_and_sizes_are_mixed() -> None:
    clips = suite_clips()
    endings = Counter(Path(clip.path).suffix for clip in clips)
    assert endings == {".mp4": 96, ".webm": 12, "": 12}
    assert len({clip.scene.size for clip in clips}) == 4
    for clip in clips:
        seconds = clip.scene.num_frames / clip.scene.fps
        assert 2 <= seconds <= 4.2
        assert (clip.folder_fps is not None) == clip.is_folder


def test_scenes_are_all_different() -> None:
    seeds = [clip.scene.noise for clip in suite_clips()]
    assert len(set(seeds)) == len(seeds)


def test_shipped_checkpoints_have_names() -> None:
    assert located("mini") == str(checkpoint("qwen2_5_vl"))
    assert located("mini:video_llava") == str(checkpoint("video_llava"))
    assert located("my/mini") == "my/mini"
    assert (is_mini("mini"), is_mini("mini:video_llava"), is_mini("minimal")) == (True, True, False)
    with pytest.raises(UnknownName, match="did you mean 'video_llava'"):
        located("mini:video_lava")
