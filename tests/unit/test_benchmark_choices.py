"""NExT-QA, EgoSchema, MVBench and TempCompass: official files, fine print, rules and their bugs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.egoschema import EGOSCHEMA
from tempeval.benchmarks.mvbench import MVBENCH, SUB_TASKS
from tempeval.benchmarks.nextqa import NEXTQA_MC, NEXTQA_OE
from tempeval.benchmarks.sources import load_docs
from tempeval.benchmarks.tempcompass import TEMPCOMPASS
from tempeval.errors import TempevalError
from tempeval.run.rescore import rescore
from tempeval.task_config import task_config
from tempeval.tasks import egoschema, mvbench, tempcompass
from tempeval.tasks.multiple_choice import LETTERS

METRICS = Path(__file__).parents[1] / "reference" / "metrics"


@pytest.fixture
def copy(tmp_path: Path) -> Any:
    def made(name: str) -> Path:
        return Path(shutil.copytree(METRICS / name / "annotations", tmp_path / name))

    return made


def golden(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    texts = json.loads((METRICS / name / "predictions.json").read_text("utf-8"))
    return texts, json.loads((METRICS / name / "expected.json").read_text("utf-8"))["per_item"]


class TestNextQA:
    def test_videos_are_found_through_the_official_map(self, copy: Any) -> None:
        root = copy("nextqa_mc")
        (root / "NExTVideo" / "1000").mkdir(parents=True)
        (root / "NExTVideo" / "1000" / "4100000000.mp4").touch()
        docs = list(NEXTQA_MC.read(root, "test"))
        assert docs[0]["video"] == str(root / "NExTVideo" / "1000" / "4100000000.mp4")
        assert docs[0]["sample_id"] == "4100000000_0"
        assert not Path(docs[-1]["video"]).exists()  # missing: a failure of its sample

    def test_the_two_versions_are_told_apart(self, copy: Any) -> None:
        with pytest.raises(MissingData, match="open-ended"):
            NEXTQA_MC.annotations(copy("nextqa_oe"), "test")
        with pytest.raises(MissingData, match="multiple-choice"):
            NEXTQA_OE.annotations(copy("nextqa_mc"), "test")

    def test_every_official_number(self) -> None:
        folder = METRICS / "nextqa_mc"
        known = json.loads((folder / "expected.json").read_text("utf-8"))["metrics"]
        official = {
            {"Acc_all": "acc", "TN (TN+TP)": "acc_tn"}.get(
                name, f"acc_{name.lower().removeprefix('acc_')}"
            ): value
            for name, value in known["official_on_index"].items()
        }
        assert len(official) == 11
        listed = {entry["metric"] for entry in task_config("tempeval_nextqa_mc")["metric_list"]}
        assert {name for name in listed if name.startswith("acc")} == set(official)
        texts = golden("nextqa_mc")[0]
        metrics = rescore("tempeval_nextqa_mc", texts, folder / "annotations").metrics
        assert {name: metrics.get(name) for name in official} == pytest.approx(official, abs=2e-4)

    def test_the_second_reference(self, copy: Any) -> None:
        docs = {doc["sample_id"]: doc for doc in NEXTQA_OE.read(copy("nextqa_oe"), "test")}
        assert docs["4200000000_1"]["answers"][1] == "with a knife"

    @pytest.mark.parametrize("benchmark", [NEXTQA_MC, NEXTQA_OE])
    def test_a_repeated_question_id_gets_a_number(self, copy: Any, benchmark: Any) -> None:
        """As in the official train.csv of NExT-OE, in which three ids name two questions."""
        root = copy(benchmark.name)
        (path,) = root.rglob("test.csv")
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines, lines[1]]) + "\n")
        ids = [
            doc["sample_id"]
            for doc in load_docs({"benchmark": benchmark.name, "split": "test"}, root)
        ]
        assert ids[-1] == f"{ids[0]}#2"

    def test_a_cut_line_is_named(self, copy: Any) -> None:
        path = copy("nextqa_mc") / "nextqa" / "test.csv"
        path.write_text(path.read_text() + "4100000000,300,640\n")
        with pytest.raises(BadData, match="too few columns"):
            list(NEXTQA_MC.read(path.parents[1], "test"))


class TestEgoSchema:
    def test_subset_and_full_are_never_mixed(self, copy: Any) -> None:
        root = copy("egoschema")
        subset, full = (list(EGOSCHEMA.read(root, split)) for split in ("subset", "full"))
        assert (len(subset), len(full)) == (24, 36)
        assert all(doc["answer_index"] >= 0 for doc in subset)
        assert all(doc["answer_index"] == -1 and not doc["answers"] for doc in full)

    def test_videos_as_kaggle_packs_them(self, copy: Any) -> None:
        root = copy("egoschema")
        name = next(iter(EGOSCHEMA.read(root, "full")))["sample_id"]
        (root / "videos" / "videos").mkdir(parents=True)
        (root / "videos" / "videos" / f"{name}.mp4").touch()
        found = next(iter(EGOSCHEMA.read(root, "full")))["video"]
        assert found == str(root / "videos" / "videos" / f"{name}.mp4")
        assert "kaggle competitions download -c egoschema-public" in EGOSCHEMA.access

    @pytest.fixture
    def full(self, copy: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        root = copy("egoschema")
        monkeypatch.setenv("TEMPEVAL_DATA", str(root))
        return list(EGOSCHEMA.read(root, "full"))

    def test_the_submission_file(
        self, full: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        texts, items = golden("egoschema")
        found = [egoschema.process_full(d, [texts[d["sample_id"]]])["submission"] for d in full]
        out = tmp_path / "out"
        assert egoschema.write_submission(found, SimpleNamespace(output_path=str(out))) is None
        (path,) = out.iterdir()
        written = json.loads(path.read_text())
        assert path.name == egoschema.FILE_NAME
        assert written == {name: known["intended"] for name, known in items.items()}
        unanswered = sum(index == -1 for index in written.values())
        assert f"{unanswered} of 36 answers name no option" in caplog.text

    def test_a_part_of_the_questions_is_no_submission(self, full: Any, tmp_path: Path) -> None:
        found = [egoschema.process_full(doc, ["A"])["submission"] for doc in full[:4]]
        egoschema.write_submission(found, SimpleNamespace(output_path=str(tmp_path / "out")))
        (path,) = (tmp_path / "out").iterdir()
        assert path.name == "egoschema_submission_partial.json"
        assert len(json.loads(path.read_text())) == 4

    def test_the_submission_of_another_model_is_kept(self, full: Any, tmp_path: Path) -> None:
        out = tmp_path / "out"
        for answer in "BCCB":
            found = [egoschema.process_full(doc, [answer])["submission"] for doc in full]
            egoschema.write_submission(found, SimpleNamespace(output_path=str(out)))
        first = out / egoschema.FILE_NAME
        (second,) = set(out.iterdir()) - {first}
        assert set(json.loads(first.read_text()).values()) == {1}
        assert set(json.loads(second.read_text()).values()) == {2}
        assert second.name.startswith("egoschema_submission_")

    def test_a_rescore_writes_the_file_that_is_asked_for(self, full: Any, tmp_path: Path) -> None:
        texts, items = golden("egoschema")
        path = tmp_path / "new" / "mine.json"
        rescore("tempeval_egoschema", texts, tmp_path, submission=path)
        assert json.loads(path.read_text()) == {n: k["intended"] for n, k in items.items()}
        table = tmp_path / "new" / "mine.csv"
        rescore("tempeval_egoschema", texts, tmp_path, submission=table)
        rows = [f"{name},{known['intended']}" for name, known in items.items()]
        assert table.read_text().splitlines() == ["q_uid,answer", *rows]
        with pytest.raises(TempevalError, match=r"tempeval_egoschema_subset.*no submission"):
            rescore("tempeval_egoschema_subset", texts, tmp_path, submission=path)
        with pytest.raises(TempevalError, match="cannot be written"):
            rescore("tempeval_egoschema", texts, tmp_path, submission=tmp_path)

    def test_the_full_set_has_no_score(self, copy: Any) -> None:
        root = copy("egoschema")
        doc = next(iter(EGOSCHEMA.read(root, "full")))
        found = egoschema.process_full(doc, ["A"])
        assert found["score"] is None
        assert found["answered"] == 1.0
        assert "acc" not in found
        metrics = rescore("tempeval_egoschema", golden("egoschema")[0], root).metrics
        assert set(metrics) == {"answered", "parse_failure"}

    def test_an_answer_to_no_question_is_named(self, copy: Any) -> None:
        root = copy("egoschema")
        (root / "subset_answers.json").write_text('{"nobody": 1}')
        with pytest.raises(BadData, match="nobody"):
            list(EGOSCHEMA.read(root, "subset"))


class TestMVBench:
    @pytest.mark.parametrize("split", sorted(SUB_TASKS))
    def test_both_rules_item_by_item(self, split: str) -> None:
        texts, items = golden("mvbench")
        for doc in MVBENCH.read(METRICS / "mvbench" / "annotations", split):
            known, text = items[doc["sample_id"]], texts[doc["sample_id"]]
            found = mvbench.process_results(doc, [text])
            assert found["acc_official"] == known["check_ans_notebook_prefixed"], text
            assert found["parsed"] == known["strict_letter"], text
            assert found["acc_strict"]["score"] == known["strict"], text

    @pytest.mark.parametrize(
        ("text", "index"),
        [
            ("(A", 0),
            ("(A a cup", 0),
            ("(b)", 1),
            ("[c] a cup", 2),
            ("(a", 0),
            ("(a. a cup", 0),
            ("(a\nThe man sits.", 0),
            ("(a man sits)", None),
            ("(a cup", None),
            ("[a\tcup]", None),
            ("The answer is a cup", None),
            ("The answer is (a cup)", None),
            ("The answer is b because", 1),
        ],
    )
    def test_a_word_in_brackets_is_no_letter(self, text: str, index: int | None) -> None:
        assert mvbench.strict_letter(text, 5).index == index

    def test_parts_frame_folders_and_clusters(self, tmp_path: Path) -> None:
        shutil.copytree(METRICS / "mvbench" / "annotations", tmp_path, dirs_exist_ok=True)
        folder = tmp_path / "video" / "tvqa" / "frames_fps3_hq" / "clip_18_0"
        folder.mkdir(parents=True)
        episodic = next(iter(MVBENCH.read(tmp_path, "episodic_reasoning")))
        assert (episodic["video"], episodic["fps"]) == (str(folder), 3.0)
        assert (episodic["start"], episodic["end"]) == (3.9, 15.1)
        antonym = next(iter(MVBENCH.read(tmp_path, "action_antonym")))
        assert antonym["start"] is antonym["fps"] is None
        # The same folder and file in two sub-tasks is one cluster.
        sequence = next(iter(MVBENCH.read(tmp_path, "action_sequence")))
        assert sequence["cluster"].startswith("mvbench/star/Charades_v1_480/")

    def test_a_clip_of_charades_is_one_cluster_in_both_of_its_folders(self, tmp_path: Path) -> None:
        item = {
            "video": "ZS9XR.mp4",
            "question": "Q?",
            "candidates": ["x", "y"],
            "answer": "x",
            "start": 1.0,
            "end": 2.0,
        }
        docs = []
        for split in ("action_sequence", "action_localization", "state_change"):
            (tmp_path / f"{split}.json").write_text(json.dumps([item]))
            docs += MVBENCH.read(tmp_path, split)
        assert len({doc["video_id"] for doc in docs}) == 3
        assert [doc["cluster"] for doc in docs] == [
            "mvbench/star/Charades_v1_480/ZS9XR.mp4",
            "mvbench/star/Charades_v1_480/ZS9XR.mp4",
            "mvbench/perception/videos/ZS9XR.mp4",
        ]

    @pytest.mark.parametrize(
        "broken",
        [{"start": None}, {"end": "2"}, {"answer": "none"}, {"video": "/etc/x.mp4"}],
    )
    def test_a_damaged_item_is_named(self, tmp_path: Path, broken: dict[str, Any]) -> None:
        shutil.copytree(METRICS / "mvbench" / "annotations", tmp_path, dirs_exist_ok=True)
        path = tmp_path / "json" / "action_sequence.json"
        items = json.loads(path.read_text())
        path.write_text(json.dumps([items[0], {**items[1], **broken}]))
        with pytest.raises(BadData, match="item 1"):
            list(MVBENCH.read(tmp_path, "action_sequence"))

    def test_a_part_that_cannot_be_is_a_failure_of_its_sample_only(self, tmp_path: Path) -> None:
        shutil.copytree(METRICS / "mvbench" / "annotations", tmp_path, dirs_exist_ok=True)
        path = tmp_path / "json" / "action_sequence.json"
        first, *others = json.loads(path.read_text())
        path.write_text(json.dumps([{**first, "start": 9.0, "end": 3.0}, *others]))
        docs = list(MVBENCH.read(tmp_path, "action_sequence"))
        assert (docs[0]["start"], docs[0]["end"], len(docs)) == (9.0, 3.0, 3)

    def test_of_equal_candidates_the_last_one_is_right(self, tmp_path: Path) -> None:
        item = {"video": "1.mp4", "question": "Q?", "candidates": ["x", "x", "y"], "answer": "x"}
        (tmp_path / "state_change.json").write_text(json.dumps([item]))
        (doc,) = MVBENCH.read(tmp_path, "state_change")
        assert doc["answer_index"] == 1


class TestTempCompass:
    @pytest.mark.parametrize("split", ["multi-choice", "yes_no", "caption_matching"])
    def test_official_ratings_item_by_item(self, split: str) -> None:
        process = getattr(tempcompass, f"process_{split.replace('-', '_')}")
        texts, items = golden("tempcompass")
        for doc in TEMPCOMPASS.read(METRICS / "tempcompass" / "annotations", split):
            known, text = items[doc["sample_id"]], texts[doc["sample_id"]]
            found = process(doc, [text])
            assert found["avg"]["score"] == known["rating"], text
            assert found["match_success_rate"] == known["match_success"], text

    @pytest.mark.parametrize(
        ("text", "index"), [("yes", 0), ("No, it does not.", 1), ("yesterday", None), ("", None)]
    )
    def test_the_strict_reader_wants_the_word(self, text: str, index: int | None) -> None:
        assert tempcompass.strict_yes_no(text).index == index

    def test_official_bugs_are_kept_beside_the_strict_score(self) -> None:
        docs = list(TEMPCOMPASS.read(METRICS / "tempcompass" / "annotations", "yes_no"))
        doc = next(doc for doc in docs if doc["answers"] == ["no"])
        found = tempcompass.process_yes_no(doc, ["not sure"])
        assert (found["avg"]["score"], found["avg_strict"]) == (1.0, 0.0)

    def test_captioning_is_asked_as_multiple_choice(self) -> None:
        docs = TEMPCOMPASS.read(METRICS / "tempcompass" / "annotations", "captioning")
        doc = next(iter(docs))
        assert doc["choices"] == ["sitting down", "pouring water", "laughing"]
        lines = tempcompass.captioning_mcq_text(doc).splitlines()
        assert lines[1] == "Information A: sitting down"
        assert "letter" in lines[-1]
        right = LETTERS[doc["answer_index"]]
        assert tempcompass.process_captioning_mcq(doc, [right])["avg"]["score"] == 1.0

    def test_every_answer_is_one_of_the_options(self) -> None:
        for split in TEMPCOMPASS.splits:
            for doc in TEMPCOMPASS.read(METRICS / "tempcompass" / "annotations", split):
                assert doc["answer_index"] >= 0, doc


def test_a_part_is_said_to_stock_chat_models_too() -> None:
    doc = next(iter(MVBENCH.read(METRICS / "mvbench" / "annotations", "action_sequence")))
    video = mvbench.doc_to_messages(doc)[0]["content"][0]
    assert (video["start_time"], video["end_time"]) == (doc["start"], doc["end"])
    assert "fps" not in video
