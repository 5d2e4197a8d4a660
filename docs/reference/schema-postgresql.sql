BEGIN;

-- 0001 log
-- The log, its cursors, the inbox and the audit of dead letters.
-- The default of 16 shards is fixed here: a key belongs to a shard for good.

CREATE SCHEMA IF NOT EXISTS "postroom";

CREATE TABLE "postroom"."schema_version" (
    version     integer PRIMARY KEY,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- CACHE 1: a position is taken while the caller holds its row locks, so positions of a key follow
-- the order in which its transactions serialised.
CREATE SEQUENCE "postroom"."outbox_position" CACHE 1;

CREATE TABLE "postroom"."outbox" (
    position    bigint      NOT NULL DEFAULT nextval('"postroom"."outbox_position"'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id          uuid        NOT NULL,
    -- Any language can compute it: the first byte of the key's SHA-256, modulo the number of shards.
    shard       smallint    NOT NULL
                GENERATED ALWAYS AS ((get_byte(sha256(coalesce(key, uuid_send(id))), 0) % 16)::smallint) STORED,
    topic       text        NOT NULL,
    key         bytea,
    type        text        NOT NULL,
    payload     bytea,
    headers     jsonb       NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, position)
) PARTITION BY RANGE (position);

CREATE INDEX "outbox_xid" ON "postroom"."outbox" (xid);

-- Takes what no other partition does, so that publishing never fails for want of one.
CREATE TABLE "postroom"."outbox_overflow" PARTITION OF "postroom"."outbox" DEFAULT;

-- Makes partitions until `ahead` of them lie ahead of the head of the log; returns how many it made.
-- ATTACH rather than CREATE … PARTITION OF: writers with an open transaction are not waited for.
CREATE FUNCTION "postroom"."outbox_add_partitions"(ahead integer, size bigint)
RETURNS integer LANGUAGE plpgsql SET lock_timeout = '1s' AS $function$
DECLARE
    head   bigint := (SELECT last_value FROM "postroom"."outbox_position");
    lower  bigint;
    child  text;
    made   integer := 0;
BEGIN
    SELECT coalesce(max(substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''(\d+)''\)')::bigint), 0)
      INTO lower
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = '"postroom"."outbox"'::regclass;
    IF lower > 0 AND lower <= head THEN
        lower := (head / size + 2) * size;  -- the head is in the overflow: leave room for it to move on
    END IF;
    WHILE lower < head + ahead * size LOOP
        child := format('%I.%I', 'postroom', 'outbox_' || lpad((lower / size)::text, 9, '0'));
        EXECUTE format('CREATE TABLE %s (LIKE "postroom"."outbox" INCLUDING DEFAULTS INCLUDING GENERATED)', child);
        EXECUTE format('ALTER TABLE "postroom"."outbox" ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)',
                       child, lower, lower + size);
        lower := lower + size;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$function$;

SELECT "postroom"."outbox_add_partitions"(4, 1000000);

-- One row a shard. Everything visible in `snapshot` is settled. While a backlog larger than a batch is
-- paged, `upto` is the snapshot it ends with, and the page goes on after `page_position` until `page_end`.
CREATE TABLE "postroom"."relay_cursor" (
    shard             smallint    PRIMARY KEY,
    snapshot          pg_snapshot NOT NULL,
    upto              pg_snapshot,
    page_position     bigint      NOT NULL DEFAULT 0,
    page_end          bigint      NOT NULL DEFAULT 0,
    owner             text,
    epoch             bigint      NOT NULL DEFAULT 0,
    lease_until       timestamptz,
    settled_at        timestamptz,
    cluster           bigint      NOT NULL
) WITH (fillfactor = 10);

INSERT INTO "postroom"."relay_cursor" (shard, snapshot, cluster)
SELECT s, '1:1:', (SELECT system_identifier FROM pg_control_system()) FROM generate_series(0, 16 - 1) s;

CREATE TABLE "postroom"."outbox_parked" (
    shard       smallint    NOT NULL,
    position    bigint      NOT NULL,
    id          uuid        NOT NULL,
    topic       text        NOT NULL,
    key         bytea,
    type        text        NOT NULL,
    payload     bytea,
    headers     jsonb       NOT NULL,
    created_at  timestamptz NOT NULL,
    error       text,                   -- null: only waits behind another of its key
    parked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    retry       boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (shard, position)
);

CREATE TABLE "postroom"."outbox_scheduled" (
    id          uuid        PRIMARY KEY,
    due_at      timestamptz NOT NULL,
    topic       text        NOT NULL,
    key         bytea,
    type        text        NOT NULL,
    payload     bytea,
    headers     jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX "outbox_scheduled_due" ON "postroom"."outbox_scheduled" (due_at);

CREATE TABLE "postroom"."inbox" (
    consumer_group  text        NOT NULL,
    message_id      text        NOT NULL,
    outcome         text        NOT NULL,   -- handled | dead-lettered
    topic           text        NOT NULL,
    handler         text,
    attempts        smallint    NOT NULL DEFAULT 1,
    replays         smallint    NOT NULL DEFAULT 0,  -- of the delivery that closed the row
    processed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer_group, message_id)
);
CREATE INDEX "inbox_processed_at" ON "postroom"."inbox" USING brin (processed_at);

CREATE TABLE "postroom"."dead_letter_action" (
    id                  bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at                  timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor               text        NOT NULL,
    action              text        NOT NULL,
    dead_letter_topic   text        NOT NULL,
    "partition"         integer     NOT NULL,
    "offset"            bigint      NOT NULL,
    message_id          text        NOT NULL,
    reason              text
);
CREATE INDEX "dead_letter_action_place"
    ON "postroom"."dead_letter_action" (dead_letter_topic, "partition", "offset");

INSERT INTO "postroom"."schema_version" (version) VALUES (1);

-- 0002 relays
-- Several relays: who runs, and what operators ask of all of them. Retention of the log. Wake-up by NOTIFY.

CREATE TABLE "postroom"."relay_instance" (
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
CREATE TABLE "postroom"."relay_control" (
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
INSERT INTO "postroom"."relay_control" (topic) VALUES ('');

-- Waits since its topic stands still, not for its key.
ALTER TABLE "postroom"."outbox_parked" ADD COLUMN by_topic boolean NOT NULL DEFAULT false;
CREATE INDEX "outbox_parked_key" ON "postroom"."outbox_parked" (topic, key);
CREATE INDEX "outbox_parked_position" ON "postroom"."outbox_parked" (position);

-- What operators did. Written in the transaction that does it.
CREATE TABLE "postroom"."outbox_action" (
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
CREATE INDEX "outbox_action_position" ON "postroom"."outbox_action" (position);

-- Drops the oldest partitions, `most` of them, that every cursor has settled and that hold nothing younger than
-- `keep`; with `dry` only names them. The first one that stays comes last, with why: 'head' (it is written to),
-- 'unsettled', 'young', or 'in use' (a transaction holds the log; the next time, then).
CREATE FUNCTION "postroom"."outbox_drop_partitions"(keep interval, dry boolean, most integer)
RETURNS TABLE (part text, why text, newest timestamptz, bytes bigint)
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $function$
DECLARE
    head     bigint := (SELECT last_value FROM "postroom"."outbox_position");
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
         WHERE i.inhparent = '"postroom"."outbox"'::regclass
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
              FROM "postroom"."relay_cursor" c ORDER BY pg_snapshot_xmin(c.snapshot) LIMIT 1;
            EXECUTE format('SELECT (array_agg(xid ORDER BY xid DESC))[1], max(created_at)'
                           '  FROM (SELECT xid, created_at FROM %s ORDER BY xid DESC LIMIT 1000) last', child.name)
               INTO highest, newest;
            why := CASE WHEN child.upper > head THEN 'head'
                        WHEN highest >= settled THEN 'unsettled'
                        WHEN newest > clock_timestamp() - keep THEN 'young' END;
            -- To wait for a transaction that stays open would hold up everyone who publishes.
            IF why IS NULL AND look = 1 AND EXISTS (
                SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
                 WHERE l.locktype = 'relation' AND l.relation IN ('"postroom"."outbox"'::regclass, child.oid)
                   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                   AND l.pid IS DISTINCT FROM pg_backend_pid()
                   AND (l.pid IS NULL OR a.xact_start < clock_timestamp() - interval '1 second'))
            THEN
                why := 'in use';
            END IF;
            EXIT WHEN why IS NOT NULL OR dry OR look = 2;
            BEGIN
                LOCK TABLE ONLY "postroom"."outbox" IN ACCESS EXCLUSIVE MODE;
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
CREATE FUNCTION "postroom"."outbox_notify"() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('"postroom"."outbox"', 1)) THEN
        PERFORM pg_notify(left('postroom_outbox', 63), '');
    END IF;
    RETURN NULL;
END
$function$;

INSERT INTO "postroom"."schema_version" (version) VALUES (2);

-- 0003 inbox
-- The inbox by days, so that old ones are dropped; what failed and waits; what was begun; what operators ask.

-- A message's id begins with its time where it is a UUIDv7, so it tells the day. Ids of other kinds, and those of
-- before this version, are in the partition for all others, where old rows are deleted one by one.
ALTER TABLE "postroom"."inbox" RENAME TO "inbox_other";
ALTER INDEX "postroom"."inbox_pkey" RENAME TO "inbox_other_pkey";
ALTER INDEX "postroom"."inbox_processed_at" RENAME TO "inbox_other_processed_at";
ALTER TABLE "postroom"."inbox_other"
    ALTER COLUMN message_id TYPE text COLLATE "C",
    ADD COLUMN result jsonb;
CREATE INDEX "inbox_other_message_id" ON "postroom"."inbox_other" (message_id);

CREATE TABLE "postroom"."inbox" (
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
CREATE INDEX "inbox_processed_at" ON "postroom"."inbox" USING brin (processed_at);
ALTER TABLE "postroom"."inbox" ATTACH PARTITION "postroom"."inbox_other" DEFAULT;

-- Where the UUIDv7s of a moment begin.
CREATE FUNCTION "postroom"."inbox_id_at"(moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE AS $function$
    SELECT substr(hex, 1, 8) || '-' || substr(hex, 9)
    FROM (SELECT lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') AS hex) AS milliseconds;
$function$;

-- A partition for today and for each of the next `ahead` days (UTC). A day of which the partition for all others
-- has rows already stays there. Returns how many were made; gives up after 200 ms behind somebody's lock, and at once
-- where another session is at it. ATTACH rather than CREATE … PARTITION OF: transactions that use the inbox are not
-- waited for, but those that use the partition for all others.
CREATE FUNCTION "postroom"."inbox_add_partitions"(ahead integer) RETURNS integer
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $function$
DECLARE
    made   integer := 0;
    day    timestamptz;
    low    text;
    high   text;
    found  boolean;
    child  text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('"postroom"."inbox"', 2)) THEN
        RETURN 0;
    END IF;
    FOR n IN 0..ahead LOOP
        day := date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + n * interval '24 hours';
        child := format('%I.%I', 'postroom', 'inbox_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD'));
        CONTINUE WHEN to_regclass(child) IS NOT NULL;
        low := "postroom"."inbox_id_at"(day);
        high := "postroom"."inbox_id_at"(day + interval '24 hours');
        SELECT EXISTS (SELECT FROM "postroom"."inbox_other" WHERE message_id >= low AND message_id < high)
          INTO found;
        CONTINUE WHEN found;
        BEGIN
            EXECUTE format('CREATE TABLE %s (LIKE "postroom"."inbox" INCLUDING DEFAULTS)', child);
            EXECUTE format('ALTER TABLE "postroom"."inbox" ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', child, low, high);
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
CREATE FUNCTION "postroom"."inbox_drop_partitions"(keep interval, dry boolean)
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
    IF NOT dry AND NOT pg_try_advisory_xact_lock(hashtextextended('"postroom"."inbox"', 2)) THEN
        RETURN;  -- another session is at it
    END IF;
    FOR child IN
        SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname::text AS short, c.oid,
               substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)') AS upper,
               greatest(c.reltuples, 0)::bigint AS rows
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE i.inhparent = '"postroom"."inbox"'::regclass
         ORDER BY upper
    LOOP
        CONTINUE WHEN child.upper IS NULL OR child.upper COLLATE "C" > "postroom"."inbox_id_at"(since);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE processed_at >= $1)', child.name) INTO young USING since;
        CONTINUE WHEN young;
        IF NOT dry THEN
            -- To wait for a transaction that stays open would hold up everyone who consumes.
            EXIT WHEN EXISTS (
                SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
                 WHERE l.locktype = 'relation' AND l.relation IN ('"postroom"."inbox"'::regclass, child.oid)
                   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                   AND l.pid IS DISTINCT FROM pg_backend_pid()
                   AND (l.pid IS NULL OR a.xact_start < clock_timestamp() - interval '1 second'));
            BEGIN
                LOCK TABLE ONLY "postroom"."inbox" IN ACCESS EXCLUSIVE MODE;
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
    part := 'inbox_other';
    IF dry THEN
        SELECT count(*) INTO messages FROM "postroom"."inbox_other" WHERE processed_at < since;
    ELSE
        BEGIN
            DELETE FROM "postroom"."inbox_other"
             WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM "postroom"."inbox_other" WHERE processed_at < since
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

SELECT "postroom"."inbox_add_partitions"(7);

-- Messages that failed and wait for their next attempt, and those of the same key behind them.
CREATE TABLE "postroom"."inbox_held" (
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
CREATE INDEX "inbox_held_key" ON "postroom"."inbox_held" (consumer_group, topic, "partition", key, "offset");
CREATE INDEX "inbox_held_message_id" ON "postroom"."inbox_held" (consumer_group, message_id);

-- What a member has begun, by partition. What is left of it when the next member comes was interrupted by a crash:
-- these messages are tried one at a time, each try counted before it begins.
CREATE TABLE "postroom"."inbox_attempt" (
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
CREATE TABLE "postroom"."inbox_control" (
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
CREATE TABLE "postroom"."inbox_action" (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor           text        NOT NULL,
    action          text        NOT NULL,      -- pause | resume | policy | retry | discard
    consumer_group  text        NOT NULL,
    subject         text        NOT NULL DEFAULT '',
    message_id      text,
    reason          text
);

INSERT INTO "postroom"."schema_version" (version) VALUES (3);

-- 0004 ledger
-- The ledger of dead letters: what the dead-letter topics hold, what is done about it, and what came of that.

-- One row for each dead letter, which hardly ever changes; its record is in a table of its own, so that lists and
-- counts read little, and so is its state, so that nothing with many indexes is updated.
CREATE TABLE "postroom"."dead_letter" (
    id                 bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    dead_letter_topic  text        NOT NULL,
    "partition"        integer     NOT NULL,
    "offset"           bigint      NOT NULL,
    -- A topic that was deleted and made anew counts on from 0. Below zero: imported, or edited here.
    incarnation        integer     NOT NULL DEFAULT 0,
    written_at         timestamptz NOT NULL,
    family             text        NOT NULL,     -- postroom | spring | streams | connect | kafka | unknown
    message_id         text        COLLATE "C" NOT NULL,
    inbox_id           text        COLLATE "C" NOT NULL,  -- as the inbox of its group knows the message
    key                bytea,
    type               text,
    topic              text,                     -- the original one, and the place in it
    topic_partition    integer,
    topic_offset       bigint,
    consumer_group     text,
    error              text,
    message            text,
    handler            text,
    deliveries         integer,
    first_failed_at    timestamptz,
    failed_at          timestamptz NOT NULL,
    fingerprint        text        NOT NULL,
    replays            integer     NOT NULL DEFAULT 0,  -- before it died this time
    expires_at         timestamptz,
    size               integer,                  -- of the payload in bytes; null: a tombstone
    -- The order within a key: the place of the message's first death, which later ones inherit.
    order_partition    integer     NOT NULL,
    order_offset       bigint      NOT NULL,
    follows            bigint,                   -- the letter that died before it, or that it was edited from
    rounds             integer     NOT NULL DEFAULT 0,  -- replays since it first died or was released
    same_failures      integer     NOT NULL DEFAULT 0,  -- of these, how many of the last ended in the same failure
    masked             boolean     NOT NULL DEFAULT false,  -- imported with fields masked
    forgotten_at       timestamptz,
    read_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (dead_letter_topic, "partition", "offset", incarnation)
);
CREATE INDEX "dead_letter_failed_at" ON "postroom"."dead_letter" (failed_at, id);
CREATE INDEX "dead_letter_fingerprint" ON "postroom"."dead_letter" (fingerprint, failed_at, id);
CREATE INDEX "dead_letter_message_id" ON "postroom"."dead_letter" (message_id);
CREATE INDEX "dead_letter_key" ON "postroom"."dead_letter" USING hash (key);

-- Where those stand that are not simply dead, as they came.
CREATE TABLE "postroom"."dead_letter_state" (
    id        bigint      PRIMARY KEY,           -- of the dead letter
    state     text        NOT NULL,
    state_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    plan_id   bigint,
    ordinal   integer                            -- in the plan
) WITH (fillfactor = 70);
CREATE INDEX "dead_letter_state_state" ON "postroom"."dead_letter_state" (state, id);
CREATE INDEX "dead_letter_state_plan" ON "postroom"."dead_letter_state" (plan_id, ordinal) WHERE plan_id IS NOT NULL;

CREATE TABLE "postroom"."dead_letter_record" (
    id       bigint PRIMARY KEY,                 -- of the dead letter
    payload  bytea,
    headers  text   NOT NULL                     -- pairs, complete
);

-- How far each partition was read.
CREATE TABLE "postroom"."dead_letter_source" (
    dead_letter_topic  text        NOT NULL,
    "partition"        integer     NOT NULL,
    incarnation        integer     NOT NULL DEFAULT 0,
    next_offset        bigint      NOT NULL,
    mark               text        NOT NULL DEFAULT '',  -- of the last record read: it tells a topic that was made anew
    missed             bigint      NOT NULL DEFAULT 0,   -- taken by the topic's retention before they were read
    gone_since         timestamptz,              -- the topic is not there any more
    read_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (dead_letter_topic, "partition")
);

-- A replay: the very letters, frozen when it was made (dead_letter.plan_id), and how to go about them.
CREATE TABLE "postroom"."dead_letter_plan" (
    id            bigint      GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor         text        NOT NULL,
    reason        text,
    wanted        text        NOT NULL,          -- the filter in words
    targets       text        NOT NULL,          -- JSON: pairs of a topic and a group, or null for every group
    total         integer     NOT NULL,
    steps         text        NOT NULL,          -- JSON: the sizes of the first steps; the last one takes the rest
    rate          double precision,              -- messages a second
    max_failures  double precision,              -- of a step, as a share, or it stops
    state         text        NOT NULL DEFAULT 'open',   -- open | stopped | done | cancelled
    told          text,                          -- why it stopped
    paced_until   double precision NOT NULL DEFAULT 0,   -- seconds since 1970: when the rate allows the next one
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE "postroom"."dead_letter_action"
    ADD COLUMN dead_letter_id bigint,            -- null: before there was a ledger, or what concerns many
    ADD COLUMN plan_id        bigint,
    ADD COLUMN from_state     text,
    ADD COLUMN to_state       text;
CREATE INDEX "dead_letter_action_letter" ON "postroom"."dead_letter_action" (dead_letter_id);

-- For the limit of dead letters per minute: a handler's latest ones.
CREATE INDEX "inbox_dead_lettered" ON "postroom"."inbox" (consumer_group, handler, processed_at) WHERE outcome = 'dead-lettered';

INSERT INTO "postroom"."schema_version" (version) VALUES (4);

COMMIT;
