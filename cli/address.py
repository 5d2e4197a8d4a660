"""Addresses to listen on, as settings have them."""

_HIGHEST_PORT = 65_535


def parse_address(text: str) -> tuple[str, int]:
    """Host and port. Raises ValueError."""
    host, separator, port = text.strip().rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    known = port.isascii() and port.isdecimal() and int(port) <= _HIGHEST_PORT
    if not (separator and bare and known) or (":" in bare and bare == host):
        raise ValueError("must be host:port with a port from 0 to 65535, such as 127.0.0.1:8080 or [::]:8080")
    return bare, int(port)


def check_address(text: str) -> str:
    """``text``, if it is an address. Raises ValueError."""
    parse_address(text)
    return text.strip()
