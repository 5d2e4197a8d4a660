"""The inbox's settings."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class InboxSettings(BaseModel):
    """How an inbox runs. Frozen; a wrong value names the setting and what is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(5, ge=1, le=1_000)
    """How often a handler is tried before its message becomes a dead letter; a handler may say otherwise."""

    immediate_attempts: int = Field(2, ge=1, le=1_000)
    """So many of these while the message is in hand; then it is held in the table and its partition moves on."""

    concurrency: int = Field(1, ge=1, le=256)
    """Workers: so many transactions at the same time, each with a connection; messages of a key stay in order."""

    batch_size: int = Field(1, ge=1, le=10_000)
    """So many messages of a handler in one transaction. When one fails, they are done again one by one."""

    max_in_hand: int = Field(2_000, ge=1, le=1_000_000)
    """Messages polled and not finished, shared out among the partitions; also bounded by 64 MiB."""

    backoff_base_seconds: float = Field(0.1, gt=0.0, le=3600.0)
    """The upper bound of the wait after a handler's first failure (full jitter, doubling)."""

    backoff_cap_seconds: float = Field(10.0, gt=0.0, le=3600.0)
    """The upper bound of all waits between attempts."""

    outage_base_seconds: float = Field(0.1, gt=0.0, le=60.0)
    """The first wait's upper bound when Kafka, the database or what a handler calls is away."""

    outage_cap_seconds: float = Field(10.0, gt=0.0, le=3600.0)
    """The upper bound of all waits in an outage: how late its end is noticed at the most."""

    poll_timeout_seconds: float = Field(0.5, gt=0.0, le=60.0)
    """How long one poll of an empty topic waits; a stop is noticed after it at the latest."""

    max_poll_records: int = Field(500, ge=1, le=100_000)
    """Records taken with one poll."""

    keep_alive_seconds: float = Field(1.0, gt=0.0, le=60.0)
    """How often the group hears from a member that has no room for records or waits for an outage to end."""

    stuck_seconds: float = Field(60.0, ge=1.0, le=3600.0)
    """Not ready when messages wait and none was done for so long; above how long one message may take."""

    instance_id: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """Static membership: a member of this name that comes back soon gets its partitions without a rebalance."""

    cooperative: bool = False
    """Cooperative assignment: in a rebalance only partitions that move stand still. All members must agree on it."""

    control_seconds: float = Field(1.0, gt=0.0, le=60.0)
    """How often operators' wishes are read: pauses, policies, held messages to try now."""

    dead_letter_max_bytes: int = Field(1_040_000, ge=10_000)
    """What a dead letter keeps to, by a shorter diagnosis; Kafka takes 1,048,576 bytes unless set otherwise."""

    @model_validator(mode="after")
    def _ordered(self) -> "InboxSettings":
        if self.backoff_base_seconds > self.backoff_cap_seconds:
            raise ValueError("backoff_base_seconds must not be over backoff_cap_seconds")
        if self.outage_base_seconds > self.outage_cap_seconds:
            raise ValueError("outage_base_seconds must not be over outage_cap_seconds")
        return self
