"""The relay's settings."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

OnRefused = Literal["park-key", "park-message", "stop"]


class RelaySettings(BaseModel):
    """How the relay works. Frozen; a wrong value names the setting and what is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(2_000, ge=1, le=50_000)
    """Messages read and handed to Kafka together; a batch also ends at 8 MiB of payloads."""

    max_in_flight: int = Field(10_000, ge=1, le=1_000_000)
    """Messages read and not settled, over all batches; also bounded by 32 MiB of payloads. After a crash up to so
    many may be published again."""

    settle_seconds: float = Field(0.02, ge=0.0, le=10.0)
    """How long what Kafka acknowledged may wait so that more is settled with it, in one transaction."""

    lease_seconds: float = Field(10.0, ge=2.0, le=600.0)
    """For how long the shards are ours without a word from us. A relay that dies is replaced after it."""

    step_aside_seconds: float = Field(20.0, ge=1.0, le=3600.0)
    """Without an answer from Kafka for so long, a relay leaves its shards to others, where there are any."""

    poll_min_seconds: float = Field(0.001, ge=0.0005, le=10.0)
    """The wait after a first empty poll; each further one doubles it."""

    poll_max_seconds: float = Field(0.1, ge=0.0005, le=60.0)
    """The longest wait between two polls of an idle log."""

    listen: bool = False
    """Wake up by LISTEN as well, where `postroom db notify on` makes commits tell. Not behind PgBouncer."""

    upkeep_seconds: float = Field(1.0, ge=0.05, le=60.0)
    """How often delayed messages are looked after."""

    retention_hours: float = Field(72.0, ge=0.0, le=87_600.0)
    """For how long published messages stay in the log, so that they can be published again."""

    inbox_retention_hours: float = Field(720.0, ge=1.0, le=87_600.0)
    """For how long the inbox remembers a message, so that it is not run again. It must outlast the longest replay:
    the topics' retention, that of their dead letters, and `retention_hours`; `postroom doctor` compares them."""

    transaction_warning_seconds: float = Field(60.0, ge=1.0, le=86_400.0)
    """A transaction that wrote into the log and is open for longer is named in the log."""

    stuck_seconds: float = Field(30.0, ge=1.0, le=3600.0)
    """Not ready when messages wait and none was settled for so long."""

    backoff_base_seconds: float = Field(0.1, gt=0.0, le=60.0)
    """The first wait's upper bound when Kafka or the database is away (full jitter, doubling)."""

    backoff_cap_seconds: float = Field(10.0, gt=0.0, le=3600.0)
    """The upper bound of all waits: how late the end of an outage is noticed at the most."""

    shutdown_seconds: float = Field(10.0, ge=0.0, le=600.0)
    """How long a stop waits for what is in flight; the rest is published again by the next relay."""

    on_refused: OnRefused = "park-key"
    """When Kafka refuses a message for good: do the later ones of its key wait behind it (`park-key`), go on
    (`park-message`), or does its whole topic stop until an operator resumes it (`stop`)?"""

    on_refused_by_topic: dict[str, OnRefused] = Field(default_factory=dict)
    """The same for single topics."""

    @model_validator(mode="after")
    def _ordered(self) -> "RelaySettings":
        if self.poll_min_seconds > self.poll_max_seconds:
            raise ValueError("poll_min_seconds must not be over poll_max_seconds")
        if self.backoff_base_seconds > self.backoff_cap_seconds:
            raise ValueError("backoff_base_seconds must not be over backoff_cap_seconds")
        if self.batch_size > self.max_in_flight:
            raise ValueError("batch_size must not be over max_in_flight")
        return self
