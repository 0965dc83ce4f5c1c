"""Released PAVE checkpoints: equal to LoRA applied by hand and the golden-tested patch."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest
import torch
from original_onevision import (
    POOLED,
    load_original_onevision,
    original_state,
    save_original_onevision,
    square,
    video_logits,
)
from released_pave import NAMINGS, PATCH_PREFIX, PROJECTIONS, patch_state, save_released_pave
from safetensors.torch import load_file, save_file

from tempeval.engine.low_rank import LowRank, linear_maps
from tempeval.errors import BadArchive, InvalidSetting, UnsupportedModel
from tempeval.methods.pave import PavePatch
from tempeval.methods.pave_checkpoint import read_pave, save_pave

QUESTION = "Which way does the red square move?"


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = save_original_onevision(tmp_path_factory.mktemp("base"))
    return load_original_onevision(folder, mm_newline_position="grid")


@pytest.fixture(scope="module")
def released(family, tmp_path_factory):
    return save_released_pave(tmp_path_factory.mktemp("pave") / "pave_lora", family, zipped=True)


@pytest.fixture
def copy(family, tmp_path):
    """A folder to spoil."""
    return save_released_pave(tmp_path / "pave_lora", family).path


def side_channel(released, steps=7):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(steps, 2, 2, released.side, generator=generator)


@torch.no_grad()
def our_logits(family, weights, clip, side, message):
    """Logits with the patch added, and each LoRA as its definition says, beside its linear map."""
    patch, visual = weights.patch(), family.encode(clip, with_features=True)
    added = patch(side, visual.features.flatten(1, 2)).flatten(0, 1)
    visual = replace(visual, embeddings=visual.embeddings + added)
    layout, question = family.layout(family.tokenize(message("<video>", QUESTION)), [visual])
    tail = family.model.get_input_embeddings()(question)[None]
    embeddings = torch.cat([family.embed(layout, [visual]), tail], dim=1)
    hooks = []
    for name, (a, b) in weights.lora.matrices.items():

        def add(_module, inputs, output, a=a, b=b):
            return output + weights.lora.scale * (inputs[0] @ a.T) @ b.T

        hooks.append(family.text_model.get_submodule(name).register_forward_hook(add))
    try:
        return family.model(inputs_embeds=embeddings).logits[0]
    finally:
        for hook in hooks:
            hook.remove()


def reference(released, clip, side):
    """Logits by hand: `W + scale * B A` in the original weights, and the golden-tested patch."""
    state = original_state()
    for name, (a, b) in released.lora.items():
        state[f"model.{name}.weight"] += released.scale * b @ a
    patch = PavePatch.from_state_dict(released.patch, num_heads=4)
    return video_logits(state, clip.frames, QUESTION, "grid", lambda q: patch(side, q))


def close(got, expected):
    return (got - expected).abs().max() < 1e-3 * expected.abs().max()


def test_a_released_zip_equals_the_reference(family, released, make_clip, message, tmp_path):
    weights = read_pave(released.path, cache=tmp_path)
    assert weights.mm_newline_position == "grid"
    assert len(weights.lora.matrices) == 7 * 3
    clip, side = square(make_clip(4)), side_channel(released)
    expected = reference(released, clip, side)
    assert close(our_logits(family, weights, clip, side, message), expected)
    # The check can fail: each part of the checkpoint changes the logits by more.
    base = video_logits(original_state(), clip.frames, QUESTION, "grid")
    assert not close(base, expected)
    silent = replace(weights, lora=LowRank(0.0, weights.lora.matrices))
    assert not close(our_logits(family, silent, clip, side, message), expected)
    assert not close(our_logits(family, weights, clip, side * 0, message), expected)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_every_naming_gives_the_same(family, released, tmp_path, naming, weights):
    made = save_released_pave(tmp_path / "x", family, naming=naming, weights=weights)
    found, first = read_pave(made.path), read_pave(released.path, cache=tmp_path)
    assert found.digest == first.digest
    assert found.lora.scale == 0.5
    for name, pair in released.lora.items():
        assert all(map(torch.equal, found.lora.matrices[name], pair))
    assert found.patch_state.keys() == released.patch.keys()


def test_a_zip_without_a_folder(family, tmp_path):
    made = save_released_pave(tmp_path / "x", family)
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        for file in made.path.iterdir():
            archive.write(file, file.name)
    found = read_pave(tmp_path / "flat.zip", cache=tmp_path / "cache")
    assert found.digest == read_pave(made.path).digest


def test_digests_tell_contents_apart(family, released, tmp_path):
    first = read_pave(released.path, cache=tmp_path).digest
    for number, changes in enumerate(({"seed": 3}, {"alpha": 4}, {"layers": 3})):
        made = save_released_pave(tmp_path / str(number), family, **changes)
        assert read_pave(made.path).digest != first


@pytest.mark.parametrize(("layers", "output"), [(2, 896), (3, 3584)])
def test_sizes_are_read_from_the_weights(tmp_path, layers, output):
    state = patch_state(side=1024, query=1152, output=output, hidden=64, layers=layers)
    torch.save(
        {PATCH_PREFIX + k: v for k, v in state.items()}, tmp_path / "non_lora_trainables.bin"
    )
    found = read_pave(tmp_path)
    assert (found.sizes.layers, found.sizes.output, found.sizes.side) == (layers, output, 1024)
    assert found.lora is None
    assert found.num_heads == 4
    assert found.mm_newline_position == "grid"


@pytest.mark.parametrize(
    ("name", "zipped", "config", "hidden", "expected"),
    [
        ("pave_v5_1_2_lora", False, {}, 512, True),
        ("pave_v5_1_2_lora", True, {}, 512, True),
        ("VIDIT_V5_1_2_lora_full", False, {}, 512, True),
        ("pave_v5_1_3_lora_7B", True, {}, 512, False),
        ("pave_5_1_3_lora_avsd_7B_imagebind", False, {}, 512, False),
        ("x", False, {"model_class": "VideoFeatModelArgumentsV5_1_2"}, 512, True),
        ("v5_1_2", False, {"model_class": "VideoFeatModelArgumentsV5_1_3_7B"}, 512, False),
        ("v5_1_3", False, {"use_3d_rope": True}, 512, True),
        ("v5_1_20", False, {}, 512, None),
        ("mine", True, {}, 512, None),
        ("mine", False, {}, 64, False),
    ],
)
def test_rotary_positions_are_recognised(tmp_path, name, zipped, config, hidden, expected):
    folder = tmp_path / name
    folder.mkdir()
    state = patch_state(side=4, query=5, output=6, hidden=hidden, layers=1)
    torch.save({PATCH_PREFIX + k: v for k, v in state.items()}, folder / "non_lora_trainables.bin")
    (folder / "config.json").write_text(json.dumps(config))
    path = folder
    if zipped:
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)  # no folder inside: the zip's own name tells
    found = read_pave(path, cache=tmp_path / "cache")
    assert found.use_3d_rope is expected
    assert found.patch().use_3d_rope is bool(expected)


def test_rotary_positions_of_heads_that_cannot_have_them_are_refused(tmp_path):
    folder = tmp_path / "v5_1_2"
    folder.mkdir()
    state = patch_state(side=4, query=5, output=6, hidden=64, layers=1)
    torch.save({PATCH_PREFIX + k: v for k, v in state.items()}, folder / "non_lora_trainables.bin")
    with pytest.raises(UnsupportedModel, match="4 heads of a hidden width of 64 have 16"):
        read_pave(folder)


def test_rotary_positions_are_saved_and_read_again(tmp_path):
    state = patch_state(side=4, query=5, output=6, hidden=128, layers=1)
    for rope in (True, False):
        patch = PavePatch.from_state_dict(state, num_heads=1, use_3d_rope=rope)
        folder = tmp_path / f"v5_1_2_{rope}"
        save_pave(folder, patch, None, rank=0, alpha=1, metadata={})
        assert read_pave(folder).use_3d_rope is rope
        (folder / "pave.safetensors").unlink()  # the released layout alone says so too
        assert read_pave(folder).use_3d_rope is rope


def test_newlines_as_trained(family, tmp_path):
    made = save_released_pave(tmp_path / "x", family, newline="one_token")
    assert read_pave(made.path).mm_newline_position == "one_token"


def test_newlines_that_nothing_says(family, released, tmp_path):
    """A released checkpoint without a word has a grid; ours of a base without newlines has none."""
    bare = read_pave(save_released_pave(tmp_path / "x", family, newline=None).path)
    assert (bare.mm_newline_position, bare.says_newlines) == ("grid", False)
    assert read_pave(released.path, cache=tmp_path).says_newlines
    folder = saved(tmp_path / "own", released)
    for _ in range(2):
        own = read_pave(folder)
        assert (own.mm_newline_position, own.says_newlines) == (None, False)
        assert "mm_newline_position" not in own.metadata
        (folder / "pave.safetensors").unlink(missing_ok=True)  # the released layout alone says so


def test_rslora_scale(family, tmp_path):
    made = save_released_pave(tmp_path / "x", family, rank=4, alpha=2, use_rslora=True)
    assert read_pave(made.path).lora.scale == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"an_option_of_tomorrow": 1}, "an_option_of_tomorrow=1"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"r": 0}, "r=0"),
        ({"r": 8}, r"with r=8"),
        ({"lora_alpha": None}, "lora_alpha=None"),
        ({"target_modules": ["q_proj", "lm_head"]}, "no weights for the target module 'lm_head'"),
        ({"target_modules": ["q_proj"]}, "not in target_modules"),
    ],
)
def test_adapter_options_that_are_not_supported_are_named(family, tmp_path, changes, message):
    made = save_released_pave(tmp_path / "x", family, **changes)
    with pytest.raises(UnsupportedModel, match=message):
        read_pave(made.path)


def test_short_names_of_targets(family, tmp_path):
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    made = save_released_pave(tmp_path / "x", family, target_modules=names)
    assert len(read_pave(made.path).lora.matrices) == 21


def lose(copy, *modules):
    """Take modules' weights from an adapter."""

    def change(state):
        for key in [k for k in state if any(f".{module}." in k for module in modules)]:
            del state[key]

    edit_adapter(copy, change)


