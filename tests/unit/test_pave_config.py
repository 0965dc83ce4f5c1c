"""Configurations of training: what is accepted, what is refused and how, and the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.pave.config import TrainConfig, read_config
from tempeval.pave.settings import read_settings

if TYPE_CHECKING:
    from pathlib import Path

LEAST: dict[str, Any] = {
    "out": "somewhere",
    "base": {"pretrained": "mini"},
    "data": {"source": "mini_audio"},
    "side_channel": {"name": "audio"},
}


def with_value(path: str, value: Any) -> dict[str, Any]:
    """`LEAST` with one value set, by dotted path."""
    *sections, name = path.split(".")
    given = {key: dict(v) if isinstance(v, dict) else v for key, v in LEAST.items()}
    place = given
    for section in sections:
        place = place.setdefault(section, {})
    place[name] = value
    return given


def test_defaults_are_the_paper_s() -> None:
    config = read_settings(TrainConfig, LEAST)
    training, patch, lora = config.training, config.patch, config.lora
    assert (training.learning_rate, training.warmup_ratio, training.weight_decay) == (2e-5, 0.03, 0)
    assert (training.max_grad_norm, training.batch_size, training.gradient_accumulation) == (
        0.1,
        4,
        4,
    )
    assert (training.seed, training.epochs, config.base.frames) == (42, 1, 32)
    assert (lora.r, lora.alpha, lora.dropout) == (64, 16, 0.05)
    assert (patch.hidden, patch.layers, patch.heads, patch.kv_share) == (512, 2, 4, True)


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'learning_rate'") as caught:
        read_settings(TrainConfig, with_value("training.learning_rat", 1e-3))
    assert "training" in str(caught.value)
    with pytest.raises(UnknownName, match="did you mean 'side_channel'"):
        read_settings(TrainConfig, with_value("sidechannel", {}))


@pytest.mark.parametrize("missing", ["out", "base", "data", "side_channel"])
def test_a_missing_section_is_named(missing: str) -> None:
    given = {key: value for key, value in LEAST.items() if key != missing}
    with pytest.raises(InvalidSetting, match=f"lacks {missing}"):
        read_settings(TrainConfig, given)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.learning_rate", -1.0),
        ("training.learning_rate", True),
        ("training.learning_rate", "fast"),
        ("training.learning_rate", float("nan")),
        ("training.warmup_ratio", 1.0),
        ("training.max_grad_norm", 0),
        ("training.batch_size", 0),
        ("training.batch_size", 2.5),
        ("training.steps", 0),
        ("training.seed", -1),
        ("training.adam_beta2", 1.0),
        ("training.precision", "half"),
        ("lora.dropout", 1.0),
        ("lora.r", -1),
        ("patch.heads", 3),
        ("patch.hidden", 0),
        ("patch.kv_share", 1),
        ("base.frames", 0),
        ("base.pretrained", None),
        ("data.source", "mini"),
        ("data.held_out", -1),
        ("data.clips", 0),
        ("side_channel.neighborhood", -1),
        ("side_channel.settings", {"step": [1]}),
        ("side_channel.settings", "step=1"),
        ("checkpoints.every", 0),
        ("checkpoints", 3),
        ("save_dtype", "int8"),
    ],
)
def test_a_value_that_is_not_accepted_is_named(path: str, value: Any) -> None:
    with pytest.raises((InvalidSetting, UnknownName)) as caught:
        read_settings(TrainConfig, with_value(path, value))
    message = str(caught.value)
    assert path.rpartition(".")[2] in message
    if not isinstance(value, dict):
        assert str(value) in message


@pytest.mark.parametrize(("source", "needed"), [("task", "data.task"), ("jsonl", "data.path")])
def test_a_source_says_what_it_needs(source: str, needed: str) -> None:
    with pytest.raises(InvalidSetting, match=f"needs {needed}"):
        read_settings(TrainConfig, with_value("data.source", source))
    with pytest.raises(InvalidSetting, match=f"takes no {needed}"):
        read_settings(TrainConfig, with_value(needed, "x"))


def test_yaml_s_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(LEAST) + "training: {learning_rate: 2e-5, max_grad_norm: 1}\n")
    config = read_config(path)
    assert config.training.learning_rate == 2e-5
    assert config.training.max_grad_norm == 1.0


def test_the_digest_is_of_what_decides_the_weights() -> None:
    config = read_settings(TrainConfig, LEAST)
    for path, value in (
        ("out", "elsewhere"),
        ("checkpoints.every", 7),
        ("feature_cache", "memory"),
    ):
        assert read_settings(TrainConfig, with_value(path, value)).digest() == config.digest()
    for path, value in (("training.seed", 1), ("lora.r", 8), ("data.clips", 7), ("base.frames", 4)):
        assert read_settings(TrainConfig, with_value(path, value)).digest() != config.digest()


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("out: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InvalidSetting, match="not valid YAML"):
        read_config(path)
    with pytest.raises(InvalidSetting, match="cannot read"):
        read_config(tmp_path / "absent.yaml")
    path.write_text("- a list\n")
    with pytest.raises(InvalidSetting, match="must be a mapping"):
        read_config(path)
