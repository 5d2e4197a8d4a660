-- What each kind of role may do on PostgreSQL, and no more. {role} is replaced; run by the owner of the tables.

-- name: roles
-- Of these roles, which are there, and which have the rights of the tables' owner anyway.
SELECT r.rolname, pg_has_role(r.oid, c.relowner, 'MEMBER')
FROM pg_roles r CROSS JOIN pg_class c
WHERE r.rolname = ANY (%(roles)s) AND c.oid = '{outbox}'::regclass

-- name: myself
-- Who this connection is; whether the tables are there; whether it is a superuser, or a member of who owns the tables;
-- and how many of the functions that need the owner would not run as the owner.
SELECT current_user::text,
       EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = '{outbox.name}'),
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
       coalesce((SELECT pg_has_role(c.relowner, 'MEMBER') FROM pg_class c
                 WHERE c.relnamespace = n.oid AND c.relname = '{outbox.name}'), false),
       (SELECT count(*) FROM pg_proc p
        WHERE p.pronamespace = n.oid AND NOT p.prosecdef
          AND p.proname IN ('{outbox.name}_add_partitions', '{outbox.name}_drop_partitions',
                            '{inbox.name}_add_partitions', '{inbox.name}_drop_partitions'))
FROM (SELECT (SELECT oid FROM pg_namespace WHERE nspname = '{schema.name}') AS oid) AS n

-- name: held
-- Which of these rights this connection has, by their order. By the catalogue, since a name cannot be looked up in a
-- schema that one may not use.
SELECT w.n::int, coalesce(CASE w.sort
        WHEN 'schema' THEN has_schema_privilege(n.oid, w.privilege)
        WHEN 'function' THEN (SELECT bool_or(has_function_privilege(p.oid, w.privilege)) FROM pg_proc p
                              WHERE p.pronamespace = n.oid AND p.proname = w.name)
        WHEN 'sequence' THEN has_sequence_privilege(c.oid, w.privilege)
        ELSE has_table_privilege(c.oid, w.privilege)
          OR (w.part <> '' AND has_column_privilege(c.oid, a.attnum, w.privilege))
    END, false)
FROM unnest(%(sorts)s::text[], %(names)s::text[], %(privileges)s::text[], %(columns)s::text[])
     WITH ORDINALITY AS w (sort, name, privilege, part, n)
LEFT JOIN pg_namespace n ON n.nspname = '{schema.name}'
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.part AND NOT a.attisdropped
ORDER BY w.n

