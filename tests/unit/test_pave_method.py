"""PAVE as a method: settings, spelling, fingerprint, refusals, labels."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace

import pytest
import torch
from tiny_pave import SIDE_WIDTH, register_tiny_channel, save_tiny_pave
from torch import nn

from tempeval.errors import (
    BadSideChannel,
    ConflictingMethods,
    InvalidSetting,
    TempevalError,
    UnknownName,
    UnsupportedModel,
)
from tempeval.listing import method_table
from tempeval.methods.base import Chain
from tempeval.methods.pave import PAVE, PavePatch
from tempeval.methods.pave_checkpoint import save_pave
from tempeval.methods.pave_state import PatchSizes
from tempeval.methods.registry import parse_chain
from tempeval.model_wrappers.arguments import chain_with_settings
from tempeval.run.resume import _reads_features
from tempeval.side_channels.align import equal_parts
from tempeval.side_channels.origin import origin_of
from tempeval.stages import Geometry, RunFacts, SideFeatures, VisualTokens
from tempeval.video.clip import FramePlan, SideSpec

GEOMETRY = Geometry(2, 4, 2, 8, 32, 64)
FACTS = RunFacts(GEOMETRY, False, 4096, 1, 1, 4, 36, feature_width=12)


@dataclass
class Base:
    """What `save_tiny_pave` needs of a family."""

    geometry: Geometry = GEOMETRY
    feature_width: int = 12

    @property
    def text_model(self):
        layer = nn.ModuleDict({"mlp": nn.ModuleDict({"up_proj": nn.Linear(32, 48)})})
        return nn.ModuleDict({"layers": nn.ModuleList([layer])})


@pytest.fixture(autouse=True)
def _tiny_channel(monkeypatch):
    register_tiny_channel(monkeypatch)


@pytest.fixture
def adapter(tmp_path):
    return str(save_tiny_pave(tmp_path / "adapter", Base()))


def tiny(adapter, **settings):
    return PAVE(adapter, side_channel="tiny", **settings)


def test_the_plan_asks_for_features_and_the_side_channel(adapter):
    plan = tiny(adapter, shuffle=3, side_settings=("steps:5",)).frames(FramePlan())
    wanted = (("rows", 1), ("shuffle", 3), ("steps", 5), ("timed", True))
    assert plan == FramePlan(features=True, side=(SideSpec("tiny", wanted),))


def test_spelling_reads_back_and_names_the_adapter_by_content(adapter, tmp_path):
    text = f"pave[adapter={adapter};side_channel=tiny;side_settings=steps:5/rows:2;shift=0.5]"
    chain = parse_chain(text)
    assert chain.spec == text
    assert parse_chain(chain.spec) == chain
    moved = tmp_path / "moved"
    shutil.copytree(adapter, moved)
    assert parse_chain(text.replace(adapter, str(moved))).fingerprint == chain.fingerprint
    save_tiny_pave(moved, Base(), seed=1)
    assert parse_chain(text.replace(adapter, str(moved))).fingerprint != chain.fingerprint
    for more in ("shift=1", "shuffle=1", "neighborhood=2", "lora=none", "kv_share=false"):
        other = parse_chain(f"pave[adapter={adapter};side_channel=tiny;{more}]")
        assert (
            other.fingerprint
            != parse_chain(f"pave[adapter={adapter};side_channel=tiny]").fingerprint
        )


def test_the_wrapper_takes_its_settings_as_arguments(adapter):
    chain = chain_with_settings("pave", {"adapter": adapter, "side_channel": "tiny"}, ())
    assert chain == Chain([tiny(adapter)])
    with pytest.raises(InvalidSetting, match="pave needs 'adapter'"):
        chain_with_settings("pave", {}, ())
    with pytest.raises(UnknownName, match=r"adaptor.*adapter"):
        chain_with_settings("pave", {"adaptor": adapter}, ())


def test_a_required_setting_is_shown_as_such():
    assert "`adapter=...`" in method_table()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(FACTS, feature_width=13), "12 channels of visual features.* 13"),
        (
            replace(FACTS, geometry=replace(GEOMETRY, hidden_size=64)),
            "32 channels of visual tokens.* 64",
        ),
    ],
)
def test_an_adapter_for_another_base_model_is_refused(adapter, facts, words):
    with pytest.raises(InvalidSetting, match=words):
        tiny(adapter).resolve(facts)


def test_what_it_resolved_to(adapter):
    resolved = {
        "side_channel": "tiny",
        "side_width": SIDE_WIDTH,
        "patch_layers": 2,
        "low_rank_maps": 1,
        "use_3d_rope": False,
    }
    resolved["neighborhood"] = None
    assert tiny(adapter).resolve(FACTS) == resolved
    assert tiny(adapter, lora="none").resolve(FACTS)["low_rank_maps"] == 0


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"side_channel": "audoi"}, UnknownName, "audoi.*audio"),
        ({"side_channel": "tiny", "features": "x"}, UnknownName, "setting of tiny"),
        ({"side_channel": "tiny", "side_settings": ("steps",)}, InvalidSetting, "name:value"),
        ({"side_channel": "tiny", "neighborhood": -1}, InvalidSetting, "neighborhood=-1"),
        ({"side_channel": "tiny", "lora": "merge"}, InvalidSetting, "lora='merge'"),
        ({"features": "a;b"}, InvalidSetting, "features='a;b' has ';'"),
    ],
)
def test_settings_are_refused_by_name(adapter, settings, error, words):
    with pytest.raises(error, match=words):
        PAVE(adapter, **settings).resolve(FACTS)


def test_settings_without_effect_are_refused(tmp_path):
    bare = str(save_tiny_pave(tmp_path / "bare", Base(), rank=0))
    with pytest.raises(InvalidSetting, match="lora=merged has no effect"):
        tiny(bare, lora="merged").resolve(FACTS)
    assert tiny(bare).resolve(FACTS)["low_rank_maps"] == 0
    with pytest.raises(InvalidSetting, match=r"shift=0\.5 means nothing"):
        tiny(bare, shift=0.5).resolve(replace(FACTS, num_frames=1))
    tiny(bare, shift=0.5, neighborhood=1).resolve(replace(FACTS, num_frames=1))


def test_a_reversed_side_channel_is_the_flipped_one(adapter):
    method, plain = tiny(adapter, shift="reversed"), tiny(adapter)
    tokens = tokens_of(plain)
    heard = tokens.side[plain.side]
    flipped = replace(heard, features=heard.features.flip(0))
    got = method.tokens(tokens).embeddings
    assert torch.equal(got, plain.tokens(replace(tokens, side={plain.side: flipped})).embeddings)
    assert (got - plain.tokens(tokens).embeddings).abs().max() > 1e-2
    assert method.tokens(tokens).flops == plain.tokens(tokens).flops
    # With times that are not the frames' own: what was heard at the start is heard at the end.
    timed = replace(
        tokens,
        spans=equal_parts(0, 4, 4),
        side={plain.side: replace(heard, spans=equal_parts(0, 2, 8))},
    )
    bare = tokens.embeddings.view(4, 9, 32)
    forth = plain.tokens(timed).embeddings.view(4, 9, 32)
    back = method.tokens(timed).embeddings.view(4, 9, 32)
    for moved, frames in ((forth, [0, 1]), (back, [2, 3])):
        changed = (moved - bare).abs().amax((1, 2)) > 0
        assert changed.nonzero().flatten().tolist() == frames
    chain = parse_chain(f"pave[adapter={adapter};side_channel=tiny;shift=reversed]")
    assert chain == Chain([method])
    assert parse_chain(chain.spec) == chain
    assert method.labels(FACTS) == ("ablation: side channel reversed",)
    with pytest.raises(InvalidSetting, match="shift=reversed means nothing"):
        method.resolve(replace(FACTS, num_frames=1))
    with pytest.raises(InvalidSetting, match="shift"):
        parse_chain(f"pave[adapter={adapter};side_channel=tiny;shift=backwards]")


def trained_with(tmp_path, adapter, side_channel):
    weights = PAVE(adapter).loaded.weights
    folder = tmp_path / "own"
    says = {"side_channel": side_channel}
    save_pave(folder, weights.patch(), weights.lora, rank=2, alpha=3.0, metadata=says)
    return str(folder)


@pytest.mark.parametrize("name", ["audio", "imagebind", "features"])
def test_features_must_be_what_the_adapter_was_trained_with(adapter, tmp_path, name):
    said = {"audio": "audio[mels=32;step=0.2]", "imagebind": "imagebind", "features": "features"}
    said["features"] += "[origin=highfps-12345678-9abcdef0;width=6]"
    own = trained_with(tmp_path, adapter, said[name])
    side = dict(PAVE(own, side_channel="features", features=str(tmp_path)).side.settings)
    facts = {
        "audio": {"side_channel": "audio", "settings": {"mels": 32, "shuffle": None, "step": 0.2}},
        "imagebind": {
            "side_channel": "imagebind",
            "settings": {"folder": "/x", "shuffle": None},
        },
    }
    if name == "features":
        assert side["origin"] == "highfps-12345678-9abcdef0"
        assert side["width"] == 6
    else:
        assert side["origin"] == origin_of(facts[name])
    assert side["folder"] == str(tmp_path)
    for text, origin in (("origin:none", None), ("origin:audio", "audio")):
        method = PAVE(own, side_channel="features", features="x", side_settings=(text,))
        assert dict(method.side.settings)["origin"] == origin


def test_a_side_channel_that_is_read_needs_a_folder(adapter, tmp_path):
    own = trained_with(tmp_path, adapter, "imagebind")
    with pytest.raises(InvalidSetting, match=r"imagebind is read from files.*features=FOLDER"):
        PAVE(own).resolve(FACTS)
    assert dict(PAVE(own, features="x").side.settings) == {"folder": "x", "shuffle": None}


@pytest.mark.parametrize("name", ["nowhere", "file.bin"])
def test_no_adapter(tmp_path, name):
    (tmp_path / "file.bin").write_bytes(b"no weights")
    with pytest.raises(TempevalError, match=name):
        parse_chain(f"pave[adapter={tmp_path / name}]").fingerprint  # noqa: B018


def test_a_shipped_adapter_that_is_none_is_refused():
    with pytest.raises(UnknownName, match="mini:smell"):
        parse_chain("pave[adapter=mini:smell]").fingerprint  # noqa: B018


def test_two_in_a_chain_conflict(adapter):
    with pytest.raises(ConflictingMethods, match="'pave' and 'pave'"):
        Chain([tiny(adapter), tiny(adapter, shift=1.0)])


def test_labels(adapter, tmp_path):
    assert tiny(adapter).labels(FACTS) == ()
    found = tiny(adapter, shift=-0.5, shuffle=0).labels(FACTS)
    assert found == ("ablation: side channel shifted", "ablation: side channel shuffled")
    start = str(save_tiny_pave(tmp_path / "start", Base(), trained=False))
    assert tiny(start).labels(FACTS) == ("untrained patch, adds nothing",)
    facts = replace(FACTS, family_settings={"mm_newline_position": "one_token"})
    (label,) = tiny(adapter).labels(facts)
    assert label == "mm_newline_position one_token, trained with grid"


def test_rotary_positions_are_a_setting_and_part_of_the_fingerprint(tmp_path):
    """As recognised by the adapter's name, or as told; either changes what is computed."""
    folder = save_tiny_pave(tmp_path / "pave_v5_1_2_lora", Base(), hidden=512, rank=0)
    unnamed = str(folder.rename(tmp_path / "unnamed"))
    shutil.copytree(unnamed, folder)
    named, without = tiny(str(folder)), tiny(str(folder), use_3d_rope=False)
    unsaid, told = tiny(unnamed), tiny(unnamed, use_3d_rope=True)
    assert [m.settings()["use_3d_rope"] for m in (named, without, unsaid, told)] == [
        True, False, False, True
    ]  # fmt: skip
    prints = [Chain((m,)).fingerprint for m in (named, without, unsaid)]
    assert len(set(prints[:2])) == 2
    assert named.labels(FACTS) == ("3-D rotary positions",)
    assert without.labels(FACTS) == ("without 3-D rotary positions, trained with",)
    (label,) = unsaid.labels(FACTS)
    assert label.startswith("3-D rotary positions not said, none taken")
    assert told.labels(FACTS) == ("3-D rotary positions",)
    assert named.resolve(FACTS)["use_3d_rope"] is True
    outputs = [m.tokens(tokens_of(m)).embeddings for m in (named, without, unsaid, told)]
    assert torch.equal(outputs[0], outputs[3])
    assert torch.equal(outputs[1], outputs[2])
    assert (outputs[0] - outputs[1]).abs().max() > 0.01
    with pytest.raises(InvalidSetting, match="use_3d_rope=true needs heads of 128"):
        tiny(str(save_tiny_pave(tmp_path / "narrow", Base())), use_3d_rope=True).resolve(FACTS)
    spelt = parse_chain(f"pave[adapter={folder};side_channel=tiny;use_3d_rope=false]").methods[0]
    assert spelt == without


