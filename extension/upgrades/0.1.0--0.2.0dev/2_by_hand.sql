-- In: the tables of 0.1.0, in their new schemas. Out: what they lack.

ALTER TABLE _deal_sync.graph_tenants ADD COLUMN counted_at timestamptz NOT NULL DEFAULT now();
