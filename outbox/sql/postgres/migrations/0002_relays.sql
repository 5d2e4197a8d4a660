-- Several relays: who runs, and what operators ask of all of them. Retention of the log. Wake-up by NOTIFY.

CREATE TABLE {relay_instance} (
    owner       text        PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL,          -- like its leases
    able        boolean     NOT NULL,          -- takes a share of the shards
    state       text        NOT NULL,
    detail      text        NOT NULL DEFAULT '',
    published   bigint      NOT NULL DEFAULT 0, -- messages since it started
    rate        float8      NOT NULL DEFAULT 0  -- messages per second of late
) WITH (fillfactor = 50);

-- One row for all topics together (topic ''), and one for each topic that stands still.
CREATE TABLE {relay_control} (
    topic       text        PRIMARY KEY,
    paused      text,                          -- why; null: it goes on
    paused_at   timestamptz,
    paused_by   text,
    rate        float8,                        -- messages per second of all relays; only with topic ''
    batch_size  integer,                       -- likewise
    limited_at  timestamptz,
    limited_by  text,
    revision    bigint      NOT NULL DEFAULT 0 -- grows when parked messages may have become free
);
INSERT INTO {relay_control} (topic) VALUES ('');

-- Waits since its topic stands still, not for its key.
ALTER TABLE {outbox_parked} ADD COLUMN by_topic boolean NOT NULL DEFAULT false;
CREATE INDEX "{outbox_parked.name}_key" ON {outbox_parked} (topic, key);
CREATE INDEX "{outbox_parked.name}_position" ON {outbox_parked} (position);

-- What operators did. Written in the transaction that does it.
CREATE TABLE {outbox_action} (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor       text        NOT NULL,
    action      text        NOT NULL,          -- retry | discard | pause | resume | limit | replay | prune | notify
    topic       text,                          -- null: of all topics
    position    bigint,                        -- of a replay: how far it came
    message_id  text,
    messages    bigint      NOT NULL DEFAULT 0, -- how many it concerned, where that is known
    reason      text
);
CREATE INDEX "{outbox_action.name}_position" ON {outbox_action} (position);

-- Drops the oldest partitions, `most` of them, that every cursor has settled and that hold nothing younger than
-- `keep`; with `dry` only names them. The first one that stays comes last, with why: 'head' (it is written to),
-- 'unsettled', 'young', or 'in use' (a transaction holds the log; the next time, then).
CREATE FUNCTION {schema}."{outbox.name}_drop_partitions"(keep interval, dry boolean, most integer)
RETURNS TABLE (part text, why text, newest timestamptz, bytes bigint)
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $function$
DECLARE
    head     bigint := (SELECT last_value FROM {schema}."{outbox.name}_position");
    settled  xid8;
    child    record;
    highest  xid8;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'the isolation level must be read committed';  -- each look below has to see what was committed before it
    END IF;
    FOR child IN
        SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname::text AS short, c.oid,
               substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''(\d+)''\)')::bigint AS upper
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE i.inhparent = '{outbox}'::regclass
         ORDER BY upper NULLS LAST
    LOOP
        EXIT WHEN child.upper IS NULL OR most <= 0;
        most := most - 1;
        part := child.short;
        bytes := pg_total_relation_size(child.oid);
        newest := NULL;
        why := NULL;
        -- Twice: what a transaction in progress wrote shows only when the lock has outwaited it.
        FOR look IN 1..2 LOOP
            SELECT pg_snapshot_xmin(c.snapshot) INTO settled
              FROM {relay_cursor} c ORDER BY pg_snapshot_xmin(c.snapshot) LIMIT 1;
            EXECUTE format('SELECT (array_agg(xid ORDER BY xid DESC))[1], max(created_at)'
                           '  FROM (SELECT xid, created_at FROM %s ORDER BY xid DESC LIMIT 1000) last', child.name)
               INTO highest, newest;
            why := CASE WHEN child.upper > head THEN 'head'
                        WHEN highest >= settled THEN 'unsettled'
                        WHEN newest > clock_timestamp() - keep THEN 'young' END;
            -- To wait for a transaction that stays open would hold up everyone who publishes.
            IF why IS NULL AND look = 1 AND EXISTS (
                SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
                 WHERE l.locktype = 'relation' AND l.relation IN ('{outbox}'::regclass, child.oid)
                   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                   AND l.pid IS DISTINCT FROM pg_backend_pid()
                   AND (l.pid IS NULL OR a.xact_start < clock_timestamp() - interval '1 second'))
            THEN
                why := 'in use';
            END IF;
            EXIT WHEN why IS NOT NULL OR dry OR look = 2;
            BEGIN
                LOCK TABLE ONLY {outbox} IN ACCESS EXCLUSIVE MODE;
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', child.name);
            EXCEPTION WHEN lock_not_available THEN
                why := 'in use';
                EXIT;
            END;
        END LOOP;
        IF why IS NULL AND NOT dry THEN
            EXECUTE format('DROP TABLE %s', child.name);
        END IF;
        RETURN NEXT;
        EXIT WHEN why IS NOT NULL;
    END LOOP;
END
$function$;

-- Tells listening relays of a commit. Gated by a lock, so that writers do not queue for NOTIFY: of those that
-- commit at the same time one tells. The trigger that calls it is made by `postroom db notify on`.
CREATE FUNCTION {schema}."{outbox.name}_notify"() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('{outbox}', 1)) THEN
        PERFORM pg_notify(left('{schema.name}_{outbox.name}', 63), '');
    END IF;
    RETURN NULL;
END
$function$;