LAST = [f"layers.2.{name}" for name in PROJECTIONS]


@pytest.mark.parametrize(
    ("targets", "lost", "message"),
    [
        (["up_proj", "q_proj"], ["layers.1.mlp.up_proj"], r"'layers\.1\.mlp\.up_proj'"),
        (["mlp.up_proj", "q_proj"], ["layers.0.mlp.up_proj"], r"'layers\.0\.mlp\.up_proj'"),
        # The deepest layer is another map's.
        (["up_proj", "q_proj"], ["layers.2.mlp.up_proj"], r"'layers\.2\.mlp\.up_proj'"),
        (r".*\.(up|q)_proj", ["layers.2.mlp.up_proj"], r"'layers\.2\.mlp\.up_proj'"),
        (r"model\.layers\.\d+\.(mlp\.up|self_attn\.q)_proj", ["layers.1"], r"'layers\.1\.self_"),
    ],
)
def test_a_layer_that_was_lost_is_named(family, tmp_path, targets, lost, message):
    made = save_released_pave(tmp_path / "x", family, target_modules=targets)
    lose(made.path, *(f"mlp.{n}_proj" for n in ("gate", "down")))
    lose(made.path, *(f"self_attn.{n}_proj" for n in "kvo"))
    assert len(read_pave(made.path).lora.matrices) == 6
    lose(made.path, *lost)
    with pytest.raises(UnsupportedModel, match=message):
        read_pave(made.path)


