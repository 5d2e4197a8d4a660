"""Settings: flag over environment over file over default; what is wrong is named; secrets stay secret."""

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from postroom.cli.app import App
from postroom.cli.root import postroom, run
from postroom.cli.settings import Settings, load
from postroom.messaging.errors import ConfigurationError

SECRET = "hunter2-s3cret"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("POSTROOM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(text: str) -> None:
    Path("postroom.toml").write_text(text)


def wrong(flags: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(flags or {})
    return str(caught.value)


def test_the_flag_wins_over_the_environment_over_the_file_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [load({}).settings.relay.lease_seconds]
    write("[relay]\nlease_seconds = 20\nbatch_size = 7\n")
    seen.append(load({}).settings.relay.lease_seconds)
    monkeypatch.setenv("POSTROOM_RELAY__LEASE_SECONDS", "30")
    seen.append(load({}).settings.relay.lease_seconds)
    loaded = load({"relay": {"lease_seconds": "40"}})
    seen.append(loaded.settings.relay.lease_seconds)
    assert seen == [10, 20, 30, 40]
    assert loaded.settings.relay.batch_size == 7, "what one source does not name comes from the one below"
    assert loaded.origin("relay", "lease_seconds") == "--set relay.lease_seconds"
    assert loaded.origin("relay", "batch_size") == "relay.batch_size in postroom.toml"
    assert loaded.origin("schema") == "default"


def test_every_simple_setting_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_DATABASE_URL", "sqlite:///a.db")
    monkeypatch.setenv("POSTROOM_KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("POSTROOM_KAFKA_OPTIONS", '{"api_version": [2, 3], "linger_ms": 5}')
    monkeypatch.setenv("POSTROOM_SCHEMA", "shop")
    monkeypatch.setenv("POSTROOM_TABLES", '{"outbox": "events"}')
    monkeypatch.setenv("POSTROOM_INBOX__ATTEMPTS", "9")
    settings = load({}).settings
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "sqlite:///a.db"
    assert settings.kafka_bootstrap_servers == "a:1,b:2"
    assert settings.kafka_options == {"api_version": [2, 3], "linger_ms": 5}
    assert (settings.schema, settings.tables, settings.inbox.attempts) == ("shop", {"outbox": "events"}, 9)


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("POSTROOM_RELAY__LEASE_SECONDS", "1", ["POSTROOM_RELAY__LEASE_SECONDS is '1'", "at least 2 and at most 600"]),
        ("POSTROOM_RELAY__BATCH_SIZE", "many", ["POSTROOM_RELAY__BATCH_SIZE is 'many'", "a whole number at least 1"]),
        ("POSTROOM_RELAY__ON_REFUSED", "x", ["'park-key' or 'park-message'"]),
        ("POSTROOM_RELAY__POLL_MIN_SECONDS", "5", ["poll_min_seconds must not be over poll_max_seconds"]),
        ("POSTROOM_INBOX__BACKOFF_BASE_SECONDS", "0", ["a number above 0 and at most 3600"]),
        ("POSTROOM_RELAY__LEASE_SECNDS", "5", ["POSTROOM_RELAY__LEASE_SECNDS", "did you mean 'lease_seconds'"]),
        ("POSTROOM_DATABSE_URL", "x", ["POSTROOM_DATABSE_URL", "did you mean POSTROOM_DATABASE_URL"]),
        ("POSTROOM_RELY__LEASE_SECONDS", "5", ["did you mean POSTROOM_RELAY"]),
        ("POSTROOM_KAFKA_OPTIONS", "{bad", ["POSTROOM_KAFKA_OPTIONS must be a JSON object"]),
        ("POSTROOM_RELAY__ON_REFUSED", "wrong", ["ON_REFUSED is 'wrong'", "'park-key' or 'park-message' or 'stop'"]),
        ("POSTROOM_RELAY__ON_REFUSED_BY_TOPIC", '{"orders": "wrong"}', ["'wrong'", "'park-message' or 'stop'"]),
        ("POSTROOM_RELAY__LISTEN", "maybe", ["POSTROOM_RELAY__LISTEN is 'maybe'", "must be true or false"]),
        ("POSTROOM_RELAY__RETENTION_HOURS", "-1", ["RETENTION_HOURS is '-1'", "at least 0 and at most 87600"]),
        ("POSTROOM_RELAY__MAX_IN_FLIGHT", "0", ["MAX_IN_FLIGHT is '0'", "a whole number at least 1"]),
        ("POSTROOM_RELAY__MAX_IN_FLIGHT", "5", ["batch_size must not be over max_in_flight"]),
        ("POSTROOM_RELAY__SETTLE_SECONDS", "11", ["SETTLE_SECONDS is '11'", "at least 0 and at most 10"]),
        ("POSTROOM_RELAY__STUCK_SECONDS", "0", ["STUCK_SECONDS is '0'", "at least 1 and at most 3600"]),
        ("POSTROOM_RELAY__STEP_ASIDE_SECONDS", "x", ["STEP_ASIDE_SECONDS is 'x'", "a number at least 1"]),
        ("POSTROOM_HEALTH_ADDRESS", "8080", ["POSTROOM_HEALTH_ADDRESS is '8080'; it must be host:port", "0 to 65535"]),
        ("POSTROOM_HEALTH_ADDRESS", "host:70000", ["is 'host:70000'", "with a port from 0 to 65535"]),
        ("POSTROOM_LOG_LEVEL", "loud", ["POSTROOM_LOG_LEVEL is 'loud'", "'debug' or 'info'"]),
    ],
)
def test_a_wrong_variable_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, parts: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    told = wrong()
    assert all(part in told for part in parts), told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kafka_bootstrap = 'a'", ["kafka_bootstrap in postroom.toml", "did you mean 'kafka_bootstrap_servers'"]),
        ("[relay]\nlease_seconds = 1", ["relay.lease_seconds in postroom.toml is 1", "at least 2"]),
        ("database_url = 5", ["database_url in postroom.toml", "must be a text"]),
        ("relay = 5", ["relay in postroom.toml"]),
        ("x = [", ["'postroom.toml' is no TOML"]),
        ("[relay.on_refused_by_topic]\norders = 'wrong'", ["by_topic.orders in postroom.toml is 'wrong'", "or 'stop'"]),
        ("[relay]\non_refused_by_topic = 5", ["relay.on_refused_by_topic in postroom.toml is 5", "a table of values"]),
        ("health_address = 8080", ["health_address in postroom.toml is 8080", "must be a text"]),
    ],
)
def test_a_wrong_file_is_named_with_the_setting(text: str, parts: list[str]) -> None:
    write(text)
    told = wrong()
    assert all(part in told for part in parts), told


