-- The SQL of the log on PostgreSQL, each query named. psycopg's placeholders; {table} is replaced.

-- name: append
-- All messages of a transaction in one statement; the positions follow the order of the arrays.
INSERT INTO {outbox} (id, topic, key, type, payload, headers)
SELECT e.id, e.topic, e.key, e.type, e.payload, e.headers::jsonb
FROM unnest(%(ids)s::uuid[], %(topics)s::text[], %(keys)s::bytea[], %(types)s::text[], %(payloads)s::bytea[],
            %(headers)s::text[]) WITH ORDINALITY AS e (id, topic, key, type, payload, headers, n)
ORDER BY e.n

-- name: append_values
-- The same for a few messages: the row after VALUES is repeated, the names of its values numbered. For one
-- message 150 µs instead of 256, and less than half of the arrays' time for eight.
INSERT INTO {outbox} (id, topic, key, type, payload, headers)
VALUES (%(id)s::uuid, %(topic)s::text, %(key)s::bytea, %(type)s::text, %(payload)s::bytea, %(headers)s::text::jsonb)

-- name: schedule
INSERT INTO {outbox_scheduled} (id, topic, key, type, payload, headers, due_at)
SELECT e.id, e.topic, e.key, e.type, e.payload, e.headers::jsonb, e.due_at
FROM unnest(%(ids)s::uuid[], %(topics)s::text[], %(keys)s::bytea[], %(types)s::text[], %(payloads)s::bytea[],
            %(headers)s::text[], %(due_ats)s::timestamptz[])
     AS e (id, topic, key, type, payload, headers, due_at)

-- name: schedule_values
INSERT INTO {outbox_scheduled} (id, topic, key, type, payload, headers, due_at)
VALUES (%(id)s::uuid, %(topic)s::text, %(key)s::bytea, %(type)s::text, %(payload)s::bytea, %(headers)s::text::jsonb,
        %(due_at)s::timestamptz)

-- name: plan
-- The planner settings that the poll depends on, for this transaction only (there is no session state
-- behind PgBouncer). Without them the poll took 122 ms instead of 0.7.
SELECT set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_bitmapscan', 'off', true)

-- name: report
-- What a relay tells of itself; it counts as alive for as long as its leases last.
INSERT INTO {relay_instance} AS i (owner, expires_at, able, state, detail, published, rate)
VALUES (%(owner)s, clock_timestamp() + make_interval(secs => %(lease)s), %(able)s, %(state)s, %(detail)s,
        %(published)s, %(rate)s)
ON CONFLICT (owner) DO UPDATE
SET seen_at = clock_timestamp(), expires_at = excluded.expires_at, able = excluded.able, state = excluded.state,
    detail = excluded.detail, published = excluded.published, rate = excluded.rate

-- name: forget_relays
DELETE FROM {relay_instance} WHERE expires_at < clock_timestamp() - interval '10 minutes'

-- name: share
-- How many shards a relay may have, how many others could take some, and how many shards there are. The
-- oldest relays have one more where it does not come out even, so that a newcomer moves no more than its share.
SELECT coalesce((SELECT s.shards / l.relays + CASE WHEN l.rank < mod(s.shards, l.relays) THEN 1 ELSE 0 END
                 FROM (SELECT owner, count(*) OVER () AS relays,
                              row_number() OVER (ORDER BY started_at, owner) - 1 AS rank
                       FROM {relay_instance}
                       WHERE able AND (expires_at > clock_timestamp() OR owner = %(owner)s)) l
                 WHERE l.owner = %(owner)s), 0)::int,
       (SELECT count(*) FROM {relay_instance}
        WHERE able AND expires_at > clock_timestamp() AND owner <> %(owner)s)::int,
       s.shards::int
FROM (SELECT count(*) AS shards FROM {relay_cursor}) s

-- name: claim
-- Renew what is ours; take free and expired ones up to our share. The epoch grows with each change of owner:
-- the fence.
WITH held AS (
    SELECT shard FROM {relay_cursor} WHERE owner = %(owner)s FOR UPDATE),
free AS (
    SELECT shard FROM {relay_cursor}
    WHERE (owner IS NULL OR lease_until < clock_timestamp()) AND owner IS DISTINCT FROM %(owner)s
    ORDER BY shard LIMIT greatest(%(quota)s - (SELECT count(*) FROM held), 0) FOR UPDATE SKIP LOCKED)
UPDATE {relay_cursor} c
SET epoch = CASE WHEN c.owner = %(owner)s THEN c.epoch ELSE c.epoch + 1 END,
    owner = %(owner)s,
    lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
FROM (SELECT shard FROM held UNION ALL SELECT shard FROM free) candidate WHERE c.shard = candidate.shard
RETURNING c.shard, c.epoch, c.snapshot::text, c.upto::text, c.page_position, c.page_end, c.cluster::text,
          (SELECT system_identifier::text FROM pg_control_system())

-- name: control
SELECT topic, paused, rate, batch_size, revision FROM {relay_control}

-- name: pause
-- One row where something changed. The record of it is written by the same statement, here and below.
WITH changed AS (
    INSERT INTO {relay_control} AS c (topic, paused, paused_at, paused_by)
    VALUES (%(topic)s, %(reason)s, clock_timestamp(), %(actor)s)
    ON CONFLICT (topic) DO UPDATE
    SET paused = excluded.paused, paused_at = excluded.paused_at, paused_by = excluded.paused_by
    WHERE c.paused IS DISTINCT FROM excluded.paused
    RETURNING topic)
INSERT INTO {outbox_action} (actor, action, topic, reason)
SELECT %(actor)s, 'pause', nullif(topic, ''), %(reason)s FROM changed

-- name: resume
WITH changed AS (
    UPDATE {relay_control} SET paused = NULL, paused_at = NULL, paused_by = NULL
    WHERE topic = %(topic)s AND paused IS NOT NULL
    RETURNING topic)
