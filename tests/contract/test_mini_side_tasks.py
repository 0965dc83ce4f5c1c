"""The tasks of the side-channel suites, as the host loads them and the tiny models read them."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from lmms_eval.tasks import TaskManager, get_task_dict
from transformers import AutoTokenizer

import tempeval.tasks
from tempeval.engine.answer import Score
from tempeval.engine.scores import Scores
from tempeval.mini.paths import CHECKPOINTS
from tempeval.mini.questions import KINDS
from tempeval.mini.side import SIDE_SUITES, side_suite
from tempeval.model_wrappers.results import ChoiceScores
from tempeval.tasks import mini_audio, mini_highfps

FOLDER = Path(tempeval.tasks.__file__).parent
HELPERS = {"audio": mini_audio, "highfps": mini_highfps}
SHIPPED = sorted(path.parent for path in CHECKPOINTS.glob("*/tokenizer.json"))
ASPECTS = [(name, kind.aspect) for name in SIDE_SUITES for kind in side_suite(name).kinds]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Load the groups as the host does, from another folder and with an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        before = sorted(FOLDER.rglob("*"))
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        manager = TaskManager(include_path=str(FOLDER))
        groups = [f"tempeval_mini_{name}{end}" for name in SIDE_SUITES for end in ("", "_choice")]
        found = get_task_dict(groups, manager, "chat")
        assert sorted(FOLDER.rglob("*")) == before, "loading wrote into the package"
        yield {group.group: subtasks for group, subtasks in found.items()}


@pytest.fixture
def rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in HELPERS.values():
        monkeypatch.setattr(module, "rendered_test_split", lambda name: tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("end", ["", "_choice"])
@pytest.mark.parametrize("name", SIDE_SUITES)
def test_a_group_holds_a_task_for_each_kind(tasks: dict[str, Any], name: str, end: str) -> None:
    found = tasks[f"tempeval_mini_{name}{end}"]
    aspects = [kind.aspect for kind in side_suite(name).kinds]
    assert sorted(found) == sorted(f"tempeval_mini_{name}_{aspect}{end}" for aspect in aspects)


@pytest.mark.parametrize("end", ["", "_choice"])
@pytest.mark.parametrize(("name", "aspect"), ASPECTS)
def test_a_task_holds_the_questions_of_its_kind(
    tasks: dict[str, Any], name: str, aspect: str, end: str
) -> None:
    task = tasks[f"tempeval_mini_{name}{end}"][f"tempeval_mini_{name}_{aspect}{end}"]
    expected = [r for r in side_suite(name).test.records() if r["aspect"] == aspect]
    assert [dict(doc) for doc in task.test_docs()] == expected
    assert len(expected) == 96
    assert (task.config.cluster_key, task.config.score_key) == ("video_id", "score")
    assert (task.OUTPUT_TYPE == "multiple_choice") == bool(end)
    for doc in expected:
        assert task.doc_to_target(doc) == doc["answer"], "a digit stays a word, not an index"


@pytest.mark.parametrize(("name", "aspect"), ASPECTS)
def test_messages_show_the_clip_and_ask(
    tasks: dict[str, Any], rendered: Path, name: str, aspect: str
) -> None:
    task = tasks[f"tempeval_mini_{name}"][f"tempeval_mini_{name}_{aspect}"]
    (kind,) = [kind for kind in side_suite(name).kinds if kind.aspect == aspect]
    for doc in task.test_docs():
        ((turn),) = task.doc_to_messages(doc)
        video, text = turn["content"]
        assert turn["role"] == "user"
        assert video == {"type": "video", "url": str(rendered / name / doc["video"])}
        assert video["url"] == task.doc_to_visual(doc)[0]
        assert text == {"type": "text", "text": kind.prompt}


@pytest.mark.parametrize(
    ("said", "score", "parse_failure"),
    [("{answer}", 1.0, 0.0), ("{wrong}", 0.0, 0.0), ("", 0.0, 1.0), ("{answer} {wrong}", 0.0, 1.0)],
)
@pytest.mark.parametrize(("name", "aspect"), ASPECTS)
def test_a_sample_carries_what_joins_runs(
    tasks: dict[str, Any], name: str, aspect: str, said: str, score: float, parse_failure: float
) -> None:
    task = tasks[f"tempeval_mini_{name}"][f"tempeval_mini_{name}_{aspect}"]
    doc = task.test_docs()[5]
    wrong = next(choice for choice in doc["choices"] if choice != doc["answer"])
    sample = task.process_results(doc, [said.format(answer=doc["answer"], wrong=wrong)])
    assert (sample["score"], sample["parse_failure"]) == (score, parse_failure)
    assert sample["accuracy"] == {"score": score, "video_id": doc["video_id"]}
    for key in ("sample_id", "video_id", "content_hash"):
        assert sample[key] == doc[key]


@pytest.mark.parametrize(("name", "aspect"), ASPECTS)
def test_choices_are_scored_by_their_words(tasks: dict[str, Any], name: str, aspect: str) -> None:
    task = tasks[f"tempeval_mini_{name}_choice"][f"tempeval_mini_{name}_{aspect}_choice"]
    for doc in task.test_docs().select(range(8)):
        right = doc["choices"].index(doc["answer"])
        for best in range(len(doc["choices"])):
            scores = Scores.of(
                [
                    Score(-1.0 if i == best else -2.0, 1, i == best, 0)
                    for i in range(len(doc["choices"]))
                ]
            )
            sample = task.process_results(doc, [ChoiceScores.of(scores)])
            assert sample["score"] == float(best == right)
            assert sample["answer_index"] == right


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_every_tiny_model_can_say_the_answers_and_tell_the_questions_apart(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    kinds = [kind for name in SIDE_SUITES for kind in side_suite(name).kinds]
    for kind in kinds:
        for choice in kind.choices:
            (token,) = ids(choice)
            assert token != tokenizer.unk_token_id
            assert tokenizer.decode([token]) == choice
    for one, other in combinations([*kinds, *KINDS], 2):
        known = [set(ids(kind.text)) - {tokenizer.unk_token_id} for kind in (one, other)]
        if one in kinds or other in kinds:
            assert known[0] != known[1], (one.text, other.text)


def test_yamls_name_helpers_of_the_package() -> None:
    """A bare module name would be run anew for every reference (host fact 5)."""
    for path in [p for name in SIDE_SUITES for p in (FOLDER / f"mini_{name}").iterdir()]:
        if path.suffix == ".jsonl":
            continue
        names: list[str] = []
        loader = type("Loader", (yaml.SafeLoader,), {})
        loader.add_constructor("!function", lambda _, node: names.append(node.value))  # noqa: B023
        yaml.load(path.read_text("utf-8"), loader)  # noqa: S506
        assert all(name.startswith("tempeval.tasks.") for name in names), path