def test_all_linear_maps_are_all_of_them(family, tmp_path):
    made = save_released_pave(tmp_path / "x", family, target_modules="all-linear")
    assert len(read_pave(made.path).lora.matrices) == 21
    lose(made.path, "layers.0.self_attn.o_proj")
    with pytest.raises(UnsupportedModel, match=r"'layers\.0\.self_attn\.o_proj'"):
        read_pave(made.path)


@pytest.mark.parametrize("targets", [[n.split(".")[1] for n in PROJECTIONS], r".*_proj"])
def test_a_last_layer_that_was_lost_is_named_when_the_model_is_known(family, tmp_path, targets):
    made = save_released_pave(tmp_path / "x", family, target_modules=targets)
    whole = read_pave(made.path).lora
    assert len(linear_maps(family.text_model, whole)) == 21
    lose(made.path, *LAST)
    low_rank = read_pave(made.path).lora
    with pytest.raises(InvalidSetting, match=r"self_attn\.q_proj, and has none below layer 1"):
        linear_maps(family.text_model, low_rank)


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"layers_to_transform": [0, 1]}, LAST),
        ({"layers_to_transform": 1}, [*LAST, "layers.0"]),
        ({"exclude_modules": ["layers.1.mlp.up_proj"]}, ["layers.1.mlp.up_proj"]),
        ({"exclude_modules": r".*layers\.1\..*"}, ["layers.1"]),
        ({"target_modules": r"model\.layers\.[02]\..*_proj"}, ["layers.1"]),
    ],
)
def test_layers_that_were_never_meant_are_not_missed(family, tmp_path, changes, lost):
    names = [name.split(".")[1] for name in PROJECTIONS]
    made = save_released_pave(tmp_path / "x", family, **({"target_modules": names} | changes))
    with pytest.raises(UnsupportedModel, match="not in target_modules"):
        read_pave(made.path)
    lose(made.path, *lost)
    low_rank = read_pave(made.path).lora
    assert linear_maps(family.text_model, low_rank).keys() == low_rank.matrices.keys()
    # Of those that were meant, each is missed.
    lose(made.path, next(iter(low_rank.matrices)))
    with pytest.raises(UnsupportedModel, match=next(iter(low_rank.matrices)).split(".")[-1]):
        read_pave(made.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": 3}, "target_modules=3; accepted"),
        ({"target_modules": "(("}, "no pattern"),
        ({"exclude_modules": [1]}, r"exclude_modules=\[1\]"),
        ({"layers_to_transform": "1"}, "layers_to_transform='1'"),
    ],
)
def test_targets_of_no_kind_are_named(family, tmp_path, changes, message):
    made = save_released_pave(tmp_path / "x", family, **changes)
    with pytest.raises(UnsupportedModel, match=message):
        read_pave(made.path)


