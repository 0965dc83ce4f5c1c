"""`tempeval verify`: sound methods pass, and each planted fault is found in its own check."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import reducers
import torch

from tempeval.cli import main
from tempeval.errors import BrokenPlugin, UnknownName
from tempeval.methods.base import Method
from tempeval.methods.registry import load_method
from tempeval.verification import exactness, report
from tempeval.verification.purity import same
from tempeval.verification.report import checks_on, verify_method

ONE = "qwen2_5_vl"
STAGED = "staged_sparse[strategies=1/2;question_layers=0/2;frame_layer=2]"
KV = "kv_quant[nbits=4;group_size=8;residual_length=8]"


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(report, "PARTNERS", ())


def failed(family, method):
    """Checks that fail, by name, with what they say."""
    return {c.check: c.note for c in checks_on(family, ONE, method) if not c.ok}


@pytest.mark.parametrize("text", ["vrope", "pas", "temporal_exit[layer=2]", STAGED, KV, "slowfast"])
def test_sound_methods_pass(tiny_qwen2_5_vl, text):
    checks = list(checks_on(tiny_qwen2_5_vl, ONE, load_method(text)))
    assert [c for c in checks if not c.ok] == []
    assert {"prompt", "decode", "batch", "pure, as declared", "effect"} <= {c.check for c in checks}
    (effect,) = [c for c in checks if c.check == "effect"]
    assert effect.difference > 1e-3
    assert not effect.note


@pytest.mark.parametrize(
    "method",
    [
        reducers.EverySecond(),
        reducers.KeepAttended(rows="frames"),
        reducers.KeepAttended(rows="last", numbering="renumbered"),
        reducers.KeepKeys(),
        reducers.KeepKeys(rows="question", per_head=True),
    ],
)
def test_pruning_by_token_by_scores_and_eviction_are_proven_too(tiny_qwen2_5_vl, method):
    checks = list(checks_on(tiny_qwen2_5_vl, ONE, method))
    assert [c for c in checks if not c.ok] == []
    assert {"prompt", "decode", "batch", "pure, as declared"} <= {c.check for c in checks}


def on_layers(change, first=0):
    """A fault in the engine's plan, from a layer on."""

    def fault(plan):
        layers = [
            change(n, layer, plan) if n >= first else layer for n, layer in enumerate(plan.layers)
        ]
        return replace(plan, layers=tuple(layers))

    return fault


def wrong_row(_n, layer, _plan):
    if layer.rows is None:
        return layer
    rows = layer.rows.clone()
    rows[-1] = next(i for i in range(1000) if i not in layer.rows.tolist())
    return replace(layer, rows=rows.sort().values)


def wrong_layer(n, layer, plan):
    return plan.layers[n - 1]


def rotary(**changes):
    def change(_n, layer, _plan):
        made = {key: value(layer.rotary) for key, value in changes.items()}
        return replace(layer, rotary=replace(layer.rotary, **made))

    return change


def moved(plan):
    positions = plan.positions.clone()
    positions[5] += 1
    return positions


def rolled(plan):
    return None if plan.query_shift is None else plan.query_shift.roll(1, 0)


def no_mask(_n, layer, _plan):
    return replace(layer, visible=None)


def fewer_bits(_n, layer, _plan):
    return layer if layer.codec is None else replace(layer, codec=replace(layer.codec, nbits=2))


