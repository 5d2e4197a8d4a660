"""What of a dead letter may be seen: masked fields, and texts that quote them."""

from ..messaging.dead_letter import KIP_1191, OURS
from ..messaging.redact import Redaction
from .families import FOREIGN
from .letter import DeadLetter

#: Headers that quote an error, which may quote the message.
_QUOTING = (KIP_1191, OURS, *FOREIGN)


def masked(letter: DeadLetter, redaction: Redaction) -> DeadLetter:
    """``letter``, which has to be whole where ``redaction.of_record``, as it may be shown and exported."""
    if not redaction:
        return letter
    headers = letter.headers or ()

    def hidden(text: str) -> str:
        return redaction.text(text, letter.payload, headers, letter.key)

    def shown(name: str, value: bytes) -> bytes:
        text = value.decode(errors="replace")
        told = hidden(text) if name.startswith(_QUOTING) else text
        return value if told == text else told.encode()

    return letter._replace(
        key=redaction.key(letter.key),
        message=letter.message and hidden(letter.message),
        payload=redaction.payload(letter.payload),
        headers=None
        if letter.headers is None
        else [(name, shown(name, value)) for name, value in redaction.headers(headers)],
    )
