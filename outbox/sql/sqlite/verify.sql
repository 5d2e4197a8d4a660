-- The scratch database of a comparison (outbox/verification): SQLite, temporary. Rows of all topics, and what belongs
-- to the topic in hand. Ids, keys and contents are hashes of 16 bytes.

-- name: tables
CREATE TABLE logged (topic INTEGER NOT NULL, id BLOB NOT NULL, position INTEGER PRIMARY KEY, key BLOB, content BLOB NOT NULL,
                     whole BLOB NOT NULL, mark BLOB NOT NULL, created INTEGER NOT NULL, home INTEGER,
                     state INTEGER NOT NULL, tombstone INTEGER NOT NULL, retried INTEGER NOT NULL);
CREATE TABLE record (id BLOB NOT NULL, "partition" INTEGER NOT NULL, "offset" INTEGER NOT NULL, key BLOB,
                     content BLOB NOT NULL, whole BLOB NOT NULL, mark BLOB NOT NULL, time INTEGER NOT NULL,
                     told INTEGER NOT NULL);
CREATE TABLE arrival (key BLOB NOT NULL, "partition" INTEGER NOT NULL, "offset" INTEGER NOT NULL,
                      position INTEGER NOT NULL, id BLOB NOT NULL, created INTEGER NOT NULL, home INTEGER NOT NULL,
                      retried INTEGER NOT NULL);
CREATE TABLE missing (key BLOB, position INTEGER NOT NULL, id BLOB NOT NULL, created INTEGER NOT NULL, home INTEGER,
                      tombstone INTEGER NOT NULL);
CREATE TABLE stray (key BLOB NOT NULL);

-- name: index_logged
CREATE INDEX logged_topic ON logged (topic)

-- name: add_logged
-- What was committed late may have been read already.
INSERT OR IGNORE INTO logged VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_record
INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_arrival
INSERT INTO arrival VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_missing
INSERT INTO missing VALUES (?, ?, ?, ?, ?, ?)

-- name: add_stray
INSERT INTO stray VALUES (?)

-- name: by_id
-- Rows and records of each id, the rows first, by position; the records by partition and offset.
SELECT id, 0 AS side, position AS place, 0 AS nth, key, content, whole, mark, created, home, state, tombstone, retried
FROM logged WHERE topic = ?
UNION ALL
SELECT id, 1, "partition", "offset", key, content, whole, mark, time, told, NULL, NULL, NULL FROM record
ORDER BY 1, 2, 3, 4

-- name: by_key
-- First arrivals of each key by partition, in the order in which they came.
SELECT key, "partition", "offset", position, id, created, home, retried FROM arrival ORDER BY 1, 2, 3

-- name: missing
-- What is settled and not in the topic; with the last position of its key that is, and whether there are records of
-- its key that the log does not know. The latest of each key first.
SELECT m.key, m.position, m.id, m.created, m.home, m.tombstone, a.position,
       EXISTS (SELECT 1 FROM stray AS s WHERE s.key = m.key)
FROM missing AS m
LEFT JOIN (SELECT key, max(position) AS position FROM arrival WHERE key IN (SELECT key FROM missing) GROUP BY key) AS a
  ON a.key = m.key
ORDER BY m.key, m.position DESC

-- name: index_stray
CREATE INDEX IF NOT EXISTS stray_key ON stray (key)

-- name: earliest
-- When the first record was written that a partition still has.
SELECT time FROM record WHERE "partition" = ? AND "offset" >= ? ORDER BY "offset" LIMIT 1
