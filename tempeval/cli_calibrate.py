"""The `tempeval calibrate` command: ranges of keys and values for `kv_quant[scheme=static]`."""

from pathlib import Path
from typing import Annotated

import typer

from tempeval.cli_options import flag
from tempeval.console import say


def calibrate(
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write, *.safetensors.")],
    clips: Annotated[
        str | None,
        typer.Option(
            help="Folder of training videos, a text file with one path per line, or mini (rendered "
            "training scenes; the default for the mini checkpoint). Test data is refused."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Most clips; evenly spaced ones of more.")] = 16,
    pretrained: Annotated[str, flag("pretrained")] = "mini",
    method: Annotated[
        str, typer.Option(help="Methods that the store will be chained with, as a+b.")
    ] = "baseline",
    num_frames: Annotated[int, typer.Option(help="Frames per video.")] = 8,
    budget: Annotated[int | None, typer.Option(help="Visual tokens per video.")] = None,
    min_pixels: Annotated[int | None, flag("min_pixels")] = None,
    max_pixels: Annotated[int | None, flag("max_pixels")] = None,
    position_rule: Annotated[str, flag("position_rule")] = "original",
    mm_newline_position: Annotated[str | None, flag("mm_newline_position")] = None,
    device: Annotated[str | None, flag("device")] = None,
    dtype: Annotated[str, flag("dtype")] = "auto",
    revision: Annotated[str | None, flag("revision")] = None,
    seed: Annotated[int, typer.Option(help="Seed of rendered clips.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Measure the ranges of keys and values on training clips, for static quantisation.

    Use the model, methods, frames and sizes of the run. A run with another model revision, or
    other methods or scale of `rope_scale`, refuses the file; frames and sizes are not compared.
    The file's digest becomes part of the method's fingerprint.
    """
    import torch

    from tempeval.methods.registry import parse_chain, spelling
    from tempeval.run.calibrate import CalibrateOptions, with_calibration
    from tempeval.run.calibrate import calibrate as run

    hint = spelling(with_calibration(parse_chain(method), str(out)))
    made = run(
        CalibrateOptions(
            out=out,
            clips=clips,
            limit=limit,
            pretrained=pretrained,
            method=method,
            num_frames=num_frames,
            visual_token_budget=budget,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            position_rule=position_rule,
            mm_newline_position=mm_newline_position,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            dtype=dtype,
            revision=revision,
            seed=seed,
            overwrite=overwrite,
        ),
        say,
    )
    say(f"written: {made.path} ({made.num_clips} clips, {made.num_tokens} tokens)")
    say(f"next: --methods '{hint}'")
