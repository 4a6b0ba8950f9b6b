"""The application without commands: how errors are shown, and the options of all commands."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fusemix_core import trust
from fusemix_core.cli.console import GO_ON, err, print_error
from fusemix_core.cli.terminate import Terminated
from fusemix_core.errors import FusemixError, UnknownNameError
from fusemix_core.project import plugin_of
from fusemix_core.registry import registry
from fusemix_core.versions import version as fusemix_version


class FusemixGroup(TyperGroup):
    """Shows a `FusemixError` as message and hint; a traceback only with `--debug`."""

    # Typer has no public name for the class of `ctx`.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, plugins_first(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and plugin_of("command", args[0]):
            raise UnknownNameError.of("command", args[0], ())
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            notes = list(getattr(stop, "__notes__", ()))
            if not any(note.startswith(GO_ON) for note in notes):
                notes.append("Run it again to go on.")
            err.print("Interrupted. What was finished is kept.", style="yellow")
            err.print("\n".join(notes), soft_wrap=True)
            ctx.exit(143 if isinstance(stop, Terminated) else 130)
        except FusemixError as error:
            if ctx.params.get("debug"):
                raise
            print_error(error.message, error.hint)
            ctx.exit(error.exit_code)
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(0)
        except Exception as error:
            # A wrong option: typer shows these itself. (It carries its own copy of click, so there
            # is no class to name.)
            if hasattr(error, "format_message") or ctx.params.get("debug"):
                raise
            print_error(
                f"{type(error).__name__}: {error}",
                "This is a fault in fusemix or a plugin. `fusemix --debug …` shows where.",
            )
            ctx.exit(1)


def plugins_first(args: list[str]) -> list[str]:
    """The arguments with every `--plugin FILE` before the command, wherever it stood."""
    end = args.index("--") if "--" in args else len(args)
    first, rest, at = [], [], 0
    while at < end:
        if args[at] == "--plugin" and at + 1 < end:
            first += args[at : at + 2]
            at += 2
            continue
        (first if args[at].startswith("--plugin=") else rest).append(args[at])
        at += 1
    return [*first, *rest, *args[end:]]


def _version(show: bool) -> None:
    if show:
        typer.echo(fusemix_version())
        raise typer.Exit


def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    trust_remote_code: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPOSITORY",
            help="Run the Python code of this model repository: only of one that you have read.",
        ),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Load the encoders and components of a Python file of your own. It may also stand "
            "after the command.",
        ),
    ] = None,
) -> None:
    """Align frozen unimodal encoders into one multimodal space.

    Examples:

        fusemix sample sample

        fusemix align --a efficientnet-lite0 --b minilm -d sample/pairs.csv --out r

        fusemix search r "a map of Europe"
    """
    for file in plugin or ():
        registry.load_file(file)
    for repository in trust_remote_code or ():
        trust.trust_remote_code(repository)


def new_app() -> typer.Typer:
    """An application without commands."""
    app = typer.Typer(
        cls=FusemixGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main)
    return app
