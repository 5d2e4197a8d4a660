-- The SQL of the log on SQLite, each query named. Placeholders are :name; {table} is replaced.

-- name: append
INSERT INTO {outbox} (id, topic, key, type, payload, headers) VALUES (:id, :topic, :key, :type, :payload, :headers)

-- name: schedule
INSERT INTO {outbox_scheduled} (id, topic, key, type, payload, headers, due_at)
VALUES (:id, :topic, :key, :type, :payload, :headers, :due_at)

-- name: report
INSERT INTO {relay_instance} (owner, started_at, seen_at, expires_at, able, state, detail, published, rate)
VALUES (:owner, :now, :now, :now + :lease, :able, :state, :detail, :published, :rate)
ON CONFLICT (owner) DO UPDATE
SET seen_at = excluded.seen_at, expires_at = excluded.expires_at, able = excluded.able, state = excluded.state,
    detail = excluded.detail, published = excluded.published, rate = excluded.rate

-- name: forget_relays
DELETE FROM {relay_instance} WHERE expires_at < :now - 600

-- name: others
SELECT count(*) FROM {relay_instance} WHERE able AND expires_at > :now AND owner <> :owner

-- name: claim
UPDATE {relay_cursor}
SET epoch = CASE WHEN owner = :owner THEN epoch ELSE epoch + 1 END,
    owner = :owner, lease_until = :now + :lease
WHERE owner = :owner OR (:able AND (owner IS NULL OR lease_until < :now))
RETURNING epoch, position

-- name: control
SELECT topic, paused, rate, batch_size, revision FROM {relay_control}

-- name: pause
-- One row where something changed; then `note` records it.
INSERT INTO {relay_control} AS c (topic, paused, paused_at, paused_by)
VALUES (:topic, :reason, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), :actor)
ON CONFLICT (topic) DO UPDATE
SET paused = excluded.paused, paused_at = excluded.paused_at, paused_by = excluded.paused_by
WHERE c.paused IS NOT excluded.paused

-- name: resume
UPDATE {relay_control} SET paused = NULL, paused_at = NULL, paused_by = NULL
WHERE topic = :topic AND paused IS NOT NULL

-- name: limit
UPDATE {relay_control} SET rate = :rate, batch_size = :batch_size, limited_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), limited_by = :actor
WHERE topic = '' AND (rate IS NOT :rate OR batch_size IS NOT :batch_size)

-- name: revise
UPDATE {relay_control} SET revision = revision + 1 WHERE topic = ''

-- name: page
SELECT 0, position, id, topic, key, type, payload, headers, created_at
FROM {outbox} WHERE position > :after ORDER BY position LIMIT :limit

-- name: settle
UPDATE {relay_cursor}
SET position = :position, lease_until = :now + :lease, settled_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE owner = :owner AND epoch = :epoch

-- name: release
UPDATE {relay_cursor} SET owner = NULL, lease_until = NULL WHERE owner = :owner

-- name: sign_off
DELETE FROM {relay_instance} WHERE owner = :owner

-- name: park
INSERT INTO {outbox_parked} (position, id, topic, key, type, payload, headers, created_at, error, by_topic)
VALUES (:position, :id, :topic, :key, :type, :payload, :headers, :created_at, :error, :by_topic)
ON CONFLICT (position) DO UPDATE
SET error = excluded.error, retry = 0, parked_at = excluded.parked_at, by_topic = excluded.by_topic

-- name: parked
SELECT 0, position, id, topic, key, type, payload, headers, created_at, error, parked_at, retry, by_topic
FROM {outbox_parked}
WHERE position > :after AND (:topic IS NULL OR topic = :topic) AND (:key IS NULL OR key = :key)
  AND (:refused IS NULL OR (error IS NOT NULL) = :refused)
ORDER BY position LIMIT :limit

-- name: parked_found
-- For those who look at it. # is ASC or DESC.
SELECT 0, position, id, topic, key, type, CASE WHEN :payloads THEN payload END, headers, created_at,
       error, parked_at, retry, by_topic, state, length(payload)
