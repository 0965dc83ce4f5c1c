"""The `tempeval calibrate` command: ranges of keys and values for `kv_quant[scheme=static]`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tempeval.cli_options import takes_options
from tempeval.console import say
from tempeval.run.spec import RunSpec

#: Options of a run that decide what a model's keys and values are.
_ASKED = (
    *("pretrained", "revision", "min_pixels", "max_pixels", "position_rule"),
    *("mm_newline_position", "device", "dtype"),
)


@takes_options(*_ASKED)
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
    method: Annotated[
        str, typer.Option(help="Methods that the store will be chained with, as a+b.")
    ] = "baseline",
    num_frames: Annotated[int, typer.Option(help="Frames per video.")] = 8,
    budget: Annotated[int | None, typer.Option(help="Visual tokens per video.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of rendered clips.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    **asked: Any,
) -> None:
    """Measure the ranges of keys and values on training clips, for static quantisation.

    Use the model, methods, frames and sizes of the run. A run with another model revision, or
    other methods or scale of `rope_scale`, refuses the file; frames and sizes are not compared.
    The file's digest becomes part of the method's fingerprint.
    """
    from tempeval.methods.registry import parse_chain, spelling
    from tempeval.run.calibrate import CalibrateOptions, with_calibration
    from tempeval.run.calibrate import calibrate as run

    hint = spelling(with_calibration(parse_chain(method), str(out)))
    asked |= {"method": method, "num_frames": num_frames, "visual_token_budget": budget}
    spec = RunSpec.of({**asked, "seed": seed}, "model_args")
    made = run(CalibrateOptions(out, clips, limit, overwrite, spec), say)
    say(f"written: {made.path} ({made.num_clips} clips, {made.num_tokens} tokens)")
    say(f"next: --methods '{hint}'")
