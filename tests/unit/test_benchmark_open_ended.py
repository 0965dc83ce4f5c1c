"""ScanQA, SQA3D and MUSIC-AVQA: official files, cleaning, and rules with their bugs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempeval.benchmarks import scannet
from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.music_avqa import MUSIC_AVQA, filled
from tempeval.benchmarks.scanqa import SCANQA
from tempeval.benchmarks.sources import load_docs
from tempeval.benchmarks.sqa3d import SQA3D
from tempeval.benchmarks.video_files import survey
from tempeval.metrics import captions
from tempeval.metrics.answer_cleaning import clean_answer
from tempeval.metrics.exact_match import refined_match, refined_match_strict
from tempeval.metrics.unavailable import MetricUnavailable
from tempeval.tasks import music_avqa, scanqa, sqa3d
from tempeval.tasks.open_ended import process_cleaned
from tempeval.video.folder import shown_images

if TYPE_CHECKING:
    from tempeval.benchmarks.document import Doc

METRICS = Path(__file__).parents[1] / "reference" / "metrics"


def golden(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    texts = json.loads((METRICS / name / "predictions.json").read_text("utf-8"))
    return texts, json.loads((METRICS / name / "expected.json").read_text("utf-8"))["per_item"]


class TestCleaning:
    @pytest.mark.parametrize("name", ["scanqa", "sqa3d"])
    def test_it_equals_the_official_one_item_by_item(self, name: str) -> None:
        texts, items = golden(name)
        for sample, known in items.items():
            assert clean_answer(texts[sample]) == known["clean_prediction"]

    @pytest.mark.parametrize(
        ("text", "clean"),
        [
            ("  A   red  Chair. ", "red chair"),
            ("the", "the"),  # an article goes only before a word
            ("a the door", "door"),
            ("23 chairs", "twenty-three chairs"),
            ("22 chairs", "22 chairs"),
            ("0", "zero"),
            ("none of 20", "zero of twenty"),
            ("let it", "left it"),
            ("o'  clock", "o'clock"),
            ("façade", "faade"),  # the letter is gone before the cedilla's rule
            ("mat2 no1", "mat no"),
            ("10:30-ish", "ten:30-ish"),
            ("TVs and tv", "tvs and TV"),
        ],
    )
    def test_its_rules_in_their_order(self, text: str, clean: str) -> None:
        assert clean_answer(text) == clean

    @given(st.text())
    def test_any_text_can_be_cleaned(self, text: str) -> None:
        kept = set("abcdefghijklmnopqrstuvwxyzTV0123456789,'-:")
        assert all(letter in kept or letter.isspace() for letter in clean_answer(text))


class TestRefined:
    def test_official_bugs_and_the_strict_rule(self) -> None:
        assert refined_match("", ["chair"])
        assert refined_match("piano", ["no"])
        assert not refined_match_strict("", ["chair"])
        assert not refined_match_strict(" \n", ["chair"])
        assert not refined_match("sofa", ["chair"])

    def test_a_failed_sample_is_an_empty_answer(self) -> None:
        doc = next(iter(SCANQA.read(METRICS / "scanqa" / "annotations", "val")))
        found = process_cleaned(doc, [""])
        assert (found["parse_status"], found["parse_failure"], found["score"]) == (
            "empty",
            1.0,
            0.0,
        )
        assert found["em_refined"] == 1.0  # as official
        assert found["em_refined_strict"] == 0.0


class TestScenes:
    def test_frames_and_clusters_are_the_same_in_both(self, tmp_path: Path) -> None:
        for name in ("scanqa", "sqa3d"):
            shutil.copytree(METRICS / name / "annotations", tmp_path, dirs_exist_ok=True)
        (tmp_path / "posed_images_new" / "scene0011_00").mkdir(parents=True)
        scan = next(iter(SCANQA.read(tmp_path, "val")))
        assert scan["video"] == str(tmp_path / "posed_images_new" / "scene0011_00")
        assert (scan["fps"], scan["cluster"]) == (1.0, "scannet/scene0011_00")
        situated = next(iter(SQA3D.read(tmp_path, "test")))
        assert situated["cluster"] == "scannet/scene0025_00"
        assert situated["question"].startswith("I am facing the bookshelf")
        assert situated["question"].endswith("Does the laundry basket have legs?")

    @pytest.mark.parametrize("folder", scannet.FOLDERS)
    def test_depth_maps_are_no_frames_in_any_folder(self, tmp_path: Path, folder: str) -> None:
        """An export of ScanNet holds 00000.jpg, 00000.png (16-bit depth) and 00000.txt."""
        scene = tmp_path / folder / "scene0011_00"
        scene.mkdir(parents=True)
        for number in range(8):
            (scene / f"{number:05d}.jpg").write_bytes(b"123")
            (scene / f"{number:05d}.png").write_bytes(b"depth")
            (scene / f"{number:05d}.txt").write_text("pose")
        assert scannet.scene_index(tmp_path).find("scene0011_00") == scene
        shown = [image.name for image in shown_images(str(scene))]
        views = 32 if folder.endswith("_new") else 8  # a whole scan is no set of views
        assert shown == [f"{min(view, 7):05d}.jpg" for view in range(views)]
        assert survey([str(scene)]).bytes == 8 * 3
        for image in scene.glob("*.jpg"):
            image.unlink()
        assert survey([str(scene)]).empty == [str(scene)]

    def test_types_are_the_first_word_as_written(self) -> None:
        _, items = golden("sqa3d")
        for doc in SQA3D.read(METRICS / "sqa3d" / "annotations", "test"):
            assert doc["category"] == items[doc["sample_id"]]["type"]
            assert f"em_{doc['category'].lower()}" in sqa3d.process_results(doc, ["yes"])

    def test_the_test_splits_of_scanqa_have_no_answers(self, tmp_path: Path) -> None:
        item = {"scene_id": "scene0000_00", "question_id": "q", "question": "What?"}
        (tmp_path / "ScanQA_v1.0_val.json").write_text(json.dumps([item]))
        with pytest.raises(BadData, match="evaluate val"):
            list(SCANQA.read(tmp_path, "val"))

    def test_a_scene_stays_inside_its_folder(self, tmp_path: Path) -> None:
        item = {"scene_id": "../../x", "question_id": "q", "question": "What?", "answers": ["a"]}
        (tmp_path / "ScanQA_v1.0_val.json").write_text(json.dumps([item]))
        with pytest.raises(BadData, match="item 0"):
            list(SCANQA.read(tmp_path, "val"))


class TestCaptions:
    def test_without_java_they_are_unavailable(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(MetricUnavailable, match="install"):
            captions.caption_score("cider", [("a", ("a",))])
        item = {"prediction": "a", "references": ["a"]}
        assert scanqa.cider([item]) is None, "only this metric is lost"

    @pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
    def test_odd_answers_shift_no_line(self) -> None:
        pairs = [
            ("", ("a chair",)),
            ("red\rchair ||| here", ("red chair ||| here",)),
            ("blue\u2028table", ("blue table",)),
            ("", ("a door",)),
        ]
        plain = [("", ("a chair",)), ("red chair ||| here", ("red chair ||| here",))]
        plain += [("blue table", ("blue table",)), ("", ("a door",))]
        for metric in captions.METRICS:
            assert captions.caption_score(metric, pairs) == captions.caption_score(metric, plain)


class TestMusicAVQA:
    def test_slots_and_rules_item_by_item(self) -> None:
        texts, items = golden("music_avqa")
        for doc in MUSIC_AVQA.read(METRICS / "music_avqa" / "annotations", "test"):
            known, text = items[doc["sample_id"]], texts[doc["sample_id"]]
            assert doc["question"] == known["question"]
            found = music_avqa.process_results(doc, [text])
            assert found["overall_exact"]["score"] == known["exact"], text
            assert found["overall_substring"] == known["substring"], text

    def test_real_and_synthetic_videos(self, tmp_path: Path) -> None:
        shutil.copytree(METRICS / "music_avqa" / "annotations", tmp_path, dirs_exist_ok=True)
        folder = tmp_path / "MUCIS-AVQA-videos-Synthetic"
        folder.mkdir()
        (folder / "vv00003000.mp4").touch()
        docs = list(MUSIC_AVQA.read(tmp_path, "test"))
        assert docs[0]["video"] == str(folder / "vv00003000.mp4")
        assert docs[1]["video"] == str(tmp_path / "MUSIC-AVQA-videos-Real" / "00009001.mp4")

    @pytest.mark.parametrize("folder", ["data/video", "MUSIC-AVQA-Videos"])
    def test_videos_lie_where_the_official_readme_puts_them(
        self, tmp_path: Path, folder: str
    ) -> None:
        shutil.copytree(METRICS / "music_avqa" / "annotations", tmp_path, dirs_exist_ok=True)
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "00009001.mp4").touch()
        docs = list(MUSIC_AVQA.read(tmp_path, "test"))
        assert docs[1]["video"] == str(tmp_path / folder / "00009001.mp4")
        assert docs[0]["video"] == str(tmp_path / folder / "vv00003000.mp4"), "beside the others"

    def made(self, root: Path, *changes: dict[str, Any]) -> list[Doc]:
        item = {
            "video_id": "00005778",
            "question_id": 1138,
            "type": '["Audio-Visual", "Counting"]',
            "question_content": "How many sounding <Object> in the video?",
            "templ_values": '["bagpipe"]',
            "anser": "two",
        }
        (root / "data" / "json").mkdir(parents=True)
        items = [{**item, **change} for change in changes]
        (root / "data" / "json" / "avqa-test.json").write_text(json.dumps(items))
        return load_docs({"benchmark": "music_avqa", "split": "test"}, root)

    def test_a_repeated_question_id_gets_a_number(self, tmp_path: Path) -> None:
        """As in the official avqa-test.json, whose ids 55 questions share with another one."""
        docs = self.made(tmp_path, {}, {"anser": "four"}, {"question_id": 7}, {"anser": "six"})
        assert [doc["sample_id"] for doc in docs] == ["1138", "1138#2", "7", "1138#3"]
        assert {doc["cluster"] for doc in docs} == {"music_avqa/00005778"}
        assert [doc["answers"] for doc in docs] == [["two"], ["four"], ["two"], ["six"]]

    def test_types_are_read_as_json_or_as_pave_reads_them(self, tmp_path: Path) -> None:
        (doc,) = self.made(tmp_path, {"type": "['Audio', 'Counting']", "templ_values": "['drum']"})
        assert doc["category"] == "Audio/Counting"
        assert doc["question"] == "How many sounding drum in the video?"

    @pytest.mark.parametrize("value", ["Audio", "{'Audio'}", "['Audio'", "[" * 10_000, 3])
    def test_a_type_that_is_no_list_is_named(self, tmp_path: Path, value: Any) -> None:
        with pytest.raises(BadData, match=r"item 0 .*expected the text of a list"):
            self.made(tmp_path, {"type": value})

    def test_both_versions_are_told_apart(self, tmp_path: Path) -> None:
        source = METRICS / "music_avqa" / "annotations" / "data" / "json"
        shutil.copytree(source, tmp_path / "data" / "json_update")
        assert list(MUSIC_AVQA.read(tmp_path, "test_update"))
        with pytest.raises(MissingData, match="avqa-test"):
            MUSIC_AVQA.annotations(tmp_path, "test")

    def test_a_value_too_few_is_named(self) -> None:
        with pytest.raises(BadData, match="item 3"):
            filled("Is the <Object> louder than the <Object>?", ["cello"], "item 3")
