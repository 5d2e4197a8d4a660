-- What `postroom doctor` asks of SQLite. Nothing is written.

-- name: hello
SELECT 1

-- name: latest_topics
SELECT topic, max(key IS NULL), coalesce(max(length(payload)), 0)
FROM (SELECT topic, key, payload FROM (SELECT topic, key, payload FROM {outbox} ORDER BY position DESC LIMIT :most)
      UNION ALL
      SELECT topic, key, payload FROM (SELECT topic, key, payload FROM {outbox_scheduled} LIMIT :most)
      UNION ALL
      SELECT topic, key, payload FROM (SELECT topic, key, payload FROM {outbox_parked} LIMIT :most)) AS found
GROUP BY topic ORDER BY topic

-- name: letters_outliving
SELECT count(*), coalesce((julianday('now') - julianday(min(s.state_at))) * 86400, 0)
FROM {dead_letter_state} s JOIN {dead_letter} d ON d.id = s.id
WHERE s.state IN ('replayed', 'confirmed') AND (julianday('now') - julianday(s.state_at)) * 86400 > :age
  AND (:group IS NULL OR d.consumer_group = :group)
