"""The `tempeval bench` command: this engine against lmms-eval's own wrapper, on one checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from tempeval.cli_matrix import patient_interrupts
from tempeval.console import say


def bench(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder of benchmarks.md and benchmarks.json.")
    ] = Path("results/bench"),
    pairs: Annotated[int | None, typer.Option(help="Alternating pairs per cell; 7.")] = None,
    questions: Annotated[
        str | None, typer.Option(help="Questions per video; 1,5,15 (quick: 1,3).")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Visual tokens per video, about; 1300,3900 (quick: 36,64).")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Numbers of choices; 27,174,700 (quick: 5,9).")
    ] = None,
    staged: Annotated[
        str | None,
        typer.Option(help="Visual tokens of the staged part; 2048,4096,8192 (CUDA: 8192,32768)."),
    ] = None,
    sections: Annotated[
        str, typer.Option(help="Parts to measure; what others measured before stays.")
    ] = "labels,methods,questions,staged",
    pretrained: Annotated[
        str | None, typer.Option(help="A Qwen2.5-VL; random weights if not given.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes, a minute; the numbers mean nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop measurements made with other settings.")
    ] = False,
) -> None:
    """Measure speed against lmms-eval's wrapper, N forwards and dense prefill; resumes."""
    from tempeval.bench.command import run_bench
    from tempeval.bench.options import BenchOptions

    chosen = {"questions": questions, "tokens": tokens, "labels": labels, "staged": staged}
    numbers = {name: _numbers(name, text) for name, text in chosen.items() if text is not None}
    options = BenchOptions(
        out=out,
        pairs=pairs,
        pretrained=pretrained,
        device=device,
        dtype=dtype,
        threads=threads,
        quick=quick,
        overwrite=overwrite,
        questions=numbers.get("questions", ()),
        tokens=numbers.get("tokens", ()),
        labels=numbers.get("labels", ()),
        staged=numbers.get("staged", ()),
        sections=[part.strip() for part in sections.split(",")],
    )
    with patient_interrupts():
        report = run_bench(options, say)
    say(report.text)
    say(f"written: {report.markdown} and {report.json}")
    if not report.complete:
        say("interrupted; the same command measures what is missing", error=True)
        raise typer.Exit(130)


def _numbers(name: str, text: str) -> list[int]:
    from tempeval.errors import InvalidSetting

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidSetting(
            f"--{name} has {text!r}; accepted: whole numbers separated by commas"
        ) from None
