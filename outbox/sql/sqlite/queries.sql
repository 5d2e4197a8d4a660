-- The SQL of the log on SQLite, each query named. Placeholders are :name; {table} is replaced.

-- name: append
INSERT INTO {outbox} (id, topic, key, type, payload, headers) VALUES (:id, :topic, :key, :type, :payload, :headers)

-- name: schedule
INSERT INTO {outbox_scheduled} (id, topic, key, type, payload, headers, due_at)
VALUES (:id, :topic, :key, :type, :payload, :headers, :due_at)

-- name: claim
UPDATE {relay_cursor}
SET epoch = CASE WHEN owner = :owner THEN epoch ELSE epoch + 1 END,
    owner = :owner, lease_until = :now + :lease
WHERE owner = :owner OR owner IS NULL OR lease_until < :now
RETURNING epoch, position

-- name: page
SELECT 0, position, id, topic, key, type, payload, headers, created_at
FROM {outbox} WHERE position > :after ORDER BY position LIMIT :limit

-- name: settle
UPDATE {relay_cursor}
SET position = :position, lease_until = :now + :lease, settled_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE owner = :owner AND epoch = :epoch

-- name: release
UPDATE {relay_cursor} SET owner = NULL, lease_until = NULL WHERE owner = :owner

-- name: park
INSERT INTO {outbox_parked} (position, id, topic, key, type, payload, headers, created_at, error)
VALUES (:position, :id, :topic, :key, :type, :payload, :headers, :created_at, :error)
ON CONFLICT (position) DO UPDATE SET error = excluded.error, retry = 0, parked_at = excluded.parked_at

-- name: parked
SELECT 0, position, id, topic, key, type, payload, headers, created_at, error, parked_at, retry
FROM {outbox_parked} ORDER BY position LIMIT :limit

-- name: releasable
SELECT 0, position, id, topic, key, type, payload, headers, created_at, error, parked_at, retry
FROM {outbox_parked} AS p
WHERE CASE WHEN p.key IS NULL THEN p.retry ELSE NOT EXISTS (
    SELECT 1 FROM {outbox_parked} AS h
    WHERE h.topic = p.topic AND h.key = p.key AND h.error IS NOT NULL AND NOT h.retry) END
ORDER BY position LIMIT :limit

-- name: held_keys
SELECT DISTINCT topic, key FROM {outbox_parked} WHERE key IS NOT NULL

-- name: retry_parked
UPDATE {outbox_parked} SET retry = 1 WHERE position = :position

-- name: delete_parked
DELETE FROM {outbox_parked} WHERE position = :position

-- name: due
SELECT id, topic, key, type, payload, headers FROM {outbox_scheduled}
WHERE due_at <= :now ORDER BY due_at, id LIMIT :limit

-- name: delete_scheduled
DELETE FROM {outbox_scheduled} WHERE id = :id

-- name: backlog
SELECT count(*), coalesce((julianday('now') - julianday(min(o.created_at))) * 86400, 0)
FROM {outbox} AS o, {relay_cursor} AS c WHERE o.position > c.position

-- name: inbox_close
-- Close a message of a group; one row changed means that it was open. A dead-lettered one is opened
-- again by a replay that is newer than the delivery that closed it.
INSERT INTO {inbox} AS i (consumer_group, message_id, outcome, topic, handler, attempts, replays)
VALUES (:group, :message_id, :outcome, :topic, :handler, :attempts, :replays)
ON CONFLICT (consumer_group, message_id) DO UPDATE
SET outcome = excluded.outcome, handler = excluded.handler, attempts = excluded.attempts,
    replays = excluded.replays, processed_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE i.outcome = 'dead-lettered' AND i.replays < excluded.replays

-- name: inbox_outcome
SELECT outcome, replays FROM {inbox} WHERE consumer_group = :group AND message_id = :message_id

-- name: lock_dead_letters
-- One writer at a time: what one operator finds undone, no other does meanwhile.
BEGIN IMMEDIATE

-- name: record_action
INSERT INTO {dead_letter_action} (actor, action, dead_letter_topic, "partition", "offset", message_id, reason)
SELECT :actor, :action, :dead_letter_topic, json_extract(l.value, '$[0]'), json_extract(l.value, '$[1]'),
       json_extract(l.value, '$[2]'), :reason
FROM json_each(:letters) AS l ORDER BY l.key

-- name: actions
-- What was done to these dead letters, in the order in which it was done.
SELECT a.id, a."partition", a."offset", a.action, a.at, a.actor, a.reason
FROM json_each(:letters) AS l
JOIN {dead_letter_action} AS a
  ON a."partition" = json_extract(l.value, '$[0]') AND a."offset" = json_extract(l.value, '$[1]')
WHERE a.dead_letter_topic = :dead_letter_topic
ORDER BY a.id

-- name: last_action
SELECT coalesce(max(id), 0) FROM {dead_letter_action}

-- name: relay_status
-- Who owns the log, for how many seconds more, and how many ago a batch was last settled.
SELECT shard, owner, epoch, lease_until - (julianday('now') - 2440587.5) * 86400,
       (julianday('now') - julianday(settled_at)) * 86400
FROM {relay_cursor} ORDER BY shard

-- name: parked_stats
-- Refused, waiting behind a refused one of their key, and asked to be retried; by topic.
SELECT topic, count(*) FILTER (WHERE error IS NOT NULL), count(*) FILTER (WHERE error IS NULL),
       count(*) FILTER (WHERE retry)
FROM {outbox_parked} GROUP BY topic ORDER BY topic

-- name: scheduled_stats
-- Delayed messages, and in how many seconds the next one is due.
SELECT count(*), (julianday(min(due_at)) - julianday('now')) * 86400 FROM {outbox_scheduled}

-- name: inbox_stats
SELECT consumer_group, topic, outcome, count(*), (julianday('now') - julianday(max(processed_at))) * 86400
FROM {inbox} GROUP BY consumer_group, topic, outcome ORDER BY consumer_group, topic, outcome

-- name: version
SELECT coalesce(max(version), 0) FROM {schema_version}
