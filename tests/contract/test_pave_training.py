"""Training on the mini checkpoint: what it computes, that it resumes exactly, and what it leaves.

The loss is compared with the base model's own forward pass, one question at a time; the adapter
with the answers of method `pave` through the engine.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate import Accelerator
from pave_training import small_config
from safetensors.torch import load_file
from torch.nn import functional
from transformers import modeling_utils
from video_files import write_video
from video_task import TASK, show_tasks, write_task

from tempeval.engine.continuations import Continuations
from tempeval.engine.encoder import DecodeOptions
from tempeval.engine.inference import Inference
from tempeval.engine.question import Question
from tempeval.errors import InvalidSetting, RunFailed
from tempeval.methods.pave_checkpoint import read_pave
from tempeval.methods.pave_patch import PavePatch
from tempeval.methods.registry import parse_chain
from tempeval.mini.paths import cache_dir, located
from tempeval.mini.side import side_suite
from tempeval.pave.adapter import spelled
from tempeval.pave.batch import Tail, Unit, collate, make_tail
from tempeval.pave.features import Seen
from tempeval.pave.loop import Loop
from tempeval.pave.prepare import Prepared, load_base, prepare
from tempeval.pave.state import checkpoints
from tempeval.pave.student import Student
from tempeval.pave.task_examples import task_examples
from tempeval.pave.train import Progress, train
from tempeval.side_channels.decoding import SideDecoder
from tempeval.side_channels.extract import extract, find_videos
from tempeval.side_channels.registry import build_side_channel, parse_side_spec, stored_origin
from tempeval.stages import VisualTokens
from tempeval.video.clip import Sampling, VideoRef

if TYPE_CHECKING:
    from tempeval.families.base import Family
    from tempeval.pave.config import TrainConfig


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of its own, where the training clips are rendered once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPEVAL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def straight(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A training without a stop."""
    config = small_config(tmp_path_factory.mktemp("straight") / "out")
    train(config)
    return config


@pytest.fixture(scope="module")
def prepared(straight: TrainConfig) -> Prepared:
    """Base, examples and features of it, with the base as it was."""
    return prepare(straight, Accelerator(cpu=True), lambda *said: None)


@pytest.mark.parametrize("name", ["mini", "mini:llava_onevision", "mini:video_llava"])
def test_an_untrained_loss_is_the_base_model_s_own_question_by_question(
    name: str, straight: TrainConfig, tmp_path: Path
) -> None:
    config = small_config(tmp_path, base={"pretrained": name}, data={"limit": 4})
    prepared = prepare(config, Accelerator(cpu=True), lambda *said: None)
    family, unit = prepared.family, next(u for u in prepared.training if len(u.tails) == 2)
    seen = prepared.seen(unit.video)
    with torch.no_grad():
        expected = [_own_loss(family, unit, tail, seen) for tail in unit.tails]
    other = next(u for u in prepared.training if u.video != unit.video)
    batch = collate(family, [unit, other], [seen, prepared.seen(other.video)])
    with torch.no_grad():
        _, _, losses = _student(load_base(config, "cpu"), seen, config).eval()(batch)
    torch.testing.assert_close(losses[:2], torch.stack(expected), rtol=1e-4, atol=1e-4)


def _own_loss(family: Family, unit: Unit, tail: Tail, seen: Seen) -> torch.Tensor:
    """Sum of a question's losses by the whole model on one unpadded sequence."""
    layout, _ = family.layout(unit.head, [seen.tokens])
    ids = torch.tensor(tail.ids)
    after = family.model.get_input_embeddings()(ids)[None]
    embeds = torch.cat([family.embed(layout, [seen.tokens]), after], 1)
    positions = torch.arange(embeds.shape[1])[None]
    if family.axes:
        rotary = layout.rotary
        channels = [int((rotary.axis == axis).nonzero()[0]) for axis in range(3)]
        later = int(rotary.next_position) + torch.arange(len(ids))
        rows = [rotary.positions[:, channels].long(), later[:, None].expand(-1, 3)]
        positions = torch.cat(rows).T[:, None]
    logits = family.model(inputs_embeds=embeds, position_ids=positions).logits[0]
    answered = tail.answer
    return functional.cross_entropy(logits[-answered - 1 : -1], ids[-answered:], reduction="sum")


