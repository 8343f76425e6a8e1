// Flows in: an empty Neo4j. Flows out: the graph of two sales teams, in every form that the owning service writes.
//
// Statements end with a semicolon at a line's end. Deals are born by the service's create (last_updated_at is a ZONED
// DATETIME) and changed by its update, which copies the node into a DealVersion first (last_updated_at is a STRING then).
//   aaaaaaaa-0000-4000-8000-000000000001   Atlas: 12 deals, and nodes that cannot land
//   bbbbbbbb-0000-4000-8000-000000000002   Harborline: 8 deals

CREATE INDEX deal_key IF NOT EXISTS FOR (d:Deal) ON (d.tenant_id, d.opportunity_id);
CREATE INDEX deal_updated IF NOT EXISTS FOR (d:Deal) ON (d.tenant_id, d.last_updated_at);
CREATE INDEX version_key IF NOT EXISTS FOR (v:DealVersion) ON (v.tenant_id, v.version_id);
CREATE CONSTRAINT interaction_key IF NOT EXISTS
FOR (i:Interaction) REQUIRE (i.tenant_id, i.interaction_id) IS UNIQUE;

// 1. Created. `meddic`: text and confidence; `dims`: score and confidence; `seed` makes the embeddings.
UNWIND [
    {tenant: 'a', nr: '01', seed: 0.013, created: '2026-03-02T09:15:00Z', extra: {
        name: 'Acme Corp - platform renewal', stage: 'qualification', amount: 120000.0, currency: 'EUR',
        confidence: 0.62, qualification_status: 'qualified', expected_close_date: '2026-12-18',
        ontology_version: '2026.1',
        opportunity_summary: 'Three-year renewal with two new plants. Procurement wants one contract for all sites.',
        evolution_summary: 'Started as a support extension, grew into a renewal.',
        meddic_paper_process: 'MSA is signed; an order form is enough', meddic_competition: 'incumbent ERP add-on'},
     meddic: {metrics: ['Scrap rate down 11 %', 0.81], economic_buyer: ['Ines Okafor, CFO', 0.74],
        decision_criteria: ['TCO over 3 years, SSO', 0.7], decision_process: ['Steering committee, monthly', 0.66],
        identified_pain: ['Line stops are found too late', 0.9], champion: ['Dana Whitfield, VP Operations', 0.855]},
     dims: {champion_strength: [3, 0.9], economic_buyer_access: [2, 0.7], identified_pain: [3, 0.92],
        metrics_business_case: [2, 0.8], decision_criteria_alignment: [2, 0.61], decision_process_clarity: [2, 0.6],
        competitive_position: [2, 0.55], incumbent_displacement_risk: [1, 0.5], pricing_alignment: [1, 0.45],
        procurement_legal_progress: [2, 0.66], responsiveness: [3, 0.88], close_date_credibility: [2, 0.5],
        technical_fit: [3, 0.93], integration_security_risk: [1, 0.4], change_readiness: [2, 0.58]}},
    {tenant: 'a', nr: '02', seed: 0.029, created: '2026-04-11T14:00:00Z', extra: {
        name: 'Globex - data warehouse', stage: 'prospecting', amount: 310000.5, currency: 'USD',
        confidence: 0.48, qualification_status: 'qualified', expected_close_date: '2027-01-29',
        ontology_version: '2026.1', opportunity_summary: 'Replaces four reporting databases.'},
     meddic: {economic_buyer: ['Hank Scorpio', 0.6], identified_pain: ['Month end takes nine days', 0.83]},
     dims: {identified_pain: [3, 0.85], technical_fit: [2, 0.7], responsiveness: [1, 0.4]}},
    {tenant: 'a', nr: '03', seed: 0.031, created: '2026-05-20T08:30:00Z', extra: {   // an INTEGER amount, no MEDDIC
        name: 'Initech - reporting suite', stage: 'proposal', amount: 48000, currency: 'USD', confidence: 0.71,
        expected_close_date: '2026-12-04', opportunity_summary: 'Eight cover sheets become one.'},
     dims: {pricing_alignment: [2, 0.75], close_date_credibility: [2, 0.64]}},
    {tenant: 'a', nr: '04', seed: 0.037, created: '2026-06-01T10:00:00Z', extra: {   // the account is no UUID, no amount
        name: 'Umbrella Health - rollout 2027', stage: 'prospecting', account_id: 'SFDC-0018d00000UmbrX',
        currency: 'CHF', confidence: 0.35, opportunity_summary: 'Pilot in two clinics, then all twenty.'},
     meddic: {champion: ['Alice Abernathy', 0.5]}},
    {tenant: 'a', nr: '05', seed: 0.041, created: '2026-06-09T16:45:00Z', short_embedding: true, extra: {
        name: 'Stark Industries - pilot', stage: 'qualification', amount: 75000.0, currency: 'USD', confidence: 0.55,
        opportunity_summary: 'Twelve-week pilot, paid.'},
     dims: {technical_fit: [3, 0.9], integration_security_risk: [2, 0.71]}},
    {tenant: 'a', nr: '06', seed: 0.043, created: '2026-06-22T11:20:00Z', extra: {   // 87 per cent where 0.87 is due
        name: 'Wayne Enterprises - security review', stage: 'negotiation', amount: 990000.0, currency: 'USD',
        confidence: 0.9, opportunity_summary: 'Blocked until the penetration test is read.'},
     meddic: {champion: ['Lucius Fox, CTO', 87.0], metrics: ['Audit findings closed in 30 days', 0.77]}},
    {tenant: 'a', nr: '07', seed: 0.047, created: '2026-01-15T09:00:00Z', extra: {
        name: 'Hooli - cloud migration', stage: 'proposal', amount: 260000.0, currency: 'USD', confidence: 0.8,
        expected_close_date: '2026-08-31', opportunity_summary: 'Moves 40 services in three waves.'},
     meddic: {metrics: ['Hosting cost down 30 %', 0.9], champion: ['Jared Dunn', 0.7]},
     dims: {competitive_position: [3, 0.8], procurement_legal_progress: [3, 0.95]}},
    {tenant: 'a', nr: '09', seed: 0.053, created: '2026-07-14T13:00:00Z', extra: {   // a confidence without score, a new dimension
        name: 'Cyberdyne - field service', stage: 'qualification', amount: 134500.0, currency: 'USD', confidence: 0.5,
        opportunity_summary: 'Technicians want it offline.'},
     dims: {technical_fit: [2, 0.66], competitive_position: [null, 0.42], executive_sponsorship: [2, 0.6]}},
    {tenant: 'a', nr: '10', seed: 0.059, created: '2026-08-03T07:30:00Z', shares: false, extra: {   // '' and no currency
        name: 'Wonka Candy - recipe vault', stage: 'prospecting', amount: 22000.0, confidence: 0.3,
        opportunity_summary: '', evolution_summary: ''},
     meddic: {identified_pain: ['Recipes in spreadsheets', 0.7], champion: ['', 0.1]}, dims: {change_readiness: [1, 0.5]}},
    {tenant: 'A', nr: '12', seed: 0.061, created: '2026-09-18T15:10:00Z', extra: {   // the tenant in upper case
        name: 'Massive Dynamic - lab inventory', stage: 'qualification', amount: 67000, currency: 'USD',
        confidence: 0.44, opportunity_summary: 'Found through the tenant in upper case.'},
     dims: {responsiveness: [2, 0.6]}},
    {tenant: 'b', nr: '01', seed: 0.067, created: '2026-02-10T08:00:00Z', extra: {
        name: 'Pied Piper - route compression', stage: 'proposal', amount: 88000.0, currency: 'USD', confidence: 0.66,
        opportunity_summary: 'Cuts empty runs by a fifth.'},
     meddic: {metrics: ['Empty runs down 20 %', 0.8], champion: ['Monica Hall', 0.6]}, dims: {technical_fit: [3, 0.95]}},
    {tenant: 'b', nr: '02', seed: 0.071, created: '2026-03-19T12:00:00Z', extra: {
        name: 'Planet Express - fleet tracking', stage: 'negotiation', amount: 41000, currency: 'USD', confidence: 0.7,
        opportunity_summary: 'One ship, many moons.'},
     dims: {pricing_alignment: [1, 0.5], responsiveness: [3, 0.9]}},
    {tenant: 'b', nr: '03', seed: 0.073, created: '2026-04-02T12:00:00Z', extra: {
        name: 'Oceanic Airlines - cargo portal', stage: 'qualification', amount: 155000.0, currency: 'AUD',
        confidence: 0.52, opportunity_summary: 'Customs papers in one place.'},
     meddic: {economic_buyer: ['Juliet Burke', 0.55]}},
    {tenant: 'b', nr: '04', seed: 0.079, created: '2026-04-28T12:00:00Z', extra: {
        name: 'Weyland - deep space freight', stage: 'prospecting', currency: 'GBP', confidence: 0.25,
        opportunity_summary: 'Long lead times.'},
     dims: {change_readiness: [0, 0.8]}},
    {tenant: 'b', nr: '05', seed: 0.083, created: '2026-05-30T12:00:00Z', extra: {
        name: 'Gekko & Co - settlement feed', stage: 'closed_lost', amount: 19500.0, currency: 'USD', confidence: 0.9,
        closed_at: '2026-09-30T17:00:00+02:00', opportunity_summary: 'Lost on price.'},
     dims: {pricing_alignment: [0, 0.95]}},
    {tenant: 'b', nr: '06', seed: 0.089, created: '2026-06-17T12:00:00Z', extra: {
        name: 'Nakatomi Trading - tower dock', stage: 'qualification', amount: 230000.0, currency: 'JPY',
        confidence: 0.6, opportunity_summary: 'Loading bays are the bottleneck.'},
     meddic: {decision_process: ['Board in Osaka', 0.5]}},
    {tenant: 'b', nr: '07', seed: 0.097, created: '2026-07-21T12:00:00Z', extra: {
        name: 'Dunder Mifflin - paper logistics', stage: 'proposal', amount: 12800.0, currency: 'USD', confidence: 0.77,
        opportunity_summary: 'Same-day delivery to 30 branches.'},
     meddic: {champion: ['Oscar Martinez', 0.8]}, dims: {champion_strength: [2, 0.8], close_date_credibility: [3, 0.7]}}
] AS row
WITH row,
    CASE row.tenant
        WHEN 'a' THEN 'aaaaaaaa-0000-4000-8000-000000000001'
        WHEN 'A' THEN 'AAAAAAAA-0000-4000-8000-000000000001'
        ELSE 'bbbbbbbb-0000-4000-8000-000000000002'
    END AS tenant,
    CASE row.tenant WHEN 'b' THEN 'b' ELSE 'a' END + '1000000-0000-4000-8000-0000000000' + row.nr AS id
