"""`RunSpec`: every option of a run once, with type, default, unit, help, and what it accepts.

The options of `tempeval run`, the keys of its config file, the arguments of the Python API and of
`--model_args` in lmms-eval's own command, what a record keeps as `request`, and the documentation's
table are read from the fields; a new option is a new field and nothing else.
"""

import json
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.methods.registry import split_chains
from tempeval.settings import read_value

if TYPE_CHECKING:
    from tempeval.run.counting import Allowed

#: Where an option is given: to `tempeval run` (command line, config file, Python API), or as one of
#: `--model_args` of lmms-eval's own command.
Door = Literal["run", "model_args", "python"]
#: Most seeds that NumPy takes.
MAX_SEED = 2**32 - 1
#: Measures of which a question has as many under every baseline of one budget.
VISUAL_TOKENS, FRAMES = "visual_tokens", "frames"


@dataclass(frozen=True)
class Option:
    """What is known of one option beside its name, type and default.

    Attributes:
        help: one sentence.
        unit: what its number counts or measures.
        accepted: the texts that it may be; empty for any.
        noun: what an error calls it, where that is not its name.
        read: from text, or a value of YAML or Python, to the value; None for what the type says.
        check: raises for a value that is not accepted.
        doors: where it can be given.
        why: it has only some of the doors.
        flags: how the command line spells it; empty for `--name-with-dashes`.
        metavar: what the help shows in the place of a value; None for the type.
        text: whether the command line takes a text that `read` takes apart.
        required: whether `tempeval run` needs it.
        recorded: whether a record keeps it in its `request`: what was asked for.
    """

    help: str
    unit: str = ""
    accepted: tuple[str, ...] = ()
    noun: str = ""
    read: Callable[[str, Any], Any] | None = None
    check: Callable[[str, Any], None] | None = None
    doors: tuple[Door, ...] = ("run", "model_args")
    why: str = ""
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    text: bool = False
    required: bool = False
    recorded: bool = True


def _names(label: str, value: Any) -> list[str]:
    """Split at commas, but for those in the brackets of a chain."""
    if isinstance(value, str):
        value = split_chains(value)
    if not isinstance(value, Sequence) or not all(isinstance(part, str) for part in value):
        raise InvalidSetting(f"{label}={value!r} is not a list of names")
    return [part.strip() for part in value if part.strip()]


def _budgets(label: str, value: Any) -> list[int]:
    parts = [value] if isinstance(value, int) else value
    if isinstance(value, str):
        parts = _names(label, value)
        if value and not parts:
            raise InvalidSetting(
                f"--budgets has {value!r}; accepted: whole numbers such as 256,512"
            )
    try:
        return [int(part) if isinstance(part, str) else _whole(part) for part in parts]
    except (TypeError, ValueError):
        wrong = value if isinstance(value, str) and "," not in value else str(value)
        raise InvalidSetting(f"--budgets has {wrong!r}; accepted: whole numbers") from None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _method_settings(_label: str, value: Any) -> dict[str, dict[str, str]]:
    """Read pairs `method.field=value`, or a mapping of mappings."""
    found: dict[str, dict[str, str]] = {}
    if isinstance(value, Mapping):
        if not all(isinstance(inner, Mapping) for inner in value.values()):
            raise InvalidSetting(f"settings={value!r} is not of the form method: {{field: value}}")
        return {str(name): dict(inner) for name, inner in value.items()}
    for pair in value:
        target, equals, given = str(pair).partition("=")
        method, dot, name = target.partition(".")
        if not (equals and dot and method and name):
            raise InvalidSetting(f"--set {pair!r} is not of the form method.field=value")
        if name in found.setdefault(method, {}):
            raise InvalidSetting(f"--set {method}.{name} is given twice")
        found[method][name] = given
    return found


def _generation(label: str, value: Any) -> dict[str, Any]:
    """Read generation arguments: a mapping, JSON, or `name=value` with commas or semicolons."""
    if isinstance(value, Mapping):
        return {str(name): given for name, given in value.items()}
    text = str(value).strip()
    try:
        if text.startswith("{"):
            return dict(json.loads(text))
        pairs = [part.split("=", 1) for part in text.replace(";", ",").split(",") if part.strip()]
        return {name.strip(): _json(given.strip()) for name, given in pairs}
    except ValueError:
        raise InvalidSetting(
            f"{label}={value!r} is not of the form name=value;name=value, nor a JSON object"
        ) from None