FROM (SELECT *, CASE WHEN error IS NULL THEN CASE WHEN by_topic THEN 'topic' ELSE 'behind' END
            WHEN retry THEN 'retry' ELSE 'refused' END AS state
      FROM {outbox_parked}) AS p
WHERE position > :after AND position < :before
  AND (:topic IS NULL OR topic = :topic)
  AND (:key IS NULL OR key = :key)
  AND (:type IS NULL OR type GLOB :type)
  AND (:error IS NULL OR instr(lower(error), lower(:error)) > 0)
  AND (:message_id IS NULL OR id = lower(:message_id))
  AND (:since IS NULL OR parked_at >= :since)
  AND (:until IS NULL OR parked_at < :until)
  AND (:refused IS NULL OR (error IS NOT NULL) = :refused)
  AND (:state IS NULL OR state = :state)
ORDER BY position # LIMIT :limit

-- name: parked_count
-- @ is parked_found, without its order.
SELECT state, count(*) FROM (@) AS found GROUP BY state ORDER BY state

-- name: parked_at
SELECT 0, position, id, topic, key, type, payload, headers, created_at,
       error, parked_at, retry, by_topic,
       CASE WHEN error IS NULL THEN CASE WHEN by_topic THEN 'topic' ELSE 'behind' END
            WHEN retry THEN 'retry' ELSE 'refused' END AS state, length(payload)
FROM {outbox_parked} WHERE position IN (SELECT value FROM json_each(:positions)) ORDER BY position

-- name: releasable
-- Of topics that go on. Without a key: asked for, or it waited for its topic. With one: no row of its key is
-- refused and not asked for.
SELECT 0, position, id, topic, key, type, payload, headers, created_at, error, parked_at, retry, by_topic
FROM {outbox_parked} AS p
WHERE NOT EXISTS (SELECT 1 FROM {relay_control} AS k WHERE k.topic = p.topic AND k.paused IS NOT NULL)
  AND CASE WHEN p.key IS NULL THEN p.retry OR p.error IS NULL ELSE NOT EXISTS (
    SELECT 1 FROM {outbox_parked} AS h
    WHERE h.topic = p.topic AND h.key = p.key AND h.error IS NOT NULL AND NOT h.retry) END
ORDER BY position LIMIT :limit

-- name: held_topics
SELECT topic FROM {relay_control} WHERE paused IS NOT NULL AND topic <> ''
UNION
SELECT p.topic FROM {outbox_parked} AS p
WHERE p.by_topic AND (p.key IS NULL OR NOT EXISTS (
    SELECT 1 FROM {outbox_parked} AS h
    WHERE h.topic = p.topic AND h.key = p.key AND h.error IS NOT NULL AND NOT h.retry))

-- name: held_keys
SELECT DISTINCT topic, key FROM {outbox_parked} WHERE key IS NOT NULL

-- name: retry_parked
UPDATE {outbox_parked} SET retry = 1 WHERE position = :position RETURNING topic, position, id

-- name: discard_parked
DELETE FROM {outbox_parked} WHERE position = :position RETURNING topic, position, id

-- name: delete_parked
DELETE FROM {outbox_parked} WHERE position = :position

-- name: note
INSERT INTO {outbox_action} (actor, action, topic, position, message_id, messages, reason)
VALUES (:actor, :action, :topic, :position, :message_id, :messages, :reason)
RETURNING id

-- name: note_progress
-- A long action goes on: how far it came.
UPDATE {outbox_action} SET position = :position, messages = messages + :messages WHERE id = :id

-- name: outbox_actions
SELECT id, at, actor, action, topic, position, message_id, messages, reason
FROM {outbox_action}
WHERE (:action IS NULL OR action = :action) AND (:topic IS NULL OR topic = :topic)
  AND (:position IS NULL OR position = :position)
ORDER BY id DESC LIMIT :limit