def edit_adapter(copy, change):
    state = load_file(copy / "adapter_model.safetensors")
    change(state)
    save_file(state, copy / "adapter_model.safetensors")


OUTSIDE = "base_model.model.model.mm_projector.0.lora_A.weight"
NAME = "base_model.model.model.layers.1.mlp.up_proj.lora_{}.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(NAME.format("A")), r"lacks lora_A of layers\.1\.mlp\.up_proj"),
        (
            lambda s: [s.pop(NAME.format(n)) for n in "AB"],
            r"no weights for the target module 'layers\.1\.mlp\.up_proj'",
        ),
        (
            lambda s: s.update({OUTSIDE: torch.ones(1)}),
            r"mm_projector\.0\.lora_A\.weight, which is no LoRA",
        ),
        (lambda s: s.update({NAME.format("A"): torch.full((4, 64), torch.nan)}), "not finite"),
        (lambda s: s.clear(), "no LoRA weights"),
    ],
)  # fmt: skip
def test_adapter_weights_that_do_not_fit_are_named(copy, change, message):
    edit_adapter(copy, change)
    with pytest.raises(UnsupportedModel, match=message):
        read_pave(copy)


class Evil:
    def __reduce__(self):
        return (print, ("was run",))


def test_a_pickle_that_is_not_weights_is_refused(copy, capsys):
    path = copy / "non_lora_trainables.bin"
    torch.save({"model": Evil()}, path)
    with pytest.raises(UnsupportedModel, match=r"cannot read .*non_lora_trainables\.bin"):
        read_pave(copy)
    assert capsys.readouterr().out == ""  # nothing in it ran
    for wrong in ([1, 2], {"a": 3}, {1: torch.ones(1)}):
        torch.save(wrong, path)
        with pytest.raises(UnsupportedModel, match="does not hold weights"):
            read_pave(copy)
    path.write_bytes(b"nothing")
    with pytest.raises(UnsupportedModel, match=r"non_lora_trainables\.bin"):
        read_pave(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(PATCH_PREFIX + "output_norm.bias"), r"lack .*output_norm\.bias"),
        (lambda s: s.update({PATCH_PREFIX + "gate.weight": torch.ones(1)}), r"gate\.weight"),
        (lambda s: s.pop(PATCH_PREFIX + "input_mapping.weight"), "no patch among"),
        (
            lambda s: s.update({PATCH_PREFIX + "output_norm.bias": torch.full((64,), torch.inf)}),
            r"output_norm\.bias has numbers that are not finite",
        ),
    ],
)
def test_patch_weights_that_do_not_fit_are_named(copy, change, message):
    path = copy / "non_lora_trainables.bin"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(UnsupportedModel, match=message):
        read_pave(copy)


