"""What can be told without asking a server: settings, options, libraries."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from ...messaging.errors import PostroomError
from ..errors import sentence
from .patient import Finding, Patient

#: A relay that is frozen for longer than its lease is replaced, and what it had in flight goes out again.
_SHORT_LEASE = 5.0
_OPTIONS = "kafka_options"


def settings(patient: Patient) -> Iterator[Finding]:
    """The settings can be read."""
    try:
        loaded = patient.app.loaded
    except PostroomError as error:
        yield Finding("settings", "", "problem", sentence(error), "Correct it; nothing else was looked at.")
        return
    files = [source.path for source in loaded.sources if source.path]
    yield Finding("settings", "", "ok", f"read, with {files[0]}" if files else "read")


def options(patient: Patient) -> Iterator[Finding]:
    """No option for the Kafka client weakens a promise. Those that break one are refused at every start, and here."""
    if not patient.has_settings:
        return
    given = patient.app.settings.kafka_options
    try:
        patient.app.kafka()
    except PostroomError as error:
        yield Finding("options", _OPTIONS, "problem", sentence(error), "Take it out of kafka_options.")
        return
    weak = 0
    for name, value in given.items():
        for finding in _of_option(name, value):
            weak += 1
            yield finding
    if not weak:
        yield Finding("options", _OPTIONS, "ok", "none that weakens a promise")


def _of_option(name: str, value: Any) -> Iterator[Finding]:
    """By the name that either library has for it."""
    text = str(value).lower()
    match name.replace(".", "_"):
        case "auto_offset_reset" if text not in ("earliest", "smallest", "beginning"):
            told = (
                f"{name} is {text}: a group that has no offset, or lost it, begins at the end and never sees what was "
                "published before"
            )
            yield Finding("options", name, "problem", told, "Remove it; the default is earliest.")
        case "retries" | "message_send_max_retries" if text.isdecimal() and int(text) == 0:
            told = f"{name} is 0: the relay's producer, which has to try again, refuses to start"
            yield Finding("options", name, "problem", told, "Remove it; the default is to try for ever.")
        case "retries" | "message_send_max_retries" if text.isdecimal() and int(text) < 2**31 - 1:
            told = f"{name} is {text}: after so many the relay begins anew, and may publish twice what has no answer"
            yield Finding("options", name, "warning", told, "Remove it; the default is to try for ever.")
        case "delivery_timeout_ms":
            told = f"{name} is {text}: after that the relay begins anew, and may publish twice what has no answer"
            yield Finding("options", name, "warning", told, "Remove it; by default a record never expires.")
        case "max_in_flight_requests_per_connection" | "max_in_flight" if text.isdecimal() and int(text) > 5:  # noqa: PLR2004  Kafka's own bound
            told = (
                f"{name} is {text}: an idempotent producer keeps the order of 5 requests at the most, and refuses more"
            )
            yield Finding("options", name, "problem", told, "Remove it, or set it to 5 or less.")
        case "ssl_check_hostname" | "enable_ssl_certificate_verification" if text == "false":
            told = f"{name} is false: whoever answers in Kafka's place is believed"
            yield Finding("options", name, "warning", told, "Give the client the authority's certificate instead.")
        case "ssl_endpoint_identification_algorithm" if text == "none":
            told = f"{name} is none: a certificate for any host is believed"
            yield Finding("options", name, "warning", told, "Remove it, and give the brokers their names.")
        case "security_protocol" if text == "sasl_plaintext":
            told = f"{name} is {value}: passwords and messages go over the network as they are"
            yield Finding("options", name, "warning", told, "Use SASL_SSL (docs/how-to/secure-connections.md).")
        case _:
            return


def health(patient: Patient) -> Iterator[Finding]:
    """Somebody would notice that a daemon makes no progress, and its lease outlasts a short pause."""
    if not patient.has_settings:
        return
    settings = patient.app.settings
    if settings.health_address is None:
        told = "health_address is not set: no probe and no metrics tell that a daemon makes no progress"
        yield Finding("health", "health_address", "warning", told, "Set it, such as 0.0.0.0:8080.")
    else:
        yield Finding("health", "health_address", "ok", settings.health_address)
    lease = settings.relay.lease_seconds
    if lease < _SHORT_LEASE:
        told = (
            f"relay.lease_seconds is {lease:g}: a relay, or its database, that pauses for longer is fenced, and what "
            "was in flight is published twice"
        )
        yield Finding("health", "lease", "warning", told, "Raise it; the default is 10.")


def versions(patient: Patient) -> Iterator[Finding]:
    """What runs here."""
    if not patient.has_settings:
        return
    yield Finding("versions", "Python", "ok", platform.python_version())
    from psycopg import pq

    told = f"{version('psycopg')}, {pq.__impl__} implementation, libpq {pq.version() // 10_000}"
    if pq.__impl__ == "python":
        slow = f"{told}: several times slower than the one in C"
        yield Finding("versions", "psycopg", "warning", slow, "pip install 'postroom[binary]'")
    else:
        yield Finding("versions", "psycopg", "ok", told)
    if patient.app.settings.kafka_client == "kafka-python":
        found = version("kafka-python")
        if find_spec("crc32c") is None:
            told = f"{found}, without crc32c: it publishes at half the rate or less"
            yield Finding("versions", "kafka-python", "warning", told, "pip install 'kafka-python[crc32c]'")
        else:
            yield Finding("versions", "kafka-python", "ok", f"{found}, with crc32c")
        return
    try:
        yield Finding("versions", "confluent-kafka", "ok", version("confluent-kafka"))
    except PackageNotFoundError:
        return  # told by the options
