-- Flows in: the application's empty tables. Flows out: two tenants, and a deal that a seller has entered by hand.

INSERT INTO tenants (id, name)
VALUES
('aaaaaaaa-0000-4000-8000-000000000001', 'Atlas'),
('bbbbbbbb-0000-4000-8000-000000000002', 'Harborline');

-- The graph has a deal of this id as well: the sync adopts the row, and leaves what the seller entered.
INSERT INTO opportunities (id, tenant_id, opportunity_name, stage, amount, currency, deal_status, updated_at)
VALUES (
    'a1000000-0000-4000-8000-000000000002', 'aaaaaaaa-0000-4000-8000-000000000001', 'Globex DWH', 'negotiation',
    295000, 'EUR', 'open', '2026-09-01 12:00:00+00'
);