-- name: due
SELECT id, topic, key, type, payload, headers FROM {outbox_scheduled}
WHERE due_at <= :now ORDER BY due_at, id LIMIT :limit

-- name: written
-- What this transaction sees of the log after a position, and after it what is delayed: for tests.
SELECT id, topic, key, type, payload, headers, due_at FROM (
    SELECT 0 AS late, position, id, topic, key, type, payload, headers, NULL AS due_at
    FROM {outbox} WHERE position > :after
    UNION ALL
    SELECT 1, rowid, id, topic, key, type, payload, headers, due_at FROM {outbox_scheduled}) seen
ORDER BY late, position

-- name: delete_scheduled
DELETE FROM {outbox_scheduled} WHERE id = :id

-- name: prunable
-- Rows that can go, their newest; rows that stay since they are young, and since they are not settled.
SELECT count(*) FILTER (WHERE o.position <= c.position AND o.created_at < :before),
       max(o.created_at) FILTER (WHERE o.position <= c.position AND o.created_at < :before),
       count(*) FILTER (WHERE o.position <= c.position AND o.created_at >= :before),
       count(*) FILTER (WHERE o.position > c.position)
FROM {outbox} AS o, {relay_cursor} AS c

-- name: prune
DELETE FROM {outbox} WHERE position <= (SELECT position FROM {relay_cursor}) AND created_at < :before

-- name: backlog
SELECT count(*), coalesce((julianday('now') - julianday(min(o.created_at))) * 86400, 0), 1
FROM {outbox} AS o, {relay_cursor} AS c WHERE o.position > c.position

-- name: head
SELECT coalesce(max(position), 0) FROM {outbox}

-- name: browse
-- The log as it is retained. # is ASC or DESC.
SELECT 0, l.position, l.id, l.topic, l.key, l.type, CASE WHEN :payloads THEN l.payload END, l.headers, l.created_at,
       length(l.payload),
       CASE WHEN p.position IS NOT NULL THEN 'parked'
            WHEN EXISTS (SELECT 1 FROM {outbox_action} AS a WHERE a.position = l.position AND a.action = 'discard')
            THEN 'discarded'
            WHEN l.position <= c.position THEN 'settled' ELSE 'waiting' END AS state
FROM {outbox} AS l CROSS JOIN {relay_cursor} AS c LEFT JOIN {outbox_parked} AS p ON p.position = l.position
WHERE l.position > :after AND l.position <= :upto
  AND (:topic IS NULL OR l.topic = :topic)
  AND (:key IS NULL OR l.key = :key)
  AND (:type IS NULL OR l.type = :type)
  AND (:id IS NULL OR l.id = :id)
  AND (:since IS NULL OR l.created_at >= :since)
  AND (:until IS NULL OR l.created_at < :until)
  AND (:copies OR l.headers NOT LIKE '%["postroom_replay", %')
  AND (:state IS NULL OR state = :state)
ORDER BY l.position # LIMIT :limit

-- name: count_browsed
-- @ is `browse` without its order.
SELECT topic, count(*) FROM (@) AS found GROUP BY topic

-- name: verify_begin
-- The database's time, and the last position that was taken.
SELECT NULL, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), coalesce((SELECT max(position) FROM {outbox}), 0), 1

-- name: verify_next
-- The first row behind a position, and when it was written.
SELECT position, created_at FROM {outbox} WHERE position > :after ORDER BY position LIMIT 1

-- name: verify_rows
-- A range of positions with the state of each row. @ is `browse` without its order.
WITH b (shard, position, id, topic, key, type, payload, headers, created_at, size, state) AS (@)
SELECT b.position, b.id, b.topic, b.key, b.type, b.payload, b.headers, b.created_at, b.state,
       EXISTS (SELECT 1 FROM {outbox_action} AS a WHERE a.position = b.position AND a.action = 'retry')
FROM b
WHERE :topics IS NULL OR b.topic IN (SELECT value FROM json_each(:topics))

-- name: scheduled
SELECT id, topic, key, type, payload, headers, created_at, due_at FROM {outbox_scheduled} WHERE id = :id

