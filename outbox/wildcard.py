"""``*`` (any characters) and ``?`` (one of them) in filters, as the databases have them."""

import re


def like(text: str) -> str:
    """For PostgreSQL's LIKE."""
    return re.sub(r"[\\%_]", r"\\\g<0>", text).replace("*", "%").replace("?", "_")


def glob(text: str) -> str:
    """For SQLite's GLOB."""
    return text.replace("[", "[[]")
