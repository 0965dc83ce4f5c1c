"""Tasks that are not of this package, from a folder of the user's: scored, paired and ranked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fake_model import FakeModel

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.leaderboard.load import load as load_runs
from tempeval.run import resume
from tempeval.run.runner import run_matrix
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.leaderboard.load import Loaded

YAML = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: questions.jsonl
test_split: test
output_type: generate_until
doc_to_text: !function theirs.doc_to_text
doc_to_visual: !function theirs.doc_to_visual
doc_to_target: answer
process_results: !function theirs.process_results
generation_kwargs:
  max_new_tokens: 4
metric_list:
  - metric: submission
    aggregation: !function theirs.submission
    higher_is_better: true
  - metric: their_score
    aggregation: !function theirs.{aggregation}
    higher_is_better: true
  - metric: exact
    aggregation: mean
    higher_is_better: true
"""
CODE = '''
"""As tasks of lmms-eval are written: objects from each sample, a number from all of them."""


def doc_to_visual(doc):
    return [doc["path"]]


def doc_to_text(doc):
    return doc["question"]


def process_results(doc, results):
    item = {"right": results[0] == doc["answer"], "kind": doc["kind"]}
    return {"submission": item, "their_score": item, "exact": float(item["right"])}


def submission(items):
    return None


def percent(items):
    return 100.0 * sum(item["right"] for item in items) / len(items)


def macro(items):
    kinds = {}
    for item in items:
        kinds.setdefault(item["kind"], []).append(item["right"])
    return sum(sum(kind) / len(kind) for kind in kinds.values()) / len(kinds)
'''
ROWS = [("yes", "a"), ("no", "a"), ("yes", "a"), ("yes", "b"), ("yes", "b"), ("no", "c")]


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resume, "_revision", lambda _pretrained: "sha256:0")
    folder = tmp_path / "their tasks"
    folder.mkdir()
    videos = tmp_path / "videos"
    videos.mkdir()
    lines = []
    for number, (answer, kind) in enumerate(ROWS):
        path = videos / f"{number // 2}.mp4"
        path.write_bytes(b"x")
        row = {"question": f"{number}?", "answer": answer, "kind": kind, "path": str(path)}
        lines.append(json.dumps(row))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "theirs.py").write_text(CODE)
    for name in ("percent", "macro"):
        text = YAML.format(name=f"theirs_{name}", aggregation=name)
        (folder / f"theirs_{name}.yaml").write_text(text)
    return folder


def loaded(theirs: Path, *tasks: str, **changes: Any) -> Loaded:
    out = theirs.parent / "out"
    spec = RunSpec(
        **{
            "methods": ["baseline"],
            "tasks": tasks,
            "out": out,
            "include_path": theirs,
            **changes,
        }
    )
    run_matrix(spec, load=lambda _spec: FakeModel())
    return load_runs([out])


def test_a_number_of_the_task_is_the_mean_of_its_samples(theirs: Path) -> None:
    (entry,) = loaded(theirs, "theirs_percent").entries
    assert list(entry.samples.score) == pytest.approx(
        [100.0 if answer == "yes" else 0.0 for answer, _ in _by_id(theirs, entry)]
    )
    assert len(set(entry.samples.clusters)) == 3
    assert "video_id=0.mp4" in entry.samples.clusters
    assert entry.task.score_key == "their_score of one sample"


def _by_id(theirs: Path, entry: Any) -> list[tuple[str, str]]:
    """Return the rows in the order of the samples, which is that of their hashes."""
    samples = (theirs.parent / "out").rglob("*_samples_*.jsonl")
    lines = [json.loads(line) for path in samples for line in path.read_text().splitlines()]
    number = {line["sample_id"]: line["doc_id"] for line in lines}
    return [ROWS[number[name]] for name in entry.samples.ids]


def test_a_mean_over_groups_is_listed_with_the_reason(theirs: Path) -> None:
    found = loaded(theirs, "theirs_macro")
    assert not found.entries
    (refusal,) = found.refusals
    assert "its their_score is 0.555556, and the mean" in refusal.reason


def test_a_metric_may_be_chosen_with_its_unit(theirs: Path) -> None:
    (entry,) = loaded(theirs, "theirs_macro", metric="exact:fraction").entries
    assert entry.samples.score.mean() == pytest.approx(4 / 6)
    (entry,) = (
        loaded(
            theirs, "theirs_percent", metric="their_score:percent", out=theirs.parent / "b"
        ).entries
        or load_runs([theirs.parent / "b"]).entries
    )
    assert sorted(set(entry.samples.score)) == [0.0, 1.0]


def test_a_metric_that_the_task_lacks_is_refused_before_anything_runs(theirs: Path) -> None:
    with pytest.raises(UnknownName, match=r"exacd.*exact"):
        loaded(theirs, "theirs_macro", metric="exacd")


def test_a_name_that_another_task_has_is_refused(theirs: Path) -> None:
    path = theirs / "theirs_macro.yaml"
    path.write_text(path.read_text().replace("theirs_macro", "tempeval_mini_order"))
    with pytest.raises(InvalidSetting, match="has the name of one of tempeval's"):
        loaded(theirs, "theirs_percent")


def test_a_folder_that_is_none_is_refused(theirs: Path) -> None:
    with pytest.raises(InvalidSetting, match="is no folder"):
        loaded(theirs, "theirs_percent", include_path=theirs / "nowhere")
