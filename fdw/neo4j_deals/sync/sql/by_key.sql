{# The row with this key. A range, cut after the first in its order, in a run without enable_sort: whatever the
   statistics say, the planner has no way but an index in that order. Of an equality, every order would be the right
   one. #}
SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
FROM {{ table | sql }} AS k
WHERE
    k.tenant_id = {{ tenant | sql }}::uuid
    AND {{ looked_up | sql }} BETWEEN {{ value | sql }} AND {{ value | sql }}
ORDER BY {% for name in order %}k.{{ name | ident }}{{ ", " if not loop.last }}{% endfor +%}
LIMIT 1
