"""The side-channel suites: what was recorded, balanced answers, and no clip in two splits."""

import json
from collections import Counter
from itertools import islice, permutations
from pathlib import Path

import pytest

import tempeval.tasks
from tempeval.errors import InvalidSetting, UnknownName
from tempeval.mini.scene import LAMP_COLOURS, SIZES
from tempeval.mini.side import SEED, SIDE_SUITES, SideSuite, side_suite
from tempeval.mini.sound_scene import SoundScene

TASKS = Path(tempeval.tasks.__file__).parent
DIGESTS = {"audio": "e551b44a789f3bbd", "highfps": "329afa1a77d3d6ca"}


@pytest.fixture(params=sorted(SIDE_SUITES))
def suite(request: pytest.FixtureRequest) -> SideSuite:
    return side_suite(request.param)


def test_a_suite_is_what_was_recorded(suite: SideSuite) -> None:
    digest = suite.test.digest
    assert digest == DIGESTS[suite.name], "the suite changed: raise its version, retrain its patch"


def test_shipped_annotations_are_the_renderers(suite: SideSuite) -> None:
    path = TASKS / f"mini_{suite.name}" / "annotations.jsonl"
    shipped = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert shipped == suite.test.records()


def test_counts(suite: SideSuite) -> None:
    records = suite.test.records()
    assert len(suite.test.clips) == 96
    assert len(records) == 288
    assert Counter(Counter(record["video_id"] for record in records).values()) == {3: 96}
    assert len({record["sample_id"] for record in records}) == len(records)
    assert len({record["content_hash"] for record in records}) == len(records)
    assert len({record["aspect"] for record in records}) == len(suite.kinds)


def test_keys_are_those_of_the_mini_suite(suite: SideSuite) -> None:
    mini = json.loads((TASKS / "mini" / "annotations.jsonl").read_text("utf-8").splitlines()[0])
    assert all(set(record) == set(mini) for record in suite.test.records())


def test_answers_are_balanced_and_among_the_choices(suite: SideSuite) -> None:
    records = suite.test.records()
    for kind in suite.kinds:
        answers = Counter(r["answer"] for r in records if r["kind"] == kind.name)
        assert set(answers) == set(kind.choices)
        assert len(set(answers.values())) == 1


def test_answers_and_sizes_do_not_tell_on_each_other(suite: SideSuite) -> None:
    records, chances = suite.test.records(), {kind.name: kind.chance for kind in suite.kinds}
    table = {name: [r["answer"] for r in records if r["kind"] == name] for name in chances}
    table["size"] = [str(clip.scene.size) for clip in suite.test.clips]
    for one, given in table.items():
        for name, chance in chances.items():
            if one == name:
                continue
            pairs = Counter(zip(given, table[name], strict=True))
            best = sum(max(n for (a, _), n in pairs.items() if a == value) for value in set(given))
            assert best / 96 < chance + 0.2, (one, name)


def test_no_answer_of_the_audio_suite_goes_with_what_is_seen() -> None:
    scenes = [clip.scene for clip in side_suite("audio").test.clips]
    heard = [scene for scene in scenes if isinstance(scene, SoundScene)]
    boxes = Counter((scene.picture.order, scene.facts.box) for scene in heard)
    assert len(boxes) == len(list(permutations(LAMP_COLOURS))) * len(LAMP_COLOURS)
    assert set(boxes.values()) == {1}
    changes = Counter((scene.picture.change, scene.facts.before) for scene in heard)
    assert set(changes) == {(change, before) for change in (1, 2, 3) for before in (True, False)}
    assert set(changes.values()) == {16}


def test_sizes_and_rates_are_those_of_the_mini_suite(suite: SideSuite) -> None:
    scenes = [clip.scene for clip in suite.test.clips]
    assert Counter(scene.size for scene in scenes) == dict.fromkeys(SIZES, 24)
    assert {scene.fps for scene in scenes} == {8, 10, 12}
    assert all(2.3 <= scene.num_frames / scene.fps <= 4.1 for scene in scenes)


def test_no_training_clip_is_a_test_clip(suite: SideSuite) -> None:
    tests = {json.dumps(clip.scene.record(), sort_keys=True) for clip in suite.test.clips}
    assert len(tests) == 96
    seen: set[str] = set()
    for seed in (0, 1, 2, SEED, 20_240):
        stream = islice(suite.training_scenes(seed), 100)
        drawn = {json.dumps(scene.record(), sort_keys=True) for scene in stream}
        assert len(drawn) == 100
        assert not drawn & (tests | seen)
        seen |= drawn


def test_training_scenes_repeat_from_their_seed_and_take_a_size(suite: SideSuite) -> None:
    first, again = (list(islice(suite.training_scenes(3), 5)) for _ in range(2))
    assert first == again
    assert {scene.size for scene in islice(suite.training_scenes(3, (84, 112)), 5)} == {(84, 112)}


def test_a_training_split_holds_the_first_scenes_of_its_seed(suite: SideSuite) -> None:
    split = suite.train(12, seed=4)
    assert [clip.scene for clip in split.clips] == list(islice(suite.training_scenes(4), 12))
    assert (split.name, split.seed) == ("train", 4)
    records = split.records()
    tests = suite.test.records()
    for key in ("sample_id", "video_id", "video", "content_hash"):
        assert not {record[key] for record in records} & {record[key] for record in tests}
    right = [suite.answers(clip.scene) for clip in split.clips]
    assert [record["answer"] for record in records] == [a for answers in right for a in answers]
    assert split.digest != suite.train(12, seed=5).digest


def test_wrong_splits_are_refused(suite: SideSuite) -> None:
    with pytest.raises(InvalidSetting, match="count=0"):
        suite.train(0)
    with pytest.raises(InvalidSetting, match="seed=-1"):
        suite.train(1, seed=-1)
    with pytest.raises(InvalidSetting, match="not one of"):
        next(suite.training_scenes(0, (100, 100)))


def test_an_unknown_suite_is_named() -> None:
    with pytest.raises(UnknownName, match="did you mean 'audio'"):
        side_suite("audios")
