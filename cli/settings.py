"""The settings: flags over environment over file over defaults. Only this room reads the environment.

``POSTROOM_DATABASE_URL`` in the environment is ``database_url`` in ``postroom.toml``; of a section,
``POSTROOM_RELAY__LEASE_SECONDS`` is ``lease_seconds`` under ``[relay]``.
"""

import json
import os
import re
import tomllib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ..dlq.settings import DlqSettings
from ..inbox.settings import InboxSettings
from ..messaging.errors import ConfigurationError
from ..messaging.kafka import Compression
from ..messaging.redact import Redaction
from ..relay.settings import RelaySettings
from .address import check_address


def _listed(value: Any) -> Any:
    """A list, also where it is written with commas or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _check_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return Redaction(paths).paths
    except ConfigurationError as error:
        raise ValueError(str(error).rstrip(".")) from None


HealthAddress = Annotated[str, AfterValidator(check_address)]
Paths = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_check_paths)]
DEFAULT_FILE = "postroom.toml"
PREFIX = "POSTROOM_"
_SECRET = re.compile(r"password|passphrase|secret|token|credential", re.IGNORECASE)
_SIMILAR = 0.85

with warnings.catch_warnings():
    # BaseModel.schema() is deprecated and in nobody's way; the setting's name is.
    warnings.filterwarnings("ignore", message='Field name "schema"', category=UserWarning)

    class Settings(BaseSettings):
        """Everything that can be set, with its default. Frozen; unknown keys are errors."""

        model_config = SettingsConfigDict(
            frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
        )

        database_url: SecretStr | None = None
        """``postgresql://user:password@host:5432/database``, or ``sqlite:///file.db``."""

        kafka_bootstrap_servers: str = "localhost:9092"
        """``host:port``, several with commas."""

        kafka_client: Literal["kafka-python", "confluent-kafka", "confluent"] = "kafka-python"
        """The Kafka client library. ``confluent`` is short for ``confluent-kafka`` (``postroom[confluent]``)."""

        kafka_options: dict[str, Any] = Field(default_factory=dict)
        """Passed to the client library as they are, in its own names; in the environment as JSON."""

        kafka_compression: Compression = "none"
        """Of what is sent: ``none``, ``gzip``, ``snappy``, ``lz4`` or ``zstd``."""

        schema: str = "postroom"  # type: ignore[assignment]
        """The database schema of the tables; on SQLite a prefix of their names."""

        tables: dict[str, str] = Field(default_factory=dict)
        """Tables with another name: ``{"outbox": "events"}``."""

        redact: Paths = ()
        """Fields that are masked in what is shown, exported and logged, such as ``["payload.card.number", "key"]``; in
        the environment with commas."""

        relay: RelaySettings = RelaySettings()
        """How the relay works."""

        inbox: InboxSettings = InboxSettings()
        """How an inbox runs."""

        dlq: DlqSettings = DlqSettings()
        """How dead letters are looked after."""

        health_address: HealthAddress | None = None
        """``host:port`` where the daemons answer over HTTP: the probes /livez and /readyz, and /metrics for Prometheus;
        without it they do not."""

        log_format: Literal["auto", "console", "json"] = "auto"
        """Of the daemons' logs. ``auto``: for people on a terminal, JSON elsewhere."""

        log_level: Literal["debug", "info", "warning", "error"] = "info"
        """``debug`` tells every batch and every message."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Only what ``load`` gives: it reads the sources one by one, to know where a value came from."""
            del settings_cls, env_settings, dotenv_settings, file_secret_settings
            assert isinstance(init_settings, InitSettingsSource)  # noqa: S101  as pydantic-settings documents it
            return (init_settings,)