-- name: inbox_close
-- Close a message of a group; one row changed means that it was open. A dead-lettered one is opened
-- again by a replay that is newer than the delivery that closed it.
INSERT INTO {inbox} AS i (consumer_group, message_id, outcome, topic, handler, attempts, replays)
VALUES (:group, :message_id, :outcome, :topic, :handler, :attempts, :replays)
ON CONFLICT (consumer_group, message_id) DO UPDATE
SET outcome = excluded.outcome, handler = excluded.handler, attempts = excluded.attempts,
    replays = excluded.replays, processed_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE i.outcome = 'dead-lettered' AND i.replays < excluded.replays

-- name: inbox_forget
-- As after its retention: for tests.
DELETE FROM {inbox} WHERE consumer_group = :group AND message_id = :message_id

-- name: inbox_outcome
SELECT outcome, replays, result, processed_at
FROM {inbox} WHERE consumer_group = :group AND message_id = :message_id

-- name: inbox_result
UPDATE {inbox} SET result = :result WHERE consumer_group = :group AND message_id = :message_id

-- name: hold
-- Delivered again, a message is held already.
INSERT INTO {inbox_held} (consumer_group, topic, "partition", "offset", message_id, key, type, payload, headers,
                          "timestamp", handler, state, attempts, error, first_failed_at, next_attempt_at)
VALUES (:group, :topic, :partition, :offset, :message_id, :key, :type, :payload,
        :headers, :timestamp, :handler, :state, :attempts, :error, :first_failed_at,
        :next_attempt_at)
ON CONFLICT (consumer_group, topic, "partition", "offset") DO NOTHING

-- name: held_heads
-- The first of each key; each one without a key.
SELECT topic, "partition", key, min("offset"), state, next_attempt_at
FROM {inbox_held} WHERE consumer_group = :group
GROUP BY topic, "partition", key, CASE WHEN key IS NULL THEN "offset" END

-- name: held_next
SELECT id, "offset", key, payload, headers, "timestamp", state, attempts, first_failed_at,
       next_attempt_at
FROM {inbox_held}
WHERE consumer_group = :group AND topic = :topic AND "partition" = :partition
  AND key IS :key AND (:offset IS NULL OR "offset" = :offset)
ORDER BY "offset" LIMIT 1

-- name: held_dead_letter
-- The dead letter that a key waits for, if it is of this message or of the one that this replaces; the headers are
-- those of the delivery that died.
SELECT id, message_id, headers FROM {inbox_held}
WHERE consumer_group = :group AND message_id IN (:message_id, :replaces) AND state = 'dead-letter'
  AND topic = :topic AND key IS :key

-- name: held_reopen
-- A replay takes the place of the dead letter that its key waits for.
UPDATE {inbox_held}
SET message_id = :message_id, payload = :payload, headers = :headers, "timestamp" = :timestamp, type = :type,
    handler = :handler, state = 'retry', attempts = 0, error = NULL, first_failed_at = NULL, next_attempt_at = NULL
WHERE id = :id AND state = 'dead-letter'

-- name: held_begin
-- An attempt is counted before it begins.
UPDATE {inbox_held} SET attempts = :attempt, state = 'retry' WHERE id = :id

-- name: held_failed
UPDATE {inbox_held}
SET state = :state, attempts = :attempts, error = :error, next_attempt_at = :next_attempt_at,
    first_failed_at = coalesce(first_failed_at, :first_failed_at), handler = :handler
WHERE id = :id

-- name: held_done
DELETE FROM {inbox_held} WHERE id = :id

-- name: attempt_begin
INSERT INTO {inbox_attempt} AS a (consumer_group, topic, "partition", member, first_offset, last_offset)
VALUES (:group, :topic, :partition, :member, :first_offset, :last_offset)
ON CONFLICT (consumer_group, topic, "partition") DO UPDATE
SET member = excluded.member, first_offset = excluded.first_offset, last_offset = excluded.last_offset,
    suspect_attempts = CASE WHEN a.suspect_offset >= excluded.first_offset THEN a.suspect_attempts ELSE 0 END,
    suspect_offset = CASE WHEN a.suspect_offset >= excluded.first_offset THEN a.suspect_offset END,
    at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')

