"""What callers choose from."""

from typing import Literal

Sort = Literal["newest", "oldest", "largest", "replays", "arrival"]
SORTS: tuple[Sort, ...] = ("newest", "oldest", "largest", "replays", "arrival")
By = Literal["fingerprint", "error", "topic", "group", "type", "handler", "state", "key"]
BYS: tuple[By, ...] = ("fingerprint", "error", "topic", "group", "type", "handler", "state", "key")
Format = Literal["jsonl", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "parquet")
