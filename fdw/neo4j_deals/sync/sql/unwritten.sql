        {# A new row must be there afterwards; a changed one must have a new place. #}
        SELECT w.row_number
        FROM unnest($1::bigint[], $2::tid[], $3::oid[]) AS w (row_number, place, part)
        INNER JOIN {{ staging | sql }} AS s USING (row_number)
        LEFT JOIN {{ target | sql }} AS t ON t.tenant_id = {{ tenant | sql }}::uuid AND t.{{ key_target | ident }} = s.{{ key | ident }}
        WHERE t.id IS NULL OR (t.ctid = w.place AND t.tableoid = w.part)
