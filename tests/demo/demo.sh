#!/bin/bash
# Flows in: the servers of `make up`, and PYTHON to reach them. Flows out: the story of a sync, told to a person.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH=tests PGCLIENTENCODING=UTF8 PGTZ=UTC COLUMNS=120
export PGOPTIONS='-c client_min_messages=warning' # each run's NOTICE says what its row shows

environment() { "${PYTHON:?make demo sets it}" -m environment "$@"; }

# Statements from standard input, results as tables of at most 120 columns.
sql() {
    environment psql -q -v ON_ERROR_STOP=1 -P pager=off -P footer=off -P linestyle=unicode -P null=· "$@" |
        sed '${/^$/d}'
}

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
step() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
say() { printf '%s\n' "$@"; }

# Every tenant, or the one whose name is given: the run's row, and what it has to say.
sync() {
    sql -v "tenant=${1:-}" <<'SQL'
SELECT
    t.name AS tenant, r.status, r.deals_read AS read, r.deals_inserted AS inserted, r.deals_adopted AS adopted,
    r.deals_updated AS updated, r.deals_unchanged AS unchanged, r.versions_inserted AS versions,
    r.links_inserted AS links, format('%s rows, %s values', r.rows_rejected, r.values_rejected) AS rejected,
    round(r.seconds::numeric, 2) AS seconds
FROM tenants AS t, sync_deals(t.id) AS r
WHERE :'tenant' IN ('', t.name)
ORDER BY t.name;
SQL
}

first_sync() {
    step "1. The first sync:  SELECT t.name, r.* FROM tenants AS t, sync_deals(t.id) AS r;"
    say "One row a run. Both tenants' deals land; partial means that something was rejected, and step 4 says what and why."
    sync
    say ""
    sql -t -P format=unaligned <<'SQL' | fold -s -w 118
SELECT 'Of the graph as a whole the runs say: ' || message || '.' FROM deal_sync.runs ORDER BY started_at DESC LIMIT 1;
SQL
}

five_deals() {
    step "2. Five deals, as the graph has them and as the table has them"
    say "Acme is new. Globex was a seller's own row of the same id: adopted, and what people enter stays as they entered it." \
        "Stage and amount are never written. Numbers are rounded to the column. An account that is no UUID, a vector of" \
        "the wrong length: NULL, and the rest of the deal lands. Wonka's currency and completeness were absent in the graph."
    sql <<'SQL'
WITH graph AS (
    SELECT g.*
    FROM deal_sync.scan(NULL::neo4j.deals, 'aaaaaaaa-0000-4000-8000-000000000001') AS g
    WHERE g.opportunity_id ~ '^a1000000-0000-4000-8000-0000000000(01|02|04|05|10)$'
)

SELECT
    split_part(x.name, ' - ', 1) AS deal, x.side AS "in", x.stage, x.amount, x.currency, x.account, x.champion,
    x.ontology, x.embedding, x.version
FROM (
    SELECT
        opportunity_id AS id, 'graph' AS side, name, stage, amount::text, currency, right(account_id, 8) AS account,
        meddic_champion_confidence::text AS champion, round(ontology_completeness::numeric, 4)::text AS ontology,
        CASE WHEN conversion_errors ? 'embedding' THEN 'misfit' ELSE vector_dims(embedding)::text END AS embedding,
        version
    FROM graph
    UNION ALL
    SELECT
        o.graph_opportunity_id::text, 'table', o.opportunity_name, o.stage, o.amount::text, o.currency,
        right(o.account_id::text, 8), o.meddic_champion_confidence::text, o.ontology_completeness::text,
        vector_dims(o.extraction_embedding)::text, o.extraction_version
    FROM opportunities AS o
    INNER JOIN graph AS g ON g.opportunity_id = o.graph_opportunity_id::text
) AS x
ORDER BY x.id, x.side;
SQL
}

versions() {
    step "3. The versions of two deals, and whether each has landed"
    say "Acme's numbers have a gap, which is fine. Two of Hooli's have one number: the first by time lands, the other is" \
        "rejected. Of ids, here and below, the last four characters are shown."
    sql <<'SQL'
SELECT
    split_part(v.name, ' - ', 1) AS deal, v.version AS number, right(v.version_id, 4) AS id, v.stage, v.amount,
    to_char(v.valid_until, 'YYYY-MM-DD HH24:MI:SS') AS "valid until", v.change_summary AS "what changed",
    CASE WHEN d.id IS NULL THEN 'no' ELSE 'yes' END AS landed
FROM deal_sync.scan(NULL::neo4j.deal_versions, 'aaaaaaaa-0000-4000-8000-000000000001') AS v
LEFT JOIN deal_versions AS d ON d.id::text = v.version_id
WHERE v.name ~ '^(Acme|Hooli)'
ORDER BY v.name, v.created_at;
SQL
}