def test_a_flag_for_a_topic_is_named_and_the_topic_may_have_dots() -> None:
    told = wrong({"relay": {"on_refused_by_topic": {"orders": "wrong"}}})
    assert told.startswith("--set relay.on_refused_by_topic.orders is 'wrong'; it must be 'park-key'")
    nested = {"relay": {"on_refused_by_topic": {"eu": {"orders": "stop"}, "payments": "park-message"}}}
    assert load(nested).settings.relay.on_refused_by_topic == {"eu.orders": "stop", "payments": "park-message"}


def test_a_file_that_was_asked_for_has_to_be_there() -> None:
    with pytest.raises(ConfigurationError, match=r"'nofile\.toml' cannot be read"):
        load({}, "nofile.toml")


@pytest.mark.parametrize("variable", ["POSTROOM_PORT_5432_TCP_ADDR", "POSTROOM_REQUIRE", "POSTROOM_TESTING_KAFKA"])
def test_others_may_use_the_prefix(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "x")
    assert load({}).settings == Settings()


@pytest.mark.parametrize(
    "environment",
    [
        {"POSTROOM_DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:1/x"},
        {"POSTROOM_DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:port/x"},
        {"POSTROOM_DATABASE_URL": f"postgresql://u@127.0.0.1:1/x?password={SECRET}"},
        {"POSTROOM_DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:1/x?nonsense={SECRET}"},
        {"POSTROOM_DATABASE_URL": f"mysql://u:{SECRET}@127.0.0.1:1/x"},
        {"POSTROOM_DATABASE_URL": SECRET},
        {"POSTROOM_KAFKA_OPTIONS": f'{{"sasl_plain_password": "{SECRET}", "ssl_password": "{SECRET}", "x": 1}}'},
        {"POSTROOM_KAFKA_OPTIONS": f'{{"sasl_plain_password": "{SECRET}"'},
        {"POSTROOM_KAFKA_OPTIONS": f'["{SECRET}"]'},
    ],
)
@pytest.mark.parametrize("command", [["settings"], ["settings", "--json"], ["--debug", "db", "check"], ["dlq", "list"]])
def test_secrets_are_never_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], environment: dict[str, str], command: list[str]
) -> None:
    monkeypatch.setenv("POSTROOM_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "200")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = {"bootstrap_timeout_ms": 100, "request_timeout_ms": 400}
    run([*command, *(f"--set=kafka_options.{name}={value}" for name, value in options.items())])
    told = "".join(capfd.readouterr())
    assert told
    assert SECRET not in told


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["--database-url", f"postgresql://shop:{SECRET}@db/shop"], True),
        (["--database-url", f"postgresql://db/shop?user=shop&password={SECRET}"], True),
        (["--set", f"database_url=postgresql://:{SECRET}@db/shop"], True),
        (["--set", f"kafka_options.sasl_plain_password={SECRET}"], True),
        (["--set", f"kafka_options.ssl.key.password={SECRET}"], True),
        (["--set", f'kafka_options={{"sasl.password": "{SECRET}"}}'], True),
        (["--database-url", "postgresql://shop@db:5432/shop?sslmode=require&sslrootcert=/a@b:c.pem"], False),
        (["--database-url", "sqlite:///shop.db"], False),
        (["--set", "kafka_options.sasl.username=shop", "--set", "kafka_options.sasl_plain_password="], False),
    ],
)
def test_a_password_is_not_taken_from_the_command_line(
    arguments: list[str], capfd: pytest.CaptureFixture[str], *, refused: bool
) -> None:
    code = run(["settings", *arguments])
    told = "".join(capfd.readouterr())
    assert (code, "A password on the command line" in told) == ((2, True) if refused else (0, False))
    assert SECRET not in told