def _student(family: Any, seen: Any, config: TrainConfig) -> Student:
    from tempeval.methods.pave_state import PatchSizes

    sizes = PatchSizes(
        side=seen.side.shape[-1],
        query=seen.tokens.features.shape[-1],
        output=seen.tokens.embeddings.shape[-1],
        hidden=config.patch.hidden,
        layers=config.patch.layers,
    )
    return Student(family, PavePatch(sizes, num_heads=config.patch.heads), config.lora)


def test_answers_through_the_engine_are_those_that_were_trained(
    prepared: Prepared, straight: TrainConfig
) -> None:
    family = load_base(straight, "cpu")
    student = _student(family, prepared.seen(0), straight)
    newest = checkpoints(Path(straight.out))[-1].path / "weights.safetensors"
    _fill(student, newest)
    examples = prepared.examples.items[:3]
    units = []
    for example in examples:
        head, tail = make_tail(family, family.tokenize(example.messages), example.answer)
        units.append(Unit(0, head, (Tail(tail.ids[:-1], tail.answer - 1),)))  # no end token
    with torch.no_grad():
        _, _, losses = student.eval()(collate(family, units, [prepared.seen(0)] * 3))

    inference = Inference(load_base(straight, "cpu"), Sampling(num_frames=8))
    questions = [
        Question(
            n,
            example.messages,
            (example.video,),
            "score",
            continuations=Continuations((example.answer,)),
        )
        for n, example in enumerate(examples)
    ]
    scores = {}
    chains = [parse_chain(name) for name in (f"pave[adapter={straight.out}]", "baseline")]
    for answered in inference.run(inference.plan(questions), chains):
        assert not answered.outcome.usage.error
        score = answered.outcome.answer.log_likelihoods[0]
        scores[answered.chain.spec == "baseline", answered.question.number] = score
    found, base = (torch.tensor([-scores[b, n] for n in range(3)]) for b in (False, True))
    torch.testing.assert_close(found, losses, rtol=1e-3, atol=1e-3)
    assert ((found - base).abs() > 0.02).all()  # or nothing was trained, and nothing compared