@dataclass(frozen=True, slots=True)
class Source:
    """Where values came from. ``kind``: flag, environment or file; ``path``: of the file."""

    kind: Literal["flag", "environment", "file"]
    values: Mapping[str, Any]
    path: str = ""

    def names(self, location: tuple[str, ...]) -> str:
        """The setting at ``location`` as it is written there."""
        if self.kind == "flag":
            flags = {"database_url": "--database-url", "kafka_bootstrap_servers": "--bootstrap-servers"}
            return flags.get(location[0], f"--set {'.'.join(location)}")
        if self.kind == "file":
            return f"{'.'.join(location)} in {self.path}"
        whole = PREFIX + location[0].upper()
        return whole if whole in os.environ else PREFIX + "__".join(location).upper()


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and their sources by precedence."""

    settings: Settings
    sources: tuple[Source, ...]

    def origin(self, *location: str) -> str:
        """Where the value at ``location`` came from, for people."""
        source = _source_of(location, self.sources)
        return source.names(location) if source else "default"


def load(flags: Mapping[str, Any], config: str | None = None) -> Loaded:
    """Read all sources. ``flags``: nested, only those that were given. ``config``: a file that has to be there.

    Raises ConfigurationError, one sentence that names the setting, its value, what is allowed and where it stands.
    """
    given = (Source("flag", flags), Source("environment", _environment()), _file(config))
    sources = tuple(replace(source, values=_dotted_options(source.values)) for source in given)
    merged: dict[str, Any] = {}
    for source in reversed(sources):
        merged = _merged(merged, source.values)
    try:
        return Loaded(Settings(**merged), sources)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        more = f" ({len(problems) - 1} more settings are wrong.)" if len(problems) > 1 else ""
        raise ConfigurationError(_sentence(problems[0], sources) + more) from None


def is_secret(name: str) -> bool:
    """Whether the value of an option of this name is never shown."""
    return _SECRET.search(name) is not None


def _environment() -> dict[str, Any]:
    try:
        found = dict(EnvSettingsSource(Settings)())
    except SettingsError as error:
        match = re.search(r'field "(\w+)"', str(error))
        name = PREFIX + match[1].upper() if match else "A setting in the environment"
        raise ConfigurationError(f'{name} must be a JSON object, such as {{"name": "value"}}.') from None
    known = [name.upper() for name in Settings.model_fields]
    for variable in os.environ:
        name = variable.removeprefix(PREFIX).split("__")[0]
        if not variable.startswith(PREFIX) or name in known:
            continue
        # Others may use the prefix (a cluster's service links); what is nearly ours is a slip.
        if similar := get_close_matches(name, known, n=1, cutoff=_SIMILAR):
            raise ConfigurationError(f"There is no setting {variable}; did you mean {PREFIX}{similar[0]}?")
    return found


def _file(config: str | None) -> Source:
    path = Path(config or DEFAULT_FILE)
    if config is None and not path.exists():
        return Source("file", {})
    try:
        return Source("file", tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise ConfigurationError(f"The settings file {str(path)!r} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The settings file {str(path)!r} is no TOML: {error}.") from None


def _dotted_options(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """librdkafka's names and topics have dots, at which TOML and ``--set`` make tables: back to names."""
    for section, name in (("", "kafka_options"), ("relay", "on_refused_by_topic")):
        around = values.get(section) if section else values
        options = around.get(name) if isinstance(around, Mapping) else None
        if isinstance(around, Mapping) and isinstance(options, Mapping):
            changed = {**around, name: dict(_dotted(options))}
            values = {**values, section: changed} if section else changed
    return values


def _dotted(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{above}{name}.")
        else:
            yield above + name, value


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, section by section."""
    result = dict(below)
    for name, value in above.items():
        inner = result.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[name] = _merged(inner, value) if both and inner is not None else value
    return result


def _sentence(problem: ErrorDetails, sources: tuple[Source, ...]) -> str:
    location = tuple(map(str, problem["loc"]))
    source = _source_of(location, sources)
    name = source.names(location) if source else ".".join(location)
    annotation, bounds, names = _field(location)
    if problem["type"] == "extra_forbidden":
        similar = get_close_matches(location[-1], names, n=1)
        meant = f"did you mean {similar[0]!r}?" if similar else f"there are {', '.join(sorted(names))}."
        return f"There is no setting {name}; {meant}"
    if problem["type"] in ("value_error", "assertion_error"):
        told = problem["msg"].split(", ", 1)[-1]
        return f"{name} is {problem['input']!r}; it {told}." if told.startswith("must ") else f"{name}: {told}."
    shown = "of the wrong form" if is_secret(name) or location[0] in ("database_url", "kafka_options") else None
    allowed = _allowed(annotation, bounds) if annotation else problem["msg"]
    return f"{name} is {shown or repr(problem['input'])}; it must be {allowed}."


def _source_of(location: tuple[str, ...], sources: tuple[Source, ...]) -> Source | None:
    """The first source that has a value there, or above it."""
    for source in sources:
        value: Any = source.values
        for part in location:
            if not isinstance(value, Mapping):
                return source
            if part not in value:
                break
            value = value[part]
        else:
            return source
    return None


def _field(location: tuple[str, ...]) -> tuple[Any, list[Any], list[str]]:
    """What may stand at ``location``: its type, its bounds, and the names that could stand there."""
    model: type[BaseModel] = Settings
    annotation, bounds, names = None, [], list(model.model_fields)
    for depth, part in enumerate(location):
        field = model.model_fields.get(part)
        names = list(model.model_fields)
        if field is None:
            return None, [], names
        annotation, bounds = field.annotation, field.metadata
        if get_origin(annotation) is dict and depth < len(location) - 1:
            return get_args(annotation)[1], [], names  # one of its values
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            break
        model = annotation
    return annotation, bounds, names


def _allowed(annotation: Any, bounds: Iterable[Any]) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(repr(value) for value in get_args(annotation))
    if NoneType in get_args(annotation):
        [annotation, *_] = [each for each in get_args(annotation) if each is not NoneType]
    kinds: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}
    shapes = {dict: "a table of values", tuple: "a list of texts"}
    kind = kinds.get(annotation, shapes.get(get_origin(annotation), "a text"))
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [
        f"{word} {getattr(bound, name):g}"
        for bound in bounds
        for name, word in words.items()
        if getattr(bound, name, None) is not None
    ]
    return " ".join([kind, *" and ".join(limits).split()])