rejects() {
    step "4. What was rejected, and why:  SELECT * FROM deal_sync.rejects;"
    say "First one deal that cannot land at all. It is tried again in every run, and leaves this table when its cause is gone."
    sql -x <<'SQL'
SELECT level, kind, graph_id, column_name, sqlstate, message, value
FROM deal_sync.rejects
WHERE graph_id = 'OPP-2291';
SQL
    say "" "And all of them. Level row: the row is missing; value: one column of it; note: worth knowing, nothing is missing."
    sql -P format=wrapped -P columns=120 <<'SQL'
SELECT level, kind, right(graph_id, 4) AS id, column_name AS column,
    regexp_replace(message, '4:[0-9a-f-]{36}:', '…:') AS message
FROM deal_sync.rejects
ORDER BY array_position('{row,value,note}', level), kind, graph_id;
SQL
}

second_sync() {
    step "5. The same sync again"
    say "Nothing has changed, so nothing is written: no row, no trigger fires, updated_at stays."
    sync
}

wayne() {
    sql <<'SQL'
SELECT
    o.opportunity_name AS deal, o.stage, o.meddic_champion_confidence AS champion, o.extraction_version AS version,
    (SELECT count(*) FROM deal_versions AS v WHERE v.opportunity_id = o.id) AS older,
    o.latest_ai_summary AS summary
FROM opportunities AS o
WHERE o.graph_opportunity_id = 'a1000000-0000-4000-8000-000000000006';
SQL
}

one_change() {
    step "6. One deal is changed in the graph, and synced"
    say "Before. The champion's confidence is missing: the graph says 87, and the column ends at 9.99."
    wayne
    say "" "The change, in Cypher (tests/demo/change.cypher):" ""
    sed -n '/^SET d/,$s/^/    /p' tests/demo/change.cypher
    environment cypher tests/demo/change.cypher
    say "" "The sync writes that one deal, its version, and no other row. One reject has gone with its cause."
    sync Atlas
    say "" "After. The stage is still empty: it belongs to the people who sell."
    wayne
}

proof() {
    step "7. Do both stores agree?  SELECT t.name, r.* FROM tenants AS t, deal_sync.reconcile(t.id) AS r;"
    say "Nothing is missing and nothing differs: all that is not there was rejected, with its reason in step 4's table."
    sql <<'SQL'
SELECT
    t.name AS tenant, r.kind, r.in_graph AS "in graph", r.in_postgres AS "in tables", r.matching, r.missing, r.differing,
    r.rejected, r.extra, r.legacy, r.kept
FROM tenants AS t, deal_sync.reconcile(t.id) AS r
ORDER BY t.name, r.kind;
SQL
}

by_itself() {
    step "8. It runs by itself:  SELECT * FROM deal_sync.schedule('*/5 * * * *');"
    say "Every five minutes what has changed; in the night in full, with a reconcile. One line a tenant says how it stands."
    sql <<'SQL'
CREATE EXTENSION IF NOT EXISTS pg_cron;
\o /dev/null
SELECT * FROM deal_sync.schedule('*/5 * * * *');
\o
CALL deal_sync.nightly();
SELECT s.task, s.schedule, s.active, to_char(s.next_run, 'YYYY-MM-DD HH24:MI') AS "next run", s.last_status AS "last status"
FROM deal_sync.schedules AS s
ORDER BY s.task DESC;
SELECT
    t.name AS tenant, s.state, date_trunc('second', s.lag) AS lag, s.deals, s.rejects_open AS rejected, s.missing, s.differing,
    to_char(s.next_run, 'YYYY-MM-DD HH24:MI') AS "next run"
FROM deal_sync.tenant_status AS s
INNER JOIN tenants AS t ON t.id = s.tenant_id
ORDER BY t.name;
\o /dev/null
SELECT deal_sync.unschedule();
SQL
    say "" "(The jobs of this demo are taken away again: deal_sync.unschedule().)"
}

say "Neo4j holds the Deals of two sales teams, PostgreSQL the tables of their CRM. Both are made anew for this demo."
environment refill
first_sync
five_deals
versions
rejects
second_sync
one_change
proof
by_itself
step "Look around:  make psql"