CREATE (d:Deal {
    tenant_id: tenant, opportunity_id: id, deal_ref: 'deal_' + right(replace(id, '-', ''), 16), version: 1,
    account_id: 'acc00000-0000-4000-8000-0000000000' + row.nr,
    source_interaction_id: left(id, 1) + '9000000-0000-4000-8000-0000000000' + row.nr,
    created_at: datetime(row.created), last_updated_at: datetime(row.created),
    embedding: [i IN range(0, CASE WHEN row.short_embedding THEN 767 ELSE 1535 END) | round(sin(i * row.seed), 6)],
    embedding_current: [i IN range(0, 1535) | round(cos(i * row.seed), 6)],
    forecast_score: round(row.seed * 10, 2)
})
SET d.account_id = 'acc00000-0000-4000-8000-0000000000' + row.nr
SET d += row.extra
CREATE (:Interaction {tenant_id: toLower(tenant), interaction_id: d.source_interaction_id, type: 'meeting'})
WITH d, row, coalesce(row.meddic, {}) AS meddic, coalesce(row.dims, {}) AS dims
CALL (d, meddic) {
    UNWIND keys(meddic) AS key
    SET d['meddic_' + key] = meddic[key][0], d['meddic_' + key + '_confidence'] = meddic[key][1]
}
CALL (d, dims) {
    UNWIND keys(dims) AS key
    SET d['dim_' + key] = dims[key][0], d['dim_' + key + '_confidence'] = dims[key][1]
}
// The service's own figures; without them the sync counts for itself.
WITH d, row, meddic, dims WHERE coalesce(row.shares, true)
SET d.meddic_completeness = round(size([key IN keys(meddic) WHERE meddic[key][0] <> '']) / 6.0, 2),
    d.ontology_completeness = round(size([key IN keys(dims) WHERE dims[key][0] IS NOT NULL]) / 15.0, 2);