-- name: owner
-- Making and dropping partitions takes the owner of the table. So these functions run as the owner, for whom they are
-- granted to, and look for nothing in schemas that others may write to.
ALTER FUNCTION {schema}."{outbox.name}_add_partitions"(integer, bigint)
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION {schema}."{outbox.name}_drop_partitions"(interval, boolean, integer)
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION {schema}."{inbox.name}_add_partitions"(integer)
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION {schema}."{inbox.name}_drop_partitions"(interval, boolean)
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
REVOKE EXECUTE ON FUNCTION {schema}."{outbox.name}_add_partitions"(integer, bigint) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION {schema}."{outbox.name}_drop_partitions"(interval, boolean, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION {schema}."{inbox.name}_add_partitions"(integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION {schema}."{inbox.name}_drop_partitions"(interval, boolean) FROM PUBLIC;

-- name: revoke
-- What an earlier run granted and this one does not.
REVOKE ALL ON {tables} FROM {role};
REVOKE ALL ON SEQUENCE {schema}."{outbox.name}_position" FROM {role};
REVOKE ALL ON SEQUENCE {schema}."{dead_letter.name}_id_seq" FROM {role};
REVOKE EXECUTE ON FUNCTION {schema}."{outbox.name}_add_partitions"(integer, bigint) FROM {role};
REVOKE EXECUTE ON FUNCTION {schema}."{outbox.name}_drop_partitions"(interval, boolean, integer) FROM {role};
REVOKE EXECUTE ON FUNCTION {schema}."{inbox.name}_add_partitions"(integer) FROM {role};
REVOKE EXECUTE ON FUNCTION {schema}."{inbox.name}_drop_partitions"(interval, boolean) FROM {role};

-- name: app
-- Publishes. By column: nobody who publishes can choose a position, a transaction id or a time.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT INSERT (id, topic, key, type, payload, headers) ON {outbox} TO {role};
GRANT USAGE ON SEQUENCE {schema}."{outbox.name}_position" TO {role};
GRANT INSERT (id, topic, key, type, payload, headers, due_at) ON {outbox_scheduled} TO {role};

-- name: relay
-- Reads the log and moves its cursors; parks; makes and drops partitions of log and inbox.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT (id, topic, key, type, payload, headers) ON {outbox} TO {role};
GRANT USAGE, SELECT ON SEQUENCE {schema}."{outbox.name}_position" TO {role};
GRANT SELECT, UPDATE, DELETE ON {outbox_scheduled} TO {role};
GRANT SELECT, UPDATE ON {relay_cursor} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {relay_instance}, {outbox_parked} TO {role};
GRANT SELECT, INSERT, UPDATE ON {relay_control} TO {role};
GRANT SELECT, INSERT ON {outbox_action} TO {role};
GRANT SELECT ON {schema_version} TO {role};
-- How many dead letters there are, and how up to date the ledger is: for metrics.
GRANT SELECT (id, consumer_group, fingerprint) ON {dead_letter} TO {role};
GRANT SELECT (id, state) ON {dead_letter_state} TO {role};
GRANT SELECT (read_at) ON {dead_letter_source} TO {role};
GRANT EXECUTE ON FUNCTION {schema}."{outbox.name}_add_partitions"(integer, bigint) TO {role};
GRANT EXECUTE ON FUNCTION {schema}."{outbox.name}_drop_partitions"(interval, boolean, integer) TO {role};
GRANT EXECUTE ON FUNCTION {schema}."{inbox.name}_add_partitions"(integer) TO {role};
GRANT EXECUTE ON FUNCTION {schema}."{inbox.name}_drop_partitions"(interval, boolean) TO {role};

-- name: consumer
-- Closes messages in the inbox, holds what failed, publishes dead letters and what its handlers send on.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT INSERT (id, topic, key, type, payload, headers) ON {outbox} TO {role};
GRANT USAGE ON SEQUENCE {schema}."{outbox.name}_position" TO {role};
GRANT INSERT (id, topic, key, type, payload, headers, due_at) ON {outbox_scheduled} TO {role};
GRANT SELECT, INSERT, UPDATE ON {inbox} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {inbox_held}, {inbox_attempt} TO {role};
GRANT SELECT ON {inbox_control}, {inbox_action}, {schema_version} TO {role};
-- It lets a handler of its rest that makes too many dead letters, and writes that down.
GRANT INSERT (consumer_group, subject, paused, changed_by), UPDATE (paused, changed_at, changed_by)
    ON {inbox_control} TO {role};
GRANT INSERT (actor, action, consumer_group, subject, message_id, reason) ON {inbox_action} TO {role};
-- How many dead letters there are, and how up to date the ledger is: for metrics.
GRANT SELECT (id, consumer_group, fingerprint) ON {dead_letter} TO {role};
GRANT SELECT (id, state) ON {dead_letter_state} TO {role};
GRANT SELECT (read_at) ON {dead_letter_source} TO {role};

-- name: operator
-- Sees everything; changes what is parked, held, paused or dead; publishes it again. The record of actions is written
-- to and never changed, but for how far a replay came.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {tables} TO {role};
GRANT INSERT (id, topic, key, type, payload, headers) ON {outbox} TO {role};
GRANT USAGE, SELECT ON SEQUENCE {schema}."{outbox.name}_position" TO {role};
GRANT UPDATE, DELETE ON {outbox_parked} TO {role};
GRANT INSERT, UPDATE ON {relay_control} TO {role};
GRANT INSERT, UPDATE (position, messages) ON {outbox_action} TO {role};
GRANT INSERT, UPDATE ON {inbox} TO {role};
GRANT UPDATE, DELETE ON {inbox_held} TO {role};
GRANT INSERT, UPDATE ON {inbox_control} TO {role};
GRANT INSERT ON {inbox_action}, {dead_letter_action} TO {role};
GRANT INSERT, UPDATE, DELETE ON {dead_letter}, {dead_letter_state}, {dead_letter_record}, {dead_letter_source},
    {dead_letter_plan} TO {role};
GRANT USAGE, SELECT, UPDATE ON SEQUENCE {schema}."{dead_letter.name}_id_seq" TO {role};
GRANT EXECUTE ON FUNCTION {schema}."{outbox.name}_drop_partitions"(interval, boolean, integer) TO {role};
GRANT EXECUTE ON FUNCTION {schema}."{inbox.name}_drop_partitions"(interval, boolean) TO {role};

-- name: reader
-- Sees everything, for those who look and for what watches.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON {tables} TO {role};
GRANT SELECT ON SEQUENCE {schema}."{outbox.name}_position" TO {role};
