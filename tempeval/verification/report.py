"""Verify one method: every check on every tiny model, as rows of a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import ConflictingMethods, InvalidSetting, TempevalError
from tempeval.methods.base import Chain, Method
from tempeval.methods.registry import METHODS, load_method, parse_chain
from tempeval.settings import read_settings
from tempeval.verification.exactness import (
    FELT,
    STEPS,
    STEPS_CHAINED,
    Case,
    Difference,
    compare,
    engine_logits,
    make_case,
)
from tempeval.verification.families import kinds_of, tiny_model
from tempeval.verification.purity import problems_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tempeval.families.base import Family

#: What a method is chained with, where they change different things.
PARTNERS = (
    "pas",
    "temporal_exit[layer=2]",
    "kv_quant[nbits=4;group_size=8;residual_length=8]",
)
#: Tokens that follow the prompt where two runs of the engine are compared.
_FOLLOWING = (11, 12, 13)


@dataclass(frozen=True)
class Check:
    """One check of a method.

    Attributes:
        family: kind of tiny model; `-` for what needs none.
        chain: what was checked, as it is written without paths.
        check: what was compared.
        ok: whether it held.
        difference: largest absolute difference; None where nothing is subtracted.
        mismatches: choices of a token that differ; None likewise.
        note: what is wrong, or why nothing could be compared.
    """

    family: str
    chain: str
    check: str
    ok: bool
    difference: float | None = None
    mismatches: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Verification:
    """What `verify` found of a method.

    Attributes:
        method: as it is written without paths.
        checks: in the order in which they were made.
    """

    method: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check held, and the engine was compared on at least one model."""
        return bool(self.families) and all(check.ok for check in self.checks)

    @property
    def families(self) -> tuple[str, ...]:
        """Kinds of tiny models on which the engine was compared."""
        compared = [check.family for check in self.checks if check.check == "prompt"]
        return tuple(dict.fromkeys(compared))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        checks = [asdict(check) for check in self.checks]
        return {"method": self.method, "ok": self.ok, "checks": checks}

    def to_pandas(self) -> Any:
        """Return a data frame with one row per check."""
        import pandas

        return pandas.DataFrame([asdict(check) for check in self.checks])

    def table(self) -> list[str]:
        """Return the lines of a table for people."""
        from tempeval.listing import columns

        rows = [("family", "chain", "check", "difference", "argmax", "ok", "")]
        for check in self.checks:
            far = "-" if check.difference is None else f"{check.difference:.1e}"
            differ = "-" if check.mismatches is None else str(check.mismatches)
            verdict = "ok" if check.ok else "FAILED"
            rows.append((check.family, check.chain, check.check, far, differ, verdict, check.note))
        return [line.rstrip() for line in columns(rows)]


def verify_method(
    method: str | Method | type[Method],
    *,
    family: str | None = None,
    report: Callable[[Check], None] = lambda _check: None,
    **settings: Any,
) -> Verification:
    """Prove on tiny random models that the engine does what a method's functions say.

    On every family that takes the method, the engine (a prefix that questions share, a batch of
    questions of different lengths, decode steps) is compared with one dense forward in plain torch,
    for the method alone and chained with others; its functions must be pure, return what is
    documented and change what it declares; its identity settings must be equal to the baseline to
    the last bit; its settings must be read back from what they are written as.

    Args:
        method: a chain of one method such as `pas[unit=position]` or `path/file.py:Class`, or a
            method, or its class.
        family: only models of this family.
        report: gets each check as it is made.
        settings: more settings, by name.

    Raises:
        TempevalError: for a method or family that cannot be used.
    """
    chosen = _chosen(method, settings)
    checks: list[Check] = []

    def note(check: Check) -> None:
        checks.append(check)
        report(check)

    for check in _written(chosen):
        note(check)
    for kind in kinds_of(family):
        with tiny_model(kind) as model:
            for check in checks_on(model, kind, chosen):
                note(check)
    return Verification(chosen.spec(), tuple(checks))


def _chosen(method: str | Method | type[Method], settings: Mapping[str, Any]) -> Method:
    if isinstance(method, str):
        return load_method(method, **settings)
    if isinstance(method, Method):
        if settings:
            raise InvalidSetting(f"{method.name} has its settings already; give its class instead")
        return method
    return read_settings(method.name, method, settings)


