from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lmms_eval.tasks import TaskManager, get_task_dict

import tempeval.tasks
from tempeval.mini.questions import ASPECTS, KINDS
from tempeval.mini.suite import suite_records
from tempeval.tasks import means, mini

FOLDER = Path(tempeval.tasks.__file__).parent
TASKS = [f"tempeval_mini_{aspect}" for aspect in ASPECTS]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Load the group as the host does, from another folder and with an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        before = sorted(FOLDER.rglob("*"))
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        manager = TaskManager(include_path=str(FOLDER))
        groups = get_task_dict(["tempeval_mini"], manager, "chat")
        ((_, subtasks),) = groups.items()
        assert sorted(FOLDER.rglob("*")) == before, "loading wrote into the package"
        yield subtasks


@pytest.fixture
def rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mini, "suite_dir", lambda: tmp_path)
    return tmp_path


def test_the_group_holds_a_task_for_each_aspect(tasks: dict[str, Any]) -> None:
    assert sorted(tasks) == sorted(TASKS)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_a_task_holds_the_questions_of_its_aspect(tasks: dict[str, Any], aspect: str) -> None:
    task = tasks[f"tempeval_mini_{aspect}"]
    expected = [record for record in suite_records() if record["aspect"] == aspect]
    assert [dict(doc) for doc in task.test_docs()] == expected
    assert task.config.cluster_key == "video_id"
    assert task.config.score_key == "score"
    assert task.config.generation_kwargs["max_new_tokens"] <= 8
    assert task.OUTPUT_TYPE == "generate_until"


def test_messages_show_the_clip_and_ask(tasks: dict[str, Any], rendered: Path) -> None:
    task = tasks["tempeval_mini_direction"]
    for doc in task.test_docs():
        ((turn),) = task.doc_to_messages(doc)
        video, text = turn["content"]
        assert turn["role"] == "user"
        assert video["type"] == "video"
        assert str(video["url"]) == str(rendered / doc["video"]) == task.doc_to_visual(doc)[0]
        assert video.get("fps") == doc["fps"]
        assert ("fps" in video) == (Path(doc["video"]).suffix == "")
        assert text == {"type": "text", "text": task.doc_to_text(doc)}
        assert text["text"].endswith("Answer with one word.")
        assert all(choice in text["text"] for choice in doc["choices"])


def test_prompts_are_those_of_training(tasks: dict[str, Any]) -> None:
    asked = {task.doc_to_text(doc) for task in tasks.values() for doc in task.test_docs()}
    assert asked == {kind.prompt for kind in KINDS}


@pytest.mark.parametrize(
    ("said", "score", "parse_failure"),
    [("{answer}", 1.0, 0.0), ("{wrong}", 0.0, 0.0), ("", 0.0, 1.0), ("{answer} {wrong}", 0.0, 1.0)],
)
def test_a_sample_carries_what_joins_runs(
    tasks: dict[str, Any], said: str, score: float, parse_failure: float
) -> None:
    task = tasks["tempeval_mini_order"]
    doc = task.test_docs()[5]
    wrong = next(choice for choice in doc["choices"] if choice != doc["answer"])
    sample = task.process_results(doc, [said.format(answer=doc["answer"], wrong=wrong)])
    assert sample["score"] == score
    assert sample["parse_failure"] == parse_failure
    assert sample["accuracy"] == {"score": score, "video_id": doc["video_id"]}
    for key in ("sample_id", "video_id", "content_hash"):
        assert sample[key] == doc[key]


def test_accuracy_is_the_mean_score() -> None:
    assert means.mean_score([{"score": 1.0}, {"score": 0.0}, {"score": 0.0}]) == pytest.approx(
        1 / 3
    )


def test_yamls_name_helpers_of_the_package() -> None:
    """A bare module name would be run anew for every reference (host fact 5)."""
    for path in (FOLDER / "mini").iterdir():
        if path.suffix == ".jsonl":
            continue
        names: list[str] = []
        loader = type("Loader", (yaml.SafeLoader,), {})
        loader.add_constructor("!function", lambda _, node: names.append(node.value))  # noqa: B023
        yaml.load(path.read_text("utf-8"), loader)  # noqa: S506
        assert all(name.startswith("tempeval.tasks.") for name in names), path
