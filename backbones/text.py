"""Text that someone else wrote, for people to read."""


def printable(text: str) -> str:
    """File names may hold what a terminal obeys and what can't be encoded; that is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded: names of files may be any bytes, and JSON may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
