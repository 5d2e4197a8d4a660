-- The inbox by days, so that old ones are dropped; what failed and waits; what was begun; what operators ask.

-- A message's id begins with its time where it is a UUIDv7, so it tells the day. Ids of other kinds, and those of
-- before this version, are in the partition for all others, where old rows are deleted one by one.
ALTER TABLE {inbox} RENAME TO "{inbox.name}_other";
ALTER INDEX {schema}."{inbox.name}_pkey" RENAME TO "{inbox.name}_other_pkey";
ALTER INDEX {schema}."{inbox.name}_processed_at" RENAME TO "{inbox.name}_other_processed_at";
ALTER TABLE {schema}."{inbox.name}_other"
    ALTER COLUMN message_id TYPE text COLLATE "C",
    ADD COLUMN result jsonb;
CREATE INDEX "{inbox.name}_other_message_id" ON {schema}."{inbox.name}_other" (message_id);

CREATE TABLE {inbox} (
    consumer_group  text        NOT NULL,
    message_id      text        COLLATE "C" NOT NULL,
    outcome         text        NOT NULL,   -- handled | dead-lettered | expired
    topic           text        NOT NULL,
    handler         text,
    attempts        smallint    NOT NULL DEFAULT 1,
    replays         smallint    NOT NULL DEFAULT 0,  -- of the delivery that closed the row
    processed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    result          jsonb,                  -- what the handler returned
    PRIMARY KEY (consumer_group, message_id)
) PARTITION BY RANGE (message_id);
CREATE INDEX "{inbox.name}_processed_at" ON {inbox} USING brin (processed_at);
ALTER TABLE {inbox} ATTACH PARTITION {schema}."{inbox.name}_other" DEFAULT;

-- Where the UUIDv7s of a moment begin.
CREATE FUNCTION {schema}."{inbox.name}_id_at"(moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE AS $function$
    SELECT substr(hex, 1, 8) || '-' || substr(hex, 9)
    FROM (SELECT lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') AS hex) AS milliseconds;
$function$;

-- A partition for today and for each of the next `ahead` days (UTC). A day of which the partition for all others
-- has rows already stays there. Returns how many were made; gives up after 200 ms behind somebody's lock, and at once
-- where another session is at it. ATTACH rather than CREATE … PARTITION OF: transactions that use the inbox are not
-- waited for, but those that use the partition for all others.
CREATE FUNCTION {schema}."{inbox.name}_add_partitions"(ahead integer) RETURNS integer
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $function$
DECLARE
    made   integer := 0;
    day    timestamptz;
    low    text;
    high   text;
    found  boolean;
    child  text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('{inbox}', 2)) THEN
        RETURN 0;
    END IF;
    FOR n IN 0..ahead LOOP
        day := date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + n * interval '24 hours';
        child := format('%I.%I', '{schema.name}', '{inbox.name}_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD'));
        CONTINUE WHEN to_regclass(child) IS NOT NULL;
        low := {schema}."{inbox.name}_id_at"(day);
        high := {schema}."{inbox.name}_id_at"(day + interval '24 hours');
        SELECT EXISTS (SELECT FROM {schema}."{inbox.name}_other" WHERE message_id >= low AND message_id < high)
          INTO found;
        CONTINUE WHEN found;
        BEGIN
            EXECUTE format('CREATE TABLE %s (LIKE {inbox} INCLUDING DEFAULTS)', child);
            EXECUTE format('ALTER TABLE {inbox} ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', child, low, high);
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            RETURN made;
        END;
    END LOOP;
    RETURN made;
END
$function$;

