-- In: the mapping. Out: its foreign tables.
SELECT _deal_sync.mapped(k.kind)::text AS name
FROM (VALUES ('deal'), ('version')) AS k (kind)
