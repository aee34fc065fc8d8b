"""From typed Python to a command: options, YAML configs and one-line errors. Every `main` of the project uses it.

Exit codes: 0 done; 1 an unforeseen failure (a bug); 2 something that the user can mend, wrong input, a full disk, too
little memory; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 141 as nobody reads what it prints.
"""

import atexit
import errno
import inspect
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import MISSING, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import (
    ActionConfigFile,
    ActionYesNo,
    ArgumentError,
    ArgumentParser,
    Namespace,
    get_loader,
    set_loader,
)

from backbones.config_file import check_config_file
from backbones.errors import ConfigError, Stopped, UserError
from backbones.stopping import ignore_stops, stoppable
from backbones.text import is_utf8, printable

T = TypeVar("T")
_NO_MEMORY = ("CUDA out of memory", "can't allocate memory")  # torch.OutOfMemoryError, and the CPU's RuntimeError
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141
# What the machine, or whoever looks after it, has to mend.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)


def run_command(
    parameters: Callable[..., Any],
    run: Callable[[Any], Any] | None = None,
    *,
    positional: str | None = None,
    defaults: Callable[[Namespace], dict[str, Any]] | None = None,
    program: str | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Reads the command line as the parameters of `parameters`, runs it, and turns the user's errors into one line.

    Args:
        parameters: a function, called with what was read, or a dataclass, whose instance `run` is called with. Types
            give the options and their checks, the docstring gives the help. A list of plain values is written with
            spaces (`--protocol center 10crop`), a bool is a flag.
        run: what to call with the dataclass. A command with a dataclass also takes `--config FILE` and
            `--print_config`.
        positional: the list parameter that needs no option name.
        defaults: gives, from what the user set, further defaults by dotted key (a recipe that an option names).
        program: what the help calls the command, by default the name of the running file.
        argv: the arguments, `sys.argv[1:]` by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    _print_any_name()
    with stoppable():
        try:
            values = _read(parameters, arguments, positional, run is not None, defaults, program)
            if run is None:
                parameters(**values)
            else:
                run(parameters(**values))
        except (UserError, ArgumentError) as error:
            if debug:
                traceback.print_exc()
            _leave(EXIT_BAD_INPUT, f"error: {_one_line(error)}")
        except Stopped as error:
            atexit.register(ignore_stops)
            error.__traceback__ = error.__context__ = (
                None  # they keep progress bars open, which end in a line of their own
            )
            _leave(128 + error.number, str(error))
        except KeyboardInterrupt:
            _leave(EXIT_INTERRUPTED, "interrupted")
        except BrokenPipeError:  # the reader of our output has gone (`... | head`)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_NO_READER)
        except Exception as error:
            if debug:
                traceback.print_exc()
            reason = _reason_outside(error)
            if reason is not None:
                _leave(EXIT_BAD_INPUT, f"error: {printable(reason)}")
            _leave(1, f"error: {type(error).__name__}: {_one_line(error)} (a traceback with --debug)")


def _reason_outside(error: Exception) -> str | None:
    """What the machine lacks, where that is why a command failed; None for what may be a bug."""
    if isinstance(error, OSError):
        named = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        if isinstance(error, PermissionError) and named is not None:
            return f"{named}: no permission to read or write it"
        if named is not None or error.errno in _DISK_ERRORS:
            return f"{named or 'a file'}: {error.strerror}: mend that, and try again (training goes on with --resume)"
    text = _one_line(error)
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return (
            f"too little memory ({text[:200] or type(error).__name__}): make batches or pictures smaller (in training "
            "--train.accumulate splits batches without changing the result, --model.recompute keeps less)"
        )
    return None


def read_options(
    parameters: type[T], *, defaults: Callable[[Namespace], dict[str, Any]] | None = None, argv: Sequence[str]
) -> T:
    """The dataclass that a command with `--config` would run with, for what plans such commands.

    Args:
        parameters: the dataclass.
        defaults: as in `run_command`.
        argv: the arguments of the command.

    Raises:
        ConfigError: what the command would refuse to read.
    """
    try:
        return parameters(**_read(parameters, list(argv), None, True, defaults, None))
    except ArgumentError as error:
        raise ConfigError(_one_line(error)) from error


def run_commands(
    commands: dict[str, Callable[..., Any]], description: str, *, argv: Sequence[str] | None = None
) -> None:
    """Runs that of several functions which the first argument names, as `run_command` does.

    Args:
        commands: functions by the names that users give them; the first line of a docstring is its entry in the list.
        description: what the commands are for.
        argv: the arguments, `sys.argv[1:]` by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    words = [a for a in arguments if a != "--debug"]
    program = os.path.basename(sys.argv[0])
    if words[:1] in (["-h"], ["--help"]):
        print(_list_of_commands(commands, description, program))
        sys.exit(0)
    if not words or words[0] not in commands:
        given = f"'{words[0]}' is no command" if words else "a command is missing"
        _leave(EXIT_BAD_INPUT, f"error: {given}: give {' or '.join(commands)} first (or --help)")
    arguments.remove(words[0])
    run_command(commands[words[0]], program=f"{program} {words[0]}", argv=arguments)


def _list_of_commands(commands: dict[str, Callable[..., Any]], description: str, program: str) -> str:
    width = max(map(len, commands))
    texts = {
        name: docstring_parser.parse(inspect.getdoc(run) or "").short_description for name, run in commands.items()
    }
    return "\n".join(
        [
            f"usage: {program} COMMAND [options]\n",
            f"{description}\n",
            "commands:",
            *(f"  {name:<{width}}  {text}" for name, text in texts.items()),
            f"\noptions:\n  --help, after a command: its own options ({program} {next(iter(commands))} --help)",
        ]
    )


def _read(
    parameters: Callable[..., Any],
    arguments: list[str],
    positional: str | None,
    takes_config: bool,
    defaults: Callable[[Namespace], dict[str, Any]] | None,
    program: str | None,
) -> dict[str, Any]:
    """The arguments of `parameters` that a command line gives."""
    parser = _parser(parameters, positional, takes_config=takes_config, program=program)
    if defaults is not None:
        asked = [a for a in arguments if not a.startswith("--print_config")]
        for _ in range(2):  # one of them may depend on another
            parser.set_defaults(defaults(parser.parse_args(asked)))
    given = parser.parse_args(arguments)
    _refuse_nothing(parameters, given)
    values = vars(parser.instantiate(given))
    for key in ("config", "debug"):
        values.pop(key, None)
    return values


def _refuse_nothing(parameters: Callable[..., Any], given: Namespace, group: str = "") -> None:
    """Refuses the null that a config may have where a value must be, and an output without a name."""
    hints = get_type_hints(parameters.__init__ if inspect.isclass(parameters) else parameters)
    for name, value in vars(given).items():
        hint, key = hints.get(name, Any), f"{group}{name}"
        if isinstance(value, Namespace) and isinstance(hint, type) and is_dataclass(hint):
            _refuse_nothing(hint, value, f"{key}.")
        elif value is None and hint is not Any and type(None) not in get_args(hint):
            raise ConfigError(f"{key} is null: give a value, or leave it out for the default")
    if not group and vars(given).get("output") == "":
        raise ConfigError("--output is empty: name a file or folder")


class _ConfigFile(ActionConfigFile):
    """A config file that is named where something in it is wrong."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        check_config_file(values)
        groups = [key for key, value in vars(cfg).items() if isinstance(value, Namespace)]
        try:
            super().__call__(parser, cfg, values, option_string)
        except (ArgumentError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"--config {values}: {error}") from error
        for key in groups:
            if not isinstance(cfg[key], Namespace):
                raise ConfigError(f"--config {values}: {key} is a group of options, not {cfg[key]!r}")


def _parser(
    parameters: Callable[..., Any], positional: str | None, takes_config: bool, program: str | None
) -> ArgumentParser:
    documentation = docstring_parser.parse(inspect.getdoc(parameters) or "")
    parser = ArgumentParser(prog=program, exit_on_error=False, description=_description(documentation))
    if takes_config:
        parser.add_argument("--config", action=_ConfigFile, help="a YAML file of options; later options override it")
    helps = _helps(parameters)
    hints = get_type_hints(parameters.__init__ if inspect.isclass(parameters) else parameters)
    special: set[str | int] = set()
    for name, parameter in inspect.signature(parameters).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        options: dict[str, Any] = {"help": helps.get(name)} | (
            {} if required else {"default": _default(parameters, parameter)}
        )
        if hints[name] is bool:
            parser.add_argument(f"--{name}", action=ActionYesNo(no_prefix="no_"), **options)
        elif _is_plain_list(hints[name]):
            options |= {"type": get_args(hints[name])[0], "nargs": "+" if required else "*"}
            if name == positional:
                parser.add_argument(name, **options)
            else:
                parser.add_argument(f"--{name}", required=required, **options)
        else:
            continue
        special.add(name)
    add = parser.add_class_arguments if inspect.isclass(parameters) else parser.add_function_arguments
    add(parameters, skip=special, as_group=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _helps(parameters: Callable[..., Any]) -> dict[str, str | None]:
    """What the docstring, and those of the classes that a dataclass extends, say of each parameter."""
    documented = reversed(inspect.getmro(parameters)) if inspect.isclass(parameters) else [parameters]
    texts = [docstring_parser.parse(item.__doc__ or "") for item in documented]
    return {parameter.arg_name: parameter.description for text in texts for parameter in text.params}


def _default(parameters: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    for field in getattr(parameters, "__dataclass_fields__", {}).values():
        if field.name == parameter.name and field.default_factory is not MISSING:
            return field.default_factory()
    return parameter.default


def _is_plain_list(hint: Any) -> bool:
    return get_origin(hint) is list and not hasattr(get_args(hint)[0], "__dataclass_fields__")


def _description(documentation: docstring_parser.Docstring) -> str:
    return "\n\n".join(filter(None, [documentation.short_description, documentation.long_description]))


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))


def _print_any_name() -> None:
    """Names of files, which are any bytes, and of classes can be printed whatever the terminal's encoding is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _load_value(text: str) -> Any:
    """What an option's text means as YAML; a name that is not UTF-8, which YAML can't be, is itself."""
    return _LOAD_YAML(text) if is_utf8(text) else text


_LOAD_YAML = get_loader("yaml")
set_loader("yaml", _load_value, exceptions=(yaml.YAMLError,))


def _leave(code: int, message: str) -> None:
    for stream, text in ((sys.stdout, ""), (sys.stderr, f"{message}\n")):
        try:
            stream.write(text)
            stream.flush()
        except OSError:  # a terminal that was closed; Python's own last flush would change the exit code
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)
