-- The SQL of the log on PostgreSQL, each query named. psycopg's placeholders; {table} is replaced.

-- name: append
-- All messages of a transaction in one statement; the positions follow the order of the arrays.
INSERT INTO {outbox} (id, topic, key, type, payload, headers)
SELECT e.id, e.topic, e.key, e.type, e.payload, e.headers::jsonb
FROM unnest(%(ids)s::uuid[], %(topics)s::text[], %(keys)s::bytea[], %(types)s::text[], %(payloads)s::bytea[],
            %(headers)s::text[]) WITH ORDINALITY AS e (id, topic, key, type, payload, headers, n)
ORDER BY e.n

-- name: schedule
INSERT INTO {outbox_scheduled} (id, topic, key, type, payload, headers, due_at)
SELECT e.id, e.topic, e.key, e.type, e.payload, e.headers::jsonb, e.due_at
FROM unnest(%(ids)s::uuid[], %(topics)s::text[], %(keys)s::bytea[], %(types)s::text[], %(payloads)s::bytea[],
            %(headers)s::text[], %(due_ats)s::timestamptz[])
     AS e (id, topic, key, type, payload, headers, due_at)

-- name: plan
-- The planner settings that the poll depends on, for this transaction only (there is no session state
-- behind PgBouncer). Without them the poll took 122 ms instead of 0.7.
SELECT set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true)

-- name: claim
-- Renew what is ours, take what is free or expired. The epoch grows with each change of owner: the fence.
WITH candidate AS (
    SELECT shard FROM {relay_cursor}
    WHERE owner = %(owner)s OR owner IS NULL OR lease_until < clock_timestamp()
    ORDER BY shard FOR UPDATE SKIP LOCKED)
UPDATE {relay_cursor} c
SET epoch = CASE WHEN c.owner = %(owner)s THEN c.epoch ELSE c.epoch + 1 END,
    owner = %(owner)s,
    lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
FROM candidate WHERE c.shard = candidate.shard
RETURNING c.shard, c.epoch, c.snapshot::text, c.upto::text, c.page_position, c.page_end, c.cluster::text,
          (SELECT system_identifier::text FROM pg_control_system())

-- name: poll_snapshot
-- The statement's own snapshot, as a first row; what `poll_new` adds by UNION ALL is seen by the same one.
SELECT NULL::smallint, NULL::bigint, NULL::text, pg_current_snapshot()::text, NULL::bytea, NULL::text,
       NULL::bytea, NULL::text, NULL::timestamptz

