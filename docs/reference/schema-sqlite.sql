BEGIN;

-- 0001 log
-- The log on SQLite: one writer at a time, so positions are in the order of commits and one cursor is enough.

CREATE TABLE "postroom_schema_version" (
    version     INTEGER PRIMARY KEY,
    applied_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE TABLE "postroom_outbox" (
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL,
    topic       TEXT NOT NULL,
    key         BLOB,
    type        TEXT NOT NULL,
    payload     BLOB,
    headers     TEXT NOT NULL DEFAULT '{}',
    created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE TABLE "postroom_relay_cursor" (
    shard        INTEGER PRIMARY KEY,
    position     INTEGER NOT NULL DEFAULT 0,
    owner        TEXT,
    epoch        INTEGER NOT NULL DEFAULT 0,
    lease_until  REAL,
    settled_at   TEXT
);
INSERT INTO "postroom_relay_cursor" (shard) VALUES (0);

CREATE TABLE "postroom_outbox_parked" (
    position    INTEGER PRIMARY KEY,
    id          TEXT NOT NULL,
    topic       TEXT NOT NULL,
    key         BLOB,
    type        TEXT NOT NULL,
    payload     BLOB,
    headers     TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    error       TEXT,
    parked_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    retry       INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE "postroom_outbox_scheduled" (
    id          TEXT PRIMARY KEY,
    due_at      TEXT NOT NULL,
    topic       TEXT NOT NULL,
    key         BLOB,
    type        TEXT NOT NULL,
    payload     BLOB,
    headers     TEXT NOT NULL,
    created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

CREATE TABLE "postroom_inbox" (
    consumer_group  TEXT NOT NULL,
    message_id      TEXT NOT NULL,
    outcome         TEXT NOT NULL,
    topic           TEXT NOT NULL,
    handler         TEXT,
    attempts        INTEGER NOT NULL DEFAULT 1,
    replays         INTEGER NOT NULL DEFAULT 0,
    processed_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (consumer_group, message_id)
);

CREATE TABLE "postroom_dead_letter_action" (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    at                  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    actor               TEXT NOT NULL,
    action              TEXT NOT NULL,
    dead_letter_topic   TEXT NOT NULL,
    "partition"         INTEGER NOT NULL,
    "offset"            INTEGER NOT NULL,
    message_id          TEXT NOT NULL,
    reason              TEXT
);

INSERT INTO "postroom_schema_version" (version) VALUES (1);

-- 0002 relays
-- Who runs, and what operators ask of all relays.

CREATE TABLE "postroom_relay_instance" (
    owner       TEXT PRIMARY KEY,
    started_at  REAL NOT NULL,
    seen_at     REAL NOT NULL,
    expires_at  REAL NOT NULL,
    able        INTEGER NOT NULL,
    state       TEXT NOT NULL,
    detail      TEXT NOT NULL DEFAULT '',
    published   INTEGER NOT NULL DEFAULT 0,
    rate        REAL NOT NULL DEFAULT 0
);

-- One row for all topics together (topic ''), and one for each topic that stands still.
CREATE TABLE "postroom_relay_control" (
    topic       TEXT PRIMARY KEY,
    paused      TEXT,
    paused_at   TEXT,
    paused_by   TEXT,
    rate        REAL,
    batch_size  INTEGER,
    limited_at  TEXT,
    limited_by  TEXT,
    revision    INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "postroom_relay_control" (topic) VALUES ('');

ALTER TABLE "postroom_outbox_parked" ADD COLUMN by_topic INTEGER NOT NULL DEFAULT 0;

-- What operators did. Written in the transaction that does it.
CREATE TABLE "postroom_outbox_action" (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    topic       TEXT,
    position    INTEGER,
    message_id  TEXT,
    messages    INTEGER NOT NULL DEFAULT 0,
    reason      TEXT
);
CREATE INDEX "postroom_outbox_action_position" ON "postroom_outbox_action" (position);

INSERT INTO "postroom_schema_version" (version) VALUES (2);

-- 0003 inbox
-- What failed and waits; what was begun; what operators ask. See the file for PostgreSQL.

ALTER TABLE "postroom_inbox" ADD COLUMN result TEXT;
CREATE INDEX "postroom_inbox_processed_at" ON "postroom_inbox" (processed_at);

CREATE TABLE "postroom_inbox_held" (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer_group   TEXT    NOT NULL,
    topic            TEXT    NOT NULL,
    "partition"      INTEGER NOT NULL,
    "offset"         INTEGER NOT NULL,
    message_id       TEXT    NOT NULL,
    key              BLOB,
    type             TEXT,
    payload          BLOB,
    headers          TEXT    NOT NULL,
    "timestamp"      TEXT    NOT NULL,
    handler          TEXT    NOT NULL DEFAULT '',
    state            TEXT    NOT NULL,
    attempts         INTEGER NOT NULL DEFAULT 0,
    error            TEXT,
    first_failed_at  TEXT,
    next_attempt_at  TEXT,
    held_at          TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (consumer_group, topic, "partition", "offset")
);
CREATE INDEX "postroom_inbox_held_message_id" ON "postroom_inbox_held" (consumer_group, message_id);

CREATE TABLE "postroom_inbox_attempt" (
    consumer_group    TEXT    NOT NULL,
    topic             TEXT    NOT NULL,
    "partition"       INTEGER NOT NULL,
    member            TEXT    NOT NULL,
    first_offset      INTEGER NOT NULL,
    last_offset       INTEGER NOT NULL,
    suspect_offset    INTEGER,
    suspect_attempts  INTEGER NOT NULL DEFAULT 0,
    at                TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (consumer_group, topic, "partition")
);

CREATE TABLE "postroom_inbox_control" (
    consumer_group  TEXT    NOT NULL,
    subject         TEXT    NOT NULL DEFAULT '',
    paused          TEXT,
    policy          TEXT    NOT NULL DEFAULT '{}',
    revision        INTEGER NOT NULL DEFAULT 0,
    changed_at      TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    changed_by      TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (consumer_group, subject)
);

CREATE TABLE "postroom_inbox_action" (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    at              TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    actor           TEXT    NOT NULL,
    action          TEXT    NOT NULL,
    consumer_group  TEXT    NOT NULL,
    subject         TEXT    NOT NULL DEFAULT '',
    message_id      TEXT,
    reason          TEXT
);

INSERT INTO "postroom_schema_version" (version) VALUES (3);

-- 0004 ledger
-- The ledger of dead letters. See the file for PostgreSQL.

CREATE TABLE "postroom_dead_letter" (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    dead_letter_topic  TEXT    NOT NULL,
    "partition"        INTEGER NOT NULL,
    "offset"           INTEGER NOT NULL,
    incarnation        INTEGER NOT NULL DEFAULT 0,
    written_at         TEXT    NOT NULL,
    family             TEXT    NOT NULL,
    message_id         TEXT    NOT NULL,
    inbox_id           TEXT    NOT NULL,
    key                BLOB,
    type               TEXT,
    topic              TEXT,
    topic_partition    INTEGER,
    topic_offset       INTEGER,
    consumer_group     TEXT,
    error              TEXT,
    message            TEXT,
    handler            TEXT,
    deliveries         INTEGER,
    first_failed_at    TEXT,
    failed_at          TEXT    NOT NULL,
    fingerprint        TEXT    NOT NULL,
    replays            INTEGER NOT NULL DEFAULT 0,
    expires_at         TEXT,
    size               INTEGER,
    order_partition    INTEGER NOT NULL,
    order_offset       INTEGER NOT NULL,
    follows            INTEGER,
    rounds             INTEGER NOT NULL DEFAULT 0,
    same_failures      INTEGER NOT NULL DEFAULT 0,
    masked             INTEGER NOT NULL DEFAULT 0,
    forgotten_at       TEXT,
    read_at            TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (dead_letter_topic, "partition", "offset", incarnation)
);
CREATE INDEX "postroom_dead_letter_failed_at" ON "postroom_dead_letter" (failed_at, id);
CREATE INDEX "postroom_dead_letter_fingerprint" ON "postroom_dead_letter" (fingerprint, failed_at, id);
CREATE INDEX "postroom_dead_letter_message_id" ON "postroom_dead_letter" (message_id);
CREATE INDEX "postroom_dead_letter_key" ON "postroom_dead_letter" (key);

CREATE TABLE "postroom_dead_letter_state" (
    id                 INTEGER PRIMARY KEY,
    state              TEXT    NOT NULL,
    state_at           TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    plan_id            INTEGER,
    ordinal            INTEGER
);
CREATE INDEX "postroom_dead_letter_state_state" ON "postroom_dead_letter_state" (state, id);
CREATE INDEX "postroom_dead_letter_state_plan" ON "postroom_dead_letter_state" (plan_id, ordinal)
    WHERE plan_id IS NOT NULL;

CREATE TABLE "postroom_dead_letter_record" (
    id                 INTEGER PRIMARY KEY,
    payload            BLOB,
    headers            TEXT    NOT NULL
);

CREATE TABLE "postroom_dead_letter_source" (
    dead_letter_topic  TEXT    NOT NULL,
    "partition"        INTEGER NOT NULL,
    incarnation        INTEGER NOT NULL DEFAULT 0,
    next_offset        INTEGER NOT NULL,
    mark               TEXT    NOT NULL DEFAULT '',
    missed             INTEGER NOT NULL DEFAULT 0,
    gone_since         TEXT,
    read_at            TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (dead_letter_topic, "partition")
);

CREATE TABLE "postroom_dead_letter_plan" (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at         TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    actor              TEXT    NOT NULL,
    reason             TEXT,
    wanted             TEXT    NOT NULL,
    targets            TEXT    NOT NULL,
    total              INTEGER NOT NULL,
    steps              TEXT    NOT NULL,
    rate               REAL,
    max_failures       REAL,
    state              TEXT    NOT NULL DEFAULT 'open',
    told               TEXT,
    paced_until        REAL    NOT NULL DEFAULT 0,
    changed_at         TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

ALTER TABLE "postroom_dead_letter_action" ADD COLUMN dead_letter_id INTEGER;
ALTER TABLE "postroom_dead_letter_action" ADD COLUMN plan_id INTEGER;
ALTER TABLE "postroom_dead_letter_action" ADD COLUMN from_state TEXT;
ALTER TABLE "postroom_dead_letter_action" ADD COLUMN to_state TEXT;
CREATE INDEX "postroom_dead_letter_action_letter" ON "postroom_dead_letter_action" (dead_letter_id);

CREATE INDEX "postroom_inbox_dead_lettered" ON "postroom_inbox" (consumer_group, handler, processed_at)
    WHERE outcome = 'dead-lettered';

INSERT INTO "postroom_schema_version" (version) VALUES (4);

COMMIT;
