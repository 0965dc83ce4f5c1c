"""The `tempeval features` command: side channels of a folder of videos, made once."""

from pathlib import Path
from typing import Annotated

import typer

from tempeval.cli_options import flag
from tempeval.console import say


def features(
    side_channel: Annotated[
        str,
        typer.Option(
            "--side-channel",
            help="audio or highfps, with settings as in 'audio[step=0.05;mels=80]'; or an official "
            "kind with its folder, to convert it.",
        ),
    ],
    data: Annotated[Path, typer.Option(help="Folder of videos; searched with its subfolders.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for <video id>.safetensors.")],
    pretrained: Annotated[
        str, typer.Option(help="Base model of highfps: hub id, folder, mini, or mini:NAME.")
    ] = "mini",
    fps: Annotated[
        float | None,
        typer.Option(help="Frame rate of folders of images; they are then the videos."),
    ] = None,
    num_frames: Annotated[
        int, typer.Option(help="Frames per video that the base model will see.")
    ] = 8,
    min_pixels: Annotated[int | None, flag("min_pixels")] = None,
    max_pixels: Annotated[int | None, flag("max_pixels")] = None,
    device: Annotated[str | None, flag("device")] = None,
    dtype: Annotated[str, flag("dtype")] = "auto",
    revision: Annotated[str | None, flag("revision")] = None,
    decode_timeout: Annotated[
        float,
        typer.Option(
            help="Seconds per video of up to 32 frames and 128 MiB; larger ones get more."
        ),
    ] = 30.0,
    workers: Annotated[int | None, typer.Option(help="Decoding processes.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make features again that are there.")
    ] = False,
) -> None:
    """Write the side channel of each video to one file, for side channel `features`.

    What is there is kept, so a run that was stopped goes on. Exits with 1 if a video gave none.
    """
    import torch
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from tempeval.engine.encoder import DecodeOptions
    from tempeval.errors import InvalidSetting, RunFailed
    from tempeval.families.base import LoadOptions
    from tempeval.side_channels.extract import (
        FAILURES,
        NEED_MODEL,
        NOT_MADE,
        Extracted,
        extract,
        find_videos,
        load_family,
    )
    from tempeval.side_channels.registry import build_side_channel, parse_side_spec

    spec = parse_side_spec(side_channel)
    if spec.name in NOT_MADE:
        raise InvalidSetting(f"side channel {spec.name!r} reads what this command writes")
    videos = find_videos(data, out, fps)
    decoding = DecodeOptions(workers=workers, timeout_s=decode_timeout)
    family = None
    if spec.name in NEED_MODEL:
        options = LoadOptions(
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            dtype=dtype,
            revision=revision,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
        )
        family = load_family(pretrained, options, num_frames)
    channel = build_side_channel(spec, family, decoding)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(spec.name, total=len(videos))

        def show(so_far: Extracted) -> None:
            failed = len(so_far.failures)
            text = f"{spec.name}, {failed} failed" if failed else spec.name
            done = so_far.written + so_far.kept + failed
            bar.update(task, completed=done, description=text)

        made = extract(
            videos,
            spec,
            channel,
            family,
            decoding,
            num_frames=num_frames,
            overwrite=overwrite,
            progress=show,
        )
    say(f"written: {made.written} to {out}, kept: {made.kept}")
    for reason in made.failures.values():
        say(f"failed: {reason}", error=True)
    if made.failures:
        raise RunFailed(
            f"{len(made.failures)} of {len(videos)} videos gave no features; see {out / FAILURES}"
        )
    say(f"next: side channel 'features[folder={out}]'")
