"""The command line: one module a command."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from htsat_sed import __version__
from htsat_sed.cli.checkpoints import app as checkpoints_app
from htsat_sed.cli.convert_labels import convert
from htsat_sed.cli.detect import detect
from htsat_sed.cli.embed import embed
from htsat_sed.cli.evaluate import HELP as EVALUATE_HELP
from htsat_sed.cli.evaluate import evaluate
from htsat_sed.cli.listen import listen
from htsat_sed.cli.merge import merge
from htsat_sed.cli.plot import plot
from htsat_sed.cli.report import report as make_report
from htsat_sed.cli.search import search
from htsat_sed.cli.segments import segments
from htsat_sed.cli.soundscapes import soundscapes
from htsat_sed.cli.summary import summary
from htsat_sed.cli.tag import tag
from htsat_sed.cli.teach import teach
from htsat_sed.cli.terminal import emit, report, show_warnings, shown, use_utf8
from htsat_sed.cli.train import train
from htsat_sed.cli.tune import HELP as TUNE_HELP
from htsat_sed.cli.tune import tune
from htsat_sed.errors import HtsatSedError, UsageError
from htsat_sed.libraries import failed_library

_BUG = 70  # exit code, EX_SOFTWARE of sysexits.h


class _Commands(TyperGroup):
    """The commands; their usage errors are ours, of one line each."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _usage_errors():
            return super().invoke(ctx)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Raise Typer's usage errors as ours, of one line; all but the help of a command without arguments."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "format_message") or type(error).__name__ == "NoArgsIsHelpError":
            raise
        message = " ".join(error.format_message().split())
        if (found := _NO_COMMAND.match(message)) and os.path.lexists(found[1]):
            message += f" To detect events in it: htsat-sed detect {shlex.quote(found[1])}"
        elif context := getattr(error, "ctx", None):
            message += f" ({context.command_path} --help)"
        raise UsageError(message) from error


_NO_COMMAND = re.compile("No such command '(.*)'")


app = typer.Typer(
    name="htsat-sed",
    cls=_Commands,
    help="Sound event detection with HTS-AT: what sounds in a recording, and from when to when.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(detect)
app.command()(tag)
app.command()(listen)
app.command(help=EVALUATE_HELP)(evaluate)
app.command()(plot)
app.command()(segments)
app.command("report")(make_report)
app.command()(convert)
app.command()(summary)
app.command(help=TUNE_HELP)(tune)
app.command()(merge)
app.command()(train)
app.command()(teach)
app.command()(soundscapes)
app.command()(embed)
app.command()(search)
app.add_typer(checkpoints_app, name="checkpoints")


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"htsat-sed {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback with an error. Works after a command, too.")
    ] = False,
) -> None:
    """What holds for every command; without text, so that the help shows the program's."""
    shown.quiet, shown.progress, shown.log = False, "auto", None
    show_warnings()


def _in_utf8_mode() -> None:
    """Begin anew in Python's UTF-8 mode where the locale has another encoding for the names of files.

    Names of recordings in tables are then the same in every locale.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def main() -> None:
    """Run the command line.

    Exits with 0 if all was done, 1 if some input failed, 2 if the command was used wrongly and 130 if
    it was interrupted. Any other exception is a bug and passes through: `program` shows its traceback and
    exits with 70.
    """
    use_utf8()
    os.environ.pop("MPLBACKEND", None)  # that of a notebook, for its own process
    debug = "--debug" in sys.argv
    if "" in sys.argv[1:]:
        report(UsageError("an argument is empty: is a shell variable unset?"))
        sys.exit(2)
    try:
        # Its own name, also as `python -m htsat_sed`.
        app([argument for argument in sys.argv[1:] if argument != "--debug"], prog_name="htsat-sed")
    except (HtsatSedError, UsageError) as error:
        if debug:
            raise
        report(error)
        sys.exit(1 if isinstance(error, HtsatSedError) else 2)
    except Exception as error:
        named = failed_library(error) or _environment_error(error)
        if debug or named is None:
            raise
        report(named)
        sys.exit(1)


def _environment_error(error: Exception) -> Exception | None:
    """What the system refused, with what it is about; None for other exceptions."""
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        reason = "can't start new thread: the system's limit of processes and threads is reached (ulimit -u)"
        return HtsatSedError("this process", reason)
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or str(error)
    if error.filename is not None:
        return HtsatSedError(error.filename, reason)
    if isinstance(error, FileNotFoundError) and not _has_folder():
        return HtsatSedError("the current folder", "does not exist any more: change to another one")
    *_, (innermost, _) = walk_tb(error.__traceback__)
    # What prints is rich, or click for typer. Python names no file where a write fails.
    if innermost.f_globals.get("__name__", "").partition(".")[0] in ("rich", "click", "typer"):
        return HtsatSedError("standard output", reason)
    return OSError(f"{reason} (--debug shows where)")


def _has_folder() -> bool:
    """Whether the folder that the process was started in still exists."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        return False
    return True


def program() -> NoReturn:
    """Run the command line as a process of its own, which ends here.

    The interpreter's own end unloads torch and OpenVINO: that takes time, and where one of their threads is
    still at work it aborts. So what is to be done at the end is done, and the rest is left to the system.
    """
    code = 0
    _in_utf8_mode()
    for name in ("SIGTERM", "SIGHUP"):  # half-written files are removed, as for Ctrl-C
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):  # of a library
            report(UsageError(end.code))
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = _BUG
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed before the process began
                stream.flush()
        except BrokenPipeError:
            pass  # nobody wants to hear more
        except OSError as error:
            if stream is sys.stdout and code == 0:
                report(HtsatSedError("standard output", f"cannot be written: {error.strerror}"))
            code = code or 1
    os._exit(code)
