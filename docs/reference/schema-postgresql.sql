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

COMMIT;