def test_other_weights_beside_the_patch_are_reported(copy, caplog):
    path = copy / "non_lora_trainables.bin"
    state = torch.load(path, weights_only=True)
    before = read_pave(copy).digest
    torch.save(state | {"base_model.model.model.mm_projector.0.bias": torch.ones(64)}, path)
    assert read_pave(copy).digest == before
    assert "1 weights besides the patch, such as base_model.model.model.mm_projector" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("non_lora_trainables.bin", "has no non_lora_trainables.bin"),
        ("adapter_model.safetensors", "neither of adapter_model.safetensors"),
        ("adapter_config.json", "an adapter needs"),
    ],
)
def test_half_a_folder_is_refused(copy, name, message):
    (copy / name).unlink()
    with pytest.raises(UnsupportedModel, match=message):
        read_pave(copy)


def test_what_is_no_checkpoint_is_refused(released, copy, tmp_path):
    with pytest.raises(UnsupportedModel, match="zhuomingliu/PAVE"):
        read_pave(tmp_path / "nowhere")
    with pytest.raises(UnsupportedModel, match="give the folder"):
        read_pave(copy / "non_lora_trainables.bin")
    with pytest.raises(BadArchive, match="neither a whole zip"):
        read_pave(copy / "config.json", cache=tmp_path)
    cut = tmp_path / "cut.zip"
    cut.write_bytes(released.path.read_bytes()[:-200])
    with pytest.raises(BadArchive, match=r"cut\.zip"):
        read_pave(cut, cache=tmp_path / "cache")
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("../../non_lora_trainables.bin", b"x")
    with pytest.raises(BadArchive, match="outside its folder"):
        read_pave(evil, cache=tmp_path / "cache")
    two = tmp_path / "two"
    for name in "ab":
        (two / name).mkdir(parents=True)
        (two / name / "non_lora_trainables.bin").write_bytes(b"")
    with pytest.raises(UnsupportedModel, match="several checkpoints: a, b"):
        read_pave(two)
    (copy / "config.json").write_text("{")
    with pytest.raises(UnsupportedModel, match="not valid JSON"):
        read_pave(copy)


def saved(folder, released, **metadata):
    patch = PavePatch.from_state_dict(released.patch)
    lora = LowRank(released.scale, released.lora)
    save_pave(folder, patch, lora, rank=4, alpha=2, metadata=metadata)
    return folder


