"""Chains, their spelling, and the settings of PAS and temporal exit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import MISSING, dataclass, fields, replace
from typing import get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from probes import DropEarlyFrames, KnockOutPositions

from tempeval.engine.plan import EnginePlan, LayerPlan
from tempeval.engine.plan_costs import temporal_step
from tempeval.errors import ConflictingMethods, InvalidSetting, UnknownName, UnsupportedModel
from tempeval.methods.base import Chain, Method
from tempeval.methods.pas import PAS
from tempeval.methods.registry import METHODS, method_class, method_names, parse_chain
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.stages import Geometry, Layout, PrefixTokens, RotaryPlan, RunFacts, Segments

GEOMETRY = Geometry(28, 28, 4, 128, 3584, 18944)
FACTS = RunFacts(GEOMETRY, True, 32768, 2, 2, 8, 1024)


def test_baseline_is_the_empty_chain():
    chain = parse_chain("baseline")
    assert chain == Chain()
    assert chain.name == chain.spec == "baseline"


def test_settings_in_brackets():
    chain = parse_chain("pas[unit=position;offsets=0/0.25/0.5]+temporal_exit[layer=12]")
    pas, leave = chain.methods
    assert pas == PAS(offsets=(0.0, 0.25, 0.5), unit="position")
    assert leave == TemporalExit(layer=12)
    assert isinstance(leave.layer, int)
    assert chain.name == "pas+temporal_exit"


@given(
    offsets=st.lists(st.floats(-2, 2), min_size=1, max_size=4).map(tuple),
    unit=st.sampled_from(["bin", "position"]),
    grouping=st.sampled_from(["interleaved", "contiguous"]),
    rows=st.sampled_from(["video", "all"]),
    layer=st.one_of(st.integers(1, 27), st.floats(0.05, 0.95)),
)
def test_spec_reads_back_to_the_same_chain(offsets, unit, grouping, rows, layer):
    chain = Chain([PAS(offsets, unit, grouping, rows), TemporalExit(layer)])
    again = parse_chain(chain.spec)
    assert again == chain
    assert again.fingerprint == chain.fingerprint


def test_fingerprint_covers_settings_and_version(monkeypatch):
    prints = {
        parse_chain(text).fingerprint
        for text in ("baseline", "pas", "pas[unit=position]", "temporal_exit", "pas+temporal_exit")
    }
    assert len(prints) == 5
    monkeypatch.setattr(PAS, "version", 2)
    assert parse_chain("pas").fingerprint not in prints


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("pass", UnknownName, "did you mean 'pas'"),
        ("pas+temporal_exitt", UnknownName, "did you mean 'temporal_exit'"),
        ("pas[ofsets=1]", UnknownName, "did you mean 'offsets'"),
        ("pas[unit=bins]", InvalidSetting, "'bins' is not one of 'bin', 'position'"),
        ("pas[offsets=a]", InvalidSetting, "pas.offsets='a' is not a number"),
        ("pas[offsets=0/nan]", InvalidSetting, "pas.offsets='nan' is not a finite number"),
        ("temporal_exit[layer=inf]", InvalidSetting, "temporal_exit.layer='inf' is not a"),
        ("intp[kv_bits=16;scale=1e999]", InvalidSetting, "intp.scale='1e999' is not a finite"),
        ("kv_quant[nbits=2;nbits=4]", InvalidSetting, "kv_quant.nbits is set twice"),
        ("pas[unit=bin; unit=bin]", InvalidSetting, "pas.unit is set twice"),
        ("pas[unit]", InvalidSetting, "'unit' is not 'name=value'"),
        ("pas+", InvalidSetting, "not of the form"),
        ("", InvalidSetting, "not of the form"),
        ("baseline+pas", InvalidSetting, "stands alone"),
        ("pas+pas", ConflictingMethods, "'pas' and 'pas' both modify 'query_shift'"),
        ("temporal_exit[layer=x]", InvalidSetting, "not a number"),
    ],
)
def test_bad_chains(text, error, message):
    with pytest.raises(error, match=message.replace("[", r"\[")):
        parse_chain(text)


def test_a_setting_may_not_be_given_twice_or_to_nobody():
    with pytest.raises(InvalidSetting, match="set twice"):
        parse_chain("pas[unit=bin]", {"pas": {"unit": "bin"}})
    with pytest.raises(InvalidSetting, match="not part of"):
        parse_chain("pas", {"temporal_exit": {"layer": 3}})


def test_a_setting_may_not_have_the_name_of_a_stage():
    with pytest.raises(InvalidSetting, match=r"Renumbering.positions: .* name of a stage"):

        @dataclass(frozen=True)
        class Renumbering(Method):
            positions: str = "original"


def test_methods_that_modify_the_same_are_both_named():
    with pytest.raises(ConflictingMethods, match="'temporal_exit' and 'drop_early_frames'"):
        Chain([TemporalExit(), DropEarlyFrames()])


def test_registry_lists_what_exists():
    assert method_names()[0] == "baseline"
    for name, entry in METHODS.items():
        cls = method_class(name)
        assert cls.name == name
        changed = [
            s
            for s in ("frames", "tokens", "positions", "attention", "prune", "kv_cache")
            if s in vars(cls)
        ]
        if "parts" not in vars(cls):  # the stages of a composite are those of its parts
            assert tuple(changed) == entry.stages
        # Every field has a default, but for a patch that nothing works without.
        required = [f.name for f in fields(cls) if f.default is MISSING]
        assert required == (["adapter"] if name == "pave" else [])
        cls(**dict.fromkeys(required, "somewhere"))


def test_listing_methods_imports_no_torch():
    code = (
        "import sys, tempeval.methods.registry as r; r.method_names();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_field_of_a_method_is_documented():
    for name in METHODS:
        cls = method_class(name)
        assert all(f"{f.name}:" in cls.__doc__ for f in fields(cls))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", METHODS)
def test_no_setting_is_anything_but_finite(name, value):
    """Built in code, so that no reading of text refuses it first; layers are checked later."""
    cls = method_class(name)
    hints = get_type_hints(cls)
    needed = {f.name: "somewhere" for f in fields(cls) if f.default is MISSING}
    for f in fields(cls):
        if "float" not in str(hints[f.name]):
            continue
        size = len(f.default) if isinstance(f.default, tuple) else 0
        setting = (*f.default[1:], value) if size else value
        with pytest.raises(InvalidSetting, match=rf"{name}\.{f.name}"):
            cls(**needed, **{f.name: setting}).resolve(FACTS)


# ---------------------------------------------------------------- PAS


def rotary_plan(half=6, temporal=2, length=4, step=2.0):
    axis = torch.tensor([0] * temporal + [1] * (half - temporal))
    return RotaryPlan(
        positions=torch.arange(length).double().unsqueeze(1).expand(-1, half),
        axis=axis,
        inv_freq=torch.rand(half),
        next_position=float(length),
        step=torch.tensor([0.0, step, step, step], dtype=torch.float64),
    )


def layout_of(rotary):
    visual = rotary.step > 0
    return Layout(
        torch.zeros(4, dtype=torch.long),
        visual,
        visual.long(),
        torch.zeros(4, 4).long(),
        rotary,
        ((3, 1, 1),),
        1,
    )


def test_pas_groups():
    assert PAS().groups(6).tolist() == [0, 1, 0, 1, 0, 1]
    assert PAS(grouping="contiguous").groups(6).tolist() == [0, 0, 0, 1, 1, 1]
    assert PAS((0, 0.5, 1), grouping="contiguous").groups(7).tolist() == [0, 0, 0, 1, 1, 2, 2]
    # GQA: interleaving puts both phases into each KV group of 7 heads, contiguous halves do not.
    assert {tuple(sorted(set(g))) for g in PAS().groups(28).view(4, 7).tolist()} == {(0, 1)}
    assert [set(g) for g in PAS(grouping="contiguous").groups(28).view(4, 7).tolist()] == [
        {0},
        {0},
        {1},
        {1},
    ]


def test_pas_shifts_temporal_channels_of_visual_rows_by_bins():
    plan = rotary_plan()
    geometry = Geometry(2, 4, 2, 12, 48, 96)
    placed = PAS().positions(plan, layout_of(plan), geometry)
    assert placed.query_shift.tolist() == [[0] * 6, [0.5, 0.5, 0, 0, 0, 0]] * 2
    assert placed.shift_scale.tolist() == [0, 2, 2, 2]
    assert placed.shift_scale_after == 0
    placed = PAS(unit="position").positions(plan, layout_of(plan), geometry)
    assert placed.shift_scale.tolist() == [0, 1, 1, 1]
    placed = PAS(rows="all").positions(plan, layout_of(plan), geometry)
    assert placed.shift_scale.tolist() == [2, 2, 2, 2]
    assert placed.shift_scale_after == 2


@pytest.mark.parametrize("offsets", ["0", "0/0", "-0.0/0"])
def test_pas_without_a_shift_says_so(offsets):
    chain = parse_chain(f"pas[offsets={offsets}]")
    assert chain.labels(FACTS) == ("inert: all offsets 0",)
    assert parse_chain("pas[offsets=0.5]").labels(FACTS) == ()
    flat = replace(FACTS, axes=False)
    assert chain.labels(flat) == ("PAS-1D (ours)", "inert: all offsets 0")


def test_pas_needs_a_temporal_axis():
    plan = rotary_plan(temporal=0)
    with pytest.raises(UnsupportedModel, match="one-dimensional"):
        PAS().positions(plan, layout_of(plan), Geometry(2, 4, 2, 12, 48, 96))


def test_pas_refuses_empty_and_too_many_groups():
    with pytest.raises(InvalidSetting, match="empty"):
        PAS(offsets=())
    with pytest.raises(InvalidSetting, match="28 query heads"):
        PAS(offsets=(0.0,) * 29).resolve(FACTS)


# ---------------------------------------------------------------- temporal exit


@pytest.mark.parametrize(
    ("layer", "depth", "first"),
    [
        (20 / 28, 28, 20),
        (20 / 28, 36, 26),
        (20 / 28, 24, 17),
        (20 / 28, 4, 3),
        (20 / 28, 32, 23),
        (5, 28, 5),
        (0.5, 5, 3),
        (27, 28, 27),
        (1, 28, 1),
    ],
)
def test_exit_layer(layer, depth, first):
    assert TemporalExit(layer).first_layer(depth) == first
    # Counted from 1, the range called "20 to 28" begins one layer earlier.
    if first > 1:
        assert TemporalExit(layer, "one").first_layer(depth) == first - 1
    else:
        with pytest.raises(InvalidSetting, match=r"temporal_exit\.layer.* resolves to layer 0"):
            TemporalExit(layer, "one").first_layer(depth)


def test_default_is_the_stated_formula():
    for depth in range(2, 100):
        expected = int(depth * 20 / 28 + 0.5)
        if expected < depth:
            assert TemporalExit().first_layer(depth) == expected


@pytest.mark.parametrize("layer", [0, 28, -1, 0.001, 0.999, 1.0, 0.0, -0.5])
def test_an_empty_range_is_refused(layer):
    with pytest.raises(InvalidSetting, match=r"temporal_exit\.layer"):
        TemporalExit(layer).resolve(FACTS)


def test_exit_keeps_instruction_and_ends_frames():
    prefix = PrefixTokens.one_each(Segments(num_frames=3, num_layers=28))
    ones = torch.ones_like(prefix.is_visual)
    assert TemporalExit().prune(ones.clone(), 19, prefix).all()
    assert TemporalExit().prune(ones.clone(), 20, prefix).tolist() == [True, False, False, False]


class Positions(Method):
    name = "positions_first"
    modifies = frozenset({"positions"})
    calls: list = []  # noqa: RUF012

    def positions(self, rotary, layout, geometry):
        self.calls.append("positions")
        return rotary


class Shift(PAS):
    modifies = frozenset({"query_shift"})

    def positions(self, rotary, layout, geometry):
        Positions.calls.append("query_shift")
        return rotary


def test_place_order_does_not_depend_on_the_spelling():
    for methods in ([Shift(), Positions()], [Positions(), Shift()]):
        Positions.calls.clear()
        plan = rotary_plan()
        Chain([KnockOutPositions(), *methods]).positions(plan, layout_of(plan), GEOMETRY)
        assert Positions.calls == ["positions", "query_shift"]


# ---------------------------------------------------------------- when PAS cannot help


def step_plan(runs, *, axes, fastest=1.0):
    """A prompt of text and runs of (grids, tokens per grid, positions per grid), as a plan."""
    index, step, grids = [[-1, -1, -1, -1]] * 2, [0.0, 0.0], []
    for number, (t, cells, positions) in enumerate(runs):
        index += [[number, grid, 0, cell] for grid in range(t) for cell in range(cells)]
        step += [positions] * (t * cells)
        grids.append((t, 1, cells))
    index = torch.tensor(index)
    axis = torch.tensor([0, 0, 1, 2] if axes else [-1] * 4)
    rotary = RotaryPlan(
        positions=torch.zeros(len(index), 4, dtype=torch.float64),
        axis=axis,
        # The fastest channel of all is not one of time.
        inv_freq=torch.tensor([fastest, fastest / 4, 9.0 if axes else 0.1, 0.01]),
        next_position=0.0,
        step=torch.tensor(step, dtype=torch.float64),
    )
    visual = index[:, 0] >= 0
    layout = Layout(index[:, 0], visual, visual.long(), index, rotary, tuple(grids), 1)
    layer = LayerPlan(None, layout.segment, None, None, rotary)
    return EnginePlan(layout, PrefixTokens.one_each(Segments(1, 1)), (layer,))


@pytest.mark.parametrize(
    ("runs", "axes", "fastest", "positions", "below"),
    [
        ([(4, 2, 3.0)], True, 1.0, 3.0, False),
        ([(4, 2, 3.15)], True, 1.0, 3.15, True),  # one position is one radian, and pi is the limit
        ([(4, 2, 3.15)], True, 0.5, 3.15, False),  # frequencies as the chain leaves them
        ([(4, 2, 1.0), (2, 2, 4.0)], True, 1.0, 4.0, True),  # the worst of two videos
        ([(4, 2, 2.0), (1, 9, 9.0)], True, 1.0, 2.0, False),  # an image has no next grid
        ([(4, 3, 3.0)], False, 1.0, 3.0, False),  # positions count tokens: 3 per frame
        ([(4, 197, 197.0)], False, 1.0, 197.0, True),
        ([(1, 9, 9.0)], True, 1.0, None, None),
        ([], True, 1.0, None, None),
    ],
)
def test_a_step_beyond_pi_of_the_fastest_temporal_channel(runs, axes, fastest, positions, below):
    step = temporal_step(step_plan(runs, axes=axes, fastest=fastest))
    if positions is None:
        assert step is None
    else:
        assert (step.positions, step.sub_nyquist) == (positions, below)


def test_rows_of_pas_say_where_it_cannot_help():
    def usages(*told):
        return [{"sub_nyquist": value} for value in told]

    assert PAS().measured(usages(True, True, None)) == ("sub-Nyquist",)
    assert PAS().measured(usages(True, False, False)) == ("sub-Nyquist: 1 of 3",)
    assert PAS().measured(usages(False, None)) == PAS().measured([]) == ()
    assert parse_chain("pas+temporal_exit").measured(usages(True)) == ("pas: sub-Nyquist",)
    assert parse_chain("baseline").measured(usages(True)) == ()