def test_what_the_adapter_says_of_its_training_is_the_default(adapter, tmp_path):
    weights = PAVE(adapter).loaded.weights
    says = {"side_channel": "tiny[steps=5;rows=2]", "neighborhood": "2"}
    folder = tmp_path / "own"
    save_pave(folder, weights.patch(), weights.lora, rank=2, alpha=3.0, metadata=says)
    own = str(folder)
    method = PAVE(own)
    assert method.side == tiny(own, side_settings=("steps:5", "rows:2")).side
    assert dict(method.side.settings)["rows"] == 2
    assert method.steps_each_side == 2
    assert method.settings()["neighborhood"] == 2
    assert PAVE(own, neighborhood=None).steps_each_side is None
    assert PAVE(own, side_settings=("steps:9",)).side != method.side
    assert parse_chain(f"pave[adapter={own};neighborhood=none]").methods[0].neighborhood is None
    assert parse_chain(f"pave[adapter={own};neighborhood=1]").methods[0].neighborhood == 1
    with pytest.raises(InvalidSetting, match="neighborhood"):
        parse_chain(f"pave[adapter={own};neighborhood=some]")


def tokens_of(method, *, lead=0, kind="video", spans=None):
    torch.manual_seed(0)
    side = {method.side: SideFeatures(torch.randn(8, 1, 1, SIDE_WIDTH), None)}
    features = torch.randn(4, 3, 3, 12)
    return VisualTokens(
        torch.randn(4 * (lead + 9), 32),
        (4, 3, 3),
        kind=kind,
        features=features,
        lead=lead,
        side={} if kind == "image" else side,
        spans=spans,
    )


