"""What a YAML file of options may not hold, said before anything is made of it."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from backbones.errors import ConfigError, DataError
from backbones.regular import read_regular_file
from backbones.text import printable
from backbones.yaml_limits import check_yaml

_LARGEST = 2**20  # bytes; ours have one or two thousand
_NAMES = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def check_config_file(path: str | Path) -> None:
    """Refuses a config that is no text file, says something twice, or is made to use up memory.

    Raises:
        ConfigError: names the file, the line, and what to do.
    """
    name = printable(str(path))
    try:
        text = read_regular_file(path, largest=_LARGEST).decode("utf-8-sig")
        check_yaml(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise ConfigError(f"--config {name}: no such file: name a YAML file of options") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {name}: is not in UTF-8 ({error.reason}): save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {name}: not YAML ({_reason(error)}): mend it") from error
    except ConfigError as error:
        raise ConfigError(f"--config {name}: {error}: it should be groups of options") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {name}: can't be read ({error}): name a YAML file of options") from error
    except DataError as error:
        raise ConfigError(f"--config {error}: name a YAML file of options") from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"--config {name}: holds no options: write lines such as 'seed: 1'")
    for node in _nodes(root):
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            raise ConfigError(f"--config {name}, line {_line(node)}: a value holds a NUL character: remove it")
        if isinstance(node, yaml.MappingNode):
            _refuse_duplicates(name, node)


def _reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())[:200]


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    yield node
    for child in _children(node):
        yield from _nodes(child)


def _refuse_duplicates(name: str, node: yaml.MappingNode) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _NAMES:
            raise ConfigError(f"--config {name}, line {_line(key)}: an option's name must be a text: quote or mend it")
        if key.value in first:
            raise ConfigError(
                f"--config {name}, line {_line(key)}: {printable(key.value)[:60]} is given twice (first in line "
                f"{first[key.value]}), and only one would count: remove one"
            )
        first[key.value] = _line(key)
