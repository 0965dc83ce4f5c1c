"""The digest of a task: what changes its questions or scores changes it, for that task alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tempeval import source_digest, task_sources
from tempeval.metrics import wups_data
from tempeval.source_digest import read_source
from tempeval.task_sources import definition_digest, object_digest
from tempeval.tasklist import task_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tempeval.source_digest import _Source

TASKS = ("tempeval_mini_order", "tempeval_avqa", "tempeval_nextqa_oe", "tempeval_mini")


@pytest.fixture(autouse=True)
def stamps(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What NLTK's data are said to be, without asking NLTK."""
    found = {"wordnet": "3.0"}
    monkeypatch.setattr(wups_data, "stamps", lambda: dict(found))
    return found


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """`edit(module, line)` puts a line at the end of a module, as the digests see it."""
    read = source_digest.source_of
    edited: dict[str, _Source] = {}

    def change(module: str, line: str) -> None:
        spec = source_digest._spec(module)
        assert spec
        text = spec.loader.get_source(module)  # type: ignore[union-attr]
        edited[module] = read_source(f"{text}\n{line}\n", module.rpartition(".")[0])
        source_digest.modules_of.cache_clear()

    for place in (source_digest, task_sources):
        monkeypatch.setattr(place, "source_of", lambda name: edited.get(name) or read(name))
    yield change
    source_digest.modules_of.cache_clear()


def digests() -> dict[str, str]:
    return {name: definition_digest(task_entries()[name].path) for name in TASKS}


def changed(before: dict[str, str]) -> set[str]:
    return {name for name, digest in digests().items() if digest != before[name]}


@pytest.mark.parametrize(
    ("module", "line", "expected"),
    [
        ("tasks.avqa", "X = 1", {"tempeval_avqa"}),
        ("benchmarks.avqa", "X = 1", {"tempeval_avqa"}),
        ("tasks.mini", "X = 1", {"tempeval_mini_order"}),
        ("metrics.wups", "X = 1", {"tempeval_nextqa_oe"}),
        ("tasks.turns", "X = 1", set(TASKS) - {"tempeval_mini"}),
        ("tasks.avqa", "# X = 1", set()),
        ("engine.session", "X = 1", set()),
        ("video.clip", "X = 1", set()),
        ("methods.pas", "X = 1", set()),
        ("leaderboard.board", "X = 1", set()),
    ],
)
def test_code_counts_where_it_asks_or_scores(
    edit: Callable[[str, str], None], module: str, line: str, expected: set[str]
) -> None:
    before = digests()
    edit(f"tempeval.{module}", line)
    assert changed(before) == expected


def test_the_data_of_metrics_count(monkeypatch: pytest.MonkeyPatch, stamps: dict[str, str]) -> None:
    before = digests()
    stamps["wordnet"] = "3.1"
    assert changed(before) == {"tempeval_nextqa_oe"}
    stamps["wordnet"] = "3.0"
    assert not changed(before)
    read = task_sources.data_of
    monkeypatch.setattr(
        task_sources,
        "data_of",
        lambda modules: {
            name: content + b"the\n" if name.endswith("nextqa_stopwords.txt") else content
            for name, content in read(modules).items()
        },
    )
    assert changed(before) == {"tempeval_nextqa_oe"}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A task as lmms-eval's own: a template, functions beside it, a helper of theirs."""
    (tmp_path / "_template_yaml").write_text(
        "dataset_path: org/data\ngeneration_kwargs: {max_new_tokens: 4}\n"
    )
    (tmp_path / "task.yaml").write_text(
        "include: _template_yaml\ntask: foreign\ndoc_to_text: !function utils.doc_to_text\n"
        "metric_list: [{metric: score, aggregation: !function utils.mean}]\n"
        "metadata: {version: 1, summary: old}\n"
    )
    (tmp_path / "utils.py").write_text("from helpers import HALF\n\ndef mean(x):\n    return x\n")
    (tmp_path / "helpers.py").write_text("HALF = 0.5\n")
    (tmp_path / "other.py").write_text("X = 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("task.yaml", "task: foreign", "task: foreign  # why", False),
        ("task.yaml", "summary: old", "summary: new", False),
        ("task.yaml", "version: 1", "version: 2", True),
        ("_template_yaml", "max_new_tokens: 4", "max_new_tokens: 8", True),
        ("utils.py", "return x", "return 2 * x", True),
        ("utils.py", "\n\ndef", "\n\n# why\ndef", False),
        ("helpers.py", "0.5", "0.6", True),
        ("other.py", "1", "2", False),
    ],
)
def test_tasks_of_the_host_count_with_what_lies_beside_them(
    foreign: Path, name: str, old: str, new: str, expected: bool
) -> None:
    before = definition_digest(foreign / "task.yaml")
    text = (foreign / name).read_text()
    assert old in text
    (foreign / name).write_text(text.replace(old, new))
    assert (definition_digest(foreign / "task.yaml") != before) == expected


def test_the_same_task_elsewhere_is_the_same(foreign: Path) -> None:
    copy = foreign.parent / "copy"
    shutil.copytree(foreign, copy)
    assert definition_digest(copy / "task.yaml") == definition_digest(foreign / "task.yaml")


def test_data_files_count_but_for_those_of_training(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(
        "task: a\ntraining_split: train\ntest_split: test\n"
        "dataset_kwargs: {data_files: {train: train.jsonl, test: test.jsonl}}\n"
    )
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"question": "what"}\n')
    before = definition_digest(path)
    (tmp_path / "train.jsonl").write_text("{}\n")
    assert definition_digest(path) == before
    (tmp_path / "test.jsonl").write_text("{}\n")
    assert definition_digest(path) != before
    path.write_text("task: a\ndataset_kwargs: {data_files: test.jsonl}\n")
    before = definition_digest(path)
    (tmp_path / "test.jsonl").write_text("[]\n")
    assert definition_digest(path) != before


def test_a_task_whose_yaml_is_not_known_has_a_digest_too() -> None:
    config = {
        "task": "a",
        "doc_to_text": Path.exists,
        "metric_list": [{"aggregation": shutil.move}],
    }
    assert object_digest(config) == object_digest(dict(config))
    assert object_digest(config) != object_digest(config | {"doc_to_text": Path.is_dir})