def test_half_and_the_rest_is_the_whole_bit_for_bit(straight: TrainConfig, tmp_path: Path) -> None:
    config = small_config(tmp_path / "out", feature_cache=straight.feature_cache)
    with pytest.raises(RunFailed, match=r"stopped after step 3 of 4.*--resume"):
        train(config, stop_after=3)
    # What was logged after the last checkpoint, by a training that was killed, is done again.
    with (tmp_path / "out" / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 0}\n{"step"')
    with pytest.raises(InvalidSetting, match="--resume"):
        train(config)
    steps: list[int] = []

    def report(progress: Progress) -> None:
        if progress.stage == "train":
            steps.append(progress.done)

    train(config, resume=True, report=report)
    assert steps == [4]
    for name in ("log.jsonl", "adapter_model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (Path(straight.out) / name).read_bytes()
    ours, theirs = read_pave(tmp_path / "out"), read_pave(straight.out)
    assert ours.digest == theirs.digest
    last = [checkpoints(Path(c.out))[-1].path for c in (config, straight)]
    first, second = (torch.load(path / "optimizer.pt", weights_only=True) for path in last)
    for one, other in zip(_tensors(first), _tensors(second), strict=True):
        assert torch.equal(one, other)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [t for p in parts if isinstance(p, dict | list | torch.Tensor) for t in _tensors(p)]


def test_activations_may_be_computed_twice(
    straight: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    own = modeling_utils.checkpoint

    def counted(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        return own(*arguments, **settings)

    monkeypatch.setattr(modeling_utils, "checkpoint", counted)
    changed = {"gradient_checkpointing": True}
    config = small_config(tmp_path / "out", training=changed, feature_cache=straight.feature_cache)
    with pytest.raises(RunFailed):
        train(config, stop_after=2)
    assert calls
    one, two = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()[:2]]
        for folder in (tmp_path / "out", Path(straight.out))
    )
    for first, second in zip(one, two, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
        assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-4)


def test_a_checkpoint_of_another_training_is_refused(straight: TrainConfig) -> None:
    out = Path(straight.out)
    for changed, said in (
        ({"lora": {"alpha": 8}}, "another configuration"),
        ({"training": {"gradient_accumulation": 1}}, "another configuration"),
    ):
        config = small_config(out, feature_cache=straight.feature_cache, **changed)
        with pytest.raises(InvalidSetting, match=said):
            train(config, resume=True)


def test_videos_and_features_of_other_content_are_another_training(
    straight: TrainConfig, tmp_path: Path
) -> None:
    """A copy is the same; another id, video or file of features is not."""
    source = Path(prepare_videos(straight))
    features = tmp_path / "features"
    features.mkdir()

    def fill(changed: str = "") -> None:
        lines = []
        for number in range(3):
            content = (source / f"mini-audio-train-5-00{number}.mp4").read_bytes()
            if changed == "video" and number == 2:
                content = (source / "mini-audio-train-5-003.mp4").read_bytes()
            video = tmp_path / f"{number}.mp4"
            video.write_bytes(content)
            os.utime(video, (number, number))
            name = "1" if changed == "id" and number == 2 else str(number)
            lines.append({"video": video.name, "question": "?", "answer": "2", "video_id": name})
            value = float(number) + (0.5 if changed == "features" and number == 2 else 0)
            torch.save(torch.full((9, 1, 1, 16), value), features / f"{number}.pt")
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "x.jsonl").write_text(text)

    config = small_config(
        tmp_path / "out",
        data={"source": "jsonl", "path": str(tmp_path / "x.jsonl"), "held_out": 0},
        training={"steps": 2},
        checkpoints={"every": 1},
        side_channel={"name": "features", "settings": {"folder": str(features)}},
    )
    fill()
    with pytest.raises(RunFailed):
        train(config, stop_after=1)
    for changed, said in (
        ("id", "other examples: data"),
        ("video", "videos or features of other content"),
        ("features", "videos or features of other content"),
    ):
        fill(changed)
        with pytest.raises(InvalidSetting, match=said):
            train(config, resume=True)
    fill()  # written anew, the same
    train(config, resume=True)


def test_what_is_no_number_ends_a_training_before_a_checkpoint_has_it(
    straight: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(
        tmp_path / "out", feature_cache=straight.feature_cache, checkpoints={"every": 1}
    )
    own, calls = Student.forward, []

    def spoiled(self: Student, batch: Any) -> Any:
        loss, *rest = own(self, batch)
        calls.append(1)
        if len(calls) == 7:  # step 4: a loss that is finite, whose gradient is not
            loss = loss + 0 * (loss - loss.detach()).sqrt()
        return loss, *rest

    monkeypatch.setattr(Student, "forward", spoiled)
    monkeypatch.setattr(Loop, "_measure", lambda self: {})
    with pytest.raises(RunFailed, match=r"norm nan at step 4.*another `out`") as caught:
        train(config)
    assert "the loss is nan" not in str(caught.value)
    newest = checkpoints(tmp_path / "out")[-1]
    assert newest.step == 3
    for tensor in load_file(newest.path / "weights.safetensors").values():
        assert tensor.isfinite().all()
    # The advice holds: the checkpoints do not go on otherwise, a new training does.
    calls[:] = [0] * 7
    lower: dict[str, Any] = {"training": {"learning_rate": 1e-4, "steps": 1}}
    lower["feature_cache"] = straight.feature_cache
    with pytest.raises(InvalidSetting, match="another configuration"):
        train(small_config(tmp_path / "out", **lower), resume=True)
    train(small_config(tmp_path / "anew", **lower))


def test_going_on_with_what_is_done_keeps_what_was_measured(
    straight: TrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(straight.out, out)
    before = json.loads((out / "training.json").read_text())
    log = (out / "log.jsonl").read_bytes()
    config = small_config(out, feature_cache=straight.feature_cache)
    assert train(config, resume=True).held_out["accuracy"] == before["held_out_accuracy"]
    assert json.loads((out / "training.json").read_text()) == before
    assert read_pave(out).metadata == read_pave(straight.out).metadata
    assert (out / "log.jsonl").read_bytes() == log


def test_without_a_cache_the_same_is_trained(
    straight: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, also with a stop; nothing is kept, and steps' videos are decoded ahead."""
    own, at_once = SideDecoder.clip, []

    def counted(self: SideDecoder, ref: VideoRef, *more: Any) -> Any:
        at_once.append(ref)
        return own(self, ref, *more)

    monkeypatch.setattr(SideDecoder, "clip", counted)
    kept = cache_dir() / "pave-features"
    before = set(kept.rglob("*")) if kept.exists() else set()
    config = small_config(tmp_path / "out", feature_cache="none")
    with pytest.raises(RunFailed):
        train(config, stop_after=1)
    train(config, resume=True)
    assert read_pave(tmp_path / "out").digest == read_pave(straight.out).digest
    record = [json.loads((Path(c.out) / "training.json").read_text()) for c in (config, straight)]
    assert record[0] == record[1]
    assert {path.name for path in set(kept.rglob("*")) - before} <= {"usable.txt"}
    # One to learn the sizes, in each of the two; and the one that is held out, twice for its two
    # units. The 16 of the 4 steps came ahead.
    assert len(at_once) == 2 + 2 * 2


def test_without_a_cache_unusable_videos_are_found_before_the_first_step(
    straight: TrainConfig, tmp_path: Path
) -> None:
    source = Path(prepare_videos(straight))
    lines = []
    for number in range(3):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes((source / f"mini-audio-train-5-00{number}.mp4").read_bytes())
        lines.append({"video": path.name, "question": "?", "answer": "2"})
    write_video(tmp_path / "1.mp4", range(9))  # without sound
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"source": "jsonl", "path": str(tmp_path / "x.jsonl"), "held_out": 0}
    config = small_config(tmp_path / "out", data=data, feature_cache="none")
    with pytest.raises(RunFailed, match=r"1 of 3 videos.*1\.mp4.*no sound track"):
        train(config)
    assert not (tmp_path / "out").exists()


def test_an_adapter_names_no_place_of_this_machine(straight: TrainConfig, tmp_path: Path) -> None:
    """Trained on features of files, from a file of examples, on a base in a folder."""
    private = tmp_path / "private"
    source = Path(prepare_videos(straight))
    (private / "videos").mkdir(parents=True)
    lines = []
    for number in range(3):
        video = private / "videos" / f"{number}.mp4"
        video.write_bytes((source / f"mini-audio-train-5-00{number}.mp4").read_bytes())
        lines.append({"video": f"videos/{number}.mp4", "question": "How many?", "answer": "2"})
    (private / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = parse_side_spec("audio[step=0.2;mels=16]")
    videos = find_videos(private / "videos", private / "features")
    extract(videos, spec, build_side_channel(spec, None), None, DecodeOptions(workers=0))
    shutil.copytree(located("mini"), private / "base")
    config = small_config(
        private / "out",
        base={"pretrained": str(private / "base")},
        data={"source": "jsonl", "path": str(private / "x.jsonl"), "held_out": 0},
        training={"steps": 1},
        side_channel={"name": "features", "settings": {"folder": str(private / "features")}},
    )
    train(config)
    (private / "out" / "checkpoints").rename(tmp_path / "checkpoints")
    for path in (private / "out").rglob("*"):
        if path.is_file():
            assert b"private" not in path.read_bytes(), path
    own = read_pave(private / "out")
    origin = stored_origin(spec)
    assert own.metadata["side_channel"] == f"features[origin={origin}]"
    assert own.metadata["base_model"] == "base"
    # Read back, it wants such files, wherever they lie.
    private.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    chain = parse_chain(f"pave[adapter={moved / 'out'};features={moved / 'features'}]")
    inference = Inference(load_base(straight, "cpu"), Sampling(num_frames=8))
    messages = ({"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "?"}]},)
    video = VideoRef(str(moved / "videos" / "0.mp4"))
    question = Question(0, messages, (video,), gen_kwargs={"max_new_tokens": 1})

    def error() -> str | None:
        (answered,) = inference.run(inference.plan([question]), [chain])
        return answered.outcome.usage.error

    assert error() is None
    other = parse_side_spec("audio[step=0.1;mels=16]")
    videos = find_videos(moved / "videos", moved / "features")
    extract(
        videos,
        other,
        build_side_channel(other, None),
        None,
        DecodeOptions(workers=0),
        overwrite=True,
    )
    assert f"accepted: {origin}" in str(error())


def test_a_damaged_checkpoint_is_named(straight: TrainConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(straight.out, out)
    config = small_config(out, feature_cache=straight.feature_cache)
    weights = checkpoints(out)[-1].path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InvalidSetting, match="cannot be read"):
        train(config, resume=True)
    (checkpoints(out)[-1].path / "state.json").unlink()  # half a checkpoint is none
    assert [each.step for each in checkpoints(out)] == [2]
    train(config, resume=True)
    assert read_pave(out).digest == read_pave(straight.out).digest


def test_what_is_left_behind(straight: TrainConfig, prepared: Prepared) -> None:
    out = Path(straight.out)
    own = read_pave(out)
    assert own.lora is not None
    assert own.lora.scale == 2.0
    assert len(own.lora.matrices) == 7 * 4
    assert own.sizes.hidden == 16
    assert own.metadata["side_channel"] == spelled(prepared.eyes.spec) == "audio[mels=16;step=0.1]"
    assert own.metadata["neighborhood"] == "none"
    assert own.metadata["base_revision"] == prepared.family.revision
    assert own.metadata["data_digest"] == prepared.examples.digest
    said = json.loads(own.metadata["config"])
    assert said == {k: v for k, v in straight.record().items() if k in said}
    assert straight.record().keys() - said.keys() == {"out", "feature_cache"}
    assert str(out.parent) not in (out / "training.json").read_text()
    record = json.loads((out / "training.json").read_text())
    assert (record["videos"], record["videos_held_out"], record["steps"]) == (6, 1, 4)
    assert 0 <= record["held_out_accuracy"] <= 1
    # The released layout says the same as the safetensors file.
    released = out.parent / "released"
    shutil.copytree(out, released, ignore=shutil.ignore_patterns("pave.safetensors", "checkpoints"))
    theirs = read_pave(released)
    for name, tensor in own.patch_state.items():
        assert torch.equal(tensor, theirs.patch_state[name])
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["learning_rate"] == 0.0
    assert lines[1]["learning_rate"] == 5e-3
    assert "held_out_accuracy" in lines[1]
    assert "held_out_accuracy" not in lines[2]


def test_only_patch_and_low_rank_changes_are_trained(straight: TrainConfig) -> None:
    family = load_base(straight, "cpu")
    before = {n: w.clone() for n, w in family.model.state_dict().items()}
    student = _student(family, _any_seen(), straight)
    assert student.trainable().keys() == {
        n for n, w in student.named_parameters() if w.requires_grad for n in [_own_name(n)]
    }
    frozen = [n for n, w in student.patch.named_parameters() if not w.requires_grad]
    assert frozen
    assert all(".v_linear." in n for n in frozen)
    after = family.model.state_dict()
    for name, weight in before.items():
        found = after.get(name, after.get(name.replace("proj.", "proj.base_layer.")))
        assert torch.equal(weight, found)


def _own_name(name: str) -> str:
    return name if name.startswith("patch.") else f"lora.{name.removeprefix('text.')}"


def _any_seen() -> Seen:
    tokens = VisualTokens(torch.zeros(4, 128), (1, 2, 2), features=torch.zeros(1, 2, 2, 256))
    return Seen(tokens, torch.zeros(3, 1, 1, 16), None)


def test_training_clips_are_no_test_clips(prepared: Prepared) -> None:
    suite = side_suite("audio")
    assert prepared.examples.digest == suite.train(6, 5).digest != suite.test.digest
    folders = {Path(example.video.path).parents[2].name for example in prepared.examples.items}
    assert folders == {"train"}


def test_unusable_videos_are_counted_and_left_out(straight: TrainConfig, tmp_path: Path) -> None:
    source = Path(prepare_videos(straight))
    lines = []
    for number in range(4):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes((source / f"mini-audio-train-5-00{number}.mp4").read_bytes())
        lines.append({"video": path.name, "question": "How many beeps are there?", "answer": "2"})
    (tmp_path / "1.mp4").write_bytes(b"no video")
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    changed: dict[str, Any] = {
        "data": {"source": "jsonl", "path": str(tmp_path / "x.jsonl"), "held_out": 0},
        "training": {"steps": 1},
    }
    with pytest.raises(RunFailed, match=r"1 of 4 videos.*1\.mp4"):
        train(small_config(tmp_path / "a", **changed))
    changed["data"]["max_failures"] = 0.25
    train(small_config(tmp_path / "b", **changed))
    record = json.loads((tmp_path / "b" / "training.json").read_text())
    assert (record["videos"], record["videos_unusable"]) == (3, 1)


def prepare_videos(config: TrainConfig) -> Path:
    """Folder of the rendered training clips."""
    from tempeval.pave.examples import find_examples

    return Path(find_examples(config.data).items[0].video.path).parent


def test_a_task_s_training_split_is_learnt_from(
    straight: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = sorted(prepare_videos(straight).glob("*.mp4"))[:3]
    folder = write_task(tmp_path / "tasks", videos, ("Is it faster?", "Is it slower?"))
    show_tasks(folder, monkeypatch)
    with pytest.raises(InvalidSetting, match="no training split"):
        task_examples(TASK)
    yaml = folder / f"{TASK}.yaml"
    text = yaml.read_text()
    yaml.write_text(text.replace("test_split: test", "test_split: test\ntraining_split: test"))
    with pytest.raises(InvalidSetting, match="what it tests on"):
        task_examples(TASK)
    (folder / "train.jsonl").write_text((folder / "questions.jsonl").read_text())
    split = "    train: train.jsonl\n    test: questions.jsonl"
    yaml.write_text(text.replace("    test: questions.jsonl", split) + "\ntraining_split: train\n")
    found = task_examples(TASK)
    assert len(found.items) == 6
    assert {item.answer for item in found.items} == {"yes"}
    assert {item.video.path for item in found.items} == {str(video) for video in videos}
    assert found.items[-1].messages[0]["content"][1]["text"] == "Is it slower?"


def test_a_benchmark_s_training_split_is_read_when_it_is_trained_on(
    straight: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its one row stands for documents; ids are those by which evaluation finds features."""
    videos = sorted(prepare_videos(straight).glob("*.mp4"))[:2]
    folder = write_task(tmp_path / "tasks", videos)
    show_tasks(folder, monkeypatch)
    row = {"benchmark": "jester", "split": "train", "lazy": True}
    for name, own in (("source", row), ("test", {**row, "split": "test", "lazy": False})):
        (folder / f"{name}.jsonl").write_text(json.dumps(own) + "\n")
    (folder / "process.py").write_text(
        "import json, pathlib, datasets\n"
        "def load(rows):\n"
        "    if rows[0]['lazy']:\n"
        "        return rows\n"
        "    lines = (pathlib.Path(__file__).parent / 'questions.jsonl').read_text().splitlines()\n"
        "    return datasets.Dataset.from_list([json.loads(line) for line in lines])\n"
    )
    yaml = folder / f"{TASK}.yaml"
    split = "    train: source.jsonl\n    test: test.jsonl"
    text = yaml.read_text().replace("    test: questions.jsonl", split)
    yaml.write_text(text + "\ntraining_split: train\nprocess_docs: !function process.load\n")
    asked: list[dict[str, Any]] = []
    docs = [
        {
            "sample_id": f"train-{number}",
            "video_id": f"jester/{number}",
            "video": str(video),
            "fps": None,
            "question": "Is it slower?",
            "answer": "no",
        }
        for number, video in enumerate(videos)
    ]

    def load_docs(row: dict[str, Any]) -> list[dict[str, Any]]:
        asked.append(dict(row))
        return docs

    monkeypatch.setattr("tempeval.benchmarks.sources.load_docs", load_docs)
    found = task_examples(TASK)
    assert asked == [{**row, "split": "test", "lazy": False}, row]  # it is looked at first
    assert [item.answer for item in found.items] == ["no", "no"]
    assert [item.video.path for item in found.items] == [str(video) for video in videos]
    assert [item.video_id for item in found.items] == [video.stem for video in videos]
    tested = json.loads((folder / "questions.jsonl").read_text().splitlines()[0])["sample_id"]
    docs[1]["sample_id"] = tested
    with pytest.raises(InvalidSetting, match=f"tests on '{tested}', which its training split has"):
        task_examples(TASK)


def test_documents_are_processed_once(
    straight: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = sorted(prepare_videos(straight).glob("*.mp4"))[:2]
    folder = write_task(tmp_path / "tasks", videos)
    show_tasks(folder, monkeypatch)
    (folder / "train.jsonl").write_text((folder / "questions.jsonl").read_text())
    (folder / "process.py").write_text(
        "def ask(docs):\n"
        "    return docs.map(lambda doc: {**doc, 'question': 'Well? ' + doc['question']})\n"
    )
    yaml = folder / f"{TASK}.yaml"
    split = "    train: train.jsonl\n    test: questions.jsonl"
    text = yaml.read_text().replace("    test: questions.jsonl", split)
    yaml.write_text(text + "\ntraining_split: train\nprocess_docs: !function process.ask\n")
    texts = [item.messages[0]["content"][1]["text"] for item in task_examples(TASK).items]
    assert texts == ["Well? Is it faster?"] * 2


def _fill(student: Student, path: Path) -> None:
    state = load_file(path)
    with torch.no_grad():
        for name, weight in student.trainable().items():
            weight.copy_(state[name])
