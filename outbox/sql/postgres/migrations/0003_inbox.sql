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
-- has rows already stays there. Returns how many were made; gives up after 200 ms behind somebody's lock.
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
    FOR n IN 0..ahead LOOP
        day := date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + n * interval '24 hours';
        child := '{inbox.name}_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN to_regclass(format('%I.%I', '{schema.name}', child)) IS NOT NULL;
        low := {schema}."{inbox.name}_id_at"(day);
        high := {schema}."{inbox.name}_id_at"(day + interval '24 hours');
        SELECT EXISTS (SELECT FROM {schema}."{inbox.name}_other" WHERE message_id >= low AND message_id < high)
          INTO found;
        CONTINUE WHEN found;
        BEGIN
            EXECUTE format('CREATE TABLE %I.%I PARTITION OF {inbox} FOR VALUES FROM (%L) TO (%L)',
                           '{schema.name}', child, low, high);
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            RETURN made;
        END;
    END LOOP;
    RETURN made;
END
$function$;

-- Drops the days that lie `keep` back and hold nothing processed since; deletes up to 10,000 rows that are as old
-- from the partition for all others. With `dry` only tells.
CREATE FUNCTION {schema}."{inbox.name}_drop_partitions"(keep interval, dry boolean)
RETURNS TABLE (part text, messages bigint)
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $function$
DECLARE
    since  timestamptz := clock_timestamp() - keep;
    child  record;
    young  boolean;
BEGIN
    FOR child IN
        SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname::text AS short,
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
            BEGIN
                EXECUTE format('DROP TABLE %s', child.name);
            EXCEPTION WHEN lock_not_available THEN
                RETURN;
            END;
        END IF;
        part := child.short;
        messages := child.rows;
        RETURN NEXT;
    END LOOP;
    part := '{inbox.name}_other';
    IF dry THEN
        SELECT count(*) INTO messages FROM {schema}."{inbox.name}_other" WHERE processed_at < since;
    ELSE
        DELETE FROM {schema}."{inbox.name}_other"
         WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {schema}."{inbox.name}_other" WHERE processed_at < since LIMIT 10000));
        GET DIAGNOSTICS messages = ROW_COUNT;
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
