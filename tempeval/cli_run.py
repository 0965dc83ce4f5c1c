"""`tempeval run`: methods x budgets on tasks."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tempeval.cli_matrix import Out, Overwrite, evaluate, report
from tempeval.errors import InvalidSetting


def run(
    methods: Annotated[str, typer.Option(help="Chains such as a,b+c; a comma between chains.")],
    tasks: Annotated[str, typer.Option(help="Tasks and groups, separated by commas.")],
    out: Out,
    pretrained: Annotated[
        str, typer.Option(help="Hub id, checkpoint folder, mini, or mini:NAME.")
    ] = "mini",
    num_frames: Annotated[
        int | None, typer.Option(help="Frames per video, 8 if not given; with --fps the most, 32.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second, instead of a fixed number.")
    ] = None,
    sampling: Annotated[str, typer.Option(help="uniform, segment or fps.")] = "uniform",
    budgets: Annotated[
        str, typer.Option(help="Visual tokens per sample, separated by commas; one table each.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(help="First N documents per task, for a trial; never ranked.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Questions in one batch.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    position_rule: Annotated[
        str, typer.Option(help="Where text goes after a video: original or native.")
    ] = "original",
    mm_newline_position: Annotated[
        str | None,
        typer.Option(help="Newline tokens of LLaVA-OneVision: one_token or grid; else as trained."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METHOD.FIELD=VALUE", help="A method's setting; repeatable."),
    ] = None,
    min_pixels: Annotated[int | None, typer.Option(help="Fewest pixels per frame.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Most pixels per frame.")] = None,
    decoder: Annotated[str, typer.Option(help="auto (PyAV), pyav or decord.")] = "auto",
    decode_timeout: Annotated[
        float,
        typer.Option(help="Seconds per clip of up to 32 frames and 128 MiB; larger ones get more."),
    ] = 30.0,
    match_on: Annotated[
        str,
        typer.Option(
            help="Also run the baseline at each method's token_layers, kv_bytes, prefill_flops or "
            "frames; visual_tokens needs no other run."
        ),
    ] = "visual_tokens",
    max_failures: Annotated[
        str, typer.Option(help="Failed samples a complete run may have: 0, N, or a share like 5%.")
    ] = "0",
    max_damaged: Annotated[
        str | None,
        typer.Option(
            help="Damaged videos a complete run may have: N, or a share like 5%; any, if not given."
        ),
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option(
            "--skip-missing",
            help="Leave questions whose videos are not there out of every method.",
        ),
    ] = False,
    skip_unloadable: Annotated[
        bool,
        typer.Option(
            "--skip-unloadable", help="Leave out tasks that cannot be loaded, if others can."
        ),
    ] = False,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder that holds the benchmarks' folders; else $TEMPEVAL_DATA."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of Python, NumPy and torch.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate methods x budgets on tasks with one loaded model; one run folder for each.

    A run that is already there, complete and with the same settings, is reused; one that was
    interrupted goes on where it stopped (every answer is in OUT/journal). The exit code is 0 only
    when every sample of every run was answered, or failed within --max-failures. On several
    GPUs: accelerate launch -m tempeval run ...
    """
    from tempeval.benchmarks.roots import VARIABLE
    from tempeval.matrix import RunOptions
    from tempeval.run.match_on import VISUAL_TOKENS, check_measure, rerun_baselines

    if data_root is not None:
        # The host's tasks are built deep inside it, and by every rank.
        os.environ[VARIABLE] = str(data_root.expanduser().absolute())
    check_measure(match_on, _budgets(budgets))
    options = RunOptions(
        out=out,
        methods=_split(methods),
        tasks=_split(tasks),
        pretrained=pretrained,
        num_frames=num_frames,
        fps=fps,
        sampling=sampling,
        budgets=_budgets(budgets),
        limit=limit,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        position_rule=position_rule,
        mm_newline_position=mm_newline_position,
        settings=_settings(settings or ()),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        decoder=decoder,
        decode_timeout=decode_timeout,
        max_failures=max_failures,
        max_damaged=max_damaged,
        skip_missing=skip_missing,
        skip_unloadable=skip_unloadable,
        seed=seed,
        overwrite=overwrite,
    )
    folders = evaluate(options)
    rerun_baselines(options, folders, match_on, report=report, run=evaluate)
    matched = "" if match_on == VISUAL_TOKENS else f" --match-on {match_on}"
    report(f"next: tempeval leaderboard {out} -o {out / 'leaderboard'}{matched}")


def _split(text: str) -> list[str]:
    """Split at commas; settings in brackets use `;` and `/`, so none is inside a name."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _budgets(text: str) -> list[int]:
    found = [_whole("--budgets", part) for part in _split(text)]
    if text and not found:
        raise InvalidSetting(f"--budgets has {text!r}; accepted: whole numbers such as 256,512")
    return found


def _whole(label: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidSetting(f"{label} has {text!r}; accepted: whole numbers") from None


def _settings(pairs: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for pair in pairs:
        target, equals, value = pair.partition("=")
        method, dot, name = target.partition(".")
        if not (equals and dot and method and name):
            raise InvalidSetting(f"--set {pair!r} is not of the form method.field=value")
        if name in found.setdefault(method, {}):
            raise InvalidSetting(f"--set {method}.{name} is given twice")
        found[method][name] = value
    return found
