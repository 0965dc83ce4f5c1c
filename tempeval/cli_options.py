"""The command line's options of a run, built from the fields of `RunSpec`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tempeval.run.spec import RunSpec, default_of, option_of, options, read_config, type_of

#: Parameters of `typer` that the command line has besides the fields.
_CONFIG = "config"


def flag(name: str) -> Any:
    """Return typer's option of a field: how it is spelt, and its help."""
    option = option_of(name)
    spelt = option.flags or (f"--{name.replace('_', '-')}",)
    return typer.Option(*spelt, help=option.help, metavar=option.metavar)


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of `RunSpec`, and `--config`.

    Args:
        command: takes the context, options of its own, and all others by name, which `given`
            reads.
    """
    own = [
        parameter
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    context, *last = own
    fields = [_parameter(name) for name, _ in options("run")]
    config = inspect.Parameter(
        _CONFIG,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            Path | None,
            typer.Option(
                help="YAML file of these options, by the same names; the command line wins.",
                is_eager=True,
                callback=_known,
            ),
        ],
    )
    last = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in last]
    signature = inspect.Signature([context, *fields, config, *last])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return command


def given(context: typer.Context, values: dict[str, Any]) -> RunSpec:
    """Return what the command line says, and where it says nothing the config file.

    Args:
        context: of the command.
        values: all options by name.

    Raises:
        UnknownName, InvalidSetting: see `RunSpec.of`.
    """
    path: Path | None = values.pop(_CONFIG)
    found = {} if path is None else read_config(path)
    for name, value in values.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            found[name] = value
    return RunSpec.of(found)


def _known(context: typer.Context, path: Path | None) -> Path | None:
    """Let the command know that the file has what it needs."""
    if path is not None:
        found = read_config(path)
        needed = {name for name, option in options("run") if option.required}
        context.default_map = {name: str(value) for name, value in found.items() if name in needed}
    return path


def _parameter(name: str) -> inspect.Parameter:
    option, default = option_of(name), default_of(name)
    kind: Any = type_of(name)
    if option.text:
        several = isinstance(default, dict) and option.flags
        kind, default = (list[str] | None, None) if several else (str, "")
    elif option.accepted:
        kind = str if default is not None else str | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if option.required else default,
        annotation=Annotated[kind, flag(name)],
    )
