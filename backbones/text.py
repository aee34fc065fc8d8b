"""Text that someone else wrote, for people to read."""


def printable(text: str) -> str:
    """File names may hold what a terminal obeys and what can't be encoded; that is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
