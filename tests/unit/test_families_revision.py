import json
import shutil

import pytest

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.revision import check_files, content_digest, local_folder, revision_of


@pytest.fixture
def folder(tiny_qwen2_5_vl_folder, tmp_path):
    return shutil.copytree(tiny_qwen2_5_vl_folder, tmp_path / "copy")


def test_digest_is_of_content_and_not_of_place(folder, tiny_qwen2_5_vl_folder):
    assert content_digest(folder) == content_digest(tiny_qwen2_5_vl_folder)
    (folder / "README.md").write_text("not part of it")
    assert content_digest(folder) == content_digest(tiny_qwen2_5_vl_folder)


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja", "tokenizer.json"])
def test_digest_sees_every_kind_of_file(folder, name):
    before = content_digest(folder)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(bytes(content))
    assert content_digest(folder) != before


def test_revision_of_a_hub_snapshot_is_its_commit(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--a--b" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert revision_of(snapshot) == commit
    assert revision_of(tmp_path).startswith("sha256:")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "no configuration"),
        ("processor_config.json", "no processor configuration"),
        ("tokenizer.json", "no tokenizer"),
        ("chat_template.jinja", "no chat template"),
        ("model.safetensors", "lacks model.safetensors"),
    ],
)
def test_missing_files_are_named(folder, name, message):
    check_files(folder)
    (folder / name).unlink()
    with pytest.raises(UnsupportedModel, match=message):
        check_files(folder)


def test_a_sentencepiece_model_alone_is_a_tokenizer(folder):
    """Whether transformers can convert it is found out by loading."""
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    check_files(folder)


def test_missing_shard_is_named(folder):
    shards = {
        "a.weight": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(UnsupportedModel, match="lacks model-00002-of-00002"):
        check_files(folder)


def test_neither_folder_nor_hub_id():
    with pytest.raises(UnsupportedModel, match="neither a folder nor a checkpoint"):
        local_folder("nobody/no-such-checkpoint")
    with pytest.raises(UnsupportedModel, match="neither a folder nor a checkpoint"):
        local_folder("./no/such/folder/here")


def test_revision_of_a_folder_is_not_chosen(folder):
    with pytest.raises(InvalidSetting, match="goes with a hub id"):
        local_folder(str(folder), "main")