def _json(text: str) -> Any:
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text


def _check_generation(_label: str, value: Mapping[str, Any]) -> None:
    from tempeval.engine.generation import check_asked

    check_asked(value)


def _number(label: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidSetting(f"{label}={value!r} is not a number") from None


def _text(_label: str, value: Any) -> str:
    return str(value)


def _path(_label: str, value: Any) -> Path:
    return Path(value).expanduser()


def _rows(label: str, value: Any) -> int:
    """Read the number of questions in a batch, as lmms-eval passes it."""
    try:
        return int(value)
    except ValueError:
        raise InvalidSetting(
            f"{label}={value!r} is not a whole number; 'auto' is not supported, give the number of "
            "questions answered together"
        ) from None


def _from_one(label: str, value: Any) -> None:
    several = isinstance(value, Sequence)
    for number in value if several else (value,):
        if number < 1:
            name = f"budget {number}" if several else label
            raise InvalidSetting(f"{name} is {number}; accepted: a whole number from 1")


def _from_zero(label: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise InvalidSetting(f"{label} is {value}; accepted: a number from 0")


def _above_zero(unit: str) -> Callable[[str, float], None]:
    def check(label: str, value: float) -> None:
        if not 0 < value < math.inf:
            raise InvalidSetting(f"{label} is {value}; accepted: a number above 0, {unit}")

    return check


def _share(what: str) -> Callable[[str, str], None]:
    def check(label: str, value: str) -> None:
        from tempeval.run.counting import allowed_number

        allowed_number(label, what, value, 1)

    return check


def _metric(_label: str, value: str) -> None:
    from tempeval.host_scores import Metric

    Metric.parse(value)


def _decoder(_label: str, value: str) -> None:
    from tempeval.video.decode import check_decoder

    check_decoder(value)


def _family(_label: str, value: str) -> None:
    from tempeval.families.registry import FAMILIES

    if value not in FAMILIES:
        raise UnknownName("family", value, FAMILIES)


def check_measure(name: str, budgets: Sequence[int]) -> None:
    """Say before anything is run whether runs can be matched on a measure.

    Args:
        name: one that `tempeval leaderboard --match-on` takes.
        budgets: visual tokens per sample that the runs have.

    Raises:
        UnknownName: for another measure.
        InvalidSetting: without budgets, where videos may differ in their tokens: a baseline has
            one budget for all, so it would agree with a method in the mean and not per question.
    """
    from tempeval.leaderboard.records import BUDGETS

    if name not in BUDGETS:
        raise UnknownName("measure", name, BUDGETS)
    if name not in (VISUAL_TOKENS, FRAMES) and not budgets:
        raise InvalidSetting(
            f"--match-on {name} needs --budgets: without one, videos of other sizes have other "
            "numbers of tokens, and no baseline costs the same question by question"
        )


_RUN: tuple[Door, ...] = ("run",)
_MODEL_ARGS: tuple[Door, ...] = ("model_args",)
_OF_A_MATRIX = "one model of lmms-eval's command is one run"
_OF_THE_HOST = "lmms-eval's command has an option of its own"


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """What is asked for: of `tempeval run` a matrix of runs, of lmms-eval's command one of them.

    A field says in `options()` what it means.
    """

    methods: Annotated[
        Sequence[str],
        Option(
            "Chains such as a,b+c or path/file.py:Class[x=1]; a comma between chains.",
            read=_names,
            text=True,
            doors=_RUN,
            why=_OF_A_MATRIX,
            required=True,
            recorded=False,
        ),
    ] = ()
    method: Annotated[
        str | None,
        Option(
            "Chain such as pas+temporal_exit or path/file.py:Class; baseline, if not given.",
            doors=_MODEL_ARGS,
            why="`tempeval run` takes several as `methods`",
        ),
    ] = None
    visual_token_budget: Annotated[
        int | None,
        Option(
            "Visual tokens per sample to plan for.",
            unit="tokens",
            check=_from_one,
            doors=_MODEL_ARGS,
            why="`tempeval run` takes several as `budgets`",
        ),
    ] = None
    tasks: Annotated[
        Sequence[str],
        Option(
            "Tasks and groups, separated by commas.",
            read=_names,
            text=True,
            doors=_RUN,
            why=_OF_THE_HOST,
            required=True,
        ),
    ] = ()
    out: Annotated[
        Path,
        Option(
            "Folder to write to.",
            read=_path,
            doors=_RUN,
            why=_OF_THE_HOST,
            flags=("-o", "--out"),
            required=True,
            recorded=False,
        ),
    ] = Path()
    pretrained: Annotated[
        str, Option("Hub id, checkpoint folder, mini, or mini:NAME.", read=_text)
    ] = "mini"
    revision: Annotated[
        str | None, Option("Commit, branch or tag of a hub checkpoint.", read=_text)
    ] = None
    family: Annotated[
        str | None, Option("Family of the checkpoint; else as its config.json says.", check=_family)
    ] = None
    num_frames: Annotated[
        int | None,
        Option(
            "Frames per video, 8 if not given; with --fps the most, 32.",
            unit="frames",
            check=_from_one,
        ),
    ] = None
    fps: Annotated[
        float | None,
        Option(
            "Frames per second, instead of a fixed number.",
            unit="1/s",
            read=_number,
            check=_above_zero("frames per second"),
        ),
    ] = None
    sampling: Annotated[
        Literal["uniform", "segment", "fps"],
        Option("uniform, segment or fps.", accepted=("uniform", "segment", "fps")),
    ] = "uniform"
    budgets: Annotated[
        Sequence[int],
        Option(
            "Visual tokens per sample, separated by commas; one table each.",
            unit="tokens",
            read=_budgets,
            check=_from_one,
            text=True,
            doors=_RUN,
            why=_OF_A_MATRIX,
            recorded=False,
        ),
    ] = ()
    limit: Annotated[
        int | None,
        Option(
            "First N documents per task, for a trial; never ranked.",
            unit="documents",
            check=_from_one,
            doors=_RUN,
            why=_OF_THE_HOST,
        ),
    ] = None
    batch_size: Annotated[
        int | None, Option("Questions in one batch.", unit="questions", read=_rows, check=_from_one)
    ] = None
    max_batch_size: Annotated[
        int | None,
        Option(
            "May only repeat batch_size; lmms-eval passes it.",
            unit="questions",
            doors=_MODEL_ARGS,
            why="`tempeval run` does not search for a batch size",
            recorded=False,
        ),
    ] = None
    device: Annotated[str | None, Option("cpu, cuda, cuda:1 ...")] = None
    dtype: Annotated[
        str,
        Option(
            "auto, float32, bfloat16 or float16.",
            accepted=("auto", "float32", "bfloat16", "float16"),
        ),
    ] = "auto"
    position_rule: Annotated[
        str,
        Option(
            "Where text goes after a video: original or native.",
            accepted=("original", "native"),
            noun="position rule",
        ),
    ] = "original"
    mm_newline_position: Annotated[
        str | None,
        Option(
            "Newline tokens of LLaVA-OneVision: one_token or grid; else as trained.",
            accepted=("one_token", "grid"),
            noun="newline position",
        ),
    ] = None
    system_prompt: Annotated[
        str | None, Option("System turn of every prompt; else the chat template's own.", read=_text)
    ] = None
    gen_kwargs: Annotated[
        Mapping[str, Any],
        Option(
            "Generation arguments over the tasks' own, such as max_new_tokens=2048.",
            read=_generation,
            check=_check_generation,
            text=True,
            metavar="NAME=VALUE,...",
        ),
    ] = field(default_factory=dict)
    settings: Annotated[
        Mapping[str, Mapping[str, str]],
        Option(
            "A method's setting; repeatable.",
            read=_method_settings,
            text=True,
            flags=("--set",),
            metavar="METHOD.FIELD=VALUE",
            doors=_RUN,
            why="a model argument `method.field=value` is one",
            recorded=False,
        ),
    ] = field(default_factory=dict)
    min_pixels: Annotated[int | None, Option("Fewest pixels per frame.", unit="pixels")] = None
    max_pixels: Annotated[int | None, Option("Most pixels per frame.", unit="pixels")] = None
    decoder: Annotated[
        Literal["auto", "pyav", "decord"],
        Option("auto (PyAV), pyav or decord.", accepted=("auto", "pyav", "decord"), check=_decoder),
    ] = "auto"
    decode_workers: Annotated[
        int | None,
        Option(
            "Decoding processes; 0 decodes in this one.",
            unit="processes",
            check=_from_zero,
            recorded=False,
        ),
    ] = None
    decode_timeout: Annotated[
        float,
        Option(
            "Seconds per clip of up to 32 frames and 128 MiB; larger ones get more.",
            unit="s",
            read=_number,
            check=_above_zero("seconds"),
            recorded=False,
        ),
    ] = 30.0
    feature_cache_gib: Annotated[
        float,
        Option(
            "Memory for encoded videos that methods share.",
            unit="GiB",
            read=_number,
            check=_from_zero,
            recorded=False,
        ),
    ] = 1.0
    match_on: Annotated[
        str,
        Option(
            "Also run the baseline at each method's token_layers, kv_bytes, prefill_flops or "
            "frames; visual_tokens needs no other run.",
            doors=_RUN,
            why=_OF_A_MATRIX,
            recorded=False,
        ),
    ] = VISUAL_TOKENS
    max_failures: Annotated[
        str,
        Option(
            "Failed samples a complete run may have: 0, N, or a share like 5%.",
            read=_text,
            check=_share("samples"),
            doors=_RUN,
            why="lmms-eval's command does not say whether a run is complete",
            recorded=False,
        ),
    ] = "0"
    max_damaged: Annotated[
        str | None,
        Option(
            "Damaged videos a complete run may have: N, or a share like 5%; any, if not given.",
            read=_text,
            check=_share("videos"),
            doors=_RUN,
            why="lmms-eval's command does not say whether a run is complete",
            recorded=False,
        ),
    ] = None
    skip_missing: Annotated[
        bool,
        Option(
            "Leave questions whose videos are not there out of every method.",
            doors=_RUN,
            why="lmms-eval's command asks all questions of a task",
            recorded=False,
        ),
    ] = False
    include_path: Annotated[
        Path | None,
        Option(
            "Folder with more task YAMLs, yours or another's.",
            read=_path,
            doors=_RUN,
            why=_OF_THE_HOST,
            recorded=False,
        ),
    ] = None
    metric: Annotated[
        str | None,
        Option(
            "What ranks tasks that are not tempeval's: NAME, NAME:percent or NAME:fraction; else "
            "their first metric that is a number.",
            read=_text,
            check=_metric,
            doors=_RUN,
            why="lmms-eval's command scores by the tasks' own metrics",
            recorded=False,
        ),
    ] = None
    skip_unloadable: Annotated[
        bool,
        Option(
            "Leave out tasks that cannot be loaded, if others can.",
            doors=_RUN,
            why="lmms-eval's command loads the tasks itself",
            recorded=False,
        ),
    ] = False
    data_root: Annotated[
        Path | None,
        Option(
            "Folder that holds the benchmarks' folders; else $TEMPEVAL_DATA.",
            read=_path,
            doors=_RUN,
            why="lmms-eval's command loads the tasks itself",
            recorded=False,
        ),
    ] = None
    journal: Annotated[
        Path | None,
        Option(
            "Folder in which every answer is kept; the same command goes on from there.",
            read=_path,
            doors=_MODEL_ARGS,
            why="`tempeval run` keeps one in OUT/journal",
            recorded=False,
        ),
    ] = None
    seed: Annotated[int, Option("Seed of Python, NumPy and torch.")] = 0
    overwrite: Annotated[
        bool,
        Option("Replace earlier runs in the folder.", doors=_RUN, why=_OF_THE_HOST, recorded=False),
    ] = False
    overwrite_different: Annotated[
        bool,
        Option(
            "Replace earlier runs that differ in a setting, instead of refusing.",
            doors=("python",),
            why="of the quickstart, whose settings change between versions",
            recorded=False,
        ),
    ] = False

    @classmethod
    def of(cls, given: Mapping[str, Any], door: Door = "run", source: str = "option") -> Self:
        """Build it from texts or values by name, as a door takes them; None is as if not given.

        Args:
            given: by name of the field.
            door: where it is given.
            source: what to call an option in errors.

        Raises:
            UnknownName: for a name that there is not, with the nearest one.
            InvalidSetting: for a value that cannot be read or is not accepted.
        """
        known = dict(options(door))
        values = {}
        for name, value in given.items():
            if name not in known:
                raise UnknownName(source, name, known)
            if value is not None:
                values[name] = _read(name, known[name], value)
        spec = cls(**values)
        spec.check(door)
        return spec

    def check(self, door: Door = "run") -> None:
        """Check what can be checked without a model.

        Raises:
            UnknownName: for a text that is none of those accepted.
            InvalidSetting: for another value that is not accepted, or two that exclude each other.
        """
        for name, option in options():
            value = getattr(self, name)
            if value is None:
                continue
            if option.accepted and value not in option.accepted:
                raise UnknownName(option.noun or name, value, option.accepted)
            if option.check is not None:
                option.check(name, value)
        if self.fps is None and self.sampling == "fps":
            raise InvalidSetting("sampling=fps needs fps, frames per second")
        if self.fps is not None and self.sampling == "segment":
            raise InvalidSetting("fps and sampling=segment exclude each other; leave one out")
        if door == "model_args":
            self._check_batch()
            return
        # lmms-eval hands its own models numbers that only torch takes.
        if not 0 <= self.seed <= MAX_SEED:
            raise InvalidSetting(
                f"seed is {self.seed}; accepted: whole numbers from 0 to {MAX_SEED}"
            )
        check_measure(self.match_on, self.budgets)
        for kind, names in (("methods", self.methods), ("tasks", self.tasks)):
            if not names:
                raise InvalidSetting(f"no {kind} given; list them with: tempeval list {kind}")

    def _check_batch(self) -> None:
        if self.max_batch_size not in (None, self.batch_size):
            raise InvalidSetting(
                f"max_batch_size={self.max_batch_size} differs from batch_size={self.batch_size}; "
                "tempeval does not search for a batch size, leave it out"
            )

    @property
    def allowed(self) -> "Allowed":
        """What a complete run may lack."""
        from tempeval.run.counting import Allowed

        return Allowed(self.max_failures, self.max_damaged)

    def request(self) -> dict[str, Any]:
        """Return what a record keeps of it, as JSON values: all that was asked of the answers."""
        found = {name: getattr(self, name) for name, option in options() if option.recorded}
        return {name: _plain(value) for name, value in found.items()}

    def model_arguments(self) -> dict[str, Any]:
        """Return what a model of lmms-eval is given for it; what says nothing is left out."""
        found = {name: getattr(self, name) for name, _ in options("model_args")}
        return {name: value for name, value in found.items() if value not in (None, {})}


def options(door: Door | None = None) -> Iterator[tuple[str, Option]]:
    """Yield the options by name, in order: all, or those of a door."""
    for each in fields(RunSpec):
        option: Option = _hints()[each.name].__metadata__[0]
        if door is None or door in option.doors or (door == "python" and "run" in option.doors):
            yield each.name, option


def option_of(name: str) -> Option:
    """Return an option."""
    return dict(options())[name]


def default_of(name: str) -> Any:
    """Return what an option is when it is not given."""
    return getattr(RunSpec(), name)


def type_of(name: str) -> Any:
    """Return the type of an option's value."""
    return typing.get_args(_hints()[name])[0]


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file of options, under the names that the command line has for them.

    Args:
        path: of a mapping such as `{methods: [baseline, pas], num_frames: 8, set: {pas: {K: 4}}}`;
            `-` and `_` are the same.

    Returns:
        What it says, by name of the field, for `RunSpec.of`.

    Raises:
        InvalidSetting: if it cannot be read, or is no mapping.
        UnknownName: for a key that is no option, with the nearest one.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise InvalidSetting(f"config file {str(path)!r} cannot be read: {said}") from error
    if not isinstance(found, dict):
        raise InvalidSetting(
            f"config file {str(path)!r} is not a mapping of options to values, such as "
            "num_frames: 8"
        )
    names = {spelling(name): name for name, _ in options("run")}
    values: dict[str, Any] = {}
    for key, value in found.items():
        spelt = str(key).replace("-", "_")
        if spelt not in names:
            raise UnknownName(f"option in {str(path)!r}", str(key), names)
        values[names[spelt]] = value
    return values


def spelling(name: str) -> str:
    """Return the name of an option on the command line and in a config file, with `_` for `-`."""
    flags = option_of(name).flags
    return flags[-1].removeprefix("--").replace("-", "_") if flags else name


@cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(RunSpec, include_extras=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value) or None
    return list(value) if isinstance(value, (tuple, list)) else value


def _read(name: str, option: Option, value: Any) -> Any:
    if isinstance(value, bool) and type_of(name) is not bool:
        raise InvalidSetting(f"{name}={value!r} is not accepted; it is not true or false")
    if option.read is not None:
        return option.read(name, value)
    return str(value) if option.accepted else read_value(name, value, type_of(name))
