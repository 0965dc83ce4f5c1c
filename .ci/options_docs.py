"""Write docs/options.md: every option of a run, from the fields of `RunSpec`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tempeval.run.spec import Option, default_of, options, spelling

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"

INTRODUCTION = """<!-- written by .ci/options_docs.py -->

# Options of a run

One list, four doors: the command line of `tempeval run`, its config file, the Python API, and
`--model_args` of lmms-eval's own command. Names, defaults and accepted values are the same at each.
A name that is none of them is refused, with the nearest one. What was asked for is `request` in a
run's record, and a run with another `request` is another run.

```sh
tempeval run --config run.yaml --num-frames 16 -o results/sixteen
```

```yaml
# run.yaml: the names of the command line; what that says wins
methods: [baseline, pas, pas+temporal_exit]
tasks: [tempeval_mini]
num_frames: 8
gen_kwargs: {max_new_tokens: 2048}
set: {pas: {unit: position}}
```

`--dry-run` says what would be run (tasks, videos that are there, what the methods' settings become,
frames, visual tokens, prefills and an estimate of a prompt's cost, runs that would be reused)
without answering anything; its exit code is 0 only if the run would start.

A model that thinks before it answers needs room: `--gen-kwargs max_new_tokens=2048`. Generation
arguments are laid over those of the task, are part of what names an answer, and runs that differ in
them are not compared. In `--model_args`, where a comma ends an argument, write
`gen_kwargs={"max_new_tokens":2048,"do_sample":true}` or
`gen_kwargs=max_new_tokens=2048;do_sample=true`.
"""


def page() -> str:
    """Return the text of the page."""
    head = "| option | default | unit | what it is |\n| --- | --- | --- | --- |"
    both = [row for row in options() if row[1].doors == ("run", "model_args")]
    parts = [
        INTRODUCTION,
        "## At every door",
        "\n".join([head, *(_row(name, option) for name, option in both)]),
    ]
    for door, title in (
        ("run", "## `tempeval run`, config file and Python API only"),
        ("model_args", "## `--model_args` only"),
        ("python", "## Python API only"),
    ):
        own = [row for row in options() if row[1].doors == (door,)]
        parts += [title, "\n".join([head, *(_row(name, option) for name, option in own)])]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _row(name: str, option: Option) -> str:
    flag = f"--{spelling(name).replace('_', '-')}"
    if spelling(name) != name:
        option = replace(option, help=f"{option.help} In Python `{name}`.")
    named = f"`{name}`" if "run" not in option.doors else f"`{flag}`, `{spelling(name)}`"
    what = option.help
    if option.accepted and not all(each in what for each in option.accepted):
        what += f" Accepted: {', '.join(option.accepted)}."
    if option.why:
        what += f" Only here: {option.why}."
    cells = (named, _default(option, default_of(name)), option.unit, what)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(option: Option, value: Any) -> str:
    if option.required:
        return "needed"
    if value is None or value in ((), {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Write the page, or with --check say whether it is up to date."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        raise SystemExit("docs/options.md is not up to date: make readme")


if __name__ == "__main__":
    main()