INSERT INTO {outbox_action} (actor, action, topic) SELECT %(actor)s, 'resume', nullif(topic, '') FROM changed

-- name: limit
WITH changed AS (
    UPDATE {relay_control}
    SET rate = %(rate)s, batch_size = %(batch_size)s, limited_at = clock_timestamp(), limited_by = %(actor)s
    WHERE topic = '' AND (rate, batch_size) IS DISTINCT FROM (%(rate)s::float8, %(batch_size)s::integer)
    RETURNING topic)
INSERT INTO {outbox_action} (actor, action, reason) SELECT %(actor)s, 'limit', %(told)s FROM changed

-- name: revise
-- Parked messages may have become free: every relay looks after them.
UPDATE {relay_control} SET revision = revision + 1 WHERE topic = ''

-- name: poll
-- The statement's own snapshot, as a first row, and what `poll_new` found, seen by the same one. A row is left
-- out when those before it have more than so many bytes: then, too, there is more than a batch.
SELECT NULL::smallint, NULL::bigint, NULL::text, pg_current_snapshot()::text, NULL::bytea, NULL::text,
       NULL::bytea, NULL::text, NULL::timestamptz
UNION ALL
SELECT shard, position, id, topic, key, type, payload, headers, created_at
FROM (SELECT *, sum(octet_length(payload)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes FROM (#) AS found) AS measured
WHERE coalesce(bytes, 0) - coalesce(octet_length(payload), 0) <= %(bytes)s

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
-- More than a batch: where the pages of these shards begin and end. Nothing is written: the cursors learn of it
-- when the first page is settled.
SELECT pg_current_snapshot()::text, coalesce(min(position), 1) - 1,
       (SELECT last_value FROM {schema}."{outbox.name}_position")
FROM (SELECT min(position) AS position FROM {outbox}
      WHERE (shard + 0) = ANY (%(shards)s) AND xid >= pg_snapshot_xmax(%(snapshot)s::pg_snapshot)
      UNION ALL
      SELECT min(position) FROM {outbox}
      WHERE (shard + 0) = ANY (%(shards)s) AND xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(snapshot)s::pg_snapshot)))
     ) AS either

