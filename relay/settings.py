"""The relay's settings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RelaySettings(BaseModel):
    """How the relay works. Frozen; a wrong value names the setting and what is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(2_000, ge=1, le=50_000)
    """Messages read, published and settled together. After a crash up to so many may be published again."""

    lease_seconds: float = Field(15.0, ge=2.0, le=600.0)
    """For how long the shards are ours without a word from us. A relay that dies is replaced after it."""

    poll_min_seconds: float = Field(0.005, ge=0.0005, le=10.0)
    """The wait after a first empty poll; each further one doubles it."""

    poll_max_seconds: float = Field(0.1, ge=0.0005, le=60.0)
    """The longest wait between two polls of an idle log."""

    upkeep_seconds: float = Field(1.0, ge=0.05, le=60.0)
    """How often delayed messages and parked ones are looked after."""

    backoff_base_seconds: float = Field(0.1, gt=0.0, le=60.0)
    """The first wait's upper bound when Kafka or the database is away (full jitter, doubling)."""

    backoff_cap_seconds: float = Field(10.0, gt=0.0, le=3600.0)
    """The upper bound of all waits: how late the end of an outage is noticed at the most."""

    shutdown_seconds: float = Field(10.0, ge=0.0, le=600.0)
    """How long a stop waits for what is in flight; the rest is published again by the next relay."""

    on_refused: Literal["park-key", "park-message"] = "park-key"
    """When Kafka refuses a message for good: do the later ones of its key wait behind it, or go on?"""

    @model_validator(mode="after")
    def _ordered(self) -> "RelaySettings":
        if self.poll_min_seconds > self.poll_max_seconds:
            raise ValueError("poll_min_seconds must not be over poll_max_seconds")
        if self.backoff_base_seconds > self.backoff_cap_seconds:
            raise ValueError("backoff_base_seconds must not be over backoff_cap_seconds")
        return self
