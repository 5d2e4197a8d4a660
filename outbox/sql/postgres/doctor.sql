-- What `postroom doctor` asks of PostgreSQL. Nothing is written, and no query's text of others is read.

-- name: hello
SELECT 1

-- name: server
SELECT current_setting('server_version_num')::int, split_part(current_setting('server_version'), ' ', 1),
       pg_is_in_recovery(), current_user::text

-- name: server_settings
-- As this session has them: of the role, of the database, or of the whole server.
SELECT name, setting, source FROM pg_settings WHERE name = ANY (%(names)s)

-- name: settings_of_roles
-- What other roles get on this database, or on all of them.
SELECT r.rolname::text, split_part(s.line, '=', 1), split_part(s.line, '=', 2)
FROM pg_db_role_setting d
JOIN pg_roles r ON r.oid = d.setrole
CROSS JOIN LATERAL unnest(d.setconfig) AS s (line)
WHERE d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND r.rolname <> current_user AND split_part(s.line, '=', 1) = ANY (%(names)s)
ORDER BY 1, 2

-- name: clock
SELECT extract(epoch FROM clock_timestamp())::float8

-- name: old_transactions
-- Open for longer than so many seconds, the oldest first, and whether vacuum waits for them. Those of other roles show
-- only to pg_read_all_stats.
SELECT pid, coalesce(application_name, ''), coalesce(usename::text, ''),
       extract(epoch FROM clock_timestamp() - xact_start)::float8, coalesce(state, ''),
       backend_xid IS NOT NULL OR backend_xmin IS NOT NULL
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND xact_start < clock_timestamp() - make_interval(secs => %(age)s)
ORDER BY xact_start LIMIT 5

-- name: sees_others
SELECT current_user::text, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')

-- name: prepared
SELECT gid, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => %(age)s)
ORDER BY prepared LIMIT 5

-- name: slots
-- The bytes of WAL that each keeps; null on a standby, or where it has lost it.
SELECT slot_name::text, active, coalesce(wal_status, ''),
       CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 END,
       xmin IS NOT NULL OR catalog_xmin IS NOT NULL
FROM pg_replication_slots ORDER BY 1

-- name: wraparound
-- How many transactions ago the oldest row that is not frozen was written; at two thousand million nothing works.
SELECT greatest(age(datfrozenxid), mxid_age(datminmxid))::bigint FROM pg_database WHERE datname = current_database()

-- name: other_cluster
-- Shards whose cursor is of another cluster: after a restore elsewhere.
SELECT count(*) FROM {relay_cursor} WHERE cluster <> (SELECT system_identifier FROM pg_control_system())

-- name: latest_topics
-- The topics of the latest messages of each shard, of delayed and of parked ones: whether some have no key, and the
-- bytes of the largest payload.
SELECT topic, bool_or(key IS NULL), coalesce(max(octet_length(payload)), 0)
FROM (SELECT l.topic, l.key, l.payload
      FROM {relay_cursor} c
      CROSS JOIN LATERAL (SELECT topic, key, payload FROM {outbox} o
                          WHERE o.shard = c.shard ORDER BY position DESC LIMIT %(most)s) l
      UNION ALL
      (SELECT topic, key, payload FROM {outbox_scheduled} LIMIT %(most)s)
      UNION ALL
      (SELECT topic, key, payload FROM {outbox_parked} LIMIT %(most)s)) AS found
GROUP BY topic ORDER BY topic

-- name: letters_outliving
-- Dead letters that were handled so many seconds ago or earlier, of one group or all, and the age of the oldest.
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(s.state_at)), 0)::float8
FROM {dead_letter_state} s JOIN {dead_letter} d ON d.id = s.id
WHERE s.state IN ('replayed', 'confirmed') AND s.state_at < clock_timestamp() - make_interval(secs => %(age)s)
  AND (%(group)s::text IS NULL OR d.consumer_group = %(group)s)