def test_saved_and_read_again(released, family, make_clip, message, tmp_path):
    says = {"base_model": "tiny", "note": "x", "mm_newline_position": "grid"}
    folder = saved(tmp_path / "out", released, **says)
    own = read_pave(folder)
    official = tmp_path / "official"
    folder.rename(official)
    (official / "pave.safetensors").rename(tmp_path / "alone.safetensors")
    again, alone = read_pave(official), read_pave(tmp_path / "alone.safetensors")
    assert own.digest == again.digest == alone.digest
    assert own.digest == read_pave(released.path, cache=tmp_path).digest
    assert own.metadata == says
    config = json.loads((official / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 2)
    assert config["base_model_name_or_path"] == "tiny"
    clip, side = square(make_clip(2)), side_channel(released)
    assert close(our_logits(family, own, clip, side, message), reference(released, clip, side))


def test_a_patch_of_other_heads_and_values(released, tmp_path):
    patch = PavePatch.from_state_dict(released.patch, num_heads=2, kv_share=False)
    save_pave(tmp_path, patch, None, rank=4, alpha=2, metadata={"mm_newline_position": "one_token"})
    found = read_pave(tmp_path)
    assert (found.num_heads, found.kv_share, found.lora) == (2, False, None)
    assert found.mm_newline_position == "one_token"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json", "non_lora_trainables.bin", "pave.safetensors"
    ]  # fmt: skip
    side, query = torch.randn(3, 1, 1, released.side), torch.randn(3, POOLED**2, 48)
    with torch.no_grad():
        assert torch.equal(found.patch()(side, query), patch(side, query))
    # The released layout alone says so too.
    (tmp_path / "pave.safetensors").unlink()
    again = read_pave(tmp_path)
    assert (again.num_heads, again.kv_share, again.mm_newline_position) == (2, False, "one_token")
    (tmp_path / "config.json").write_text('{"num_heads": "2"}')
    with pytest.raises(UnsupportedModel, match="num_heads='2', not a int"):
        read_pave(tmp_path)


def test_every_way_of_cutting_a_pickle_is_named(copy):
    """Unpickling checks little: what it meets in a damaged file is a damaged file."""
    path = copy / "non_lora_trainables.bin"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for end in range(len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(UnsupportedModel, match=r"non_lora_trainables\.bin"):
            read_pave(copy)
    path.write_bytes(b"hello world")
    with pytest.raises(UnsupportedModel, match=r"non_lora_trainables\.bin"):
        read_pave(copy)


def test_saving_what_does_not_fit(released, tmp_path):
    patch = PavePatch.from_state_dict(released.patch)
    lora = LowRank(0.7, released.lora)
    with pytest.raises(InvalidSetting, match=r"scale 0\.7 is not of alpha=2, rank=4"):
        save_pave(tmp_path, patch, lora, rank=4, alpha=2, metadata={})
    with pytest.raises(InvalidSetting, match="metadata may not have rank"):
        save_pave(tmp_path, patch, None, rank=4, alpha=2, metadata={"rank": "1"})


def test_own_files_that_are_broken_are_named(released, tmp_path):
    path = saved(tmp_path / "out", released) / "pave.safetensors"
    state = load_file(path)
    save_file(state, path, metadata={"format": "other"})
    with pytest.raises(UnsupportedModel, match="format 'other'"):
        read_pave(path)
    save_file(state, path, metadata={"format": "tempeval-pave-1", "num_heads": "x"})
    with pytest.raises(UnsupportedModel, match="broken metadata"):
        read_pave(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnsupportedModel, match="cannot read"):
        read_pave(path)


def test_peft_itself_reads_what_is_saved(released, family, tmp_path):
    """peft on the original naming (`model.layers...`) gives the same as merging by hand."""
    import transformers
    from peft import PeftModel

    folder = saved(tmp_path / "out", released)
    config = family.model.config.text_config
    base = transformers.Qwen2ForCausalLM(config).eval()
    base.model.load_state_dict(family.text_model.state_dict())
    ids = torch.arange(40)[None] + 5
    with torch.no_grad():
        before = base(ids).logits
        got = PeftModel.from_pretrained(base, str(folder))(ids).logits
        merged = transformers.Qwen2ForCausalLM(config).eval()
        merged.model.load_state_dict(family.text_model.state_dict())
        merged.lm_head = base.lm_head
        for name, (a, b) in released.lora.items():
            merged.model.get_submodule(name).weight += released.scale * b @ a
        expected = merged(ids).logits
    assert close(got, expected)
    assert not close(before, expected)
