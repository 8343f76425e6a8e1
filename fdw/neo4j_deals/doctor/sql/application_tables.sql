-- In: the mapping. Out: the tables of the application that it names.
SELECT t.relation::text AS relation
FROM (
    SELECT x.relation FROM _deal_sync.target_tables() AS x (relation)
    UNION ALL
    SELECT _deal_sync.application_table('deal', 'tenants')
) AS t
