-- In: an empty database and its current schema; nothing of deal_sync. Loaded by the tests, before the migration.
-- Out: the application's tables, as strict as a real CRM's are: keys without defaults, forced row-level security, a
-- trigger that queues jobs, a writer who bypasses nothing.

-- Roles are the cluster's, and several test databases are made at once: whoever comes second finds the role there.
DO $$
BEGIN
    CREATE ROLE app_writer LOGIN NOSUPERUSER NOBYPASSRLS;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL
);

-- Prisma makes ids and updated_at in its client, so the table has no default for them.
CREATE TABLE opportunities (
    id uuid NOT NULL PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    account_id uuid,
    opportunity_name text,
    stage text,
    amount numeric(15, 2),
    currency varchar(3),
    close_date date,
    actual_close_date date,
    deal_status text,
    forecast_category text,
    next_step text,
    description text,
    lost_reason text,
    latest_forecast_amount numeric(15, 2),
    latest_forecast_confidence numeric(3, 2),
    latest_forecast_at timestamptz,
    forecast_count integer,
    attribute_maturity_stage text,
    latest_user_context jsonb,
    latest_ai_summary text,
    ai_evolution_summary text,
    ai_workflow_metadata jsonb,
    ontology_completeness numeric(5, 2),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL
);

-- No unique constraint on the pair, and no default for the id.
CREATE TABLE interaction_links (
    id uuid NOT NULL PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    interaction_id uuid NOT NULL,
    entity_type text NOT NULL,
    entity_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE forecast_jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    opportunity_id uuid NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION notify_forecast_job() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO forecast_jobs (tenant_id, opportunity_id) VALUES (new.tenant_id, new.id);
    RETURN NULL;
END
$$;

-- Fires when one of the eight is in a SET list, whether its value changes or not.
CREATE TRIGGER opportunities_forecast_job
AFTER UPDATE OF stage, amount, close_date, deal_status, forecast_category, next_step, description, lost_reason
ON opportunities
FOR EACH ROW EXECUTE FUNCTION notify_forecast_job();

-- The form that raises where app.tenant_id is unset or ''.
ALTER TABLE opportunities ENABLE ROW LEVEL SECURITY;
ALTER TABLE opportunities FORCE ROW LEVEL SECURITY;
CREATE POLICY opportunities_tenant_isolation ON opportunities
USING (tenant_id = current_setting('app.tenant_id')::uuid);

ALTER TABLE interaction_links ENABLE ROW LEVEL SECURITY;
ALTER TABLE interaction_links FORCE ROW LEVEL SECURITY;
CREATE POLICY interaction_links_tenant_isolation ON interaction_links
USING (tenant_id = current_setting('app.tenant_id')::uuid);

GRANT SELECT ON tenants TO app_writer;
GRANT SELECT, INSERT, UPDATE ON opportunities, interaction_links, forecast_jobs TO app_writer;

-- deal_versions is made later, by the migration: what the same role makes in this schema later, the writer may write.
DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO app_writer', current_schema());
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT, INSERT, UPDATE ON TABLES TO app_writer', current_schema()
    );
END
$$;