PLANS = {
    "row": ("temporal_exit[layer=2]", on_layers(wrong_row)),
    "layer": ("temporal_exit[layer=2]", on_layers(wrong_layer, first=2)),
    "position": ("vrope", on_layers(rotary(positions=moved))),
    "next position": ("vrope", on_layers(rotary(next_position=lambda r: r.next_position + 1))),
    "channel": ("vrope", on_layers(rotary(inv_freq=lambda r: r.inv_freq.flip(0)), first=3)),
    "head": ("pas", on_layers(rotary(query_shift=rolled))),
    "mask": (STAGED, on_layers(no_mask, first=1)),
    "codec": (KV, on_layers(fewer_bits)),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_fault_of_the_engine_s_plan_is_found(tiny_qwen2_5_vl, monkeypatch, name):
    text, fault = PLANS[name]
    sound = exactness.make_plan
    monkeypatch.setattr(exactness, "make_plan", lambda *given: fault(sound(*given)))
    found = failed(tiny_qwen2_5_vl, load_method(text))
    assert found.keys() & {"prompt", "decode", "batch"}, found
    assert "pure, as declared" not in found


def swapped(embeddings):
    order = torch.arange(embeddings.shape[1])
    order[[30, 31]] = order[[31, 30]]
    return embeddings[:, order]


def rounded(embeddings):
    return embeddings.bfloat16().to(embeddings.dtype)


@pytest.mark.parametrize("fault", [swapped, rounded])
def test_wrong_order_and_lost_precision_are_found(tiny_qwen2_5_vl, monkeypatch, fault):
    sound = exactness.prefill
    monkeypatch.setattr(exactness, "prefill", lambda a, e, *more: sound(a, fault(e), *more))
    found = failed(tiny_qwen2_5_vl, load_method("vrope"))
    assert {"prompt", "decode"} <= found.keys()


@dataclass(frozen=True)
class Shift(Method):
    """Move everything by a number of positions."""

    by: float = 2.0
    modifies: ClassVar[frozenset[str]] = frozenset({"positions"})
    identity: ClassVar[dict[str, float]] = {"by": 0.0}

    def positions(self, rotary, layout, geometry):
        return replace(rotary, positions=rotary.positions + layout.segment.unsqueeze(1) * self.by)


class InPlace(Shift):
    def positions(self, rotary, layout, geometry):
        rotary.positions.add_(layout.segment.unsqueeze(1))
        return rotary


class Counting(Shift):
    calls: ClassVar[list[int]] = []

    def positions(self, rotary, layout, geometry):
        self.calls.append(1)
        return replace(
            rotary, positions=rotary.positions + len(self.calls) * layout.segment.unsqueeze(1)
        )


class Drawing(Shift):
    def positions(self, rotary, layout, geometry):
        return replace(rotary, positions=rotary.positions + torch.rand(()).double())


class Undeclared(Shift):
    def positions(self, rotary, layout, geometry):
        return replace(rotary, inv_freq=rotary.inv_freq * 0.9)


class Halved(Shift):
    modifies: ClassVar[frozenset[str]] = frozenset({"cells"})

    def positions(self, rotary, layout, geometry):
        return rotary

    def tokens(self, tokens):
        return replace(tokens, embeddings=tokens.embeddings.half())


class SinglePrecision(Shift):
    def positions(self, rotary, layout, geometry):
        return replace(rotary, positions=(rotary.positions * 1.5).float())


class NoIdentity(Shift):
    def positions(self, rotary, layout, geometry):
        return replace(rotary, positions=rotary.positions * 1.001)


FAULTS = {
    InPlace: ("pure, as declared", "in_place.positions changes what it is given in place"),
    Counting: ("pure, as declared", "gives something else when it is called again"),
    Drawing: ("pure, as declared", "gives something else when it is called again"),
    Undeclared: ("pure, as declared", "put 'inv_freq' in its `modifies`"),
    Halved: ("pure, as declared", "embeddings become torch.float16"),
    SinglePrecision: ("pure, as declared", "positions is torch.float32, not torch.float64"),
    NoIdentity: ("identity", ""),
}


@pytest.mark.parametrize("cls", FAULTS)
def test_a_fault_of_a_method_is_found_and_named(tiny_qwen2_5_vl, cls):
    check, words = FAULTS[cls]
    found = failed(tiny_qwen2_5_vl, cls())
    assert words in found[check], found


def test_a_method_with_an_identity_is_equal_to_the_bit(tiny_qwen2_5_vl):
    checks = list(checks_on(tiny_qwen2_5_vl, ONE, Shift()))
    assert all(check.ok for check in checks), checks
    (identity,) = [check for check in checks if check.check == "identity"]
    assert identity.difference == 0


class LosesDigits(Shift):
    def settings(self):
        return {"by": round(self.by)}


def test_settings_that_are_not_read_back_are_found():
    (check,) = report._written(LosesDigits(by=0.25))
    assert not check.ok
    assert "read back as" in check.note


def test_chained_with_others_in_either_order(tiny_qwen2_5_vl, monkeypatch):
    monkeypatch.setattr(report, "PARTNERS", ("pas", "vrope"))
    checks = list(checks_on(tiny_qwen2_5_vl, ONE, Shift()))
    assert all(check.ok for check in checks)
    chains = {check.chain for check in checks if check.check == "either order"}
    assert chains == {"shift+pas"}, "vrope modifies the same"


def test_equal_to_the_bit_sees_into_what_stages_return():
    assert same((torch.ones(2), {"a": [1]}), (torch.ones(2), {"a": [1]}))
    assert same(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    for other in (torch.ones(2).double(), torch.ones(3), torch.zeros(2), None):
        assert not same(torch.ones(2), other)


def test_the_dense_reference_uses_nothing_of_the_engine():
    import ast
    import inspect

    from tempeval.verification import dense, kivi

    for module in (dense, kivi):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("tempeval.engine")]


def test_the_command_prints_a_table_or_json_and_exits_1_on_a_failure(capsys, monkeypatch):
    sound = report.compare
    main_code = _exit_code("verify", "vrope", "--family", "qwen2_vl")
    out = capsys.readouterr().out
    assert main_code == 0
    assert "6 of 6 checks hold, on qwen2_vl" in out

    def wrong(family, case, steps):
        return {k: replace(d, mismatches=1) for k, d in sound(family, case, steps).items()}

    monkeypatch.setattr(report, "compare", wrong)
    assert _exit_code("verify", "vrope", "--family", "qwen2_vl", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert {c["check"] for c in found["checks"] if not c["ok"]} == {"prompt", "decode", "batch"}
    for words in (["vrop"], ["nowhere.py:X"], ["vrope", "--family", "qwen3"]):
        assert _exit_code("verify", *words) == 2
        assert "error:" in capsys.readouterr().err


def _exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    return int(done.value.code or 0)


def test_a_family_that_is_not_there_and_a_method_that_no_model_takes():
    with pytest.raises(UnknownName, match="did you mean"):
        verify_method("vrope", family="qwen_v")
    with pytest.raises(BrokenPlugin):
        verify_method("nowhere.py:X")
    done = verify_method("rearrange", family="llava_onevision")
    assert not done.ok
    assert [c.check for c in done.checks] == ["settings round trip", "refused"]
