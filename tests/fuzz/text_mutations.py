"""Mutations of texts that keep their structure, so that what is wrong lies behind a parser's first look.

Each takes an input and a source of chance and gives a changed input; None where the input has no such structure any
more: bytes are then changed blindly.
"""

import json
import random
import re

import yaml

from .values import NUMBERS, TEXTS, change

_DEEP = 10_000


def mutate_json(data: bytes, rng: random.Random) -> bytes | None:
    """JSON, nested too deep, or with NaN, with numbers of any length, with lone halves of characters."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = change(value, rng)
    text = json.dumps(value)
    kind = rng.randrange(40)
    if kind == 0:
        text = text.replace("null", "[" * _DEEP + "]" * _DEEP, 1)
    elif kind == 1:
        text = re.sub(r"\d+", lambda m: "9" * 5000 if rng.random() < 0.1 else m[0], text)
    elif kind == 2:
        return b"\xef\xbb\xbf" + text.encode()
    elif kind == 3:
        return text.encode(rng.choice(("utf-16", "utf-32")))
    return text.encode()


def mutate_json_lines(data: bytes, rng: random.Random) -> bytes | None:
    """A JSON value a line."""
    lines = data.splitlines()
    if not lines:
        return None
    place = rng.randrange(len(lines))
    changed = mutate_json(lines[place], rng)
    if changed is None:
        return None
    return b"\n".join([*lines[:place], changed, *lines[place + rng.randrange(2) :]]) + b"\n"


def mutate_yaml(data: bytes, rng: random.Random) -> bytes | None:
    """YAML of the same keys, with aliases that grow when they are followed, or nested too deep."""
    try:
        value = yaml.safe_load(data)
        if not isinstance(value, dict):
            return None
        for _ in range(rng.choice((1, 1, 2, 4))):
            value = change(value, rng)
        text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    except Exception:  # whatever is no YAML, or can't be written as such
        return None
    kind = rng.randrange(30)
    levels = rng.choice((8, 24, 60))
    if kind == 0 and isinstance(value, dict) and value:  # billion laughs
        rows = [f"a0: &a0 [{', '.join('x' * 9)}]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, levels)]
        text = "\n".join(rows) + f"\n{rng.choice(list(value))}: *a{levels - 1}\n" + text
    elif kind == 1:
        text = f"{rng.choice(list(value) or ['a'])}: " + "[" * _DEEP + "]" * _DEEP + "\n"
    elif kind == 2:
        text = re.sub(r": (\S+)", lambda m: f": !!{rng.choice(_TAGS)} {m[1]}" if rng.random() < 0.2 else m[0], text)
    elif kind == 3:
        text = "&a " + text.replace("\n", "\n<<: *a\n", 1)
    return text.encode("utf-8", "surrogatepass")


_TAGS = ("python/object/apply:os.system", "python/name:os.system", "binary", "timestamp", "set", "int", "float", "bool")


def mutate_xml(data: bytes, rng: random.Random) -> bytes | None:
    """XML with other numbers and texts in its elements, without some of them, with entities, or nested too deep."""
    text = data.decode("utf-8", "replace")
    elements = list(re.finditer(r"<(\w+)>([^<]*)</\1>", text))
    if not elements:
        return None
    for _ in range(rng.choice((1, 1, 2, 4))):
        match = rng.choice(elements)
        start, end = match.span(2)
        kind = rng.randrange(10)
        if kind < 5:
            value = str(rng.choice((*NUMBERS, *TEXTS)))
            text = text[:start] + re.sub(r"[<&\0]", "", value) + text[end:]
        elif kind == 5:
            text = text[: match.start()] + text[match.end() :]
        elif kind == 6:
            text = text[: match.end()] + match[0] + text[match.end() :]
        elif kind == 7:
            text = text[:start] + f"<{match[1]}>" * rng.choice((1, _DEEP)) + text[end:]
        elif kind == 8:
            text = text[:start] + rng.choice(("&a;", "&#0;", "&#xD800;", "&#x10FFFF;", "<![CDATA[1]]>")) + text[end:]
        else:
            text = rng.choice(_PROLOGUES) + text
        elements = list(re.finditer(r"<(\w+)>([^<]*)</\1>", text)) or elements[:1]
        if match.end() > len(text):
            break
    encoding = rng.choice(("utf-8",) * 20 + ("utf-16", "utf-7", "latin-1"))
    return text.encode(encoding, "replace")


_LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
_PROLOGUES = (
    f'<!DOCTYPE x [<!ENTITY a0 "ha">{_LAUGHS}<!ENTITY a "&a11;">]>',
    '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE x SYSTEM "http://localhost:9/x.dtd">',
    '<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>',
    '<?xml version="1.0" encoding="utf-7"?>',
    '<?xml version="1.0" encoding="rot13"?>',
    '<?xml version="1.0" encoding="zlib"?>',
    '<?xml version="1.0" encoding="idna"?>',
)


def mutate_lines(data: bytes, rng: random.Random) -> bytes | None:
    """Lines of words."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(lines))
        words = lines[place].split(" ")
        kind = rng.randrange(6)
        if kind < 3:
            words[rng.randrange(len(words))] = str(rng.choice((*NUMBERS, *TEXTS)))
        elif kind == 3:
            words = words[1:] if rng.random() < 0.5 else [*words, words[0]]
        lines[place] = " ".join(words)
        if kind == 4:
            lines.insert(place, rng.choice(lines))
        elif kind == 5 and len(lines) > 1:
            del lines[place]
    return "\n".join(lines).encode("utf-8", "surrogatepass" if rng.random() < 0.5 else "replace")
