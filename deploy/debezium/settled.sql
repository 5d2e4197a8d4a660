-- Tells the relays that everything is published that committed before this statement. For the time that Debezium
-- publishes: in two steps, or messages are lost.
--   1. SELECT pg_current_wal_lsn(), pg_current_snapshot();      and keep both
--   2. wait until the slot's confirmed_flush_lsn is at that lsn or later
--   3. psql --set snapshot='…' --file settled.sql
UPDATE postroom.relay_cursor
SET snapshot = :'snapshot'::pg_snapshot, upto = NULL, page_position = 0, page_end = 0, settled_at = clock_timestamp()
WHERE pg_snapshot_xmin(snapshot) <= pg_snapshot_xmin(:'snapshot'::pg_snapshot);
