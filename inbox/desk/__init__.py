"""What operators do to inboxes: look at held messages, retry and discard them; pause groups, change their policies."""

from .desk import Begun, Desk, HeldCount
from .held import Held, Wanted
from .overrides import SETTINGS, check_setting, parse_setting, told
from .record import Action, Control, subject_of

__all__ = [
    "SETTINGS",
    "Action",
    "Begun",
    "Control",
    "Desk",
    "Held",
    "HeldCount",
    "Wanted",
    "check_setting",
    "parse_setting",
    "subject_of",
    "told",
]
