-- The ledger of dead letters. See the file for PostgreSQL.

CREATE TABLE {dead_letter} (
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
CREATE INDEX "{schema.name}_{dead_letter.name}_failed_at" ON {dead_letter} (failed_at, id);
CREATE INDEX "{schema.name}_{dead_letter.name}_fingerprint" ON {dead_letter} (fingerprint, failed_at, id);
CREATE INDEX "{schema.name}_{dead_letter.name}_message_id" ON {dead_letter} (message_id);
CREATE INDEX "{schema.name}_{dead_letter.name}_key" ON {dead_letter} (key);

CREATE TABLE {dead_letter_state} (
    id                 INTEGER PRIMARY KEY,
    state              TEXT    NOT NULL,
    state_at           TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    plan_id            INTEGER,
    ordinal            INTEGER
);
CREATE INDEX "{schema.name}_{dead_letter_state.name}_state" ON {dead_letter_state} (state, id);
CREATE INDEX "{schema.name}_{dead_letter_state.name}_plan" ON {dead_letter_state} (plan_id, ordinal)
    WHERE plan_id IS NOT NULL;

CREATE TABLE {dead_letter_record} (
    id                 INTEGER PRIMARY KEY,
    payload            BLOB,
    headers            TEXT    NOT NULL
);

CREATE TABLE {dead_letter_source} (
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

CREATE TABLE {dead_letter_plan} (
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

ALTER TABLE {dead_letter_action} ADD COLUMN dead_letter_id INTEGER;
ALTER TABLE {dead_letter_action} ADD COLUMN plan_id INTEGER;
ALTER TABLE {dead_letter_action} ADD COLUMN from_state TEXT;
ALTER TABLE {dead_letter_action} ADD COLUMN to_state TEXT;
CREATE INDEX "{schema.name}_{dead_letter_action.name}_letter" ON {dead_letter_action} (dead_letter_id);

CREATE INDEX "{schema.name}_{inbox.name}_dead_lettered" ON {inbox} (consumer_group, handler, processed_at)
    WHERE outcome = 'dead-lettered';
