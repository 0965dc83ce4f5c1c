"""Which of a folder's weight files are loaded, and that no other set beside them differs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from tempeval.errors import UnsupportedModel
from tempeval.shards import read_shards, weight_files

ONE = {"a": torch.arange(4.0), "b": torch.ones(2, 2)}
OTHER = {"a": torch.arange(4.0), "b": torch.zeros(2, 2)}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def shards(folder, state, index=True):
    for name, key in zip(SHARDS, sorted(state), strict=True):
        save_file({key: state[key]}, folder / name)
    if index:
        placed = dict(zip(sorted(state), SHARDS, strict=True))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))


def single(folder, state):
    save_file(state, folder / "model.safetensors")


def pickled(folder, state):
    torch.save(state, folder / "pytorch_model.bin")


def loaded(folder):
    return {key: tensor.tolist() for key, tensor in read_shards(folder)}


@pytest.mark.parametrize(
    ("first", "second"),
    [(single, shards), (shards, single), (single, pickled), (shards, pickled)],
)
def test_two_different_sets_are_refused_by_name(tmp_path, first, second):
    first(tmp_path, ONE)
    second(tmp_path, OTHER)
    for read in (weight_files, lambda folder: weight_files(folder, safetensors=True), loaded):
        with pytest.raises(UnsupportedModel, match=r"two different sets .*difference is b\b"):
            read(tmp_path)


def test_other_names_shapes_and_types_are_differences(tmp_path):
    single(tmp_path, ONE)
    for other in (
        {"a": ONE["a"]},
        {**ONE, "c": ONE["a"]},
        {**ONE, "b": ONE["b"].half()},
        {**ONE, "b": ONE["b"].view(4)},
    ):
        pickled(tmp_path, other)
        with pytest.raises(UnsupportedModel, match="two different sets"):
            weight_files(tmp_path)


def test_the_same_weights_twice_are_what_transformers_would_load(tmp_path):
    shards(tmp_path, ONE)
    pickled(tmp_path, ONE)
    assert [path.name for path in weight_files(tmp_path)] == list(SHARDS)
    single(tmp_path, ONE)
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
    assert loaded(tmp_path) == {key: tensor.tolist() for key, tensor in ONE.items()}


def test_an_index_whose_shards_are_gone_is_left_over(tmp_path):
    shards(tmp_path, OTHER)
    for name in SHARDS:
        (tmp_path / name).unlink()
    single(tmp_path, ONE)
    assert [path.name for path in weight_files(tmp_path, safetensors=True)] == ["model.safetensors"]
    assert loaded(tmp_path)["b"] == ONE["b"].tolist()


def test_half_the_shards_beside_a_single_file_are_refused(tmp_path):
    shards(tmp_path, ONE)
    single(tmp_path, ONE)
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(UnsupportedModel, match=f"lacks {SHARDS[1]} of the shards that lie beside"):
        weight_files(tmp_path)


def test_shards_without_an_index_beside_a_single_file_count_too(tmp_path):
    shards(tmp_path, OTHER, index=False)
    single(tmp_path, ONE)
    with pytest.raises(UnsupportedModel, match="two different sets"):
        weight_files(tmp_path)


def test_files_that_were_never_fetched_and_commits_of_the_hub_are_no_second_set(tmp_path):
    single(tmp_path, ONE)
    (tmp_path / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
    snapshot = tmp_path / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    single(snapshot, ONE)
    pickled(snapshot, OTHER)
    assert [path.name for path in weight_files(snapshot)] == ["model.safetensors"]


def test_safetensors_alone_where_they_are_asked_for(tmp_path):
    pickled(tmp_path, ONE)
    assert [path.name for path in weight_files(tmp_path)] == ["pytorch_model.bin"]
    with pytest.raises(UnsupportedModel, match="weights load from safetensors only"):
        weight_files(tmp_path, safetensors=True)
