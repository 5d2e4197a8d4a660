"""The cluster as an operator sees it."""

from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient
from kafka import errors as kafka
from kafka.admin import ConfigResource, ConfigResourceType

from ..errors import KafkaUnavailable, NotAuthorized
from ..records import Brokers, Copies
from .build import build
from .coordinator import ABSENT, ask_coordinator
from .errors import translated


class AdminCluster:
    """See ``ports.Cluster``."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._admin = build(KafkaAdminClient, options)

    def brokers(self) -> Brokers:
        version = self._admin._manager.broker_version
        return Brokers(len(self._numbers()), ".".join(map(str, version)) if version else None)

    def defaults(self) -> Mapping[str, str]:
        numbers = self._numbers()
        if not numbers:
            raise KafkaUnavailable("The cluster names no broker.")
        asked = ConfigResource(ConfigResourceType.BROKER, str(numbers[0]))
        with translated():
            answer = self._admin.describe_configs([asked], config_filter="all")
        settings = next(iter(answer.get("broker", {}).values()), None)
        if not settings:
            raise NotAuthorized(
                "Kafka does not tell the settings of its brokers; grant DESCRIBE_CONFIGS on the cluster."
            )
        return {name: each["value"] for name, each in settings.items() if each["value"] is not None}

    def copies(self, topics: Sequence[str]) -> Mapping[str, Copies]:
        if not topics:
            return {}
        with translated():
            described = self._admin.describe_topics(list(topics))
        return {
            each["name"]: Copies.of(
                (len(part["replica_nodes"]), len(part["isr_nodes"]), part["leader_id"] >= 0)
                for part in each["partitions"]
            )
            for each in described
            if each["error_code"] == 0 and each["partitions"]
        }

    def members(self, group: str) -> int:
        described = ask_coordinator(self._admin, lambda: self._described(group))
        error = described["error"] or ""
        if error and kafka.GroupIdNotFoundError.__name__ not in error:
            kind = NotAuthorized if kafka.GroupAuthorizationFailedError.__name__ in error else KafkaUnavailable
            raise kind(f"Kafka does not tell the members of group {group!r} ({error}).")
        return len(described["members"])

    def close(self) -> None:
        self._admin.close()

    def _described(self, group: str) -> dict[str, Any]:
        described: dict[str, Any] = self._admin.describe_groups([group])[group]
        for absent in ABSENT:  # kafka-python gives the error as a text
            if absent.__name__ in (described["error"] or ""):
                raise absent(described["error"])
        return described

    def _numbers(self) -> list[int]:
        with translated():
            brokers = self._admin.describe_cluster()["brokers"]
        return sorted(each["broker_id"] for each in brokers if not each.get("is_fenced"))
