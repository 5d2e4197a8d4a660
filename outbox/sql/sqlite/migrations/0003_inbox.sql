-- What failed and waits; what was begun; what operators ask. See the file for PostgreSQL.

ALTER TABLE {inbox} ADD COLUMN result TEXT;
CREATE INDEX "{schema.name}_{inbox.name}_processed_at" ON {inbox} (processed_at);

CREATE TABLE {inbox_held} (
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
CREATE INDEX "{schema.name}_{inbox_held.name}_message_id" ON {inbox_held} (consumer_group, message_id);

CREATE TABLE {inbox_attempt} (
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

CREATE TABLE {inbox_control} (
    consumer_group  TEXT    NOT NULL,
    subject         TEXT    NOT NULL DEFAULT '',
    paused          TEXT,
    policy          TEXT    NOT NULL DEFAULT '{}',
    revision        INTEGER NOT NULL DEFAULT 0,
    changed_at      TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    changed_by      TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (consumer_group, subject)
);

CREATE TABLE {inbox_action} (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    at              TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    actor           TEXT    NOT NULL,
    action          TEXT    NOT NULL,
    consumer_group  TEXT    NOT NULL,
    subject         TEXT    NOT NULL DEFAULT '',
    message_id      TEXT,
    reason          TEXT
);