-- name: attempts_begun
SELECT topic, "partition", member, first_offset, last_offset, suspect_offset, suspect_attempts
FROM {inbox_attempt} WHERE consumer_group = :group

-- name: attempt_suspect
UPDATE {inbox_attempt}
SET suspect_attempts = :attempts, suspect_offset = :offset, at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE consumer_group = :group AND topic = :topic AND "partition" = :partition

-- name: attempt_end
DELETE FROM {inbox_attempt}
WHERE consumer_group = :group AND topic = :topic AND "partition" = :partition AND member = :member

-- name: attempt_leave
-- What a crash left stays what it is, with its count, and belongs to nobody.
UPDATE {inbox_attempt}
SET member = '', first_offset = :first_offset, last_offset = :last_offset,
    suspect_offset = CASE WHEN NOT :no_death THEN suspect_offset END,
    suspect_attempts = CASE WHEN NOT :no_death THEN suspect_attempts ELSE 0 END
WHERE consumer_group = :group AND topic = :topic AND "partition" = :partition AND member = :member

-- name: inbox_control
SELECT subject, paused, policy, revision FROM {inbox_control} WHERE consumer_group = :group

-- name: inbox_limit_resumed
-- When an operator last let the handler go on, if that was within the minute.
SELECT max(at) FROM {inbox_action}
WHERE consumer_group = :group AND subject = :subject AND action = 'resume'
  AND at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 minute')

-- name: inbox_limit_count
-- A handler's dead letters of the last minute, since an operator let it go on, up to so many.
SELECT count(*) FROM (
    SELECT 1 FROM {inbox}
    WHERE consumer_group = :group AND handler = :handler AND outcome = 'dead-lettered'
      AND processed_at > max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 minute'), coalesce(:resumed_at, ''))
    LIMIT :most)

-- name: inbox_limit_pause
-- An operator's own reason stays.
INSERT INTO {inbox_control} AS c (consumer_group, subject, paused, changed_by)
VALUES (:group, :subject, :reason, :actor)
ON CONFLICT (consumer_group, subject) DO UPDATE
SET paused = excluded.paused, changed_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), changed_by = excluded.changed_by
WHERE c.paused IS NULL

-- name: prunable_inbox
SELECT count(*) FROM {inbox} WHERE processed_at < :before

-- name: prune_inbox
DELETE FROM {inbox} WHERE rowid IN (SELECT rowid FROM {inbox} WHERE processed_at < :before LIMIT :limit)

-- name: note_inbox
INSERT INTO {inbox_action} (actor, action, consumer_group, subject, message_id, reason)
VALUES (:actor, :action, :group, :subject, :message_id, :reason)

-- name: desk_groups
-- From one group to the next by the index of the primary key.
WITH RECURSIVE closed (name) AS (
    SELECT min(consumer_group) FROM {inbox}
    UNION ALL
    SELECT (SELECT min(consumer_group) FROM {inbox} WHERE consumer_group > c.name) FROM closed AS c
    WHERE c.name IS NOT NULL)
SELECT name FROM closed WHERE name IS NOT NULL
UNION SELECT consumer_group FROM {inbox_held}
UNION SELECT consumer_group FROM {inbox_attempt}
UNION SELECT consumer_group FROM {inbox_control} WHERE paused IS NOT NULL OR policy <> '{}'
ORDER BY 1

-- name: desk_held
-- # is ASC or DESC.
SELECT id, consumer_group, topic, "partition", "offset", message_id, key, type, CASE WHEN :payloads THEN payload END,
       CASE WHEN :payloads THEN headers END, "timestamp", handler, state, attempts, error, first_failed_at,
       next_attempt_at, held_at, length(payload)