def test_cells_change_and_nothing_else(adapter):
    method = tiny(adapter)
    plain = tokens_of(method)
    lead = tokens_of(method, lead=2)
    lead.embeddings.view(4, 11, 32)[:, 2:] = plain.embeddings.view(4, 9, 32)
    fused = method.tokens(lead).embeddings.view(4, 11, 32)
    assert torch.equal(fused[:, :2], lead.embeddings.view(4, 11, 32)[:, :2])
    assert torch.equal(fused[:, 2:], method.tokens(plain).embeddings.view(4, 9, 32))
    assert not torch.isclose(fused[:, 2:], plain.embeddings.view(4, 9, 32)).any(-1).any()
    image = tokens_of(method, kind="image")
    assert method.tokens(image) is image
    assert method.tokens(plain).flops > 0


def test_tokens_that_were_not_encoded_for_it_are_refused(adapter):
    method = tiny(adapter)
    for less in ({"side": {}}, {"features": None}):
        with pytest.raises(UnsupportedModel, match="frame plan"):
            method.tokens(replace(tokens_of(method), **less))


def test_features_that_overflow_make_no_answer(adapter):
    method = tiny(adapter)
    tokens = tokens_of(method)
    tokens.features[0, 0, 0, 0] = torch.inf
    assert method.tokens(tokens).embeddings.isnan().all()


