-- In: the application's tables tenants and opportunities, empty or full, and deal_versions if the old plan made it.
-- Out: the columns, the table deal_versions, the indexes and the row-level security that sync_deals writes into.
--
-- All of it belongs to the application and nothing to the extension. Run it with the migration tool that you have, as
-- the owner of the tables:
--     psql -v ON_ERROR_STOP=1 -f deal_sync.sql
--     Prisma: a copy as prisma/migrations/<time>_deal_sync/migration.sql;   Flyway: a copy as V<n>__deal_sync.sql
-- It needs pgvector (CREATE EXTENSION vector, in any schema) and nothing of deal_sync. Tables are found by the
-- session's search_path; deal_versions is created next to opportunities; interaction_links, if it is yours, gets an
-- index on its interactions. It can be run again at any time: what exists is not changed, and if nothing is missing, no
-- lock is taken that a reader or writer would notice.
--
-- It is one statement, so it happens as a whole or not at all, with every tool, inside a transaction or not.
-- A column that exists with another type stops it with 42804 before anything has changed; the message names every
-- such column.
--
-- On a busy table. Adding the columns rewrites nothing and takes a moment, but it waits for running transactions, and
-- everybody else waits behind it: let it give up instead, and try again. The two indexes on opportunities and the one
-- on interaction_links are what takes long and holds writers up: create them beforehand, under the same names, and they
-- are skipped here. (CONCURRENTLY runs outside a transaction; if it failed, DROP INDEX CONCURRENTLY first.)
--     SET lock_timeout = '3s';
--     ALTER TABLE opportunities
--         ADD COLUMN IF NOT EXISTS graph_opportunity_id uuid,
--         ADD COLUMN IF NOT EXISTS source_interaction_id uuid;
--     SET lock_timeout = 0;
--     CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS opportunities_graph_opportunity_id_key
--         ON opportunities (graph_opportunity_id);
--     CREATE INDEX CONCURRENTLY IF NOT EXISTS opportunities_source_interaction_id_idx
--         ON opportunities (source_interaction_id);
--     CREATE INDEX CONCURRENTLY IF NOT EXISTS interaction_links_tenant_id_interaction_id_idx
--         ON interaction_links (tenant_id, interaction_id);
--     SET lock_timeout = '3s';
--     then this file

DO $migration$
DECLARE
    opportunities CONSTANT regclass := to_regclass('opportunities');
    tenants CONSTANT regclass := to_regclass('tenants');
    links CONSTANT regclass := to_regclass('interaction_links');
    home text;              -- the schema of opportunities, quoted
    versions regclass;      -- deal_versions in that schema, NULL before it is made
    vector_type oid;        -- pgvector's type, wherever the extension sits
    mismatches text;
    opportunity_columns text;
    version_columns text;
    wanted record;          -- a constraint or an index of the list
    present record;         -- what the catalog has in its place
    by_tenant CONSTANT text := 'tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid';