FROM {inbox_held}
WHERE id > :after AND id < :before
  AND (:group IS NULL OR consumer_group GLOB :group)
  AND (:topic IS NULL OR topic = :topic)
  AND (:key IS NULL OR key = :key)
  AND (:type IS NULL OR type GLOB :type)
  AND (:state IS NULL OR state = :state)
  AND (:error IS NULL OR instr(lower(error), lower(:error)) > 0)
  AND (:message_id IS NULL OR message_id = :message_id)
  AND (:since IS NULL OR held_at >= :since)
  AND (:until IS NULL OR held_at < :until)
ORDER BY id # LIMIT :limit

-- name: desk_held_count
SELECT state, count(*) FROM {inbox_held}
WHERE (:group IS NULL OR consumer_group GLOB :group)
  AND (:topic IS NULL OR topic = :topic)
  AND (:key IS NULL OR key = :key)
  AND (:type IS NULL OR type GLOB :type)
  AND (:state IS NULL OR state = :state)
  AND (:error IS NULL OR instr(lower(error), lower(:error)) > 0)
  AND (:message_id IS NULL OR message_id = :message_id)
  AND (:since IS NULL OR held_at >= :since)
  AND (:until IS NULL OR held_at < :until)
GROUP BY state ORDER BY state

-- name: desk_held_at
SELECT id, consumer_group, topic, "partition", "offset", message_id, key, type, payload, headers, "timestamp", handler,
       state, attempts, error, first_failed_at, next_attempt_at, held_at, length(payload)
FROM {inbox_held} WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id

-- name: desk_held_behind
SELECT id, consumer_group, topic, "partition", "offset", message_id, key, type, NULL, NULL, "timestamp", handler,
       state, attempts, error, first_failed_at, next_attempt_at, held_at, length(payload)
FROM {inbox_held}
WHERE consumer_group = :group AND topic = :topic AND "partition" = :partition AND key = :key
  AND "offset" > :offset
ORDER BY "offset" LIMIT :limit

-- name: desk_retry
UPDATE {inbox_held} SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), attempts = 0
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'retry'
RETURNING consumer_group, topic, message_id

-- name: desk_discard
DELETE FROM {inbox_held}
WHERE id IN (SELECT value FROM json_each(:ids))
RETURNING consumer_group, topic, message_id

-- name: desk_revise
-- Held messages were changed by hand: the members of the group look at them anew.
INSERT INTO {inbox_control} AS c (consumer_group, revision) VALUES (:group, 1)
ON CONFLICT (consumer_group, subject) DO UPDATE SET revision = c.revision + 1

-- name: desk_controls
SELECT consumer_group, subject, paused, policy, revision, changed_at, changed_by
FROM {inbox_control} WHERE :group IS NULL OR consumer_group = :group
ORDER BY consumer_group, subject

-- name: desk_pause
INSERT INTO {inbox_control} AS c (consumer_group, subject, paused, changed_by)
VALUES (:group, :subject, :reason, :actor)
ON CONFLICT (consumer_group, subject) DO UPDATE
SET paused = excluded.paused, changed_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), changed_by = excluded.changed_by
WHERE c.paused IS NOT excluded.paused

-- name: desk_resume
UPDATE {inbox_control}
SET paused = NULL, changed_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), changed_by = :actor
WHERE consumer_group = :group AND subject = :subject AND paused IS NOT NULL

-- name: desk_open_policies
-- A row to lock.
INSERT INTO {inbox_control} (consumer_group) VALUES (:group) ON CONFLICT DO NOTHING

-- name: desk_policies
SELECT subject, policy FROM {inbox_control} WHERE consumer_group = :group

-- name: desk_set_policy
INSERT INTO {inbox_control} AS c (consumer_group, subject, policy, changed_by)
VALUES (:group, :subject, :policy, :actor)
ON CONFLICT (consumer_group, subject) DO UPDATE
SET policy = excluded.policy, changed_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), changed_by = excluded.changed_by

