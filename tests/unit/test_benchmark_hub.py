"""The Hugging Face copies, from caches that `datasets` itself prepares here from small tables."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.egoschema import EGOSCHEMA
from tempeval.benchmarks.hub import is_cached, read_cached
from tempeval.benchmarks.mvbench import MVBENCH
from tempeval.benchmarks.nextqa import NEXTQA_MC, NEXTQA_OE
from tempeval.benchmarks.sources import load_docs
from tempeval.benchmarks.tempcompass import TEMPCOMPASS

if TYPE_CHECKING:
    from tempeval.benchmarks.base import Benchmark

METRICS = Path(__file__).parents[1] / "reference" / "metrics"
CLOCK = 1_000_000_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_DATASETS_CACHE", "LMMS_EVAL_DATASETS_CACHE", "TEMPEVAL_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def prepare(
    home: Path, benchmark: Benchmark, split: str, rows: list[dict[str, Any]], hash_: str = "abc"
) -> Path:
    """Let `datasets` write the cache of a hub data set; its files are local."""
    from datasets import Dataset
    from datasets.packaged_modules.parquet.parquet import Parquet

    assert benchmark.hub is not None
    table = home.parent / f"{hash_}.parquet"
    Dataset.from_list(rows).to_parquet(str(table))
    owner, _, name = benchmark.hub.path.rpartition("/")
    builder = Parquet(
        cache_dir=str(home.parent / "made"),
        dataset_name=name,
        config_name=benchmark.hub.configs[split] or "default",
        hash=hash_,
        data_files={benchmark.hub.splits[split]: [str(table)]},
    )
    builder.download_and_prepare()
    # A hub's data set has its owner before the name, and no digest of local files.
    made, config = Path(builder.cache_dir), benchmark.hub.configs[split] or "default"
    kept = home / "datasets" / f"{owner}___{made.parents[2].name}" / config / made.parent.name
    kept.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(made, kept / made.name))


def local(benchmark: Benchmark, name: str, split: str) -> list[dict[str, Any]]:
    return list(benchmark.read(METRICS / name / "annotations", split))


def same(one: dict[str, Any], other: dict[str, Any], *but: str) -> None:
    skipped = {"video", "content_hash", *but}
    assert {k: v for k, v in one.items() if k not in skipped} == {
        k: v for k, v in other.items() if k not in skipped
    }


def test_nothing_is_cached_and_nothing_is_asked_for() -> None:
    hub = TEMPCOMPASS.hub
    assert hub is not None
    assert not is_cached(hub, "yes_no")
    assert not is_cached(hub, "no such split")
    with pytest.raises(MissingData, match="lmms-eval/TempCompass"):
        read_cached(hub, "yes_no")


def test_tempcompass_is_what_the_official_files_say(home: Path) -> None:
    hub = TEMPCOMPASS.hub
    assert hub is not None
    for split in ("multi-choice", "captioning"):
        docs = local(TEMPCOMPASS, "tempcompass", split)
        rows = [
            {
                "video_id": doc["video_id"].rpartition("/")[2],
                "question": doc["question"],
                "answer": doc["answers"][0],
                "dim": doc["category"],
                "mc_question": doc.get("judge_question", ""),
                "mc_answer": doc.get("judge_answer", ""),
            }
            for doc in docs
        ]
        prepare(home, TEMPCOMPASS, split, rows)
        assert is_cached(hub, split)
        video = home / "tempcompass" / "videos" / "1051000000.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        video.touch()
        found = read_cached(hub, split)
        for one, other in zip(found, docs, strict=True):
            same(one, other, "fine")
        assert found[0]["video"] == str(video)
    assert not is_cached(hub, "yes_no")


def test_egoschema_drops_the_letters_and_hides_what_is_hidden(home: Path) -> None:
    hub = EGOSCHEMA.hub
    assert hub is not None
    for split in ("subset", "full"):
        docs = local(EGOSCHEMA, "egoschema", split)
        rows = [
            {
                "question_idx": str(number),
                "question": doc["question"],
                "video_idx": doc["sample_id"],
                "option": [f"{a}. {text}" for a, text in zip("ABCDE", doc["choices"], strict=True)],
                "answer": str(doc["answer_index"]) if split == "subset" else None,
            }
            for number, doc in enumerate(docs)
        ]
        prepare(home, EGOSCHEMA, split, rows)
        for one, other in zip(read_cached(hub, split), docs, strict=True):
            same(one, other)


@pytest.mark.parametrize("benchmark", [NEXTQA_MC, NEXTQA_OE])
def test_nextqa(home: Path, benchmark: Benchmark) -> None:
    docs = local(benchmark, benchmark.name, "test")
    rows = []
    for doc in docs:
        video, _, qid = doc["sample_id"].rpartition("_")
        row = {"video": int(video), "question": doc["question"], "qid": int(qid)}
        row["type"] = doc["category"]
        if doc["choices"]:
            row["answer"] = doc["answer_index"]
            row.update({f"a{index}": text for index, text in enumerate(doc["choices"])})
        else:
            row["answer"] = doc["answers"][0]
            row["additional_ref_answer"] = doc["answers"][1] if doc["answers"][1:] else None
        rows.append(row)
    prepare(home, benchmark, "test", rows)
    assert benchmark.hub is not None
    found = read_cached(benchmark.hub, "test")
    for one, other in zip(found, docs, strict=True):
        same(one, other)
    assert found[0]["video"].startswith(str(home / "nextqa"))


def test_mvbench_has_its_parts_cut_out_already(home: Path) -> None:
    items = json.loads(
        (METRICS / "mvbench" / "annotations" / "json" / "episodic_reasoning.json").read_text()
    )
    rows = [{**item, "video": f"{item['video']}.mp4"} for item in items]
    prepare(home, MVBENCH, "episodic_reasoning", rows)
    video = home / "mvbench_video" / "tvqa" / "video_fps3_hq_segment" / "clip_18_0.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    assert MVBENCH.hub is not None
    found = read_cached(MVBENCH.hub, "episodic_reasoning")
    assert found[0]["video"] == str(video)
    assert found[0]["start"] is found[0]["end"] is found[0]["fps"] is None
    assert [doc["answers"] for doc in found] == [[item["answer"]] for item in items]


def test_the_copy_prepared_last_counts(home: Path) -> None:
    rows = [{"video": "1.mp4", "question": "Q?", "candidates": ["x", "y"], "answer": "x"}]
    old = prepare(home, MVBENCH, "state_change", rows, "old")
    new = prepare(home, MVBENCH, "state_change", [{**rows[0], "answer": "y"}], "new")
    assert MVBENCH.hub is not None
    for first, second, right in ((old, new, "y"), (new, old, "x")):
        os.utime(first, (CLOCK, CLOCK))
        os.utime(second, (CLOCK + 9, CLOCK + 9))
        assert read_cached(MVBENCH.hub, "state_change")[0]["answers"] == [right]


def test_other_columns_and_damaged_files_are_named(home: Path) -> None:
    folder = prepare(home, MVBENCH, "state_change", [{"clip": "1.mp4"}])
    assert MVBENCH.hub is not None
    with pytest.raises(BadData, match="OpenGVLab/MVBench"):
        read_cached(MVBENCH.hub, "state_change")
    (file,) = folder.glob("*.arrow")
    file.write_bytes(b"damaged")
    with pytest.raises(BadData, match=file.name):
        read_cached(MVBENCH.hub, "state_change")


def test_local_files_win_and_a_chosen_root_has_no_stand_in(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"video": "1.mp4", "question": "Hub?", "candidates": ["x"], "answer": "x"}]
    prepare(home, MVBENCH, "state_change", rows)
    source = {"benchmark": "mvbench", "split": "state_change"}
    assert [doc["question"] for doc in load_docs(source)] == ["Hub?"]
    with pytest.raises(MissingData):
        load_docs(source, tmp_path)
    monkeypatch.setenv("TEMPEVAL_DATA", str(METRICS / "mvbench" / "annotations"))
    assert len(load_docs(source)) == 3