def test_a_common_option_may_stand_before_or_after_the_command() -> None:
    def value(*arguments: str) -> Result:
        return CliRunner().invoke(postroom, arguments, obj=App(), catch_exceptions=False)

    before = value("--set", "relay.lease_seconds=20", "--json", "settings")
    after = value("settings", "--json", "--set", "relay.lease_seconds=20")
    both = value("--set", "relay.lease_seconds=30", "settings", "--json", "--set", "relay.lease_seconds=20")
    assert before.stdout == after.stdout == both.stdout
    assert '"relay.lease_seconds": {"value": 20.0' in before.stdout


@pytest.mark.parametrize(
    "value", ["payload.card.number, headers.authorization", '["payload.card.number","headers.authorization"]']
)
def test_fields_to_redact_are_a_list_with_commas_or_in_json(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    wanted = ("payload.card.number", "headers.authorization")
    monkeypatch.setenv("POSTROOM_REDACT", value)
    assert load({}).settings.redact == wanted
    assert App().redaction.paths == wanted
    assert load({"redact": ["key"]}).settings.redact == ("key",)
    write('redact = ["key"]\n')
    monkeypatch.delenv("POSTROOM_REDACT")
    assert load({}).settings.redact == ("key",)


@pytest.mark.parametrize(
    ("value", "told"), [("card.number", "'card.number'"), ("[", "redact"), ("[1]", "list of texts"), ("[[]]", "list")]
)
def test_a_field_to_redact_that_is_none_is_named(value: str, told: str) -> None:
    assert told in wrong({"redact": value})