-- Drops one day that lies `keep` back and holds nothing processed since: one with each call, as all who use the inbox
-- wait until its transaction ends. Where there is none (any more), or it is in use, deletes up to 10,000 rows that are
-- as old from the partition for all others. Tells what went; with `dry` all that could, and nothing goes.
CREATE FUNCTION {schema}."{inbox.name}_drop_partitions"(keep interval, dry boolean)
RETURNS TABLE (part text, messages bigint)
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $function$
DECLARE
    since  timestamptz := clock_timestamp() - keep;
    child  record;
    young  boolean;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'the isolation level must be read committed';  -- each look below has to see what was committed before it
    END IF;
    IF NOT dry AND NOT pg_try_advisory_xact_lock(hashtextextended('{inbox}', 2)) THEN
        RETURN;  -- another session is at it
    END IF;
    FOR child IN
        SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname::text AS short, c.oid,
               substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)') AS upper,
               greatest(c.reltuples, 0)::bigint AS rows
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE i.inhparent = '{inbox}'::regclass
         ORDER BY upper
    LOOP
        CONTINUE WHEN child.upper IS NULL OR child.upper COLLATE "C" > {schema}."{inbox.name}_id_at"(since);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE processed_at >= $1)', child.name) INTO young USING since;
        CONTINUE WHEN young;
        IF NOT dry THEN
            -- To wait for a transaction that stays open would hold up everyone who consumes.
            EXIT WHEN EXISTS (
                SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
                 WHERE l.locktype = 'relation' AND l.relation IN ('{inbox}'::regclass, child.oid)
                   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                   AND l.pid IS DISTINCT FROM pg_backend_pid()
                   AND (l.pid IS NULL OR a.xact_start < clock_timestamp() - interval '1 second'));
            BEGIN
                LOCK TABLE ONLY {inbox} IN ACCESS EXCLUSIVE MODE;
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', child.name);
            EXCEPTION WHEN lock_not_available THEN
                EXIT;
            END;
            -- Once more: what a transaction in progress wrote shows only when the lock has outwaited it.
            EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE processed_at >= $1)', child.name)
               INTO young USING since;
            IF young THEN
                RETURN;
            END IF;
            EXECUTE format('DROP TABLE %s', child.name);
        END IF;
        part := child.short;
        messages := child.rows;
        RETURN NEXT;
        IF NOT dry THEN
            RETURN;
        END IF;
    END LOOP;
    part := '{inbox.name}_other';
    IF dry THEN
        SELECT count(*) INTO messages FROM {schema}."{inbox.name}_other" WHERE processed_at < since;
    ELSE
        BEGIN
            DELETE FROM {schema}."{inbox.name}_other"
             WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM {schema}."{inbox.name}_other" WHERE processed_at < since
                 LIMIT 10000 FOR UPDATE SKIP LOCKED))
               AND processed_at < since;
            GET DIAGNOSTICS messages = ROW_COUNT;
        EXCEPTION WHEN lock_not_available THEN
            RETURN;
        END;
    END IF;
    IF messages > 0 THEN
        RETURN NEXT;
    END IF;
END
$function$;

SELECT {schema}."{inbox.name}_add_partitions"(7);

-- Messages that failed and wait for their next attempt, and those of the same key behind them.
CREATE TABLE {inbox_held} (
    id               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_group   text        NOT NULL,
    topic            text        NOT NULL,
    "partition"      integer     NOT NULL,
    "offset"         bigint      NOT NULL,
    message_id       text        NOT NULL,
    key              bytea,
    type             text,
    payload          bytea,
    headers          jsonb       NOT NULL,     -- pairs, complete
    "timestamp"      timestamptz NOT NULL,     -- the record's
    handler          text        NOT NULL DEFAULT '',
    state            text        NOT NULL,     -- retry | behind | dead-letter
    attempts         smallint    NOT NULL DEFAULT 0,
    error            text,
    first_failed_at  timestamptz,
    next_attempt_at  timestamptz,              -- null: when the one before it is gone; of a dead letter: when resolved
    held_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (consumer_group, topic, "partition", "offset")
);
CREATE INDEX "{inbox_held.name}_key" ON {inbox_held} (consumer_group, topic, "partition", key, "offset");
CREATE INDEX "{inbox_held.name}_message_id" ON {inbox_held} (consumer_group, message_id);

-- What a member has begun, by partition. What is left of it when the next member comes was interrupted by a crash:
-- these messages are tried one at a time, each try counted before it begins.
CREATE TABLE {inbox_attempt} (
    consumer_group    text        NOT NULL,
    topic             text        NOT NULL,
    "partition"       integer     NOT NULL,
    member            text        NOT NULL,
    first_offset      bigint      NOT NULL,
    last_offset       bigint      NOT NULL,
    suspect_offset    bigint,
    suspect_attempts  smallint    NOT NULL DEFAULT 0,
    at                timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer_group, topic, "partition")
) WITH (fillfactor = 50);

-- Subject: '' for the whole group, 'topic:…', or 'handler:…'.
CREATE TABLE {inbox_control} (
    consumer_group  text        NOT NULL,
    subject         text        NOT NULL DEFAULT '',
    paused          text,                      -- why; null: it goes on
    policy          jsonb       NOT NULL DEFAULT '{}',
    revision        bigint      NOT NULL DEFAULT 0,  -- of subject '': grows when held messages were changed by hand
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by      text        NOT NULL DEFAULT '',
    PRIMARY KEY (consumer_group, subject)
);

-- What operators did. Written in the transaction that does it.
CREATE TABLE {inbox_action} (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor           text        NOT NULL,
    action          text        NOT NULL,      -- pause | resume | policy | retry | discard
    consumer_group  text        NOT NULL,
    subject         text        NOT NULL DEFAULT '',
    message_id      text,
    reason          text
);
