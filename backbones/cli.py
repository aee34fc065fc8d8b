"""From typed Python to a command: options, YAML configs and one-line errors. Every `main` of the project uses it.

Exit codes: 0 done, 1 an unforeseen failure (a bug), 2 something the user gave is wrong, 130 interrupted by Ctrl-C.
"""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionConfigFile, ActionYesNo, ArgumentError, ArgumentParser, Namespace
from yaml import YAMLError

from backbones.errors import ConfigError, UserError
from backbones.yaml_limits import check_yaml

T = TypeVar("T")
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


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
    except KeyboardInterrupt:
        _leave(EXIT_INTERRUPTED, "interrupted")
    except BrokenPipeError:  # the reader of our output has gone (`... | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, PermissionError) and error.filename is not None:
            named = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
            _leave(EXIT_BAD_INPUT, f"error: {named}: no permission to read or write it")
        _leave(1, f"error: {type(error).__name__}: {_one_line(error)} (a traceback with --debug)")


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
    values = vars(parser.instantiate(parser.parse_args(arguments)))
    for key in ("config", "debug"):
        values.pop(key, None)
    return values


class _ConfigFile(ActionConfigFile):
    """A config file that is named where something in it is wrong."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        groups = [key for key, value in vars(cfg).items() if isinstance(value, Namespace)]
        try:
            if os.path.isfile(values):
                check_yaml(Path(values).read_text(encoding="utf-8"))
            super().__call__(parser, cfg, values, option_string)
        except (ArgumentError, ConfigError, OSError, TypeError, ValueError, RecursionError, YAMLError) as error:
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
    return " ".join(str(error).split())


def _leave(code: int, message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
