"""The shipped checkpoints on the whole test suite, and a run of the trainer in miniature."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tempeval.engine.inference import Inference
from tempeval.engine.question import Question
from tempeval.errors import InvalidSetting, UnknownName
from tempeval.families.base import LoadOptions
from tempeval.families.registry import family_class, family_of
from tempeval.methods.registry import parse_chain
from tempeval.mini import paths
from tempeval.mini.checkpoint import kind_of, load_checkpoint
from tempeval.mini.evaluate import (
    Accuracy,
    chance_of_aspect,
    evaluate_orders,
    format_table,
    read_test_clips,
)
from tempeval.mini.pack import Packer, answer_logits
from tempeval.mini.questions import ASPECTS, KINDS, answer
from tempeval.mini.render import render_suite
from tempeval.mini.train import Progress, train
from tempeval.video.clip import Sampling, VideoRef


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_suite(tmp_path_factory.mktemp("mini"))


SHIPPED = sorted(path.parent.name for path in paths.CHECKPOINTS.glob("*/tokenizer.json"))


@pytest.fixture(scope="module", params=SHIPPED)
def folder(request: pytest.FixtureRequest) -> Path:
    return paths.checkpoint(request.param)


@pytest.fixture(scope="module")
def results(suite: Path, folder: Path) -> dict[str, Accuracy]:
    return evaluate_orders(kind_of(folder), *load_checkpoint(folder), read_test_clips(suite))


def test_the_folder_is_small_and_loads_as_its_kind(folder: Path) -> None:
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sum(files.values()) < 4_000_000
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    assert kind_of(folder).name == folder.name


def test_the_baseline_is_neither_lost_nor_saturated(results: dict[str, Accuracy]) -> None:
    assert 0.60 <= results["normal"].overall <= 0.90


@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_aspect_is_above_chance(results: dict[str, Accuracy], aspect: str) -> None:
    assert results["normal"].of_aspect(aspect) >= chance_of_aspect(aspect) + 0.10


@pytest.mark.parametrize("aspect", ["direction", "order", "attribute_change"])
def test_reversing_frames_turns_temporal_answers(results: dict[str, Accuracy], aspect: str) -> None:
    assert results["reversed"].of_aspect(aspect) < chance_of_aspect(aspect)
    assert results["shuffled"].of_aspect(aspect) < results["normal"].of_aspect(aspect) - 0.10


def test_the_card_tells_what_was_measured(results: dict[str, Accuracy], folder: Path) -> None:
    card = (folder / "README.md").read_text("utf-8")
    table = format_table(results)
    assert table.splitlines()[:2] == [line for line in card.splitlines() if "|" in line][:2]
    written = next(line for line in card.splitlines() if line.startswith("| all "))
    measured = table.splitlines()[-1]
    numbers = [[float(cell) for cell in row.split("|")[2:-1]] for row in (written, measured)]
    assert numbers[0] == pytest.approx(numbers[1], abs=1.0)


@torch.no_grad()
def test_the_engine_answers_as_training_measured(suite: Path, folder: Path) -> None:
    """Through family, method and engine: the same words as the packed sequences of training."""
    kind, clips = kind_of(folder), read_test_clips(suite)[::10]
    model, processor = load_checkpoint(folder)
    packer, wanted = Packer(kind, processor), []
    for mini, clip in clips:
        pack = packer.pack(
            clip.frames[None],
            [clip.seconds_per_frame or 0.0],
            [asked.prompt for asked in KINDS],
            [[answer(asked, mini.scene.facts) for asked in KINDS]],
        )
        for token in answer_logits(kind, model, pack).argmax(-1)[0].tolist():
            wanted.append(processor.tokenizer.decode([token]))
    family = family_class(family_of(str(folder))).load(str(folder), LoadOptions(dtype="float32"))
    chain = parse_chain(kind.trained_with or "baseline")
    inference = Inference(family, Sampling("uniform", 8))
    questions = []
    for mini, _ in clips:
        ref = VideoRef(str(suite / mini.path), fps=mini.folder_fps)
        for asked in KINDS:
            content = [{"type": "video"}, {"type": "text", "text": asked.prompt}]
            message = {"role": "user", "content": content}
            settings = {"max_new_tokens": 1}
            questions.append(Question(len(questions), (message,), (ref,), gen_kwargs=settings))
    found = {
        answered.question.number: answered.outcome.answer.text
        for answered in inference.run(inference.plan(questions), [chain])
    }
    assert [found[number] for number in range(len(questions))] == wanted
    assert len(set(wanted)) > 5


@pytest.fixture
def cached(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempeval.mini.train.render_suite", lambda: suite)


@pytest.mark.usefixtures("cached")
def test_training_repeats_from_its_seed(tmp_path: Path) -> None:
    losses: list[list[float]] = [[], []]
    weights: list[dict[str, Any]] = []
    for run, name in enumerate("ab"):

        def note(progress: Progress, run: int = run) -> None:
            losses[run].append(progress.loss)

        trained = train("qwen2_5_vl", tmp_path / name, steps=2, seed=5, threads=1, progress=note)
        assert sum(trained.results["normal"].total.values()) == 120 * len(KINDS)
        assert "says nothing about 7B" in (trained.folder / "README.md").read_text("utf-8")
        weights.append(load_checkpoint(trained.folder)[0].state_dict())
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.usefixtures("cached")
def test_training_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="qwen2_5_vl"):
        train("qwen2_5", tmp_path / "x")
    with pytest.raises(InvalidSetting, match="at least 1"):
        train(out=tmp_path / "x", steps=0)
    (tmp_path / "note").write_text("mine", "utf-8")
    with pytest.raises(InvalidSetting, match="not empty"):
        train(out=tmp_path)