BEGIN
    IF opportunities IS NULL OR tenants IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_table',
            MESSAGE = format(
                'table "%s" does not exist', CASE WHEN opportunities IS NULL THEN 'opportunities' ELSE 'tenants' END
            ),
            DETAIL = format('The search_path is %s.', current_setting('search_path')),
            HINT = 'Set search_path to the schema of the application''s tables.';
    END IF;
    SELECT quote_ident(n.nspname) INTO STRICT home
    FROM pg_catalog.pg_class AS c INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = opportunities;
    versions := to_regclass(home || '.deal_versions');

    SELECT t.oid INTO vector_type
    FROM pg_catalog.pg_extension AS e
    INNER JOIN pg_catalog.pg_depend AS d
        ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid
        AND d.classid = 'pg_catalog.pg_type'::regclass AND d.deptype = 'e'
    INNER JOIN pg_catalog.pg_type AS t ON t.oid = d.objid
    WHERE e.extname = 'vector' AND t.typname = 'vector';
    IF vector_type IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = 'type "vector" does not exist',
            HINT = 'Run CREATE EXTENSION vector, in any schema, and this migration again.';
    END IF;

    -- 1. The columns: table, name, type as format_type() writes it, and what else its definition says. NULL there: it
    --    is the application's already, and is looked at only because deal_versions refers to it. One list, for the
    --    check and for the change.
    SELECT
        string_agg(
            format(
                'column "%s" of table "%s" is of type %s, but must be of type %s',
                w.name, w.home_table, found.type, w.type
            ), '; '
            ORDER BY w.place
        ) FILTER (WHERE found.type <> w.type),
        string_agg(
            format('ADD COLUMN IF NOT EXISTS %I %s %s', w.name, w.type, w.rest), ', ' ORDER BY w.place
        ) FILTER (WHERE found.type IS NULL AND w.home_table = 'opportunities' AND w.rest IS NOT NULL),
        string_agg(
            format('ADD COLUMN IF NOT EXISTS %I %s %s', w.name, w.type, w.rest), ', ' ORDER BY w.place
        ) FILTER (WHERE found.type IS NULL AND w.home_table = 'deal_versions')
    INTO mismatches, opportunity_columns, version_columns
    FROM (
        SELECT
            l.home_table, l.name, l.rest, row_number() OVER () AS place,
            CASE l.type WHEN 'vector(1536)' THEN format_type(vector_type, 1536) ELSE l.type END AS type,
            CASE l.home_table
                WHEN 'tenants' THEN tenants
                WHEN 'opportunities' THEN opportunities
                ELSE versions
            END AS relation
        FROM (
            VALUES
            ('tenants', 'id', 'uuid', NULL),
            ('opportunities', 'id', 'uuid', NULL),

            -- which deal of the graph it is
            ('opportunities', 'graph_opportunity_id', 'uuid', ''),
            ('opportunities', 'deal_ref', 'character varying(50)', ''),
            ('opportunities', 'qualification_status', 'character varying(20)', ''),
            ('opportunities', 'source_user_id', 'text', ''),

            -- MEDDIC
            ('opportunities', 'meddic_metrics', 'text', ''),
            ('opportunities', 'meddic_metrics_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'meddic_economic_buyer', 'text', ''),
            ('opportunities', 'meddic_economic_buyer_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'meddic_decision_criteria', 'text', ''),
            ('opportunities', 'meddic_decision_criteria_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'meddic_decision_process', 'text', ''),
            ('opportunities', 'meddic_decision_process_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'meddic_identified_pain', 'text', ''),
            ('opportunities', 'meddic_identified_pain_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'meddic_champion', 'text', ''),
            ('opportunities', 'meddic_champion_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'meddic_completeness', 'numeric(3,2)', ''),
            ('opportunities', 'meddic_paper_process', 'text', ''),
            ('opportunities', 'meddic_competition', 'text', ''),

            -- the dimensions: the forecast pipeline reads every column of this prefix, so there is none beside these
            ('opportunities', 'dim_champion_strength', 'smallint', ''),
            ('opportunities', 'dim_champion_strength_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_economic_buyer_access', 'smallint', ''),
            ('opportunities', 'dim_economic_buyer_access_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_identified_pain', 'smallint', ''),
            ('opportunities', 'dim_identified_pain_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_metrics_business_case', 'smallint', ''),
            ('opportunities', 'dim_metrics_business_case_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_decision_criteria_alignment', 'smallint', ''),
            ('opportunities', 'dim_decision_criteria_alignment_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_decision_process_clarity', 'smallint', ''),
            ('opportunities', 'dim_decision_process_clarity_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_competitive_position', 'smallint', ''),
            ('opportunities', 'dim_competitive_position_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_incumbent_displacement_risk', 'smallint', ''),
            ('opportunities', 'dim_incumbent_displacement_risk_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_pricing_alignment', 'smallint', ''),
            ('opportunities', 'dim_pricing_alignment_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_procurement_legal_progress', 'smallint', ''),
            ('opportunities', 'dim_procurement_legal_progress_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_responsiveness', 'smallint', ''),
            ('opportunities', 'dim_responsiveness_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_close_date_credibility', 'smallint', ''),
            ('opportunities', 'dim_close_date_credibility_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_technical_fit', 'smallint', ''),
            ('opportunities', 'dim_technical_fit_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_integration_security_risk', 'smallint', ''),
            ('opportunities', 'dim_integration_security_risk_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'dim_change_readiness', 'smallint', ''),
            ('opportunities', 'dim_change_readiness_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'ontology_scores_json', 'jsonb', ''),
            ('opportunities', 'ontology_version', 'character varying(64)', ''),

            -- embeddings, and the extraction that all of it comes from
            ('opportunities', 'extraction_embedding', 'vector(1536)', ''),
            ('opportunities', 'extraction_embedding_current', 'vector(1536)', ''),
            ('opportunities', 'extraction_confidence', 'numeric(3,2)', ''),
            ('opportunities', 'extraction_version', 'integer', 'DEFAULT 1'),
            ('opportunities', 'source_interaction_id', 'uuid', ''),

            -- deal_versions: what a deal was like, once for every version
            ('deal_versions', 'id', 'uuid', 'NOT NULL DEFAULT gen_random_uuid()'),
            ('deal_versions', 'tenant_id', 'uuid', 'NOT NULL'),
            ('deal_versions', 'opportunity_id', 'uuid', 'NOT NULL'),
            ('deal_versions', 'version_number', 'integer', 'NOT NULL'),
            ('deal_versions', 'name', 'text', 'NOT NULL'),
            ('deal_versions', 'stage', 'character varying(20)', 'NOT NULL'),
            ('deal_versions', 'amount', 'numeric(15,2)', ''),
            ('deal_versions', 'opportunity_summary', 'text', ''),
            ('deal_versions', 'evolution_summary', 'text', ''),
            ('deal_versions', 'meddic_metrics', 'text', ''),
            ('deal_versions', 'meddic_economic_buyer', 'text', ''),
            ('deal_versions', 'meddic_decision_criteria', 'text', ''),
            ('deal_versions', 'meddic_decision_process', 'text', ''),
            ('deal_versions', 'meddic_identified_pain', 'text', ''),
            ('deal_versions', 'meddic_champion', 'text', ''),
            ('deal_versions', 'meddic_completeness', 'numeric(3,2)', ''),
            ('deal_versions', 'ontology_scores_json', 'jsonb', ''),
            ('deal_versions', 'ontology_completeness', 'numeric(5,2)', ''),
            ('deal_versions', 'ontology_version', 'character varying(64)', ''),
            ('deal_versions', 'change_summary', 'text', 'DEFAULT '''''),
            ('deal_versions', 'changed_fields', 'jsonb', 'DEFAULT ''[]'''),
            ('deal_versions', 'change_source_interaction_id', 'uuid', ''),
            ('deal_versions', 'created_at', 'timestamp with time zone', 'NOT NULL DEFAULT now()'),
            ('deal_versions', 'valid_from', 'timestamp with time zone', 'NOT NULL DEFAULT now()'),
            ('deal_versions', 'valid_until', 'timestamp with time zone', '')
        ) AS l (home_table, name, type, rest)
    ) AS w
    LEFT JOIN LATERAL (
        SELECT format_type(a.atttypid, a.atttypmod) AS type
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = w.relation AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped
    ) AS found ON true;

    IF mismatches IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'datatype_mismatch',
            MESSAGE = mismatches,
            DETAIL = 'Nothing has been changed.',
            HINT = 'Rename the column or change its type, and run this migration again.';
    END IF;
    IF opportunity_columns IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s %s', opportunities, opportunity_columns);
    END IF;

    -- 2. deal_versions. Its foreign keys stand in CREATE TABLE, where PostgreSQL has nothing to validate: the query for
    --    that would meet the policy of opportunities, which binds the owner too, and raise.
    IF versions IS NULL THEN
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %s.deal_versions ('
            '%s, '
            'CONSTRAINT deal_versions_pkey PRIMARY KEY (id), '
            'CONSTRAINT deal_versions_tenant_id_fkey FOREIGN KEY (tenant_id) '
            'REFERENCES %s (id) ON DELETE CASCADE ON UPDATE CASCADE, '
            'CONSTRAINT deal_versions_opportunity_id_fkey FOREIGN KEY (opportunity_id) '
            'REFERENCES %s (id) ON DELETE CASCADE ON UPDATE CASCADE)',
            home, replace(version_columns, 'ADD COLUMN IF NOT EXISTS ', ''), tenants, opportunities
        );
        versions := to_regclass(home || '.deal_versions');
    ELSE
        IF version_columns IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %s %s', versions, version_columns);
        END IF;
        -- A foreign key is recognised by what it says and not by its name. One that is there with other actions was
        -- somebody's choice.
        FOR wanted IN
            SELECT k.name, k.column_name, k.target
            FROM (
                VALUES
                ('deal_versions_tenant_id_fkey', 'tenant_id', tenants),
                ('deal_versions_opportunity_id_fkey', 'opportunity_id', opportunities)
            ) AS k (name, column_name, target)
            WHERE NOT EXISTS (
                SELECT FROM pg_catalog.pg_constraint AS c
                INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
                WHERE c.conrelid = versions AND c.contype = 'f' AND c.confrelid = k.target AND a.attname = k.column_name
            )
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_constraint AS c
                WHERE c.conrelid = versions AND c.conname = k.name
            )
        LOOP
            -- NOT VALID: it holds for every row from now on, and rows that are there already cannot stop the migration.
            EXECUTE format(
                'ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (%I) REFERENCES %s (id) '
                'ON DELETE CASCADE ON UPDATE CASCADE NOT VALID',
                versions, wanted.name, wanted.column_name, wanted.target
            );
        END LOOP;
    END IF;

    -- 3. The indexes. What a failed CREATE INDEX CONCURRENTLY left behind has the name and does nothing: say so.
    FOR wanted IN
        SELECT i.kind, i.name, i.relation, i.definition
        FROM (
            VALUES
            ('UNIQUE INDEX', 'opportunities_graph_opportunity_id_key', opportunities, '(graph_opportunity_id)'),
            ('INDEX', 'opportunities_source_interaction_id_idx', opportunities, '(source_interaction_id)'),
            (
                'UNIQUE INDEX', 'deal_versions_tenant_id_opportunity_id_version_number_key', versions,
                '(tenant_id, opportunity_id, version_number)'
            ),
            ('INDEX', 'deal_versions_opportunity_id_idx', versions, '(opportunity_id)'),
            ('INDEX', 'deal_versions_tenant_id_idx', versions, '(tenant_id)')
        ) AS i (kind, name, relation, definition)
    LOOP
        SELECT x.indisvalid, x.indisunique, x.indpred IS NOT NULL AS is_partial INTO present
        FROM pg_catalog.pg_index AS x
        WHERE x.indrelid = wanted.relation AND x.indexrelid = to_regclass(home || '.' || wanted.name);
        IF NOT FOUND THEN
            EXECUTE format(
                'CREATE %s IF NOT EXISTS %I ON %s %s', wanted.kind, wanted.name, wanted.relation, wanted.definition
            );
        ELSIF
            NOT present.indisvalid
            OR (wanted.kind = 'UNIQUE INDEX' AND (NOT present.indisunique OR present.is_partial))
        THEN
            RAISE WARNING USING
                ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = format('index "%s" exists, but not as deal_sync requires it', wanted.name),
                DETAIL = format(
                    'It must be a valid %s on %s %s.', lower(wanted.kind), wanted.relation, wanted.definition
                ),
                HINT = format('Run DROP INDEX CONCURRENTLY %s.%I and this migration again.', home, wanted.name);
        END IF;
    END LOOP;

    -- Of the links, any index will do that leads to those of an interaction, whatever its name is.
    SELECT t.attnum AS tenant, i.attnum AS interaction INTO present
    FROM pg_catalog.pg_class AS c
    INNER JOIN pg_catalog.pg_attribute AS t ON t.attrelid = c.oid AND t.attname = 'tenant_id'
    INNER JOIN pg_catalog.pg_attribute AS i ON i.attrelid = c.oid AND i.attname = 'interaction_id'
    WHERE c.oid = links AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE');
    IF FOUND AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_index AS x
        WHERE
            x.indrelid = links AND x.indisvalid AND x.indpred IS NULL
            AND (
                x.indkey[0] = present.interaction
                OR (x.indkey[0] = present.tenant AND x.indkey[1] = present.interaction)
            )
    ) THEN
        EXECUTE format(
            'CREATE INDEX IF NOT EXISTS interaction_links_tenant_id_interaction_id_idx '
            'ON %s (tenant_id, interaction_id)',
            links
        );
    END IF;

    -- 4. Row-level security of deal_versions, for its owner too. nullif: after a transaction that set app.tenant_id
    --    locally the setting is '' and no longer unset, and the answer to that is no row, not an error. The old plan's
    --    policy raises there, so it is altered; a policy of that name that says anything else is somebody's own.
    IF NOT (SELECT c.relrowsecurity AND c.relforcerowsecurity FROM pg_catalog.pg_class AS c WHERE c.oid = versions) THEN
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', versions);
    END IF;
    SELECT p.polcmd, pg_get_expr(p.polqual, p.polrelid) AS expression INTO present
    FROM pg_catalog.pg_policy AS p
    WHERE p.polrelid = versions AND p.polname = 'deal_versions_tenant_isolation';
    IF NOT FOUND THEN
        EXECUTE format(
            'CREATE POLICY deal_versions_tenant_isolation ON %s USING (%s) WITH CHECK (%s)',
            versions, by_tenant, by_tenant
        );
    ELSIF
        present.polcmd = '*'
        AND present.expression = '(tenant_id = (current_setting(''app.tenant_id''::text))::uuid)'
    THEN
        EXECUTE format(
            'ALTER POLICY deal_versions_tenant_isolation ON %s USING (%s) WITH CHECK (%s)',
            versions, by_tenant, by_tenant
        );
    END IF;

    -- 5. Comments, unless there are any.
    IF obj_description(versions, 'pg_class') IS NULL THEN
        EXECUTE format(
            'COMMENT ON TABLE %s IS %L', versions,
            'What a deal was like at each of its versions in the graph. deal_sync adds rows here and changes none.'
        );
    END IF;
    SELECT a.attnum INTO present
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = opportunities AND a.attname = 'graph_opportunity_id';
    IF col_description(opportunities, present.attnum) IS NULL THEN
        EXECUTE format(
            'COMMENT ON COLUMN %s.graph_opportunity_id IS %L', opportunities,
            'opportunity_id of the deal in Neo4j whose row this is; with tenant_id the key of deal_sync. NULL: none.'
        );
    END IF;
END
$migration$;
