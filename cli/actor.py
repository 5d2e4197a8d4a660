"""Who it is that changes something, for the record."""


def actor() -> str:
    """``user@host``."""
    import getpass
    import os
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this uid, as in a container
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
