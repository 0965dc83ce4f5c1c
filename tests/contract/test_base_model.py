"""A base model given as an adapter in peft's files, and a merged one that still has its adapter."""

from __future__ import annotations

import json
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from tempeval.engine.base_model import load_family
from tempeval.errors import UnsupportedModel
from tempeval.families.base import LoadOptions
from tempeval.families.registry import family_class, family_of

OPTIONS = LoadOptions()


def save_adapter(base, place, **settings):
    """Train nothing: a random LoRA of peft's own making; return the weights that peft merges."""
    family = family_class(family_of(str(base))).load(str(base), OPTIONS)
    defaults = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]}
    model = peft.get_peft_model(family.model, peft.LoraConfig(**(defaults | settings)))
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2
    model.save_pretrained(place)
    config = json.loads((place / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base)
    (place / "adapter_config.json").write_text(json.dumps(config))
    return model.merge_and_unload().state_dict()


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_qwen2_5_vl_folder):
    place = tmp_path_factory.mktemp("adapter") / "lora"
    return place, save_adapter(tiny_qwen2_5_vl_folder, place)


@pytest.fixture
def adapter(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "lora")


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_adapter_is_its_base_model_with_the_change_added_once(
    made, tiny_qwen2_5_vl_folder, tiny_qwen2_5_vl
):
    place, wanted = made
    family = load_family(str(place), OPTIONS)
    got = family.model.state_dict()
    assert got.keys() == wanted.keys()
    assert max((got[key] - wanted[key]).abs().max() for key in got) < 1e-6
    plain = tiny_qwen2_5_vl.model.state_dict()
    changed = [key for key in got if not torch.equal(got[key], plain[key])]
    assert len(changed) == 2 * family.geometry.num_layers
    assert family.adapted["base_revision"] == tiny_qwen2_5_vl.revision
    assert family.adapted["base_model"] == str(tiny_qwen2_5_vl_folder)
    own = family.adapted["adapter_revision"]
    assert own.startswith("sha256:")
    assert family.revision == f"{tiny_qwen2_5_vl.revision}+{own}"
    assert (family.pretrained, family.options) == (str(place), OPTIONS)
    assert family_of(str(place)) == "qwen_vl"


def test_vision_towers_and_rank_stabilised_scales_are_peft_s_too(
    tiny_llava_onevision_folder, tmp_path
):
    wanted = save_adapter(tiny_llava_onevision_folder, tmp_path / "lora", use_rslora=True)
    family = load_family(str(tmp_path / "lora"), OPTIONS)
    got = family.model.state_dict()
    assert max((got[key] - wanted[key]).abs().max() for key in wanted) < 1e-6
    tower = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert any("vision_tower" in key for key in tower)


def test_names_of_an_earlier_transformers_are_found(made, adapter):
    path = adapter / "adapter_model.safetensors"
    weights = {
        key.replace("model.language_model.layers", "language_model.model.layers"): value
        for key, value in load_file(path).items()
    }
    assert any("language_model.model.layers" in key for key in weights)
    save_file(weights, path)
    got = load_family(str(adapter), OPTIONS).model.state_dict()
    assert max((got[key] - made[1][key]).abs().max() for key in got) < 1e-6


def test_a_merged_model_that_still_has_its_adapter_is_refused(
    adapter, tiny_qwen2_5_vl_folder, tmp_path
):
    merged = shutil.copytree(tiny_qwen2_5_vl_folder, tmp_path / "merged")
    shutil.copy(adapter / "adapter_model.safetensors", merged)
    load_family(str(merged), OPTIONS)  # nothing reads it without its configuration
    shutil.copy(adapter / "adapter_config.json", merged)
    with pytest.raises(UnsupportedModel, match=r"adapter_config.json, adapter_model.safetensors"):
        load_family(str(merged), OPTIONS)


def test_originals_with_an_adapter_beside_are_refused(
    tiny_video_llava_original_folder, tmp_path, adapter
):
    folder = shutil.copytree(tiny_video_llava_original_folder, tmp_path / "original")
    shutil.copy(adapter / "adapter_config.json", folder)
    with pytest.raises(UnsupportedModel, match="a whole model and an adapter"):
        load_family(str(folder), OPTIONS)


def lose(key):
    def change(adapter):
        path = adapter / "adapter_model.safetensors"
        weights = load_file(path)
        (name,) = [name for name in weights if f"layers.1.self_attn.{key}" in name]
        del weights[name]
        save_file(weights, path)

    return change


def rename(adapter):
    path = adapter / "adapter_model.safetensors"
    save_file({k.replace("q_proj", "x_proj"): v for k, v in load_file(path).items()}, path)


def lose_layer(adapter):
    path = adapter / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if ".layers.1." not in k}, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose("q_proj.lora_A"), "lacks lora_A of .*layers.1.self_attn.q_proj"),
        (lose_layer, "has no weights for .*layers.1.*which target_modules names"),
        (rename, "x_proj.*no linear map of"),
        (lambda a: edit(a, r=2), "with r=2 they are"),
        (lambda a: edit(a, use_dora=True), "use_dora"),
        (lambda a: edit(a, base_model_name_or_path=None), "base model of this adapter is not"),
        (lambda a: edit(a, base_model_name_or_path="/no/such/base"), "'/no/such/base' is neither"),
        (lambda a: (a / "adapter_model.safetensors").unlink(), "but neither of"),
        (lambda a: (a / "non_lora_trainables.bin").touch(), "given as adapter= of method pave"),
    ],
)
def test_adapters_that_cannot_be_merged_are_refused_by_name(adapter, change, message):
    change(adapter)
    with pytest.raises(UnsupportedModel, match=message):
        load_family(str(adapter), OPTIONS)
