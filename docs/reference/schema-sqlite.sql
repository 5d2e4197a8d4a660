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

COMMIT;