-- name: poll_new
-- What a snapshot could not see, for the shards whose cursor it is (# is the number of the group).
-- `(shard + 0)` keeps the planner off the primary key, which would read the whole log.
(SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at
 FROM {outbox}
 WHERE (shard + 0) = ANY (%(shards_#)s) AND xid >= pg_snapshot_xmax(%(snapshot_#)s::pg_snapshot)
 LIMIT %(limit)s)
UNION ALL
(SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at
 FROM {outbox}
 WHERE (shard + 0) = ANY (%(shards_#)s)
   AND xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(snapshot_#)s::pg_snapshot)))
 LIMIT %(limit)s)

-- name: freeze
-- More than a batch: fix the end of what is paged. `first` is where the pages begin.
WITH unsettled AS (
    SELECT min(position) AS first FROM (
        SELECT min(position) AS position FROM {outbox}
        WHERE (shard + 0) = ANY (%(shards)s) AND xid >= pg_snapshot_xmax(%(snapshot)s::pg_snapshot)
        UNION ALL
        SELECT min(position) FROM {outbox}
        WHERE (shard + 0) = ANY (%(shards)s) AND xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(snapshot)s::pg_snapshot)))
    ) AS either)
UPDATE {relay_cursor} c
SET upto = pg_current_snapshot(),
    page_position = coalesce(unsettled.first, 1) - 1,
    page_end = (SELECT last_value FROM {schema}."{outbox.name}_position")
FROM unsettled, unnest(%(shards)s::smallint[], %(epochs)s::bigint[]) AS held (shard, epoch)
WHERE c.shard = held.shard AND c.epoch = held.epoch AND c.owner = %(owner)s
RETURNING c.shard, c.upto::text, c.page_position, c.page_end

-- name: page
SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at
FROM {outbox}
WHERE shard = %(shard)s AND position > %(after)s AND position <= %(end)s
  AND pg_visible_in_snapshot(xid, %(upto)s::pg_snapshot)
  AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
ORDER BY shard, position
LIMIT %(limit)s

-- name: settle
-- Guarded by owner and epoch: fewer rows than shards means that a lease was lost.
UPDATE {relay_cursor} c
SET snapshot = coalesce(m.snapshot::pg_snapshot, c.snapshot),
    upto = CASE WHEN m.snapshot IS NULL THEN c.upto END,
    page_position = m.page_position,
    lease_until = clock_timestamp() + make_interval(secs => %(lease)s),
    settled_at = clock_timestamp()
FROM unnest(%(shards)s::smallint[], %(epochs)s::bigint[], %(snapshots)s::text[], %(page_positions)s::bigint[])
     AS m (shard, epoch, snapshot, page_position)
WHERE c.shard = m.shard AND c.epoch = m.epoch AND c.owner = %(owner)s

-- name: release
UPDATE {relay_cursor} SET owner = NULL, lease_until = NULL WHERE owner = %(owner)s

-- name: park
INSERT INTO {outbox_parked} (shard, position, id, topic, key, type, payload, headers, created_at, error)
VALUES (%(shard)s, %(position)s, %(id)s, %(topic)s, %(key)s, %(type)s, %(payload)s, %(headers)s, %(created_at)s, %(error)s)
ON CONFLICT (shard, position) DO UPDATE SET error = excluded.error, retry = false, parked_at = excluded.parked_at

-- name: parked
SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at, error, parked_at, retry
FROM {outbox_parked} ORDER BY position LIMIT %(limit)s

-- name: releasable
-- Without a key: asked for. With one: no row of its key is refused and not asked for.
SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at, error, parked_at, retry
FROM {outbox_parked} p
WHERE CASE WHEN p.key IS NULL THEN p.retry ELSE NOT EXISTS (
    SELECT FROM {outbox_parked} h
    WHERE h.topic = p.topic AND h.key = p.key AND h.error IS NOT NULL AND NOT h.retry) END
ORDER BY position LIMIT %(limit)s

-- name: held_keys
SELECT DISTINCT topic, key FROM {outbox_parked} WHERE key IS NOT NULL

-- name: retry_parked
UPDATE {outbox_parked} SET retry = true WHERE position = ANY (%(positions)s)

-- name: delete_parked
DELETE FROM {outbox_parked} WHERE position = ANY (%(positions)s)

-- name: move_due
-- Delayed messages that are due go into the log, in the order in which they are due.
WITH due AS (
    DELETE FROM {outbox_scheduled} WHERE id IN (
        SELECT id FROM {outbox_scheduled} WHERE due_at <= clock_timestamp()
        ORDER BY due_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING *)
INSERT INTO {outbox} (id, topic, key, type, payload, headers)
SELECT id, topic, key, type, payload, headers FROM due ORDER BY due_at, id

-- name: add_partitions
SELECT {schema}."{outbox.name}_add_partitions"(%(ahead)s, %(size)s)

-- name: backlog
-- Not settled, and the age of the oldest in seconds. Parked messages are not waiting for the relay.
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(o.created_at)), 0)::float8
FROM {relay_cursor} c JOIN {outbox} o ON o.shard = c.shard
WHERE NOT pg_visible_in_snapshot(o.xid, c.snapshot)
  AND o.xid >= pg_snapshot_xmin(c.snapshot)
  AND NOT (c.upto IS NOT NULL AND o.position <= c.page_position AND pg_visible_in_snapshot(o.xid, c.upto))

-- name: reset_cursor
-- On another cluster transaction ids start again: what was settled gets the id that is visible to all, what
-- was not gets this transaction's, and so is the next batch.
UPDATE {outbox} o
SET xid = CASE
        WHEN pg_visible_in_snapshot(o.xid, c.snapshot)
          OR (c.upto IS NOT NULL AND o.position <= c.page_position AND pg_visible_in_snapshot(o.xid, c.upto))
        THEN '2'::xid8 ELSE pg_current_xact_id() END
FROM {relay_cursor} c WHERE c.shard = o.shard

-- name: anchor_cursor
UPDATE {relay_cursor}
SET snapshot = pg_current_snapshot(), upto = NULL, page_position = 0, page_end = 0, owner = NULL,
    lease_until = NULL, epoch = epoch + 1, cluster = (SELECT system_identifier FROM pg_control_system())

-- name: inbox_close
-- Close a message of a group; one row changed means that it was open. A dead-lettered one is opened
-- again by a replay that is newer than the delivery that closed it.
INSERT INTO {inbox} AS i (consumer_group, message_id, outcome, topic, handler, attempts, replays)
VALUES (%(group)s, %(message_id)s, %(outcome)s, %(topic)s, %(handler)s, %(attempts)s, %(replays)s)
ON CONFLICT (consumer_group, message_id) DO UPDATE
SET outcome = excluded.outcome, handler = excluded.handler, attempts = excluded.attempts,
    replays = excluded.replays, processed_at = clock_timestamp()
WHERE i.outcome = 'dead-lettered' AND i.replays < excluded.replays

-- name: inbox_outcome
SELECT outcome, replays FROM {inbox} WHERE consumer_group = %(group)s AND message_id = %(message_id)s

-- name: lock_dead_letters
-- Held to the end of the transaction: what one operator finds undone, no other does meanwhile.
SELECT pg_advisory_xact_lock(hashtextextended('{dead_letter_action}' || %(dead_letter_topic)s, 0))

-- name: record_action
INSERT INTO {dead_letter_action} (actor, action, dead_letter_topic, "partition", "offset", message_id, reason)
SELECT %(actor)s, %(action)s, %(dead_letter_topic)s, l."partition", l."offset", l.message_id, %(reason)s
FROM unnest(%(partitions)s::int[], %(offsets)s::bigint[], %(message_ids)s::text[]) WITH ORDINALITY
     AS l ("partition", "offset", message_id, n)
ORDER BY l.n

-- name: actions
-- What was done to these dead letters, in the order in which it was done.
SELECT a.id, a."partition", a."offset", a.action, a.at, a.actor, a.reason
FROM unnest(%(partitions)s::int[], %(offsets)s::bigint[]) AS l ("partition", "offset")
JOIN {dead_letter_action} a ON a."partition" = l."partition" AND a."offset" = l."offset"
WHERE a.dead_letter_topic = %(dead_letter_topic)s
ORDER BY a.id

-- name: last_action
SELECT coalesce(max(id), 0) FROM {dead_letter_action}

-- name: relay_status
-- Who owns which shard, for how many seconds more, and how many ago a batch of it was last settled.
SELECT shard, owner, epoch, extract(epoch FROM lease_until - clock_timestamp())::float8,
       extract(epoch FROM clock_timestamp() - settled_at)::float8
FROM {relay_cursor} ORDER BY shard

-- name: unsettled_rows
-- How many rows of the log a reset of the cursor would publish, and how many rows there are.
SELECT count(*) FILTER (WHERE NOT (pg_visible_in_snapshot(o.xid, c.snapshot)
                           OR (c.upto IS NOT NULL AND o.position <= c.page_position
                               AND pg_visible_in_snapshot(o.xid, c.upto)))), count(*)
FROM {relay_cursor} c JOIN {outbox} o ON o.shard = c.shard

-- name: parked_stats
-- Refused, waiting behind a refused one of their key, and asked to be retried; by topic.
SELECT topic, count(*) FILTER (WHERE error IS NOT NULL), count(*) FILTER (WHERE error IS NULL),
       count(*) FILTER (WHERE retry)
FROM {outbox_parked} GROUP BY topic ORDER BY topic

-- name: scheduled_stats
-- Delayed messages, and in how many seconds the next one is due.
SELECT count(*), extract(epoch FROM min(due_at) - clock_timestamp())::float8 FROM {outbox_scheduled}

-- name: inbox_stats
SELECT consumer_group, topic, outcome, count(*), extract(epoch FROM clock_timestamp() - max(processed_at))::float8
FROM {inbox} GROUP BY consumer_group, topic, outcome ORDER BY consumer_group, topic, outcome

-- name: version
SELECT coalesce(max(version), 0) FROM {schema_version}