def _written(method: Method) -> Iterator[Check]:
    """Check that settings are read back from a chain's text, and from a record's values."""
    spec, note = method.spec(), ""
    try:
        text = spec.removeprefix(method.name).removeprefix("[").removesuffix("]")
        pairs = dict(pair.split("=", 1) for pair in text.split(";") if pair)
        for given in (pairs, method.settings()):
            read = read_settings(method.name, type(method), given)
            if read != method:
                note = f"{spec} is read back as {read.spec()}"
    except (TempevalError, ValueError) as error:
        note = str(error)
    yield Check("-", spec, "settings round trip", not note, note=note)


def checks_on(family: Family, kind: str, method: Method) -> Iterator[Check]:
    """Make every check of a method that needs a model.

    Args:
        family: a loaded model.
        kind: what it is called in the rows.
        method: with its settings.
    """
    chain = Chain([method])
    with torch.no_grad():
        try:
            case = make_case(family, chain)
        except TempevalError as error:
            own = METHODS.own.get(method.name)
            listed = own is not None and {kind, kind.partition(" ")[0], family.name} & {
                *own.families
            }
            yield Check(kind, chain.spec, "refused", not listed, note=str(error))
            return
        found = problems_of(family, case)
        yield Check(kind, chain.spec, "pure, as declared", not found, note="; ".join(found))
        yield from _compared(family, kind, chain, case)
        yield _effect(family, kind, chain, case)
        yield from _identity(family, kind, type(method))
        for partner in PARTNERS:
            yield from _beside(family, kind, method, partner)


def _compared(
    family: Family, kind: str, chain: Chain, case: Case, steps: int = STEPS
) -> Iterator[Check]:
    try:
        differences: Mapping[str, Difference] = compare(family, case, steps)
    except TempevalError as error:
        yield Check(kind, chain.spec, "prompt", False, note=str(error))
        return
    for name, far in differences.items():
        yield Check(kind, chain.spec, name, far.ok, far.largest, far.mismatches)


def _effect(family: Family, kind: str, chain: Chain, case: Case) -> Check:
    """Tell whether the method is felt at all: one that is not equals any reference."""
    plain = engine_logits(family, make_case(family, Chain()), _FOLLOWING)
    far = float((engine_logits(family, case, _FOLLOWING) - plain).abs().max())
    note = "" if far > FELT else "no effect on this tiny model, so that little is proven"
    return Check(kind, chain.spec, "effect", True, far, note=note)


def _identity(family: Family, kind: str, cls: type[Method]) -> Iterator[Check]:
    """Compare the settings under which a method changes nothing with the baseline, to the bit."""
    if cls.identity is None:
        return
    chain = Chain([read_settings(cls.name, cls, cls.identity)])
    try:
        case = make_case(family, chain)
    except TempevalError as error:
        yield Check(kind, chain.spec, "identity", True, note=f"refused: {error}")
        return
    mine = engine_logits(family, case, _FOLLOWING)
    plain = engine_logits(family, make_case(family, Chain()), _FOLLOWING)
    far = float((mine - plain).abs().max())
    differ = int((mine.argmax(-1) != plain.argmax(-1)).sum())
    yield Check(kind, chain.spec, "identity", torch.equal(mine, plain), far, differ)


def _beside(family: Family, kind: str, method: Method, partner: str) -> Iterator[Check]:
    """Compare the method chained with another, however the two are written."""
    other = parse_chain(partner).methods[0]
    if other.name in {method.name, *(part.name for part in method.parts())}:
        return
    try:
        chain, reverse = Chain([method, other]), Chain([other, method])
        case, turned = make_case(family, chain), make_case(family, reverse)
    except (ConflictingMethods, TempevalError):
        return  # they exclude each other, and say so
    yield from _compared(family, kind, chain, case, STEPS_CHAINED)
    mine, theirs = (engine_logits(family, one, _FOLLOWING) for one in (case, turned))
    far = float((mine - theirs).abs().max())
    differ = int((mine.argmax(-1) != theirs.argmax(-1)).sum())
    yield Check(kind, chain.spec, "either order", torch.equal(mine, theirs), far, differ)
