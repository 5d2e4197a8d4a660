-- What Debezium reads. As a role that owns the outbox (CREATE on the database besides) and may replicate:
--   psql --set ON_ERROR_STOP=1 --file publication.sql
-- Only what is inserted, and under the name of the table itself rather than of the partition it went to.
CREATE PUBLICATION postroom_outbox FOR TABLE postroom.outbox
    WITH (publish = 'insert', publish_via_partition_root = true);

-- From here on PostgreSQL keeps its write-ahead log until the slot has been read. Waits for the transactions that are
-- open now. What commits later is the slot's; what committed before is the relay's.
SELECT lsn AS hand_over_from FROM pg_create_logical_replication_slot('postroom_outbox', 'pgoutput');
