"""Options of the command line, made from the declarations of the settings.

The settings are imported only when a command is run, its options are completed, or its help is
shown: the list of commands does not need them.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_origin

import typer
from typer.core import TyperCommand

from pudistill.exceptions import InputError

OWN_NETWORK = typer.Option(
    help="The run's module:NAME, if it is a network of your own: a module is imported only if you "
    "name it."
)
Function = TypeVar("Function", bound=Callable[..., None])


def takes_settings(*names: str, **defaults: Any) -> Callable[[Function], Function]:
    """Give a command an option for each setting; it receives the values as keyword arguments.

    Parameters
    ----------
    *names : str
        Fields of `Settings`; by default all fields except those of the panel `NOISE`.
    **defaults : Any
        Defaults that replace those of the settings.

    Returns
    -------
    decorator : callable
        Decorator of a function that takes ``**values`` and whose command is a `SettingsCommand`.
    """

    def decorate(function: Function) -> Function:
        own = [
            p for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD
        ]
        function.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
        function.settings = (names, defaults)  # type: ignore[attr-defined]
        return function

    return decorate


class SettingsCommand(TyperCommand):
    """A command whose function is decorated with `takes_settings`."""

    def get_params(self, ctx: Any) -> Any:
        """Return all arguments and options, with those of the settings."""
        return self._complete.get_params(ctx)

    def invoke(self, ctx: Any) -> Any:
        """Call the function with the settings."""
        return self._complete.invoke(ctx)

    @functools.cached_property
    def _complete(self) -> Any:
        """The same command, built with the options of the settings."""
        assert self.callback is not None
        function: Any = inspect.unwrap(self.callback)
        names, defaults = function.settings

        @functools.wraps(function)
        def call(**values: Any) -> None:
            function(**values)

        own = list(inspect.signature(function).parameters.values())
        parameters = _in_order_of_panels([*own, *_settings_parameters(names, defaults)])
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app = typer.Typer(add_completion=False)
        app.command()(call)
        return typer.main.get_command(app)


def _settings_parameters(names: tuple[str, ...], defaults: dict[str, Any]) -> list:
    from pudistill.data.options import NOISE, settings_of
    from pudistill.runs.settings import Settings

    declared = settings_of(Settings)
    names = names or tuple(name for name in declared if declared[name].panel != NOISE)
    return [_parameter(name, defaults) for name in names]


def _parameter(name: str, defaults: dict[str, Any]) -> inspect.Parameter:
    """Describe a setting as the parameter of a function, in the form that typer reads."""
    from pudistill.data.options import choices_of, settings_of
    from pudistill.runs.settings import Settings

    field, setting = Settings.model_fields[name], settings_of(Settings)[name]
    if name in defaults:
        default = defaults[name]
    else:
        default = inspect.Parameter.empty if field.is_required() else field.default
    info: Any
    if name == "data":
        info = typer.Argument(metavar=setting.metavar, help=setting.help)
    else:
        choices = choices_of(Settings, name)
        info = typer.Option(
            *([setting.option] if setting.option else []),
            help=setting.help,
            metavar="" if field.annotation is bool else setting.metavar,
            show_default=setting.default_text or True,
            rich_help_panel=setting.panel,
            autocompletion=completion(choices) if choices else None,
        )
    kind = _option_type(field.annotation)
    annotation = Annotated[kind | None if default is None else kind, info]  # type: ignore[valid-type]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _option_type(annotation: Any) -> Any:
    """Return the type that typer parses: text where pydantic has to choose among types."""
    from pudistill.data.options import alternatives

    kinds = [kind for kind in alternatives(annotation) if kind is not NoneType]
    return str if len(kinds) > 1 or get_origin(kinds[0]) is Literal else kinds[0]


def completion(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """Return what completes one of the choices in a shell."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _in_order_of_panels(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Sort parameters by panel, in the order of the help; those without a panel come first."""
    from pudistill.data.options import PANELS

    def position(parameter: inspect.Parameter) -> int:
        panels = [
            PANELS.index(info.rich_help_panel)
            for info in getattr(parameter.annotation, "__metadata__", ())
            if getattr(info, "rich_help_panel", None) in PANELS
        ]
        return panels[0] if panels else -1

    keyword_only = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters]
    return sorted(keyword_only, key=position)


def complete_tools(incomplete: str) -> list[str]:
    """Return the tools whose names begin so, for the shell."""
    from pudistill.runs.exchange.registry import TOOLS

    return [name for name in TOOLS if name.startswith(incomplete)]


def names_in(text: str) -> list[str]:
    """Split a list of names at its commas."""
    return [name.strip() for name in text.split(",")]


def numbers_in(text: str | None) -> list[float] | None:
    """Split a list of numbers at its commas; None stays None."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{text!r} is not a list of numbers: write it as in 0.3,0.5.") from None


def check_free(output: Path | None) -> None:
    """Raise `InputError` unless a file can be written without overwriting another one."""
    if output is not None and output.exists():
        raise InputError(f"{output} already exists: choose another --output.")
    if output is not None and not output.parent.is_dir():
        raise InputError(f"{output.parent} is not a folder: make it, or choose another --output.")


def first_free(path: Path, n: int = 1) -> Path:
    """Return the path with the first number from `n` on that is free; 1 is not written."""
    while (found := path if n == 1 else path.with_name(f"{path.name}-{n}")).exists():
        n += 1
    return found