-- name: desk_actions
SELECT id, at, actor, action, consumer_group, subject, message_id, reason
FROM {inbox_action}
WHERE (:group IS NULL OR consumer_group = :group)
  AND (:action IS NULL OR action = :action)
  AND (:message_id IS NULL OR message_id = :message_id)
ORDER BY id DESC LIMIT :limit

-- name: desk_held_stats
SELECT consumer_group, topic, state, count(*), min(held_at), min(next_attempt_at)
FROM {inbox_held} GROUP BY consumer_group, topic, state ORDER BY consumer_group, topic, state

-- name: desk_begun
SELECT consumer_group, topic, "partition", member, first_offset, last_offset, suspect_offset, suspect_attempts, at
FROM {inbox_attempt} ORDER BY consumer_group, topic, "partition"

-- name: lock_dead_letters
-- One writer at a time: what one operator finds undone, no other does meanwhile.
BEGIN IMMEDIATE

-- name: take_ids
-- The last number that was ever taken.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{schema.name}_{dead_letter.name}'), 0)

-- name: plan_letters
-- Into a plan, in this order; only what nobody planned or closed meanwhile.
INSERT INTO {dead_letter_state} AS s (id, state, plan_id, ordinal)
SELECT d.id, 'planned', :plan, :start + n.key + 1
FROM json_each(:ids) AS n JOIN {dead_letter} AS d ON d.id = n.value
WHERE true
ON CONFLICT (id) DO UPDATE
SET state = 'planned', state_at = excluded.state_at, plan_id = excluded.plan_id, ordinal = excluded.ordinal
WHERE s.state = 'dead'

-- name: follow_letters
-- Which letter each new one follows: the death before it of the same message in the same group.
UPDATE {dead_letter} AS n
SET follows = p.id, order_partition = p.order_partition, order_offset = p.order_offset,
    rounds = p.rounds + 1,
    same_failures = CASE WHEN p.fingerprint = n.fingerprint THEN p.same_failures + 1 ELSE 0 END
FROM {dead_letter} AS p
WHERE n.id BETWEEN :first AND :last AND n.replays = :replays AND p.id = (
    SELECT b.id FROM {dead_letter} AS b
    WHERE b.message_id = n.message_id AND b.consumer_group IS n.consumer_group
      AND b.replays < n.replays AND (b.id < n.id OR b.failed_at <= n.failed_at)
    ORDER BY b.replays DESC, b.id DESC LIMIT 1)

-- name: adopt_actions
-- What was done before there was a ledger, the last of it; another message may stand at the place by now.
INSERT INTO {dead_letter_state} (id, state, state_at)
SELECT d.id, CASE a.action WHEN 'replay' THEN 'replayed' ELSE 'discarded' END, a.at
FROM {dead_letter} AS d
JOIN {dead_letter_action} AS a
  ON a.dead_letter_topic = d.dead_letter_topic AND a."partition" = d."partition" AND a."offset" = d."offset"
  AND a.message_id = d.message_id
WHERE d.id BETWEEN :first AND :last AND a.dead_letter_id IS NULL AND a.id = (
    SELECT max(l.id) FROM {dead_letter_action} AS l
    WHERE l.dead_letter_topic = d.dead_letter_topic AND l."partition" = d."partition" AND l."offset" = d."offset"
      AND l.message_id = d.message_id AND l.dead_letter_id IS NULL AND l.action IN ('replay', 'discard'))

-- name: traces_held
-- Held messages of a key, or with a text in their headers.
SELECT id, consumer_group, topic, "partition", "offset", message_id, key, headers, handler, state, attempts
FROM {inbox_held}
WHERE id > :after AND (:group IS NULL OR consumer_group = :group)
  AND (:topic IS NULL OR topic = :topic)
  AND (key = :key OR instr(headers, :quoted) > 0)
ORDER BY id LIMIT :limit


-- name: traces_logged
-- The same of the log.
SELECT topic, key, headers, created_at FROM {outbox}
WHERE (:topic IS NULL OR topic = :topic)
  AND (key = :key OR instr(headers, :quoted) > 0)


