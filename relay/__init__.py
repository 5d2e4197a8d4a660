"""The daemon that publishes what the log holds."""

from .relay import Relay
from .settings import RelaySettings

__all__ = ["Relay", "RelaySettings"]
