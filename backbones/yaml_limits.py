"""What a YAML file may ask of its reader: few lines can stand for billions of values, or for levels without end."""

import yaml

from backbones.errors import ConfigError

_MOST_LEVELS = 50  # lists and names within each other; configurations have four
_MOST_VALUES = 100_000  # when all that is repeated by an alias is counted where it is repeated
_MOST_CHARACTERS = 2**20


def check_yaml(text: str) -> None:
    """Looks at the parts of a text one after the other, before anything is made of them.

    Raises:
        ConfigError: it is nested too deep, or stands for too many values.
        yaml.YAMLError: it is no YAML.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"longer than {_MOST_CHARACTERS:,} characters, as no file of options is")
    sizes: dict[str, int] = {}  # of what aliases stand for
    open_parts: list[tuple[str | None, int]] = [(None, 0)]  # the anchor of each, and how many values it has so far
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        size, anchor = 0, getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            open_parts.append((anchor, 1))
            if len(open_parts) > _MOST_LEVELS:
                raise ConfigError(f"more than {_MOST_LEVELS} levels of lists and names within each other")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_parts.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == outer for outer, _ in open_parts):
                raise ConfigError(f"*{anchor} stands within what it stands for")
            anchor, size = None, sizes.get(str(event.anchor), 1)
        if size:
            if anchor is not None:
                sizes[anchor] = size
            outer, sum_so_far = open_parts[-1]
            open_parts[-1] = (outer, sum_so_far + size)
            if sum_so_far + size > _MOST_VALUES:
                raise ConfigError(f"stands for more than {_MOST_VALUES:,} values when its aliases are followed")
