-- In: deal_sync.overlap. Out: its text, and its seconds.
SELECT
    o.overlap,
    extract(EPOCH FROM o.overlap::interval)::float8 AS seconds
FROM _deal_sync.setting('overlap') AS o (overlap)