// 2. Skeletons: no last_updated_at, no version, created_at in both types.
UNWIND [
    {tenant_id: 'aaaaaaaa-0000-4000-8000-000000000001', opportunity_id: 'a1000000-0000-4000-8000-000000000008',
     name: 'Soylent - supply chain', stage: 'prospecting', account_id: 'acc00000-0000-4000-8000-000000000008'},
    {tenant_id: 'aaaaaaaa-0000-4000-8000-000000000001', opportunity_id: 'a1000000-0000-4000-8000-000000000011',
     name: 'Tyrell - asset registry', stage: 'prospecting', account_id: 'acc00000-0000-4000-8000-000000000011',
     amount: 150000, created_at: '2026-10-05T12:00:00.123456789+02:00'},
    {tenant_id: 'bbbbbbbb-0000-4000-8000-000000000002', opportunity_id: 'b1000000-0000-4000-8000-000000000008',
     name: 'Aperture - warehouse robots', stage: 'prospecting', account_id: 'acc00000-0000-4000-8000-000000000008',
     created_at: datetime('2026-10-06T09:30:00.123456789Z')}
] AS skeleton
CREATE (d:Deal) SET d = skeleton;

// 3. Updated. Each one leaves a DealVersion: all that the deal had before, valid_from being the deal's created_at.
//    `next` makes a gap in the numbers, `again` gives two versions one number; a skeleton's version has none.
UNWIND [
    {deal: 'a1000000-0000-4000-8000-000000000001', nr: 1, at: '2026-04-20T10:00:00Z', fields: ['stage'],
     change: {stage: 'proposal'}, why: 'Moved to proposal after the plant tour'},
    {deal: 'a1000000-0000-4000-8000-000000000001', nr: 2, at: '2026-07-08T15:30:00Z', fields: ['amount', 'confidence'],
     change: {amount: 150000.0, confidence: 0.78}, next: 4, why: 'Two more plants, amount raised'},
    {deal: 'a1000000-0000-4000-8000-000000000001', nr: 3, at: '2026-10-30T08:05:00Z', fields: ['stage'],
     change: {stage: 'negotiation'}, why: 'Legal has the contract'},
    {deal: 'a1000000-0000-4000-8000-000000000007', nr: 4, at: '2026-05-02T09:00:00Z', fields: ['amount'],
     change: {amount: 275000}, again: true, why: 'Third wave added'},
    {deal: 'a1000000-0000-4000-8000-000000000007', nr: 5, at: '2026-05-02T09:00:03Z', fields: ['opportunity_summary'],
     change: {opportunity_summary: 'Moves 55 services in three waves.'}, why: 'The same minute, from the other worker'},
    {deal: 'a1000000-0000-4000-8000-000000000007', nr: 6, at: '2026-09-01T18:00:00Z', fields: ['stage', 'closed_at'],
     change: {stage: 'closed_won', closed_at: '2026-09-01T18:00:00Z'}, why: 'Signed'},
    {deal: 'a1000000-0000-4000-8000-000000000011', nr: 7, at: '2026-11-02T11:00:00Z', fields: ['amount'],
     change: {amount: 165000}, why: 'First call'},
    {deal: 'b1000000-0000-4000-8000-000000000001', nr: 8, at: '2026-06-11T12:00:00Z', fields: ['stage'],
     change: {stage: 'negotiation'}, why: 'Pricing accepted'},
    {deal: 'b1000000-0000-4000-8000-000000000002', nr: 9, at: '2026-08-25T12:00:00Z', fields: ['amount'],
     change: {amount: 43500}, why: 'Second ship'}
] AS u
CALL (u) {
    MATCH (d:Deal {opportunity_id: u.deal})
    WITH d, u, left(u.deal, 1) AS team
    CREATE (d)-[:HAS_VERSION]->(v:DealVersion)
    SET v = properties(d)
    SET v += {
        version_id: team + '5000000-0000-4000-8000-00000000000' + u.nr, deal_opportunity_id: d.opportunity_id,
        change_summary: u.why, changed_fields: u.fields,
        change_source_interaction_id: team + '9000000-0000-4000-8000-00000000010' + u.nr,
        created_at: datetime(u.at), valid_from: d.created_at, valid_until: datetime(u.at)
    }
    CREATE (:Interaction {tenant_id: d.tenant_id, interaction_id: v.change_source_interaction_id, type: 'call'})
    SET d += u.change
    SET d.version = CASE WHEN u.again THEN d.version ELSE coalesce(u.next, d.version + 1) END,
        d.last_updated_at = toString(datetime(u.at))
};

