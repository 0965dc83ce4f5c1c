"""The `tempeval verify` command: proof that a method is run as its functions say."""

import json
from typing import Annotated

import typer

from tempeval.console import say


def verify(
    method: Annotated[
        str,
        typer.Argument(help="pas, path/file.py:Class[setting=1] or package.module:Class."),
    ],
    family: Annotated[
        str | None, typer.Option(help="Only this family; else every one that takes the method.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prove a method on tiny random models: engine against a dense forward, purity, declarations.

    Exit code 1 when a check fails, with its row in the table.
    """
    from tempeval.verification.report import verify_method

    done = verify_method(method, family=family)
    if as_json:
        say(json.dumps(done.to_dict(), indent=2))
    else:
        for line in done.table():
            say(line)
        failed = sum(not check.ok for check in done.checks)
        on = ", ".join(done.families) or "no model"
        say(
            f"{done.method}: {len(done.checks) - failed} of {len(done.checks)} checks hold, on {on}"
        )
    if not done.ok:
        raise typer.Exit(1)