-- name: traces_scheduled
-- The same of delayed messages.
SELECT topic, key, headers, due_at FROM {outbox_scheduled}
WHERE (:topic IS NULL OR topic = :topic)
  AND (key = :key OR instr(headers, :quoted) > 0)


-- name: traces_results
-- Results of handlers that the inbox keeps for dead letters.
SELECT count(*) FROM {dead_letter} AS d
JOIN {inbox} AS i ON i.consumer_group = d.consumer_group AND i.message_id = d.inbox_id
WHERE d.id IN (SELECT value FROM json_each(:ids)) AND i.result IS NOT NULL

-- name: relay_status
-- Who owns the log, for how many seconds more, and how many ago a batch was last settled.
SELECT shard, owner, epoch, lease_until - (julianday('now') - 2440587.5) * 86400,
       (julianday('now') - julianday(settled_at)) * 86400
FROM {relay_cursor} ORDER BY shard

-- name: parked_stats
-- Refused, waiting behind a refused one of their key, asked to be retried, and waiting for their topic; by topic.
SELECT topic, count(*) FILTER (WHERE error IS NOT NULL), count(*) FILTER (WHERE error IS NULL AND NOT by_topic),
       count(*) FILTER (WHERE retry), count(*) FILTER (WHERE by_topic)
FROM {outbox_parked} GROUP BY topic ORDER BY topic

-- name: relay_instances
-- Each relay, with the seconds since it started, since its last word, and until it counts as gone.
SELECT owner, n.now - started_at, n.now - seen_at, expires_at - n.now, able, state, detail, published, rate
FROM {relay_instance}, (SELECT (julianday('now') - 2440587.5) * 86400 AS now) AS n ORDER BY started_at, owner

-- name: relay_controls
SELECT topic, paused, paused_at, paused_by, rate, batch_size, limited_at, limited_by FROM {relay_control}
WHERE topic = '' OR paused IS NOT NULL ORDER BY topic

-- name: scheduled_stats
-- Delayed messages, and in how many seconds the next one is due.
SELECT count(*), (julianday(min(due_at)) - julianday('now')) * 86400 FROM {outbox_scheduled}

-- name: inbox_stats
SELECT consumer_group, topic, outcome, count(*), (julianday('now') - julianday(max(processed_at))) * 86400
FROM {inbox} GROUP BY consumer_group, topic, outcome ORDER BY consumer_group, topic, outcome

-- name: oldest_transaction
-- There is one writer, and nothing that its age would hold up.
SELECT 0.0

-- name: log_size
-- Bytes of the whole file.
SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()

-- name: dead_letter_stats
SELECT coalesce(d.consumer_group, ''), coalesce(s.state, 'dead'), count(*)
FROM {dead_letter} AS d LEFT JOIN {dead_letter_state} AS s ON s.id = d.id GROUP BY 1, 2 ORDER BY 1, 2

-- name: dead_letter_fingerprints
-- Of those that somebody still has to look after: the most frequent failures, and all others by group, without a name.
SELECT consumer_group, name, sum(letters) FROM (
    SELECT coalesce(consumer_group, '') AS consumer_group, count(*) AS letters,
           CASE WHEN row_number() OVER (ORDER BY count(*) DESC, fingerprint) <= :top THEN fingerprint ELSE '' END AS name
    FROM {dead_letter} AS d LEFT JOIN {dead_letter_state} AS s ON s.id = d.id
    WHERE coalesce(s.state, 'dead') IN ('dead', 'planned', 'replayed', 'quarantined')
    GROUP BY 1, fingerprint) AS ranked
GROUP BY consumer_group, name ORDER BY consumer_group, name

-- name: dead_letter_age
-- How many seconds ago the ledger was last brought up to date; null: never.
SELECT (julianday('now') - julianday(max(read_at))) * 86400 FROM {dead_letter_source}

-- name: version
SELECT coalesce(max(version), 0) FROM {schema_version}
