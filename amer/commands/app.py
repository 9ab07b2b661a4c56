"""The command line application: all sub-commands, and the handling of their errors."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from amer.commands import corpus, dataset, index, push
from amer.commands.demo import demo
from amer.commands.encode import encode
from amer.commands.evaluate import evaluate
from amer.commands.expand import expand
from amer.commands.fit import fit
from amer.commands.mcp import mcp
from amer.commands.search import search
from amer.commands.serve import serve
from amer.commands.train import train
from amer.commands.verify import verify

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)
ORDER = (
    "demo", "fit", "dataset", "corpus", "index", "train", "encode", "search", "serve", "mcp", "evaluate", "push",
    "verify", "expand",
)  # fmt: skip
INTERRUPTED = 130  # exit code that a shell reports after SIGINT


class Commands(TyperGroup):
    """Lists the commands in the order in which a project uses them; reports errors in two lines."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Command names for the help, in the order in which a project uses them."""
        return list(ORDER)

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command; exit with code 1 if the work failed."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from interrupt
        except BrokenPipeError:  # the reader of the output has closed it; typer exits quietly
            raise
        except USER_ERRORS as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"Error: {' '.join(str(error).split()) or type(error).__name__}", err=True)
            typer.echo("To see the traceback: amer --debug ...", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich's help takes longer than everything else
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from amer import __version__

        typer.echo(f"amer {__version__}")
        raise typer.Exit


@app.callback()
def amer(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Dense retrieval with several query vectors for each question.

    Try it: `amer demo`. Train on your own questions: `amer fit`. Run each step yourself: `amer dataset`,
    `amer corpus encode`, `amer train`, `amer search`, `amer evaluate`.
    Exit codes: 0 on success, 1 if the work failed, 2 if the command line is wrong.
    """


app.command()(demo)
app.command()(fit)
app.add_typer(dataset.app, name="dataset")
app.add_typer(corpus.app, name="corpus")
app.add_typer(index.app, name="index")
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)
app.command()(encode)
app.command()(search)
app.command()(serve)
app.command()(mcp)
app.command()(evaluate)
app.add_typer(push.app, name="push")
app.command()(verify)
app.command()(expand)
