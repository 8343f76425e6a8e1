// Flows in: the demo graph. Flows out: Wayne's deal after one update by the service, with the version that it leaves.
MATCH (d:Deal {opportunity_id: 'a1000000-0000-4000-8000-000000000006'})
CREATE (d)-[:HAS_VERSION]->(v:DealVersion)
SET v = properties(d)
SET v += {version_id: 'a5000000-0000-4000-8000-000000000030', deal_opportunity_id: d.opportunity_id,
    change_summary: 'Penetration test passed', changed_fields: ['stage', 'opportunity_summary'],
    change_source_interaction_id: 'a9000000-0000-4000-8000-000000000130', created_at: datetime(),
    valid_from: d.created_at, valid_until: datetime()}
SET d.version = d.version + 1, d.stage = 'closed_won', d.meddic_champion_confidence = 0.87,
    d.opportunity_summary = 'The penetration test was read: no findings.',
    d.last_updated_at = toString(datetime());
