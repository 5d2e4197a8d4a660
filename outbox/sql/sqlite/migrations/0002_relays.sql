-- Who runs, and what operators ask of all relays.

CREATE TABLE {relay_instance} (
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
CREATE TABLE {relay_control} (
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
INSERT INTO {relay_control} (topic) VALUES ('');

ALTER TABLE {outbox_parked} ADD COLUMN by_topic INTEGER NOT NULL DEFAULT 0;

-- What operators did. Written in the transaction that does it.
CREATE TABLE {outbox_action} (
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
CREATE INDEX "{schema.name}_{outbox_action.name}_position" ON {outbox_action} (position);
