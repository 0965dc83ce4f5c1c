"""Options of a run: each is a field of `RunSpec` once, and every door takes it from there."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from tempeval.cli import app, main
from tempeval.errors import InvalidSetting, UnknownName
from tempeval.run import runner
from tempeval.run.spec import RunSpec, default_of, option_of, options, read_config, spelling

if TYPE_CHECKING:
    from collections.abc import Callable

NEEDED = {"methods": "baseline", "tasks": "tempeval_mini", "out": "out"}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., RunSpec]:
    """What `tempeval run` makes of a command line."""
    given: list[RunSpec] = []

    def record(spec: RunSpec, **_: object) -> list[Path]:
        given.append(spec)
        return []

    monkeypatch.setattr(runner, "run_matrix", record)

    def call(*arguments: str) -> RunSpec:
        with pytest.raises(SystemExit) as stop:
            main(["run", *arguments])
        assert not stop.value.code
        return given.pop()

    return call


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def test_every_field_has_a_help_and_a_door_and_says_why_not_all_of_them() -> None:
    found = dict(options())
    assert list(found) == [each.name for each in fields(RunSpec)]
    for name, option in found.items():
        assert option.help.endswith((".", "...")), name
        assert option.doors, name
        assert bool(option.why) == (set(option.doors) != {"run", "model_args"}), name


def test_the_command_line_has_the_fields_and_their_defaults_and_nothing_else() -> None:
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    made = {parameter.name: parameter for parameter in command.params}
    own = {"config", "dry_run", "help"}
    assert set(made) - own == {name for name, _ in options("run")}
    for name, option in options("run"):
        parameter: Any = made[name]
        assert parameter.opts[-1] == f"--{spelling(name).replace('_', '-')}"
        assert parameter.help == option.help
        assert parameter.required == option.required
        if not option.text and not option.required:
            assert parameter.default == default_of(name), name


def test_the_command_line_reads_new_options(parsed: Any) -> None:
    spec = parsed(
        *[
            "run",
            "--methods",
            "pas",
            "--tasks",
            "t",
            "-o",
            "x",
            "--revision",
            "main",
            "--system-prompt",
            "Think.",
        ][1:],
        *("--gen-kwargs", "max_new_tokens=2048,do_sample=true", "--decode-workers", "0"),
    )
    assert (spec.revision, spec.system_prompt, spec.decode_workers) == ("main", "Think.", 0)
    assert spec.gen_kwargs == {"max_new_tokens": 2048, "do_sample": True}


def test_a_config_file_says_what_the_command_line_does_not(parsed: Any, config: Any) -> None:
    path = config(
        "methods: [baseline, pas]\ntasks: tempeval_mini\nout: there\nnum-frames: 4\nseed: 3\n"
        "budgets: [64, 128]\nskip_missing: true\nset: {pas: {unit: position}}\n"
        "gen_kwargs: {max_new_tokens: 9}\nlimit: null\n"
    )
    spec = parsed("--config", str(path), "--seed", "0", "-o", "here")
    assert spec == RunSpec(
        methods=["baseline", "pas"],
        tasks=["tempeval_mini"],
        out=Path("here"),
        num_frames=4,
        budgets=[64, 128],
        skip_missing=True,
        settings={"pas": {"unit": "position"}},
        gen_kwargs={"max_new_tokens": 9},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_frame: 3", "no option in .*did you mean 'num_frames'"),
        ("overwrite_different: true", "no option in"),
        ("method: pas", "did you mean 'methods'"),
        ("- 3", "is not a mapping"),
        ("a: [", "cannot be read"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_config_file_that_says_something_else_is_refused(
    config: Any, text: str, message: str
) -> None:
    with pytest.raises((UnknownName, InvalidSetting), match=message):
        read_config(config(text))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_frames": True}, "num_frames=True"),
        ({"num_frames": 8.5}, "num_frames=8.5 is not a whole number"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"fps": "fast"}, "fps='fast' is not a number"),
        ({"sampling": "segmnt"}, "did you mean 'segment'"),
        ({"sampling": "fps"}, "sampling=fps needs fps"),
        ({"fps": 2, "sampling": "segment"}, "exclude each other"),
        ({"dtype": "float"}, "no dtype 'float'"),
        ({"family": "qwen"}, "did you mean 'qwen_vl'"),
        ({"position_rule": "orginal"}, "did you mean 'original'"),
        ({"gen_kwargs": "max_new_token=3"}, "did you mean 'max_new_tokens'"),
        ({"gen_kwargs": "max_length=3"}, "give max_new_tokens"),
        ({"gen_kwargs": "3"}, "not of the form name=value"),
        ({"budgets": [8, "x"]}, "--budgets has"),
        ({"budgets": [0]}, "budget 0 is 0"),
        ({"match_on": "kv_bytes"}, "needs --budgets"),
        ({"seed": -1}, "seed is -1"),
        ({"feature_cache_gib": -1}, "feature_cache_gib is -1"),
        ({"numframes": 3}, "no option 'numframes'; did you mean 'num_frames'"),
        ({"method": "pas"}, "did you mean 'methods'"),
    ],
)
def test_mistakes_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises((UnknownName, InvalidSetting), match=message):
        RunSpec.of({**NEEDED, **given})


@pytest.mark.parametrize(
    "text",
    ["max_new_tokens=9,until=x", "max_new_tokens=9;until=x", '{"max_new_tokens":9,"until":"x"}'],
)
def test_generation_arguments_are_read_in_every_form(text: str) -> None:
    spec = RunSpec.of({"gen_kwargs": text}, "model_args")
    assert spec.gen_kwargs == {"max_new_tokens": 9, "until": "x"}


def test_a_request_holds_what_is_recorded_as_json() -> None:
    spec = RunSpec.of({**NEEDED, "gen_kwargs": {"max_new_tokens": 9}, "revision": "abc"})
    request = spec.request()
    assert json.loads(json.dumps(request)) == request
    assert set(request) == {name for name, option in options() if option.recorded}
    assert (request["gen_kwargs"], request["revision"]) == ({"max_new_tokens": 9}, "abc")
    assert {"out", "overwrite", "decode_timeout", "journal"}.isdisjoint(request)


def test_a_model_of_the_host_is_given_what_it_takes() -> None:
    spec = RunSpec.of({**NEEDED, "num_frames": 4, "gen_kwargs": "max_new_tokens=9"})
    arguments = spec.model_arguments()
    assert RunSpec.of(arguments, "model_args").num_frames == 4
    assert arguments["gen_kwargs"] == {"max_new_tokens": 9}
    assert all("model_args" in option_of(name).doors for name in arguments)


def test_a_batch_size_that_the_host_searches_for_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="'auto' is not supported"):
        RunSpec.of({"batch_size": "auto"}, "model_args")
    with pytest.raises(InvalidSetting, match="max_batch_size=4 differs"):
        RunSpec.of({"batch_size": 8, "max_batch_size": "4"}, "model_args")
    assert RunSpec.of({"batch_size": 4, "max_batch_size": 4}, "model_args").batch_size == 4


@pytest.mark.parametrize("simple", [False, True])
def test_generation_arguments_of_a_run_are_laid_over_the_task_s(simple: bool) -> None:
    from tempeval.model_wrappers.requests import chat_question, simple_question

    own = {"max_new_tokens": 4, "until": ["\n"]}
    if simple:
        read, args = simple_question, ("Which?", own, lambda _doc: [], 0, "task", "test")
    else:
        read = chat_question
        args = ("", lambda _doc: [{"role": "user", "content": "Which?"}], own, 0, "task", "test")
    request = SimpleNamespace(args=args, task_name="task", doc_id=0, idx=0)
    docs = {"task": {"test": [{}]}}
    question = read(0, request, docs, {"max_new_tokens": 2048})
    assert question.gen_kwargs == {"max_new_tokens": 2048, "until": ["\n"]}
    assert question.digest() != read(0, request, docs).digest()  # a journal tells them apart
