"""TLS and SASL to Kafka, by either client and through the settings, and TLS to PostgreSQL."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from psycopg import sql
from sqlalchemy.engine import make_url

from postroom.cli.root import run
from postroom.dlq import Ledger
from postroom.messaging.errors import ConfigurationError
from postroom.messaging.kafka import KafkaOptions, connect
from postroom.messaging.records import OutgoingRecord
from postroom.outbox import Names, schema
from postroom.outbox.database import open_store
from postroom.testing import kafka_maven
from postroom.testing.kafka_probe import is_ready
from postroom.testing.postgres import ADDRESS_VARIABLE, Postgres
from postroom.testing.process import ProcessControl, supervised
from postroom.testing.server import ServerUnavailableError, free_ports

CLIENTS = ("kafka-python", "confluent-kafka")
USER, PASSWORD = "postroom", "a-secret-for-tests"


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: the authority, another one, and key and certificate of localhost."""

    authority: Path
    stranger: Path
    key: Path
    certificate: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, which makes the certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
    for name in ("authority", "stranger"):
        openssl("req", "-x509", *new, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("req", *new[:-2], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    signed = ["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-extfile", "names"]
    openssl("x509", "-req", "-in", "server.csr", *signed, "-days", "2", "-out", "server.pem")
    names = ("authority.pem", "stranger.pem", "server.key", "server.pem")
    return Certificates(*(folder / name for name in names))


@pytest.fixture(scope="module")
def secured(certificates: Certificates) -> Iterator[str]:
    """The address of a broker's listener that takes TLS with a password, and nothing else."""
    clients, plain, controller = free_ports(3)
    jaas = "org.apache.kafka.common.security"
    settings = {
        "node.id": 1,
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"SECURED://127.0.0.1:{clients},BROKER://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"SECURED://127.0.0.1:{clients},BROKER://127.0.0.1:{plain}",
        "listener.security.protocol.map": "SECURED:SASL_SSL,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "listener.name.secured.ssl.keystore.type": "PEM",
        "listener.name.secured.ssl.keystore.location": certificates.key.with_name("both.pem"),
        "listener.name.secured.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.secured.plain.sasl.jaas.config": f"{jaas}.plain.PlainLoginModule required "
        f'user_{USER}="{PASSWORD}";',
        "listener.name.secured.scram-sha-512.sasl.jaas.config": f"{jaas}.scram.ScramLoginModule required;",
    }
    both = certificates.key.with_name("both.pem")
    both.write_text(certificates.key.read_text() + certificates.certificate.read_text())
    with supervised() as supervisor:
        try:
            command = kafka_maven.prepare(supervisor, settings)
            ready = partial(is_ready, f"127.0.0.1:{plain}")
            control = ProcessControl(supervisor, command, log=supervisor.folder / "kafka.log", ready=ready)
            control.start()
        except ServerUnavailableError as error:
            pytest.skip(f"needs a broker of its own, from Java and Maven: {error}")
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{plain}"})
        strength = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        made = UserScramCredentialUpsertion(USER, strength, PASSWORD.encode())
        for future in admin.alter_user_scram_credentials([made]).values():
            future.result(30)
        yield f"localhost:{clients}"


def options(client: str, authority: Path, *, password: str = PASSWORD, mechanism: str = "PLAIN") -> dict[str, Any]:
    """As docs/how-to/secure-connections.md gives them."""
    if client == "kafka-python":
        return {
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(authority),
            "sasl_mechanism": mechanism,
            "sasl_plain_username": USER,
            "sasl_plain_password": password,
            "bootstrap_timeout_ms": 1_500,
        }
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(authority),
        "sasl.mechanism": mechanism,
        "sasl.username": USER,
        "sasl.password": password,
    }


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_each_part_of_a_client_works_over_tls_with_a_password(
    secured: str, certificates: Certificates, client: str, mechanism: str, postroom_topic: Callable[[str], str]
) -> None:
    given = options(client, certificates.authority, mechanism=mechanism)
    kafka, topic = connect(KafkaOptions(secured, client, given)), postroom_topic("secret")
    with closing(kafka.topics()) as topics:
        topics.create(topic, 1, 1, {})
    publisher = kafka.publisher()
    publication = publisher.send([OutgoingRecord(topic, b"k", b"v", [])])
    assert publication.wait(30)
    assert not publication.errors()
    publisher.close(5)
    with closing(kafka.reader()) as reader:
        assert [record.value for record in reader.read(topic)] == [b"v"]


WRONG: dict[str, Callable[[str, Certificates], dict[str, Any]]] = {
    "password": lambda client, files: options(client, files.authority, password="wrong-secret"),
    "scram password": lambda client, files: options(
        client, files.authority, password="wrong-secret", mechanism="SCRAM-SHA-512"
    ),
    "mechanism": lambda client, files: options(client, files.authority, mechanism="SCRAM-SHA-256"),
    "authority": lambda client, files: options(client, files.stranger),
    "file": lambda client, files: options(client, files.authority.with_name("nowhere.pem")),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_security_options_give_one_sentence_and_no_secret(
    secured: str, certificates: Certificates, client: str, wrong: str
) -> None:
    with pytest.raises(ConfigurationError) as told:
        connect(KafkaOptions(secured, client, WRONG[wrong](client, certificates))).topics()

    assert re.search("check the security options|'ssl.ca.location' is refused", str(told.value))
    assert "wrong-secret" not in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_command_line_tells_it_and_ends(
    secured: str,
    certificates: Certificates,
    client: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("POSTROOM_KAFKA_CLIENT", client)
    monkeypatch.setenv("POSTROOM_KAFKA_BOOTSTRAP_SERVERS", secured)
    monkeypatch.setenv("POSTROOM_KAFKA_OPTIONS", json.dumps(options(client, certificates.authority)))
    assert run(["topics", "create", "by-the-command-line", "--yes"]) == 0

    wrong = options(client, certificates.authority, password="wrong-secret")
    monkeypatch.setenv("POSTROOM_KAFKA_OPTIONS", json.dumps(wrong))
    capsys.readouterr()
    assert run(["topics", "create", "by-the-command-line", "--yes"]) == 3
    told = capsys.readouterr().err
    assert "check the security options" in told
    assert "wrong-secret" not in told


@pytest.fixture(scope="module")
def encrypting(postroom_postgres_server: Postgres, certificates: Certificates) -> Iterator[str]:
    """The URL of a server that takes TLS, its name in the certificate. The session's, switched to TLS for a while."""
    server = postroom_postgres_server
    if server.origin == ADDRESS_VARIABLE:
        pytest.skip(f"needs a server of its own, and {ADDRESS_VARIABLE} names somebody's")
    with psycopg.connect(server.url, autocommit=True) as connection:
        for name, path in (("server.key", certificates.key), ("server.crt", certificates.certificate)):
            lines = sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(map(sql.Literal, path.read_text().splitlines())))
            program = sql.Literal(f"umask 077; cat > {name}")  # in the server's own folder, as its user
            connection.execute(sql.SQL("COPY (SELECT unnest({})) TO PROGRAM {}").format(lines, program))
        try:
            connection.execute("ALTER SYSTEM SET ssl = on")
        except psycopg.Error as error:
            pytest.skip(f"this PostgreSQL was built without TLS: {error}")
        connection.execute("SELECT pg_reload_conf()")
    yield make_url(server.url).set(host="localhost").render_as_string(hide_password=False)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM RESET ssl")
        connection.execute("SELECT pg_reload_conf()")


def verified(url: str, authority: Path) -> str:
    settings = {"sslmode": "verify-full", "sslrootcert": str(authority), "hostaddr": "127.0.0.1"}
    return make_url(url).update_query_dict(settings).render_as_string(hide_password=False)


def test_every_connection_to_postgresql_is_verified(
    encrypting: str, certificates: Certificates, eventually: Callable[..., None]
) -> None:
    url = verified(encrypting, certificates.authority)

    def encrypted() -> bool:
        try:
            with psycopg.connect(url):
                return True
        except psycopg.OperationalError:
            return False  # the server has not read its settings again yet

    eventually(encrypted, "the server takes TLS")
    names = Names("over_tls")
    schema.upgrade(url, names)
    store = open_store(url, names)
    assert store.backlog()[0] == 0
    store.close()
    ledger = Ledger(url, names)
    with ledger.reading() as connection:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.exec_driver_sql(query).scalar_one() is True
    ledger.close()


def test_a_server_that_cannot_be_verified_gives_one_sentence(encrypting: str, certificates: Certificates) -> None:
    stranger = verified(encrypting, certificates.stranger)
    nowhere = verified(encrypting, certificates.stranger.with_name("nowhere.pem"))
    other_name = verified(encrypting, certificates.authority).replace("@localhost", "@elsewhere.test")
    for url in (stranger, nowhere, other_name):
        with pytest.raises(ConfigurationError, match=r"TLS .* check the database URL") as told:
            schema.check(url)
        assert str(make_url(url).password) not in str(told.value)
        assert "\n" not in str(told.value)
