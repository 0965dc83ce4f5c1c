"""The command line's options of a run, built from the fields of `RunSpec`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tempeval.run.spec import RunSpec, default_of, option_of, options, read_config, type_of


def flag(name: str) -> Any:
    """Return typer's option of a field: how it is spelt, and its help."""
    option = option_of(name)
    spelt = option.flags or (f"--{name.replace('_', '-')}",)
    return typer.Option(*spelt, help=option.help, metavar=option.metavar)


def takes_options(
    *names: str, config: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command an option for each of some fields of `RunSpec`.

    Args:
        names: of the fields. The command takes options of its own, and these by name.
        config: whether it also has `--config`; it takes the context then, for `given`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        fields = [_parameter(name) for name in names]
        made = [*fields, _CONFIG, *own] if config else [*own, *fields]
        command.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in made}
        return command

    return decorate


def given(context: typer.Context, values: dict[str, Any]) -> RunSpec:
    """Return what the command line says, and where it says nothing the config file.

    Args:
        context: of the command.
        values: all options by name.

    Raises:
        UnknownName, InvalidSetting: see `RunSpec.of`.
    """
    path: Path | None = values.pop(_CONFIG.name)
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


_CONFIG = inspect.Parameter(
    "config",
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
