-- In: the catalog of a database with the extension, after attach(). Out: one line of JSON: what people call and read.

WITH members AS (
    SELECT d.classid, d.objid
    FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
    WHERE e.extname = 'deal_sync' AND d.deptype = 'e'
), routines AS (
    SELECT p.proname AS name, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
        CASE WHEN p.pronamespace = 'deal_sync'::regnamespace THEN 'deal_sync.' ELSE '' END || p.proname AS called,
        obj_description(p.oid, 'pg_proc') AS comment,
        CASE WHEN p.prokind = 'f' THEN
            CASE WHEN p.proretset THEN 'setof ' ELSE '' END || format_type(p.prorettype, NULL)
        END AS result,
        coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'name', a.name, 'type', format_type(a.type, NULL), 'out', a.mode IN ('o', 't'),
                'default', CASE WHEN a.mode = 'i' THEN pg_get_function_arg_default(p.oid, a.place::integer) END
            ) ORDER BY a.place)
            FROM ROWS FROM (
                unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])),
                unnest(p.proargnames), unnest(p.proargmodes::text[])
            ) WITH ORDINALITY AS given (type, name, mode, place)
            CROSS JOIN LATERAL (SELECT given.type, given.name, coalesce(given.mode, 'i') AS mode, given.place) AS a
        ), '[]') AS columns
    FROM members AS m JOIN pg_proc AS p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
    WHERE p.pronamespace = 'deal_sync'::regnamespace OR p.proname = 'sync_deals'
), relations AS (
    SELECT c.relname AS name, CASE c.relkind WHEN 'v' THEN 'view' WHEN 'c' THEN 'type' ELSE 'table' END AS kind,
        'deal_sync.' || c.relname AS called,
        coalesce(obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type')) AS comment,
        NULL AS result, (
            SELECT jsonb_agg(jsonb_build_object(
                'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                'comment', col_description(c.oid, a.attnum)
            ) ORDER BY a.attnum)
            FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        ) AS columns
    FROM members AS m JOIN pg_class AS c
        ON (m.classid = 'pg_class'::regclass AND m.objid = c.oid AND c.relkind IN ('r', 'v'))
        OR (m.classid = 'pg_type'::regclass AND m.objid = c.reltype AND c.relkind = 'c')
    WHERE c.relnamespace = 'deal_sync'::regnamespace
), mapping AS (
    SELECT c.relname AS name, 'foreign table' AS kind, 'neo4j.' || c.relname AS called,
        obj_description(c.oid, 'pg_class') AS comment, NULL AS result, (
            SELECT jsonb_agg(jsonb_build_object(
                'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                'comment', col_description(c.oid, a.attnum),
                'options', (
                    SELECT jsonb_object_agg(o.option_name, o.option_value)
                    FROM pg_options_to_table(a.attfdwoptions) AS o
                )
            ) ORDER BY a.attnum)
            FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        ) AS columns
    FROM pg_class AS c WHERE c.relnamespace = 'neo4j'::regnamespace AND c.relkind = 'f'
)
SELECT coalesce(jsonb_agg(to_jsonb(o) ORDER BY o.called, o.columns), '[]')::text
FROM (SELECT * FROM routines UNION ALL SELECT * FROM relations UNION ALL SELECT * FROM mapping) AS o;
