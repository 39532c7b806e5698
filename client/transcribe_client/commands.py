"""How a function becomes a command: options from dataclasses, examples in its help, failures as exit codes."""

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature
from typing import Any, TypeGuard, get_type_hints

import typer

from transcribe_client.failures import INTERRUPTED, Failure
from transcribe_client.session import Everywhere, Session, complain
from transcribe_client.settings import read_settings

Command = Callable[..., None]


def command(app: typer.Typer, name: str, *, examples: Sequence[str]) -> Callable[[Command], Command]:
    """The function's first parameter is the Session; one that is a dataclass stands for its fields as options."""

    def register(function: Command) -> Command:
        shown = "\n".join(f"  $ {example}" for example in examples)
        text = f"{inspect.getdoc(function)}\n\n\b\nExamples:\n{shown}"
        app.command(name, help=text)(_runnable(function))
        return function

    return register


def _runnable(function: Command) -> Command:
    @wraps(function)
    def run(context: typer.Context, everywhere: Everywhere, **values: Any) -> None:
        before: Everywhere = context.obj.everywhere
        everywhere = everywhere.over(before)
        with reported(verbose=everywhere.verbose):
            settings = read_settings(server=everywhere.server, key=everywhere.key, config=context.obj.config)
            session = Session(settings, as_json=everywhere.as_json, verbose=everywhere.verbose)
            function(session, **values)

    _, *own = inspect.signature(function).parameters.values()
    context = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    everywhere = Parameter("everywhere", Parameter.KEYWORD_ONLY, annotation=Everywhere)
    return with_options(run, [context, *own, everywhere])


def with_options(function: Command, parameters: Sequence[Parameter]) -> Command:
    """As typer reads it: each parameter that is a dataclass is as many options as it has fields."""
    groups = {one.name: one.annotation for one in parameters if is_group(one.annotation)}

    @wraps(function)
    def run(**values: Any) -> None:
        function(**{name: _gathered(kind, values) for name, kind in groups.items()}, **values)

    shown = [option for one in parameters for option in (_options(one.annotation) if one.name in groups else [one])]
    signature = Signature([one.replace(kind=Parameter.KEYWORD_ONLY) for one in shown])
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


def is_group(annotation: object) -> TypeGuard[type[Any]]:
    return isinstance(annotation, type) and is_dataclass(annotation)


def _options(kind: type[Any]) -> Iterator[Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        default = Parameter.empty if one.default is MISSING else one.default
        yield Parameter(one.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[one.name])


def _gathered(kind: type[Any], values: dict[str, Any]) -> Any:
    """Taken out of `values`."""
    return kind(**{one.name: values.pop(one.name) for one in fields(kind)})


@contextmanager
def reported(*, verbose: bool) -> Iterator[None]:
    """Failures as one line, the next step and an exit code. No traceback, unless it was asked for."""
    try:
        yield
    except Failure as failure:
        if verbose:
            traceback.print_exc()
        complain(failure)
        raise typer.Exit(failure.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        if verbose:
            raise
        bug = Failure(f"This is a bug: {type(error).__name__}: {error}", hint="--verbose shows where it happened.")
        complain(bug)
        raise typer.Exit(bug.exit_code) from None
