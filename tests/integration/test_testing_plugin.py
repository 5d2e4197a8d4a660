"""The pytest plugin: skips that say why, failures where a server is required, a summary of what was used."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

NEEDS_REAL_KAFKA = "def test_real(postroom_real_kafka):\n    pass\n"


def run(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> pytest.RunResult:
    """Without the package installed there is no entry point: name the plugin."""
    installed = request.config.pluginmanager.has_plugin("postroom")
    return pytester.runpytest_subprocess("-rs", *([] if installed else ["-p", "postroom.testing.plugin"]))


@pytest.fixture(autouse=True)
def only_the_mock(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTROOM_REQUIRE", "POSTROOM_KAFKA_BOOTSTRAP_SERVERS", "POSTROOM_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POSTROOM_TESTING_KAFKA", "mock")


def test_with_only_the_mock_a_test_of_a_real_broker_is_skipped(
    pytester: pytest.Pytester, request: pytest.FixtureRequest
) -> None:
    pytester.makepyfile(NEEDS_REAL_KAFKA)
    result = run(pytester, request)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*needs a real Kafka broker; only the in-memory mock cluster is here*"])


def test_a_required_broker_turns_the_skip_into_a_failure(
    pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_REQUIRE", "kafka,postgres")
    pytester.makepyfile(NEEDS_REAL_KAFKA)
    result = run(pytester, request)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*POSTROOM_REQUIRE asks for kafka*"])


@pytest.mark.parametrize(("require", "outcome"), [("", "skipped"), ("postgres", "errors")])
def test_a_server_that_cannot_be_had(
    pytester: pytest.Pytester,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    require: str,
    outcome: str,
) -> None:
    monkeypatch.setenv("POSTROOM_REQUIRE", require)
    monkeypatch.setenv("POSTROOM_TESTING_POSTGRES", "environment")
    pytester.makepyfile("def test_it(postroom_postgres):\n    pass\n")
    result = run(pytester, request)
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*POSTROOM_DATABASE_URL is not set*"])


def test_the_summary_names_the_servers_that_were_used(
    pytester: pytest.Pytester, request: pytest.FixtureRequest
) -> None:
    pytester.makepyfile("def test_it(postroom_kafka, postroom_topic):\n    assert postroom_topic('a') != 'a'\n")
    run(pytester, request).stdout.fnmatch_lines(["postroom: Kafka: librdkafka*"])
    pytester.makepyfile("def test_it():\n    pass\n")
    run(pytester, request).stdout.no_fnmatch_line("postroom:*")


def test_a_misspelt_requirement_is_an_error(
    pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_REQUIRE", "kafak")
    result = run(pytester, request)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*POSTROOM_REQUIRE knows kafka, postgres*"])


def test_what_needs_no_server_is_there(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> None:
    pytester.makepyfile(
        """
        import sqlalchemy as sa
        from postroom.inbox import Inbox
        from postroom.outbox import Message, Outbox
        from postroom.testing import App

        def test_it(postroom_sqlite, postroom_run, postroom_clock, postroom_memory_kafka):
            inbox = Inbox("billing")
            inbox.handler("orders")(lambda received, ctx: None)
            engine = sa.create_engine(postroom_sqlite)
            with engine.begin() as connection:
                Outbox(source="/shop").publish(connection, Message(topic="orders", payload=b"1", type="t"))
            engine.dispose()
            before = postroom_clock.now()
            assert len(postroom_run(App(postroom_sqlite, [inbox])).handled) == 1
            assert len(postroom_memory_kafka.records("orders")) == 1
            assert postroom_clock.now() == before
        """
    )
    run(pytester, request).assert_outcomes(passed=1)


def test_where_it_is_not_used_the_plugin_loads_nothing_large() -> None:
    heavy = ("sqlalchemy", "psycopg", "pydantic", "kafka", "postroom.outbox")
    code = f"import sys, postroom.testing.plugin; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
