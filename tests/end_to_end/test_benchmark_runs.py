"""Every task of every benchmark, on rendered files, through lmms-eval's command and ours.

One video of each benchmark is missing: its samples are recorded failures, and all others count.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benchmark_fixtures import add_missing, benchmark_tasks, render, task_docs
from fake_model import FakeModel

from tempeval.benchmarks.document import IDENTITY
from tempeval.leaderboard.unscored import UNSCORED
from tempeval.metrics import wups_data
from tempeval.mini.paths import checkpoint
from tempeval.run.rescore import rescore
from tempeval.run.runner import run_matrix
from tempeval.run.spec import RunSpec
from tempeval.task_config import task_config
from tempeval.tasklist import expand_tasks, task_entries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.benchmarks.document import Doc

BIN = Path(sys.executable).parent
WITHOUT_WORDNET = bool(wups_data.missing(wups_data.ALWAYS))
STATUSES = {"parsed", "ambiguous", "unparsed", "empty", "failed"}
#: A frame folder, WebM, and questions of several types about one video.
QUICK = ("tempeval_jester_choice", "tempeval_ssv2_mcq", "tempeval_nextqa_mc")
METHODS = ("baseline", "pas")

Line = dict[str, Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    render(folder)
    return folder


@dataclass(frozen=True)
class Run:
    """What a command left: results and samples of each task."""

    results: dict[str, dict[str, Any]]
    samples: dict[str, list[Line]]
    folder: Path

    def answers(self, task: str) -> list[tuple[str, Any]]:
        return [(line["sample_id"], line["filtered_resps"]) for line in self.samples[task]]


def command(arguments: Sequence[object], cwd: Path, root: Path, code: int = 0) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LMMS", "PYTHON"))}
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env={**environment, "TEMPEVAL_DATA": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def lmms_eval(
    tasks: Sequence[str], cwd: Path, root: Path, *more: str, model: str = "tempeval_baseline"
) -> Run:
    arguments = "pretrained=mini,num_frames=4"
    if model != "tempeval_baseline":
        arguments = f"pretrained={checkpoint('qwen2_5_vl')},device_map=cpu,max_num_frames=4"
    cwd.mkdir(exist_ok=True)
    log = command(
        [
            *(sys.executable, "-m", "lmms_eval", "--model", model, "--model_args", arguments),
            *("--tasks", ",".join(tasks), "--device", "cpu", "--log_samples"),
            *("--batch_size", 8 if model == "tempeval_baseline" else 1, "--output_path", "out"),
            *more,
        ],
        cwd,
        root,
    )
    found = list(cwd.glob("out/*/*_results.json"))
    assert len(found) == 1, log
    return read_run(found[0].parent)


def read_run(folder: Path) -> Run:
    (results,) = folder.glob("*_results.json")
    samples = {
        path.stem.partition("_samples_")[2]: [
            json.loads(line) for line in path.read_text().splitlines()
        ]
        for path in folder.glob("*_samples_*.jsonl")
    }
    return Run(json.loads(results.read_text())["results"], samples, folder)


def check_samples(task: str, lines: Sequence[Line], docs: Sequence[Doc]) -> None:
    """Every document has its line; those whose video is missing are failures, and only those."""
    by_id = {doc["sample_id"]: doc for doc in docs}
    assert [line["sample_id"] for line in lines] == list(by_id), task
    for line in lines:
        doc = by_id[line["sample_id"]]
        for name in IDENTITY:
            if name != "content_hash":  # tasks add columns: their own, and the same in every run
                assert line[name] == doc[name], (task, name)
        assert len(line["content_hash"]) == 16
        assert line["parse_status"] in STATUSES, (task, line)
        assert "parsed" in line
        unscored = task.startswith("tempeval_nextqa_oe") and WITHOUT_WORDNET
        error = line["token_counts"][0]["error"]
        if (unscored and error is None) or task in UNSCORED:
            assert line["score"] is None
        else:
            assert 0 <= line["score"] <= 1
        if Path(doc["video"]).exists():
            assert error is None, (task, error)
            assert line["failed"] == 0
            assert line["token_counts"][0]["visual_tokens"] > 0
        else:
            assert Path(doc["video"]).name in error, (task, error)
            assert (line["parse_status"], line["parsed"]) == ("failed", None), (task, line)
            assert (line["failed"], line["failure"]) == (1, error)
            assert not line["score"], (task, line)


def check_metrics(task: str, results: dict[str, Any], lines: Sequence[Line]) -> None:
    """Every metric is there and finite; None only where it applies to no sample, or lacks data."""
    for entry in task_config(task, functions=False)["metric_list"]:
        name, value = entry["metric"], results[f"{entry['metric']},none"]
        if (name.startswith("wups") and WITHOUT_WORDNET) or name == "submission":
            # Failed samples are wrong without WordNet, too, and so is a part that has no others.
            failed = [line["failed"] for line in lines if line[name] is not None]
            lost = name != "submission" and failed and all(failed)
            assert value == (0 if lost else None), (task, name, value)
            continue
        if value is None:
            assert all(line[name] is None for line in lines), (task, name)
            continue
        assert isinstance(value, (int, float)), (task, name, value)
        assert math.isfinite(value), (task, name, value)


def check_run(run: Run, tasks: Sequence[str], root: Path) -> None:
    assert set(run.samples) == set(tasks)
    for task in tasks:
        check_samples(task, run.samples[task], task_docs(task, root))
        check_metrics(task, run.results[task], run.samples[task])


def check_equal_to_score(run: Run, name: str, root: Path) -> None:
    """What the host made of the answers is what `tempeval score` makes of them."""
    tasks = expand_tasks([name])
    failed = {line["sample_id"] for task in tasks for line in run.samples[task] if line["failed"]}
    answers = (pair for task in tasks for pair in run.answers(task))
    predictions = {key: text for key, text in answers if key not in failed}
    found = rescore(name, predictions, root, allow_missing=True)
    names = (task_config(name, functions=False).get("metadata") or {}).get("score_names", {})
    compared = 0
    for key, value in run.results[name].items():
        metric, comma, _ = key.partition(",")
        metric = names.get(metric, metric)
        if comma and "_stderr" not in metric and metric in found.metrics:
            assert 100 * value == pytest.approx(found.metrics[metric], abs=1e-6), (name, metric)
            compared += 1
    assert compared, (name, run.results[name], found.metrics)


def top_names() -> list[str]:
    """Return groups, and the tasks in no group: together they run every task once."""
    groups = [
        entry
        for entry in task_entries().values()
        if entry.kind == "group"
        and "mini" not in entry.name
        and set(entry.members) <= set(benchmark_tasks())
        and entry.name != "tempeval_labels"  # its members are in groups of their own
    ]
    grouped = {member for group in groups for member in group.members}
    return [group.name for group in groups] + sorted(set(benchmark_tasks()) - grouped)


def test_three_tasks_with_a_missing_video(root: Path, tmp_path: Path) -> None:
    run = lmms_eval(QUICK, tmp_path, root)
    check_run(run, QUICK, root)
    labels = {line["parsed"] for line in run.samples[QUICK[0]]} - {None}
    assert labels <= set((root / "jester" / "jester-v1-labels.csv").read_text().splitlines())
    for task in QUICK[1:]:
        check_equal_to_score(run, task, root)


@pytest.mark.parametrize("group", ["tempeval_mvbench", "tempeval_tempcompass"])
def test_group_scores_of_the_host_weigh_members_by_their_items(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    """With a model that says `yes`, which is right in one format only, the largest."""
    monkeypatch.setenv("TEMPEVAL_DATA", str(root))
    options = RunSpec(out=tmp_path, methods=["baseline"], tasks=[group], max_failures="100%")
    (folder,) = run_matrix(options, load=lambda _options: FakeModel())
    run = read_run(folder)
    check_equal_to_score(run, group, root)
    for task in expand_tasks([group]):
        check_equal_to_score(run, task, root)


def test_annotations_that_are_not_there_end_a_run_before_it_begins(tmp_path: Path) -> None:
    options = "--methods baseline --tasks tempeval_ssv2_choice -o out"
    arguments = [BIN / "tempeval", "run", *options.split(), "--data-root", tmp_path]
    done = command(arguments, tmp_path, tmp_path, code=2)
    assert "tempeval data check ssv2" in done


@pytest.fixture(scope="module")
def everything(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lmms_eval(top_names(), tmp_path_factory.mktemp("chat"), root)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_every_task_on_the_chat_path(everything: Run, root: Path) -> None:
    check_run(everything, benchmark_tasks(), root)
    written = json.loads((everything.folder.parent / "egoschema_submission.json").read_text())
    assert len(written) == len(everything.samples["tempeval_egoschema"])


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_host_and_the_score_command_agree(everything: Run, root: Path) -> None:
    for name in top_names():
        members = [task_config(task, functions=False) for task in expand_tasks([name])]
        if all(config["output_type"] == "generate_until" for config in members):
            check_equal_to_score(everything, name, root)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_every_task_on_the_simple_path_gives_the_same_answers(
    everything: Run, root: Path, tmp_path: Path
) -> None:
    run = lmms_eval(top_names(), tmp_path, root, "--force_simple")
    check_run(run, benchmark_tasks(), root)
    for task in benchmark_tasks():
        if not task.endswith("_choice"):
            assert run.answers(task) == everything.answers(task), task


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_our_own_command_records_versions_and_digests(root: Path, tmp_path: Path) -> None:
    tasks = [*QUICK, "tempeval_music_avqa", "tempeval_tempcompass", "tempeval_sqa3d"]
    options = f"--methods {','.join(METHODS)} --num-frames 4 --max-failures 50% -o runs"
    arguments = [BIN / "tempeval", "run", "--tasks", ",".join(tasks), *options.split()]
    # The data root on the command line counts, not the variable.
    done = command([*arguments, "--data-root", root], tmp_path, tmp_path / "nowhere")
    assert done.count(": complete") == len(METHODS)
    prompts = set()
    for method in METHODS:
        (record_path,) = tmp_path.glob(f"runs/*/{method}/run.json")
        record = json.loads(record_path.read_text())
        check_run(read_run(record_path.parent), expand_tasks(tasks), root)
        assert set(record["tasks"]) == set(expand_tasks(tasks))
        assert "jester/validation" in record["request"]["annotations"]
        for task, found in record["tasks"].items():
            docs = task_docs(task, root)
            lost = sum(not Path(doc["video"]).exists() for doc in docs)
            assert (found["expected"], found["failed"]) == (len(docs), lost), task
            assert found["answered"] == len(docs) - lost
            assert int(found["version"]) >= 1
            for digest in ("dataset_digest", "prompt_hash"):
                assert found[digest].startswith("sha256:"), (task, digest)
            prompts.add((task, found["prompt_hash"], found["dataset_digest"]))
    assert len(prompts) == len(expand_tasks(tasks)), "the same in every run"
    again = command([*arguments, "--data-root", root], tmp_path, root)
    assert again.count("complete already, reused") == len(METHODS)
    # So many missing videos are no comparison, and the leaderboard counts them.
    command([BIN / "tempeval", "leaderboard", "runs", "-o", "board"], tmp_path, root, code=1)
    assert "1 of 12 samples failed (8.3%)" in (tmp_path / "board" / "leaderboard.md").read_text()
    # Annotations that changed since are another run.
    changed = tmp_path / "changed"
    shutil.copytree(root, changed)
    path = changed / "sqa3d/sqa_task/balanced/v1_balanced_questions_test_scannetv2.json"
    path.write_text(path.read_text().replace("chair", "table"))
    refused = command([*arguments, "--data-root", changed], tmp_path, root, code=2)
    assert "annotations" in refused


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_stock_model_of_the_host_runs_on_videos_and_frame_folders(tmp_path: Path) -> None:
    tasks = (
        "tempeval_avqa",
        "tempeval_jester_mcq",
        "tempeval_kinetics400_list",
        "tempeval_mvbench_episodic_reasoning",
        "tempeval_sqa3d",
        "tempeval_ssv2_mcq",
    )
    data = tmp_path / "data"
    names = ("avqa", "jester", "kinetics400", "mvbench", "sqa3d", "ssv2")
    render(data, *names)  # a stock model ends at a missing video
    for name in names:
        add_missing(data, name)
    run = lmms_eval(tasks, tmp_path / "run", data, model="qwen2_5_vl")
    assert set(run.samples) == set(tasks)
    for task in tasks:
        docs = task_docs(task, data)
        assert [line["sample_id"] for line in run.samples[task]] == [d["sample_id"] for d in docs]
        assert {line["parse_status"] for line in run.samples[task]} <= STATUSES
        check_metrics(task, run.results[task], run.samples[task])