// 4. What cannot land, or not all of it. Beside these: the account of 04, the embedding of 05, the confidence of 06.
//    A second node with Acme's key, left over from an import: the one updated last is the deal.
CREATE (:Deal {
    tenant_id: 'aaaaaaaa-0000-4000-8000-000000000001', opportunity_id: 'A1000000-0000-4000-8000-000000000001',
    name: 'Acme Corp (import of 2025)', stage: 'prospecting', account_id: 'acc00000-0000-4000-8000-000000000001',
    amount: 90000.0, created_at: '2025-11-30T00:00:00Z', last_updated_at: '2025-11-30T00:00:00Z'
});
// A key that is no UUID, with a version that waits for its deal.
CREATE (:Deal {
    tenant_id: 'aaaaaaaa-0000-4000-8000-000000000001', opportunity_id: 'OPP-2291', name: 'Vandelay - latex imports',
    stage: 'prospecting', amount: 5000.0, created_at: datetime('2026-10-12T09:00:00Z'),
    last_updated_at: datetime('2026-10-12T09:00:00Z'), version: 2
})-[:HAS_VERSION]->(:DealVersion {
    tenant_id: 'aaaaaaaa-0000-4000-8000-000000000001', version_id: 'a5000000-0000-4000-8000-000000000020', version: 1,
    deal_opportunity_id: 'OPP-2291', name: 'Vandelay - latex imports', stage: 'prospecting', amount: 4000,
    change_summary: 'Amount corrected', changed_fields: ['amount'], created_at: datetime('2026-10-12T10:00:00Z'),
    valid_from: datetime('2026-10-12T09:00:00Z'), valid_until: datetime('2026-10-12T10:00:00Z')
});
// A tenant without its dashes: nobody's node, for an exact match.
CREATE (:Deal {
    tenant_id: 'bbbbbbbb000040008000000000000002', opportunity_id: 'b1000000-0000-4000-8000-000000000099',
    name: 'Sirius Cybernetics - lifts', stage: 'prospecting', account_id: 'acc00000-0000-4000-8000-000000000099',
    created_at: datetime('2026-10-20T09:00:00Z'), last_updated_at: datetime('2026-10-20T09:00:00Z'), version: 1
});