-- name: page
SELECT shard, position, id, topic, key, type, payload, headers, created_at
FROM (SELECT *, sum(octet_length(payload)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes
      FROM (SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at
            FROM {outbox}
            WHERE shard = %(shard)s AND position > %(after)s AND position <= %(end)s
              AND pg_visible_in_snapshot(xid, %(upto)s::pg_snapshot)
              AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
            ORDER BY shard, position
            LIMIT %(limit)s) AS found) AS measured
WHERE coalesce(bytes, 0) - coalesce(octet_length(payload), 0) <= %(bytes)s
ORDER BY position

-- name: settle
-- Guarded by owner and epoch: fewer rows than shards means that a lease was lost.
UPDATE {relay_cursor} c
SET snapshot = m.snapshot::pg_snapshot, upto = m.upto::pg_snapshot, page_position = m.page_position,
    page_end = m.page_end, settled_at = clock_timestamp(),
    lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
FROM unnest(%(shards)s::smallint[], %(epochs)s::bigint[], %(snapshots)s::text[], %(uptos)s::text[],
            %(page_positions)s::bigint[], %(page_ends)s::bigint[])
     AS m (shard, epoch, snapshot, upto, page_position, page_end)
WHERE c.shard = m.shard AND c.epoch = m.epoch AND c.owner = %(owner)s

-- name: release
UPDATE {relay_cursor} SET owner = NULL, lease_until = NULL
WHERE owner = %(owner)s AND (%(shards)s::smallint[] IS NULL OR shard = ANY (%(shards)s))

-- name: sign_off
DELETE FROM {relay_instance} WHERE owner = %(owner)s

-- name: park
INSERT INTO {outbox_parked} (shard, position, id, topic, key, type, payload, headers, created_at, error, by_topic)
VALUES (%(shard)s, %(position)s, %(id)s, %(topic)s, %(key)s, %(type)s, %(payload)s, %(headers)s, %(created_at)s,
        %(error)s, %(by_topic)s)
ON CONFLICT (shard, position) DO UPDATE
SET error = excluded.error, retry = false, parked_at = excluded.parked_at, by_topic = excluded.by_topic

-- name: parked
SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at, error, parked_at, retry,
       by_topic
FROM {outbox_parked}
WHERE position > %(after)s
  AND (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (%(key)s::bytea IS NULL OR key = %(key)s)
  AND (%(refused)s::boolean IS NULL OR (error IS NOT NULL) = %(refused)s)
ORDER BY position LIMIT %(limit)s

-- name: parked_found
-- For those who look at it. # is ASC or DESC.
SELECT shard, position, id::text, topic, key, type, CASE WHEN %(payloads)s THEN payload END, headers::text, created_at,
       error, parked_at, retry, by_topic, state, octet_length(payload)
FROM (SELECT *, CASE WHEN error IS NULL THEN CASE WHEN by_topic THEN 'topic' ELSE 'behind' END
            WHEN retry THEN 'retry' ELSE 'refused' END AS state
      FROM {outbox_parked}) AS p
WHERE position > %(after)s AND position < %(before)s
  AND (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (%(key)s::bytea IS NULL OR key = %(key)s)
  AND (%(type)s::text IS NULL OR type LIKE %(type)s)
  AND (%(error)s::text IS NULL OR position(lower(%(error)s::text) IN lower(error)) > 0)
  AND (%(message_id)s::text IS NULL OR id::text = lower(%(message_id)s::text))
  AND (%(since)s::timestamptz IS NULL OR parked_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR parked_at < %(until)s)
  AND (%(refused)s::boolean IS NULL OR (error IS NOT NULL) = %(refused)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY position # LIMIT %(limit)s

-- name: parked_count
-- @ is parked_found, without its order.
SELECT state, count(*) FROM (@) AS found GROUP BY state ORDER BY state

-- name: parked_at
SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at,
       error, parked_at, retry, by_topic,
       CASE WHEN error IS NULL THEN CASE WHEN by_topic THEN 'topic' ELSE 'behind' END
            WHEN retry THEN 'retry' ELSE 'refused' END AS state, octet_length(payload)
FROM {outbox_parked} WHERE position = ANY (%(positions)s) ORDER BY position

-- name: releasable
-- Of topics that go on. Without a key: asked for, or it waited for its topic. With one: no row of its key is
-- refused and not asked for. As in a batch, a row is left out when those before it have more than so many bytes.
SELECT shard, position, id, topic, key, type, payload, headers, created_at, error, parked_at, retry, by_topic
FROM (SELECT *, sum(octet_length(payload)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes
      FROM (SELECT shard, position, id::text, topic, key, type, payload, headers::text, created_at, error, parked_at,
                   retry, by_topic
            FROM {outbox_parked} p
            WHERE shard = ANY (%(shards)s)
              AND NOT EXISTS (SELECT FROM {relay_control} k WHERE k.topic = p.topic AND k.paused IS NOT NULL)
              AND CASE WHEN p.key IS NULL THEN p.retry OR p.error IS NULL ELSE NOT EXISTS (
                SELECT FROM {outbox_parked} h
                WHERE h.topic = p.topic AND h.key = p.key AND h.error IS NOT NULL AND NOT h.retry) END
            ORDER BY position LIMIT %(limit)s) AS found) AS measured
WHERE coalesce(bytes, 0) - coalesce(octet_length(payload), 0) <= %(bytes)s
ORDER BY position

-- name: held_topics
-- Topics that stand still, and those of which something still waits that may go on: until that is published,
-- later messages queue behind it.
SELECT topic FROM {relay_control} WHERE paused IS NOT NULL AND topic <> ''
UNION
SELECT p.topic FROM {outbox_parked} p
WHERE p.by_topic AND p.shard = ANY (%(shards)s) AND (p.key IS NULL OR NOT EXISTS (
    SELECT FROM {outbox_parked} h
    WHERE h.topic = p.topic AND h.key = p.key AND h.error IS NOT NULL AND NOT h.retry))

-- name: held_keys
SELECT DISTINCT topic, key FROM {outbox_parked}
WHERE key IS NOT NULL AND shard = ANY (%(shards)s) AND topic <> ALL (%(topics)s)

-- name: retry_parked
WITH changed AS (
    UPDATE {outbox_parked} SET retry = true WHERE position = ANY (%(positions)s) RETURNING topic, position, id)
INSERT INTO {outbox_action} (actor, action, topic, position, message_id, messages, reason)
SELECT %(actor)s, 'retry', topic, position, id::text, 1, %(reason)s FROM changed ORDER BY position

-- name: discard_parked
WITH changed AS (
    DELETE FROM {outbox_parked} WHERE position = ANY (%(positions)s) RETURNING topic, position, id)
INSERT INTO {outbox_action} (actor, action, topic, position, message_id, messages, reason)
SELECT %(actor)s, 'discard', topic, position, id::text, 1, %(reason)s FROM changed ORDER BY position

-- name: delete_parked
DELETE FROM {outbox_parked} WHERE position = ANY (%(positions)s)

-- name: note
INSERT INTO {outbox_action} (actor, action, topic, position, message_id, messages, reason)
VALUES (%(actor)s, %(action)s, %(topic)s, %(position)s, %(message_id)s, %(messages)s, %(reason)s)
RETURNING id

-- name: note_progress
-- A long action goes on: how far it came.
UPDATE {outbox_action} SET position = %(position)s, messages = messages + %(messages)s WHERE id = %(id)s

-- name: outbox_actions
SELECT id, at, actor, action, topic, position, message_id, messages, reason
FROM {outbox_action}
WHERE (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (%(position)s::bigint IS NULL OR position = %(position)s)
ORDER BY id DESC LIMIT %(limit)s

-- name: move_due
-- Delayed messages that are due go into the log, in the order in which they are due: by the relay's clock, else by ours.
WITH due AS (
    DELETE FROM {outbox_scheduled} WHERE id IN (
        SELECT id FROM {outbox_scheduled} WHERE due_at <= coalesce(%(now)s::timestamptz, clock_timestamp())
        ORDER BY due_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING *)
INSERT INTO {outbox} (id, topic, key, type, payload, headers)
SELECT id, topic, key, type, payload, headers FROM due ORDER BY due_at, id

-- name: written
-- What this transaction sees of the log after a position, and after it what is delayed: for tests.
SELECT id, topic, key, type, payload, headers, due_at FROM (
    SELECT position, created_at, id::text, topic, key, type, payload, headers::text, NULL::timestamptz AS due_at
    FROM {outbox} WHERE position > %(after)s
    UNION ALL
    SELECT NULL, created_at, id::text, topic, key, type, payload, headers::text, due_at FROM {outbox_scheduled}) seen
ORDER BY position NULLS LAST, created_at

-- name: add_partitions
SELECT {schema}."{outbox.name}_add_partitions"(%(ahead)s, %(size)s)

-- name: prune
SELECT part, why, newest, bytes
FROM {schema}."{outbox.name}_drop_partitions"(%(keep)s, %(dry)s::boolean, %(most)s::integer)

-- name: open_transactions
-- Who wrote into the log and does not end. Another role's transaction shows only to pg_read_all_stats.
SELECT DISTINCT a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''),
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age, coalesce(a.state, '')
FROM pg_locks l
JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted AND l.relation = '{outbox}'::regclass
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND a.xact_start < clock_timestamp() - make_interval(secs => %(age)s)
ORDER BY age DESC

-- name: notify_state
-- Whether commits tell.
SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = '{outbox}'::regclass AND tgname = '{outbox.name}_notify')

-- name: notify_on
CREATE TRIGGER "{outbox.name}_notify" AFTER INSERT ON {outbox}
FOR EACH STATEMENT EXECUTE FUNCTION {schema}."{outbox.name}_notify"()

-- name: notify_off
DROP TRIGGER "{outbox.name}_notify" ON {outbox}

-- name: backlog
-- How many messages are not settled, the age of the oldest in seconds, and whether the number is exact. Parked
-- ones do not wait for the relay. Up to `most` for each shard are counted, by index; what lies beyond is taken to
-- be as dense in positions as what was counted. (Counting three million took 1.4 to 2 s, and more with every row
-- that is settled and kept; this takes 0.1.)
WITH head AS (
    SELECT last_value AS position FROM {schema}."{outbox.name}_position"),
cursors AS (
    SELECT shard, snapshot, upto, page_position,
           coalesce((SELECT array_agg(x) FROM pg_snapshot_xip(coalesce(upto, snapshot)) x), '{}') AS late
    FROM {relay_cursor}),
alike AS (
    SELECT pg_snapshot_xmax(snapshot::text::pg_snapshot) AS xmax, array_agg(shard) AS shards,
           count(*) * %(most)s AS most
    FROM cursors WHERE upto IS NULL GROUP BY snapshot::text),
parts AS (
    -- Shards that are caught up to their snapshot: what came after it.
    SELECT found.*, most FROM alike CROSS JOIN LATERAL (
        SELECT count(*) AS n, min(created_at) AS oldest, min(position) AS first, max(position) AS last
        FROM (SELECT position, created_at FROM {outbox} o
              WHERE (o.shard + 0) = ANY (alike.shards) AND o.xid >= alike.xmax
              ORDER BY o.xid LIMIT alike.most) counted) found
    UNION ALL
    -- Shards whose backlog is being paged: what comes after the page.
    SELECT found.*, %(most)s FROM cursors c CROSS JOIN LATERAL (
        SELECT count(*), min(created_at), min(position), max(position)
        FROM (SELECT position, created_at FROM {outbox} o
              WHERE o.shard = c.shard AND o.position > c.page_position
                AND NOT pg_visible_in_snapshot(o.xid, c.snapshot)
              ORDER BY o.position LIMIT %(most)s) counted) found
    WHERE c.upto IS NOT NULL
    UNION ALL
    -- What was in progress then.
    SELECT found.*, %(most)s FROM cursors c CROSS JOIN LATERAL (
        SELECT count(*), min(created_at), min(position), max(position)
        FROM (SELECT position, created_at FROM {outbox} o
              WHERE (o.shard + 0) = c.shard AND o.xid = ANY (c.late)
                AND (c.upto IS NULL OR o.position <= c.page_position)
              LIMIT %(most)s) counted) found
    WHERE c.late <> '{}')
SELECT coalesce(sum(n + CASE WHEN n < most THEN 0
                             ELSE (head.position - last) * n / greatest(last - first, 1) END), 0)::bigint,
       coalesce(extract(epoch FROM clock_timestamp() - min(oldest)), 0)::float8,
       coalesce(bool_and(n < most), true)
FROM parts, head

-- name: head
-- The last position that was taken.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {schema}."{outbox.name}_position"

-- name: browse
-- The log as it is retained, a range of positions. # is ASC or DESC. A key belongs to one shard.
SELECT l.shard, l.position, l.id::text, l.topic, l.key, l.type, CASE WHEN %(payloads)s THEN l.payload END,
       l.headers::text, l.created_at, octet_length(l.payload), s.state
FROM {outbox} l
JOIN {relay_cursor} c ON c.shard = l.shard
LEFT JOIN {outbox_parked} p ON p.shard = l.shard AND p.position = l.position
LEFT JOIN LATERAL (
    SELECT 1 AS done FROM {outbox_action} a WHERE a.position = l.position AND a.action = 'discard' LIMIT 1) d ON true
CROSS JOIN LATERAL (
    SELECT CASE WHEN p.position IS NOT NULL THEN 'parked'
                WHEN d.done IS NOT NULL THEN 'discarded'
                WHEN pg_visible_in_snapshot(l.xid, c.snapshot)
                  OR (c.upto IS NOT NULL AND l.position <= c.page_position
                      AND pg_visible_in_snapshot(l.xid, c.upto)) THEN 'settled'
                ELSE 'waiting' END AS state) s
WHERE l.shard = ANY (ARRAY(
        SELECT shard FROM {relay_cursor}
        WHERE %(key)s::bytea IS NULL
           OR shard = get_byte(sha256(%(key)s::bytea), 0) %% (SELECT count(*) FROM {relay_cursor})))
  AND l.position > %(after)s AND l.position <= %(upto)s
  AND (%(topic)s::text IS NULL OR l.topic = %(topic)s)
  AND (%(key)s::bytea IS NULL OR l.key = %(key)s)
  AND (%(type)s::text IS NULL OR l.type = %(type)s)
  AND (%(id)s::uuid IS NULL OR l.id = %(id)s::uuid)
  AND (%(since)s::timestamptz IS NULL OR l.created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR l.created_at < %(until)s)
  AND (%(copies)s::boolean OR NOT l.headers @> '[["postroom_replay"]]')
  AND (%(state)s::text IS NULL OR s.state = %(state)s)
ORDER BY l.position # LIMIT %(limit)s

-- name: count_browsed
-- @ is `browse` without its order.
SELECT topic, count(*) FROM (@) AS found GROUP BY topic

-- name: scan_whole
-- For a look at a whole partition, which is read faster from one end to the other.
SELECT set_config('jit', 'off', true)

-- name: verify_begin
-- What is seen from now on, the database's time, the last position that was taken, and whether the cursors mean this
-- cluster's transactions.
SELECT pg_current_snapshot()::text, clock_timestamp(),
       (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {schema}."{outbox.name}_position"),
       coalesce((SELECT bool_and(cluster = (SELECT system_identifier FROM pg_control_system())) FROM {relay_cursor}), true)

-- name: verify_next
-- The first row behind a position, and when it was written: one look into each shard's part of the primary key.
SELECT found.position, found.created_at
FROM {relay_cursor} c CROSS JOIN LATERAL (
    SELECT l.position, l.created_at FROM {outbox} l
    WHERE l.shard = c.shard AND l.position > %(after)s ORDER BY l.shard, l.position LIMIT 1) found
ORDER BY found.position LIMIT 1

-- name: verify_rows
-- A range of positions with the state of each row; the payload's hash stands for it. @ is `browse` without its order.
WITH b (shard, position, id, topic, key, type, payload, headers, created_at, size, state) AS (@)
SELECT b.position, b.id, b.topic, b.key, b.type, sha256(b.payload), b.headers, b.created_at, b.state,
       EXISTS (SELECT FROM {outbox_action} a WHERE a.position = b.position AND a.action = 'retry')
FROM b
WHERE %(topics)s::text[] IS NULL OR b.topic = ANY (%(topics)s::text[])

-- name: verify_late
-- What a snapshot could not see of what was written before a moment: committed later.
SELECT position FROM {outbox}
WHERE xid >= pg_snapshot_xmax(%(snapshot)s::pg_snapshot) AND created_at >= %(since)s AND created_at < %(until)s
  AND (%(topics)s::text[] IS NULL OR topic = ANY (%(topics)s::text[]))
UNION ALL
SELECT position FROM {outbox}
WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(snapshot)s::pg_snapshot)))
  AND created_at >= %(since)s AND created_at < %(until)s
  AND (%(topics)s::text[] IS NULL OR topic = ANY (%(topics)s::text[]))
ORDER BY position

-- name: scheduled
SELECT id::text, topic, key, type, payload, headers::text, created_at, due_at
FROM {outbox_scheduled} WHERE id = %(id)s::uuid

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

-- name: inbox_forget
-- As after its retention: for tests.
DELETE FROM {inbox} WHERE consumer_group = %(group)s AND message_id = %(message_id)s

-- name: inbox_outcome
SELECT outcome, replays, result::text, processed_at
FROM {inbox} WHERE consumer_group = %(group)s AND message_id = %(message_id)s

-- name: inbox_close_many
-- The same for a batch; the ids that were open. In the order of the ids, so that two batches cannot deadlock.
INSERT INTO {inbox} AS i (consumer_group, message_id, outcome, topic, handler, attempts, replays)
SELECT %(group)s, c.message_id, 'handled', %(topic)s, %(handler)s, c.attempts, c.replays
FROM unnest(%(message_ids)s::text[], %(attempts)s::smallint[], %(replays)s::smallint[])
     AS c (message_id, attempts, replays)
ORDER BY c.message_id
ON CONFLICT (consumer_group, message_id) DO UPDATE
SET outcome = excluded.outcome, handler = excluded.handler, attempts = excluded.attempts,
    replays = excluded.replays, processed_at = clock_timestamp()
WHERE i.outcome = 'dead-lettered' AND i.replays < excluded.replays
RETURNING message_id

-- name: inbox_result
UPDATE {inbox} SET result = %(result)s::jsonb WHERE consumer_group = %(group)s AND message_id = %(message_id)s

-- name: hold
-- Delivered again, a message is held already.
INSERT INTO {inbox_held} (consumer_group, topic, "partition", "offset", message_id, key, type, payload, headers,
                          "timestamp", handler, state, attempts, error, first_failed_at, next_attempt_at)
VALUES (%(group)s, %(topic)s, %(partition)s, %(offset)s, %(message_id)s, %(key)s, %(type)s, %(payload)s,
        %(headers)s::jsonb, %(timestamp)s, %(handler)s, %(state)s, %(attempts)s, %(error)s, %(first_failed_at)s,
        %(next_attempt_at)s)
ON CONFLICT (consumer_group, topic, "partition", "offset") DO NOTHING

-- name: held_heads
-- The first of each key; each one without a key.
SELECT DISTINCT ON (topic, "partition", key, CASE WHEN key IS NULL THEN "offset" END)
       topic, "partition", key, "offset", state, next_attempt_at
FROM {inbox_held}
WHERE consumer_group = %(group)s
ORDER BY topic, "partition", key, CASE WHEN key IS NULL THEN "offset" END, "offset"

-- name: held_next
SELECT id, "offset", key, payload, headers::text, "timestamp", state, attempts, first_failed_at,
       next_attempt_at
FROM {inbox_held}
WHERE consumer_group = %(group)s AND topic = %(topic)s AND "partition" = %(partition)s
  AND key IS NOT DISTINCT FROM %(key)s::bytea AND (%(offset)s::bigint IS NULL OR "offset" = %(offset)s)
ORDER BY "offset" LIMIT 1

-- name: held_dead_letter
-- The dead letter that a key waits for, if it is of this message or of the one that this replaces; the headers are
-- those of the delivery that died.
SELECT id, message_id, headers::text FROM {inbox_held}
WHERE consumer_group = %(group)s AND message_id IN (%(message_id)s, %(replaces)s) AND state = 'dead-letter'
  AND topic = %(topic)s AND key IS NOT DISTINCT FROM %(key)s::bytea

-- name: held_reopen
-- A replay takes the place of the dead letter that its key waits for.
UPDATE {inbox_held}
SET message_id = %(message_id)s, payload = %(payload)s, headers = %(headers)s::jsonb, "timestamp" = %(timestamp)s, type = %(type)s,
    handler = %(handler)s, state = 'retry', attempts = 0, error = NULL, first_failed_at = NULL, next_attempt_at = NULL
WHERE id = %(id)s AND state = 'dead-letter'

-- name: held_begin
-- An attempt is counted before it begins.
UPDATE {inbox_held} SET attempts = %(attempt)s, state = 'retry' WHERE id = %(id)s

-- name: held_failed
UPDATE {inbox_held}
SET state = %(state)s, attempts = %(attempts)s, error = %(error)s, next_attempt_at = %(next_attempt_at)s,
    first_failed_at = coalesce(first_failed_at, %(first_failed_at)s), handler = %(handler)s
WHERE id = %(id)s

-- name: held_done
DELETE FROM {inbox_held} WHERE id = %(id)s

-- name: attempt_begin
-- Written without waiting for the disk: it tells of a process that died, not of a server that did.
INSERT INTO {inbox_attempt} AS a (consumer_group, topic, "partition", member, first_offset, last_offset)
VALUES (%(group)s, %(topic)s, %(partition)s, %(member)s, %(first_offset)s, %(last_offset)s)
ON CONFLICT (consumer_group, topic, "partition") DO UPDATE
SET member = excluded.member, first_offset = excluded.first_offset, last_offset = excluded.last_offset,
    suspect_attempts = CASE WHEN a.suspect_offset >= excluded.first_offset THEN a.suspect_attempts ELSE 0 END,
    suspect_offset = CASE WHEN a.suspect_offset >= excluded.first_offset THEN a.suspect_offset END,
    at = clock_timestamp()

-- name: attempts_begun
SELECT topic, "partition", member, first_offset, last_offset, suspect_offset, suspect_attempts
FROM {inbox_attempt} WHERE consumer_group = %(group)s

-- name: attempt_suspect
UPDATE {inbox_attempt}
SET suspect_attempts = %(attempts)s, suspect_offset = %(offset)s, at = clock_timestamp()
WHERE consumer_group = %(group)s AND topic = %(topic)s AND "partition" = %(partition)s

-- name: attempt_end
DELETE FROM {inbox_attempt}
WHERE consumer_group = %(group)s AND topic = %(topic)s AND "partition" = %(partition)s AND member = %(member)s

-- name: attempt_leave
-- What a crash left stays what it is, with its count, and belongs to nobody.
UPDATE {inbox_attempt}
SET member = '', first_offset = %(first_offset)s, last_offset = %(last_offset)s,
    suspect_offset = CASE WHEN NOT %(no_death)s THEN suspect_offset END,
    suspect_attempts = CASE WHEN NOT %(no_death)s THEN suspect_attempts ELSE 0 END
WHERE consumer_group = %(group)s AND topic = %(topic)s AND "partition" = %(partition)s AND member = %(member)s

-- name: no_wait_for_disk
SELECT set_config('synchronous_commit', 'off', true)

-- name: inbox_control
SELECT subject, paused, policy::text, revision FROM {inbox_control} WHERE consumer_group = %(group)s

-- name: inbox_statement_timeout
SELECT set_config('statement_timeout', %(milliseconds)s, true)

-- name: inbox_limit_lock
-- One dead letter of a handler at a time, to the end of its transaction.
SELECT pg_advisory_xact_lock(hashtextextended('{inbox}' || %(group)s || ' ' || %(handler)s, 3))

-- name: inbox_limit_resumed
-- When an operator last let the handler go on, if that was within the minute. Few look past its row in the control.
SELECT max(a.at) FROM {inbox_control} AS c
JOIN {inbox_action} AS a ON a.consumer_group = c.consumer_group AND a.subject = c.subject
WHERE c.consumer_group = %(group)s AND c.subject = %(subject)s AND c.changed_at > now() - interval '1 minute'
  AND a.action = 'resume' AND a.at > now() - interval '1 minute'

-- name: inbox_limit_count
-- A handler's dead letters of the last minute, since an operator let it go on, up to so many. By now(), which the
-- planner can estimate, unlike clock_timestamp().
SELECT count(*) FROM (
    SELECT FROM {inbox}
    WHERE consumer_group = %(group)s AND handler = %(handler)s AND outcome = 'dead-lettered'
      AND processed_at > greatest(now() - interval '1 minute', %(resumed_at)s::timestamptz)
    LIMIT %(most)s) AS latest

-- name: inbox_limit_pause
-- An operator's own reason stays.
INSERT INTO {inbox_control} AS c (consumer_group, subject, paused, changed_by)
VALUES (%(group)s, %(subject)s, %(reason)s, %(actor)s)
ON CONFLICT (consumer_group, subject) DO UPDATE
SET paused = excluded.paused, changed_at = clock_timestamp(), changed_by = excluded.changed_by
WHERE c.paused IS NULL

-- name: add_inbox_partitions
SELECT {schema}."{inbox.name}_add_partitions"(%(ahead)s)

-- name: prune_inbox
SELECT part, messages FROM {schema}."{inbox.name}_drop_partitions"(%(keep)s, %(dry)s::boolean)

-- name: note_inbox
INSERT INTO {inbox_action} (actor, action, consumer_group, subject, message_id, reason)
VALUES (%(actor)s, %(action)s, %(group)s, %(subject)s, %(message_id)s, %(reason)s)

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
SELECT id, consumer_group, topic, "partition", "offset", message_id, key, type, CASE WHEN %(payloads)s THEN payload END,
       CASE WHEN %(payloads)s THEN headers::text END, "timestamp", handler, state, attempts, error, first_failed_at,
       next_attempt_at, held_at, octet_length(payload)
FROM {inbox_held}
WHERE id > %(after)s AND id < %(before)s
  AND (%(group)s::text IS NULL OR consumer_group LIKE %(group)s)
  AND (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (%(key)s::bytea IS NULL OR key = %(key)s)
  AND (%(type)s::text IS NULL OR type LIKE %(type)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(error)s::text IS NULL OR position(lower(%(error)s::text) IN lower(error)) > 0)
  AND (%(message_id)s::text IS NULL OR message_id = %(message_id)s)
  AND (%(since)s::timestamptz IS NULL OR held_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR held_at < %(until)s)
ORDER BY id # LIMIT %(limit)s

-- name: desk_held_count
SELECT state, count(*) FROM {inbox_held}
WHERE (%(group)s::text IS NULL OR consumer_group LIKE %(group)s)
  AND (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (%(key)s::bytea IS NULL OR key = %(key)s)
  AND (%(type)s::text IS NULL OR type LIKE %(type)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(error)s::text IS NULL OR position(lower(%(error)s::text) IN lower(error)) > 0)
  AND (%(message_id)s::text IS NULL OR message_id = %(message_id)s)
  AND (%(since)s::timestamptz IS NULL OR held_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR held_at < %(until)s)
GROUP BY state ORDER BY state

-- name: desk_held_at
SELECT id, consumer_group, topic, "partition", "offset", message_id, key, type, payload, headers::text, "timestamp",
       handler, state, attempts, error, first_failed_at, next_attempt_at, held_at, octet_length(payload)
FROM {inbox_held} WHERE id = ANY (%(ids)s) ORDER BY id

-- name: desk_held_behind
SELECT id, consumer_group, topic, "partition", "offset", message_id, key, type, NULL, NULL, "timestamp", handler,
       state, attempts, error, first_failed_at, next_attempt_at, held_at, octet_length(payload)
FROM {inbox_held}
WHERE consumer_group = %(group)s AND topic = %(topic)s AND "partition" = %(partition)s AND key = %(key)s::bytea
  AND "offset" > %(offset)s
ORDER BY "offset" LIMIT %(limit)s

-- name: desk_retry
-- In the order of the ids, so that two operators cannot deadlock.
UPDATE {inbox_held} AS h SET next_attempt_at = clock_timestamp(), attempts = 0
FROM (SELECT id FROM {inbox_held} WHERE id = ANY (%(ids)s) AND state = 'retry' ORDER BY id FOR UPDATE) AS chosen
WHERE h.id = chosen.id
RETURNING h.consumer_group, h.topic, h.message_id

-- name: desk_discard
DELETE FROM {inbox_held}
WHERE id = ANY (%(ids)s)
RETURNING consumer_group, topic, message_id

-- name: desk_revise
-- Held messages were changed by hand: the members of the group look at them anew.
INSERT INTO {inbox_control} AS c (consumer_group, revision) VALUES (%(group)s, 1)
ON CONFLICT (consumer_group, subject) DO UPDATE SET revision = c.revision + 1

-- name: desk_controls
SELECT consumer_group, subject, paused, policy::text, revision, changed_at, changed_by
FROM {inbox_control} WHERE %(group)s::text IS NULL OR consumer_group = %(group)s
ORDER BY consumer_group, subject

-- name: desk_pause
INSERT INTO {inbox_control} AS c (consumer_group, subject, paused, changed_by)
VALUES (%(group)s, %(subject)s, %(reason)s, %(actor)s)
ON CONFLICT (consumer_group, subject) DO UPDATE
SET paused = excluded.paused, changed_at = clock_timestamp(), changed_by = excluded.changed_by
WHERE c.paused IS DISTINCT FROM excluded.paused

-- name: desk_resume
UPDATE {inbox_control}
SET paused = NULL, changed_at = clock_timestamp(), changed_by = %(actor)s
WHERE consumer_group = %(group)s AND subject = %(subject)s AND paused IS NOT NULL

-- name: desk_open_policies
-- A row to lock.
INSERT INTO {inbox_control} (consumer_group) VALUES (%(group)s) ON CONFLICT DO NOTHING

-- name: desk_policies
SELECT subject, policy::text FROM {inbox_control} WHERE consumer_group = %(group)s ORDER BY subject FOR UPDATE

-- name: desk_set_policy
INSERT INTO {inbox_control} AS c (consumer_group, subject, policy, changed_by)
VALUES (%(group)s, %(subject)s, %(policy)s::jsonb, %(actor)s)
ON CONFLICT (consumer_group, subject) DO UPDATE
SET policy = excluded.policy, changed_at = clock_timestamp(), changed_by = excluded.changed_by

-- name: desk_actions
SELECT id, at, actor, action, consumer_group, subject, message_id, reason
FROM {inbox_action}
WHERE (%(group)s::text IS NULL OR consumer_group = %(group)s)
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(message_id)s::text IS NULL OR message_id = %(message_id)s)
ORDER BY id DESC LIMIT %(limit)s

-- name: desk_held_stats
SELECT consumer_group, topic, state, count(*), min(held_at), min(next_attempt_at)
FROM {inbox_held} GROUP BY consumer_group, topic, state ORDER BY consumer_group, topic, state

-- name: desk_begun
SELECT consumer_group, topic, "partition", member, first_offset, last_offset, suspect_offset, suspect_attempts, at
FROM {inbox_attempt} ORDER BY consumer_group, topic, "partition"

-- name: lock_dead_letters
-- One writer at a time: what one operator finds undone, no other does meanwhile.
SELECT pg_advisory_xact_lock(hashtextextended('{dead_letter}', 0))

-- name: take_ids
-- The last of as many numbers in a row; nobody else takes some meanwhile.
SELECT setval(s.name, nextval(s.name) + %(count)s - 1)
FROM (SELECT pg_get_serial_sequence('{dead_letter}', 'id')::regclass AS name) AS s

-- name: copy_letters
COPY {dead_letter} (id, dead_letter_topic, "partition", "offset", incarnation, written_at, family, message_id,
    inbox_id, key, type, topic, topic_partition, topic_offset, consumer_group, error, message, handler, deliveries,
    first_failed_at, failed_at, fingerprint, replays, expires_at, size, order_partition, order_offset)
FROM STDIN (FORMAT BINARY)

-- name: copy_records
COPY {dead_letter_record} (id, payload, headers) FROM STDIN (FORMAT BINARY)

-- name: plan_letters
-- Into a plan, in this order; only what nobody planned or closed meanwhile.
INSERT INTO {dead_letter_state} AS s (id, state, plan_id, ordinal)
SELECT d.id, 'planned', %(plan)s, %(start)s + n.ordinal
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS n (id, ordinal) JOIN {dead_letter} AS d ON d.id = n.id
ON CONFLICT (id) DO UPDATE
SET state = 'planned', state_at = clock_timestamp(), plan_id = excluded.plan_id, ordinal = excluded.ordinal
WHERE s.state = 'dead'

-- name: follow_letters
-- Which letter each new one follows: the death before it of the same message in the same group.
UPDATE {dead_letter} AS n
SET follows = p.id, order_partition = p.order_partition, order_offset = p.order_offset,
    rounds = p.rounds + 1,
    same_failures = CASE WHEN p.fingerprint = n.fingerprint THEN p.same_failures + 1 ELSE 0 END
FROM {dead_letter} AS p
WHERE n.id BETWEEN %(first)s AND %(last)s AND n.replays = %(replays)s AND p.id = (
    SELECT b.id FROM {dead_letter} AS b
    WHERE b.message_id = n.message_id AND b.consumer_group IS NOT DISTINCT FROM n.consumer_group
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
WHERE d.id BETWEEN %(first)s AND %(last)s AND a.dead_letter_id IS NULL AND a.id = (
    SELECT max(l.id) FROM {dead_letter_action} AS l
    WHERE l.dead_letter_topic = d.dead_letter_topic AND l."partition" = d."partition" AND l."offset" = d."offset"
      AND l.message_id = d.message_id AND l.dead_letter_id IS NULL AND l.action IN ('replay', 'discard'))

-- name: traces_held
-- Held messages of a key, or with a text in their headers.
SELECT id, consumer_group, topic, "partition", "offset", message_id, key, headers::text, handler, state, attempts
FROM {inbox_held}
WHERE id > %(after)s AND (%(group)s::text IS NULL OR consumer_group = %(group)s)
  AND (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (key = %(key)s::bytea OR position(%(quoted)s::text IN headers::text) > 0)
ORDER BY id LIMIT %(limit)s

-- name: traces_logged
-- The same of the log.
SELECT topic, key, headers::text, created_at FROM {outbox}
WHERE (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (key = %(key)s::bytea OR position(%(quoted)s::text IN headers::text) > 0)

-- name: traces_scheduled
-- The same of delayed messages.
SELECT topic, key, headers::text, due_at FROM {outbox_scheduled}
WHERE (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (key = %(key)s::bytea OR position(%(quoted)s::text IN headers::text) > 0)

-- name: traces_results
-- Results of handlers that the inbox keeps for dead letters.
SELECT count(*) FROM {dead_letter} d
JOIN {inbox} i ON i.consumer_group = d.consumer_group AND i.message_id = d.inbox_id
WHERE d.id = ANY (%(ids)s) AND i.result IS NOT NULL

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
-- Refused, waiting behind a refused one of their key, asked to be retried, and waiting for their topic; by topic.
SELECT topic, count(*) FILTER (WHERE error IS NOT NULL), count(*) FILTER (WHERE error IS NULL AND NOT by_topic),
       count(*) FILTER (WHERE retry), count(*) FILTER (WHERE by_topic)
FROM {outbox_parked} GROUP BY topic ORDER BY topic

-- name: relay_instances
-- Each relay, with the seconds since it started, since its last word, and until it counts as gone.
SELECT owner, extract(epoch FROM clock_timestamp() - started_at)::float8,
       extract(epoch FROM clock_timestamp() - seen_at)::float8,
       extract(epoch FROM expires_at - clock_timestamp())::float8, able, state, detail, published, rate
FROM {relay_instance} ORDER BY started_at, owner

-- name: relay_controls
SELECT topic, paused, paused_at, paused_by, rate, batch_size, limited_at, limited_by FROM {relay_control}
WHERE topic = '' OR paused IS NOT NULL ORDER BY topic

-- name: scheduled_stats
-- Delayed messages, and in how many seconds the next one is due.
SELECT count(*), extract(epoch FROM min(due_at) - clock_timestamp())::float8 FROM {outbox_scheduled}

-- name: inbox_stats
SELECT consumer_group, topic, outcome, count(*), extract(epoch FROM clock_timestamp() - max(processed_at))::float8
FROM {inbox} GROUP BY consumer_group, topic, outcome ORDER BY consumer_group, topic, outcome

-- name: oldest_transaction
-- For how many seconds the oldest transaction of this database holds back what vacuum may remove. Another role's shows
-- only to pg_read_all_stats.
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(since)), 0)::float8 FROM (
    SELECT xact_start FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
    UNION ALL
    SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()) AS found (since)

-- name: log_size
-- Bytes of the log with its indexes.
SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('{outbox}'::regclass)

-- name: dead_letter_stats
SELECT coalesce(d.consumer_group, ''), coalesce(s.state, 'dead'), count(*)
FROM {dead_letter} AS d LEFT JOIN {dead_letter_state} AS s ON s.id = d.id GROUP BY 1, 2 ORDER BY 1, 2

-- name: dead_letter_fingerprints
-- Of those that somebody still has to look after: the most frequent failures, and all others by group, without a name.
SELECT consumer_group, name, sum(letters)::bigint FROM (
    SELECT coalesce(consumer_group, '') AS consumer_group, count(*) AS letters,
           CASE WHEN row_number() OVER (ORDER BY count(*) DESC, fingerprint) <= %(top)s THEN fingerprint ELSE '' END AS name
    FROM {dead_letter} AS d LEFT JOIN {dead_letter_state} AS s ON s.id = d.id
    WHERE coalesce(s.state, 'dead') IN ('dead', 'planned', 'replayed', 'quarantined')
    GROUP BY 1, fingerprint) AS ranked
GROUP BY consumer_group, name ORDER BY consumer_group, name

-- name: dead_letter_age
-- How many seconds ago the ledger was last brought up to date; null: never.
SELECT extract(epoch FROM clock_timestamp() - max(read_at))::float8 FROM {dead_letter_source}

-- name: version
SELECT coalesce(max(version), 0) FROM {schema_version}
