"""How the desk of dead letters works."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: Topics that are looked at unless told otherwise.
TOPICS = ("*.dlq",)
#: The same failure after so many replays goes to quarantine.
MAX_REPLAYS = 3


class DlqSettings(BaseModel):
    """Settings under ``[dlq]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: tuple[str, ...] = TOPICS
    """The dead-letter topics, by name; * and ? are wildcards."""

    max_replays: Annotated[int, Field(ge=1, le=1_000)] = MAX_REPLAYS
    """What fails in the same way after so many replays goes to quarantine."""

    models: tuple[str, ...] = ()
    """Modules, or MODULE:OBJECT, whose models an edited payload has to fit."""
