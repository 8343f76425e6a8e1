-- In: the catalog of a database with the extension. Out: one line of JSON: its members, and what an update must know of
-- each.

WITH members AS (
    SELECT d.classid, d.objid, e.extnamespace
    FROM pg_catalog.pg_depend AS d
    INNER JOIN pg_catalog.pg_extension AS e ON d.refobjid = e.oid AND d.refclassid = 'pg_catalog.pg_extension'::regclass
    WHERE e.extname = 'deal_sync' AND d.deptype = 'e'
),

-- What a member stands on: of a view its rule does.
needs AS (
    SELECT coalesce(r.ev_class, d.objid) AS objid, array_agg(DISTINCT d.refobjid::bigint) AS oids
    FROM pg_catalog.pg_depend AS d
    LEFT JOIN pg_catalog.pg_rewrite AS r ON d.objid = r.oid AND d.classid = 'pg_catalog.pg_rewrite'::regclass
    WHERE d.refobjid <> coalesce(r.ev_class, d.objid) AND d.deptype <> 'e'
    GROUP BY coalesce(r.ev_class, d.objid)
),

comments AS (
    SELECT
        CASE WHEN c.oid IS NULL THEN d.classoid ELSE 'pg_catalog.pg_type'::regclass END AS classoid,
        coalesce(c.reltype, d.objoid) AS objoid,
        jsonb_object_agg(coalesce(a.attname, ''), d.description) AS texts
    FROM pg_catalog.pg_description AS d
    -- The columns of a composite type are those of its relation, which is no member.
    LEFT JOIN pg_catalog.pg_class AS c
        ON d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = c.oid AND c.relkind = 'c'
    LEFT JOIN pg_catalog.pg_attribute AS a
        ON d.classoid = 'pg_catalog.pg_class'::regclass
        AND a.attrelid = d.objoid AND d.objsubid = a.attnum AND a.attnum > 0
    GROUP BY 1, 2
),

described AS (
    SELECT
        m.classid, m.objid, 'SCHEMA' AS kind, '' AS schema, n.nspname::text AS name, NULL::text AS arguments,
        '{}'::jsonb AS signature
    FROM members AS m
    INNER JOIN pg_catalog.pg_namespace AS n ON m.objid = n.oid AND m.classid = 'pg_catalog.pg_namespace'::regclass

    UNION ALL

    SELECT
        m.classid, m.objid, 'ROUTINE',
        CASE WHEN p.pronamespace = m.extnamespace THEN '@extschema@' ELSE p.pronamespace::regnamespace::text END,
        p.proname::text,
        (
            SELECT coalesce(string_agg(pg_catalog.format_type(t.type, NULL), ', ' ORDER BY t.place), '')
            FROM unnest(p.proargtypes) WITH ORDINALITY AS t (type, place)
        ),
        jsonb_build_object(
            'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
            'result', pg_catalog.pg_get_function_result(p.oid), 'kind', p.prokind, 'defaults', p.pronargdefaults
        )
    FROM members AS m
    INNER JOIN pg_catalog.pg_proc AS p ON m.objid = p.oid AND m.classid = 'pg_catalog.pg_proc'::regclass

    UNION ALL

    SELECT
        m.classid, m.objid, CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
        c.relnamespace::regnamespace::text, c.relname::text, NULL,
        jsonb_build_object('columns', (
            SELECT jsonb_agg(
                pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
                ORDER BY a.attnum
            )
            FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        ))
    FROM members AS m
    INNER JOIN pg_catalog.pg_class AS c ON m.objid = c.oid AND m.classid = 'pg_catalog.pg_class'::regclass
    WHERE c.relkind IN ('r', 'v')

    UNION ALL

    SELECT
        m.classid, m.objid, 'TYPE', t.typnamespace::regnamespace::text, t.typname::text, NULL,
        jsonb_build_object('columns', (
            SELECT jsonb_agg(
                pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
                ORDER BY a.attnum
            )
            FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        ), 'labels', (
            SELECT jsonb_agg(pg_catalog.quote_literal(e.enumlabel) ORDER BY e.enumsortorder)
            FROM pg_catalog.pg_enum AS e
            WHERE e.enumtypid = t.oid
        ))
    FROM members AS m
    INNER JOIN pg_catalog.pg_type AS t ON m.objid = t.oid AND m.classid = 'pg_catalog.pg_type'::regclass
    LEFT JOIN pg_catalog.pg_class AS c ON t.typrelid = c.oid
    WHERE t.typtype = 'e' OR c.relkind = 'c'

    UNION ALL

    SELECT m.classid, m.objid, 'FOREIGN DATA WRAPPER', '', w.fdwname::text, NULL, '{}'
    FROM members AS m
    INNER JOIN pg_catalog.pg_foreign_data_wrapper AS w
        ON m.objid = w.oid AND m.classid = 'pg_catalog.pg_foreign_data_wrapper'::regclass
)

SELECT jsonb_agg(jsonb_build_object(
    'oid', d.objid::bigint, 'kind', d.kind, 'schema', d.schema, 'name', pg_catalog.quote_ident(d.name),
    'arguments', d.arguments, 'signature', d.signature, 'needs', coalesce(n.oids, '{}'),
    'comments', coalesce(c.texts, '{}')
) ORDER BY d.kind, d.schema, d.name, d.arguments)
FROM described AS d
LEFT JOIN needs AS n ON d.objid = n.objid
LEFT JOIN comments AS c ON d.objid = c.objoid AND d.classid = c.classoid;
