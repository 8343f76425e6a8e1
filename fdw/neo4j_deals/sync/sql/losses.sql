        WITH s AS ({% if not exotic %}SELECT * FROM {{ staging | sql }} AS f WHERE f.row_number = ANY ($1) AND f.conversion_errors IS NOT NULL{% else %}{{ source | sql }}{% endif %}),
        lost (row_number, field, error) AS (
            SELECT s.row_number, e.key, e.value
            FROM s CROSS JOIN LATERAL jsonb_each(s.conversion_errors) AS e {% for c in exotic %}{{ "\n" if not loop.first }}UNION ALL
                SELECT s.row_number, {{ c.name | literal }}, _deal_sync.cast_error(raw.{{ c.name | ident }}::text, {{ c.target_family | literal }}::regtype, {{ c.target_modifier | literal }})
                    || jsonb_build_object('value', left(raw.{{ c.name | ident }}::text, 200), 'landed', false)
                FROM s INNER JOIN {{ staging | sql }} AS raw USING (row_number)
                WHERE s.{{ c.lost_name | ident }} AND NOT coalesce(jsonb_exists(s.conversion_errors, {{ c.name | literal }}), false){% endfor %}

        )
        SELECT
            s.row_number, s.graph_id, s.element_id, lost.field, lost.error,
            m.write = 'insert' OR $3 AS stays, m.write = 'insert' AND NOT $3 AS may_fill
        FROM lost
        INNER JOIN {{ staging | sql }} AS s USING (row_number)
        INNER JOIN _deal_sync.mapping_columns({{ oid | sql }}::regclass) AS m ON m.name = lost.field
        LEFT JOIN {{ target | sql }} AS t ON t.tenant_id = {{ tenant | sql }}::uuid AND t.{{ key_target | ident }} = s.{{ key | ident }}
        WHERE CASE WHEN s.row_number = ANY ($2) THEN true ELSE CASE lost.field {% for c in keeping %}WHEN {{ c.name | literal }} THEN t.{{ c.target | ident }} IS NULL OR coalesce((lost.error -> 'landed')::boolean, false) AND ROW(t.{{ c.target | ident }})::record OPERATOR(pg_catalog.*=) ROW({{ c.selected | sql }})::record{{ " " if not loop.last }}{% else %}WHEN {{ key | literal }} THEN true{% endfor %} ELSE true END END