def test_an_adapter_of_another_base_says_so(tmp_path):
    patch = PavePatch(PatchSizes(side=SIDE_WIDTH, query=12, output=32, hidden=8, layers=1))
    torch.nn.init.ones_(patch.output_norm.weight)
    save_pave(tmp_path, patch, None, rank=1, alpha=1, metadata={"base_revision": "sha256:a"})
    method = tiny(str(tmp_path))
    assert method.labels(replace(FACTS, revision="sha256:a")) == ()
    assert method.labels(replace(FACTS, revision="sha256:b")) == ("trained on another base model",)


def test_features_beyond_half_precision_fail_their_own_sample(adapter):
    method = tiny(adapter)
    features = torch.full((4, 1, 1, SIDE_WIDTH), 1e5)
    tokens = VisualTokens(
        torch.zeros(36, 32, dtype=torch.float16),
        (4, 3, 3),
        features=torch.zeros(4, 3, 3, 12, dtype=torch.float16),
        spans=None,
        side={method.side: SideFeatures(features, None, "clip.mp4")},
    )
    with pytest.raises(BadSideChannel, match=r"clip\.mp4.*float16 cannot hold"):
        method.tokens(tokens)


def test_a_finished_run_that_read_feature_files_is_scored_anew(adapter, tmp_path):
    """Their stamps are in the journal's keys; the record knows none."""
    chains = {
        "files": Chain([PAVE(adapter, side_channel="features", features=str(tmp_path))]),
        "video": Chain([tiny(adapter)]),
        "baseline": Chain([]),
    }
    assert [name for name, chain in chains.items() if _reads_features(chain)] == ["files"]
