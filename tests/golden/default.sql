-- deal: cleared
SELECT coalesce(jsonb_object_agg(c.name, c.times) FILTER (WHERE c.times > 0), '{}')
FROM (
    SELECT
        ARRAY[
            count(*) FILTER (WHERE t.graph_opportunity_id IS NOT NULL AND (s.opportunity_id) IS NULL),
            count(*) FILTER (WHERE t.deal_ref IS NOT NULL AND (s.deal_ref) IS NULL),
            count(*) FILTER (WHERE t.qualification_status IS NOT NULL AND (s.qualification_status) IS NULL),
            count(*) FILTER (WHERE t.latest_ai_summary IS NOT NULL AND (s.opportunity_summary) IS NULL),
            count(*) FILTER (WHERE t.ai_evolution_summary IS NOT NULL AND (s.evolution_summary) IS NULL),
            count(*) FILTER (WHERE t.meddic_metrics IS NOT NULL AND (s.meddic_metrics) IS NULL),
            count(*) FILTER (WHERE t.meddic_metrics_confidence IS NOT NULL AND (s.meddic_metrics_confidence) IS NULL),
            count(*) FILTER (WHERE t.meddic_economic_buyer IS NOT NULL AND (s.meddic_economic_buyer) IS NULL),
            count(*) FILTER (WHERE t.meddic_economic_buyer_confidence IS NOT NULL AND (s.meddic_economic_buyer_confidence) IS NULL),
            count(*) FILTER (WHERE t.meddic_decision_criteria IS NOT NULL AND (s.meddic_decision_criteria) IS NULL),
            count(*) FILTER (WHERE t.meddic_decision_criteria_confidence IS NOT NULL AND (s.meddic_decision_criteria_confidence) IS NULL),
            count(*) FILTER (WHERE t.meddic_decision_process IS NOT NULL AND (s.meddic_decision_process) IS NULL),
            count(*) FILTER (WHERE t.meddic_decision_process_confidence IS NOT NULL AND (s.meddic_decision_process_confidence) IS NULL),
            count(*) FILTER (WHERE t.meddic_identified_pain IS NOT NULL AND (s.meddic_identified_pain) IS NULL),
            count(*) FILTER (WHERE t.meddic_identified_pain_confidence IS NOT NULL AND (s.meddic_identified_pain_confidence) IS NULL),
            count(*) FILTER (WHERE t.meddic_champion IS NOT NULL AND (s.meddic_champion) IS NULL),
            count(*) FILTER (WHERE t.meddic_champion_confidence IS NOT NULL AND (s.meddic_champion_confidence) IS NULL),
            count(*) FILTER (WHERE t.meddic_completeness IS NOT NULL AND (s.meddic_completeness) IS NULL),
            count(*) FILTER (WHERE t.meddic_paper_process IS NOT NULL AND (s.meddic_paper_process) IS NULL),
            count(*) FILTER (WHERE t.meddic_competition IS NOT NULL AND (s.meddic_competition) IS NULL),
            count(*) FILTER (WHERE t.dim_champion_strength IS NOT NULL AND (s.dim_champion_strength) IS NULL),
            count(*) FILTER (WHERE t.dim_champion_strength_confidence IS NOT NULL AND (s.dim_champion_strength_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_economic_buyer_access IS NOT NULL AND (s.dim_economic_buyer_access) IS NULL),
            count(*) FILTER (WHERE t.dim_economic_buyer_access_confidence IS NOT NULL AND (s.dim_economic_buyer_access_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_identified_pain IS NOT NULL AND (s.dim_identified_pain) IS NULL),
            count(*) FILTER (WHERE t.dim_identified_pain_confidence IS NOT NULL AND (s.dim_identified_pain_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_metrics_business_case IS NOT NULL AND (s.dim_metrics_business_case) IS NULL),
            count(*) FILTER (WHERE t.dim_metrics_business_case_confidence IS NOT NULL AND (s.dim_metrics_business_case_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_decision_criteria_alignment IS NOT NULL AND (s.dim_decision_criteria_alignment) IS NULL),
            count(*) FILTER (WHERE t.dim_decision_criteria_alignment_confidence IS NOT NULL AND (s.dim_decision_criteria_alignment_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_decision_process_clarity IS NOT NULL AND (s.dim_decision_process_clarity) IS NULL),
            count(*) FILTER (WHERE t.dim_decision_process_clarity_confidence IS NOT NULL AND (s.dim_decision_process_clarity_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_competitive_position IS NOT NULL AND (s.dim_competitive_position) IS NULL),
            count(*) FILTER (WHERE t.dim_competitive_position_confidence IS NOT NULL AND (s.dim_competitive_position_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_incumbent_displacement_risk IS NOT NULL AND (s.dim_incumbent_displacement_risk) IS NULL),
            count(*) FILTER (WHERE t.dim_incumbent_displacement_risk_confidence IS NOT NULL AND (s.dim_incumbent_displacement_risk_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_pricing_alignment IS NOT NULL AND (s.dim_pricing_alignment) IS NULL),
            count(*) FILTER (WHERE t.dim_pricing_alignment_confidence IS NOT NULL AND (s.dim_pricing_alignment_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_procurement_legal_progress IS NOT NULL AND (s.dim_procurement_legal_progress) IS NULL),
            count(*) FILTER (WHERE t.dim_procurement_legal_progress_confidence IS NOT NULL AND (s.dim_procurement_legal_progress_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_responsiveness IS NOT NULL AND (s.dim_responsiveness) IS NULL),
            count(*) FILTER (WHERE t.dim_responsiveness_confidence IS NOT NULL AND (s.dim_responsiveness_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_close_date_credibility IS NOT NULL AND (s.dim_close_date_credibility) IS NULL),
            count(*) FILTER (WHERE t.dim_close_date_credibility_confidence IS NOT NULL AND (s.dim_close_date_credibility_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_technical_fit IS NOT NULL AND (s.dim_technical_fit) IS NULL),
            count(*) FILTER (WHERE t.dim_technical_fit_confidence IS NOT NULL AND (s.dim_technical_fit_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_integration_security_risk IS NOT NULL AND (s.dim_integration_security_risk) IS NULL),
            count(*) FILTER (WHERE t.dim_integration_security_risk_confidence IS NOT NULL AND (s.dim_integration_security_risk_confidence) IS NULL),
            count(*) FILTER (WHERE t.dim_change_readiness IS NOT NULL AND (s.dim_change_readiness) IS NULL),
            count(*) FILTER (WHERE t.dim_change_readiness_confidence IS NOT NULL AND (s.dim_change_readiness_confidence) IS NULL),
            count(*) FILTER (WHERE t.ontology_scores_json IS NOT NULL AND (s.ontology_scores_json) IS NULL),
            count(*) FILTER (WHERE t.ontology_completeness IS NOT NULL AND (s.ontology_completeness) IS NULL),
            count(*) FILTER (WHERE t.ontology_version IS NOT NULL AND (s.ontology_version) IS NULL),
            count(*) FILTER (WHERE t.extraction_embedding IS NOT NULL AND (CASE WHEN s."embedding lost" THEN t.extraction_embedding ELSE s.embedding END) IS NULL),
            count(*) FILTER (WHERE t.extraction_embedding_current IS NOT NULL AND (CASE WHEN s."embedding_current lost" THEN t.extraction_embedding_current ELSE s.embedding_current END) IS NULL),
            count(*) FILTER (WHERE t.extraction_confidence IS NOT NULL AND (s.confidence) IS NULL),
            count(*) FILTER (WHERE t.extraction_version IS NOT NULL AND (s.version) IS NULL),
            count(*) FILTER (WHERE t.source_interaction_id IS NOT NULL AND (s.source_interaction_id) IS NULL),
            count(*) FILTER (WHERE t.ai_workflow_metadata IS NOT NULL AND (s.ai_workflow_metadata) IS NULL)
        ] AS counts
    FROM (
        SELECT
            coalesce(by_key.id, adopted.id) AS landed_id,
            by_key.id IS NOT NULL AND adopted.id IS NOT NULL AS shadows,
            CASE WHEN by_key.id IS NULL THEN adopted."landed place" ELSE by_key."landed place" END AS "landed place",
            CASE WHEN by_key.id IS NULL THEN adopted."landed part" ELSE by_key."landed part" END AS "landed part",
            s.row_number,
            s.element_id,
            s.graph_id,
            s.reject,
            s.conversion_errors,
            s.opportunity_id AS opportunity_id,
            s.name AS name,
            s.currency AS currency,
            s.currency IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'currency'::text), false)) AS "currency lost",
            s.account_id AS account_id,
            s.deal_ref AS deal_ref,
            s.qualification_status AS qualification_status,
            s.opportunity_summary AS opportunity_summary,
            s.evolution_summary AS evolution_summary,
            s.meddic_metrics AS meddic_metrics,
            s.meddic_metrics_confidence AS meddic_metrics_confidence,
            s.meddic_economic_buyer AS meddic_economic_buyer,
            s.meddic_economic_buyer_confidence AS meddic_economic_buyer_confidence,
            s.meddic_decision_criteria AS meddic_decision_criteria,
            s.meddic_decision_criteria_confidence AS meddic_decision_criteria_confidence,
            s.meddic_decision_process AS meddic_decision_process,
            s.meddic_decision_process_confidence AS meddic_decision_process_confidence,
            s.meddic_identified_pain AS meddic_identified_pain,
            s.meddic_identified_pain_confidence AS meddic_identified_pain_confidence,
            s.meddic_champion AS meddic_champion,
            s.meddic_champion_confidence AS meddic_champion_confidence,
            s.meddic_completeness AS meddic_completeness,
            s.meddic_paper_process AS meddic_paper_process,
            s.meddic_competition AS meddic_competition,
            s.dim_champion_strength AS dim_champion_strength,
            s.dim_champion_strength_confidence AS dim_champion_strength_confidence,
            s.dim_economic_buyer_access AS dim_economic_buyer_access,
            s.dim_economic_buyer_access_confidence AS dim_economic_buyer_access_confidence,
            s.dim_identified_pain AS dim_identified_pain,
            s.dim_identified_pain_confidence AS dim_identified_pain_confidence,
            s.dim_metrics_business_case AS dim_metrics_business_case,
            s.dim_metrics_business_case_confidence AS dim_metrics_business_case_confidence,
            s.dim_decision_criteria_alignment AS dim_decision_criteria_alignment,
            s.dim_decision_criteria_alignment_confidence AS dim_decision_criteria_alignment_confidence,
            s.dim_decision_process_clarity AS dim_decision_process_clarity,
            s.dim_decision_process_clarity_confidence AS dim_decision_process_clarity_confidence,
            s.dim_competitive_position AS dim_competitive_position,
            s.dim_competitive_position_confidence AS dim_competitive_position_confidence,
            s.dim_incumbent_displacement_risk AS dim_incumbent_displacement_risk,
            s.dim_incumbent_displacement_risk_confidence AS dim_incumbent_displacement_risk_confidence,
            s.dim_pricing_alignment AS dim_pricing_alignment,
            s.dim_pricing_alignment_confidence AS dim_pricing_alignment_confidence,
            s.dim_procurement_legal_progress AS dim_procurement_legal_progress,
            s.dim_procurement_legal_progress_confidence AS dim_procurement_legal_progress_confidence,
            s.dim_responsiveness AS dim_responsiveness,
            s.dim_responsiveness_confidence AS dim_responsiveness_confidence,
            s.dim_close_date_credibility AS dim_close_date_credibility,
            s.dim_close_date_credibility_confidence AS dim_close_date_credibility_confidence,
            s.dim_technical_fit AS dim_technical_fit,
            s.dim_technical_fit_confidence AS dim_technical_fit_confidence,
            s.dim_integration_security_risk AS dim_integration_security_risk,
            s.dim_integration_security_risk_confidence AS dim_integration_security_risk_confidence,
            s.dim_change_readiness AS dim_change_readiness,
            s.dim_change_readiness_confidence AS dim_change_readiness_confidence,
            s.ontology_scores_json AS ontology_scores_json,
            s.ontology_completeness AS ontology_completeness,
            s.ontology_version AS ontology_version,
            s.embedding AS embedding,
            s.embedding IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding'::text), false)) AS "embedding lost",
            s.embedding_current AS embedding_current,
            s.embedding_current IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding_current'::text), false)) AS "embedding_current lost",
            s.confidence AS confidence,
            s.version AS version,
            s.source_interaction_id AS source_interaction_id,
            s.closed_at AS closed_at,
            s.ai_workflow_metadata AS ai_workflow_metadata
        FROM (
            SELECT *
            FROM pg_temp.deal_sync_deals AS f
            WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))
        ) AS s
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS by_key ON true
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.id BETWEEN s.opportunity_id AND s.opportunity_id
            ORDER BY k.id
            LIMIT 1
        ) AS adopted ON adopted.graph_opportunity_id IS NULL
    ) AS s
    CROSS JOIN LATERAL (
        SELECT k.*
        FROM public.opportunities AS k
        WHERE k.ctid = s."landed place" AND k.tableoid = s."landed part"
        OFFSET 0
    ) AS t
) AS n
CROSS JOIN unnest(
    ARRAY[
        'graph_opportunity_id',
        'deal_ref',
        'qualification_status',
        'latest_ai_summary',
        'ai_evolution_summary',
        'meddic_metrics',
        'meddic_metrics_confidence',
        'meddic_economic_buyer',
        'meddic_economic_buyer_confidence',
        'meddic_decision_criteria',
        'meddic_decision_criteria_confidence',
        'meddic_decision_process',
        'meddic_decision_process_confidence',
        'meddic_identified_pain',
        'meddic_identified_pain_confidence',
        'meddic_champion',
        'meddic_champion_confidence',
        'meddic_completeness',
        'meddic_paper_process',
        'meddic_competition',
        'dim_champion_strength',
        'dim_champion_strength_confidence',
        'dim_economic_buyer_access',
        'dim_economic_buyer_access_confidence',
        'dim_identified_pain',
        'dim_identified_pain_confidence',
        'dim_metrics_business_case',
        'dim_metrics_business_case_confidence',
        'dim_decision_criteria_alignment',
        'dim_decision_criteria_alignment_confidence',
        'dim_decision_process_clarity',
        'dim_decision_process_clarity_confidence',
        'dim_competitive_position',
        'dim_competitive_position_confidence',
        'dim_incumbent_displacement_risk',
        'dim_incumbent_displacement_risk_confidence',
        'dim_pricing_alignment',
        'dim_pricing_alignment_confidence',
        'dim_procurement_legal_progress',
        'dim_procurement_legal_progress_confidence',
        'dim_responsiveness',
        'dim_responsiveness_confidence',
        'dim_close_date_credibility',
        'dim_close_date_credibility_confidence',
        'dim_technical_fit',
        'dim_technical_fit_confidence',
        'dim_integration_security_risk',
        'dim_integration_security_risk_confidence',
        'dim_change_readiness',
        'dim_change_readiness_confidence',
        'ontology_scores_json',
        'ontology_completeness',
        'ontology_version',
        'extraction_embedding',
        'extraction_embedding_current',
        'extraction_confidence',
        'extraction_version',
        'source_interaction_id',
        'ai_workflow_metadata'
    ]::text[],
    n.counts
) AS c (name, times)

-- deal: completion
MERGE INTO public.opportunities AS t
USING (
    SELECT
        coalesce(by_key.id, adopted.id) AS landed_id,
        by_key.id IS NOT NULL AND adopted.id IS NOT NULL AS shadows,
        CASE WHEN by_key.id IS NULL THEN adopted."landed place" ELSE by_key."landed place" END AS "landed place",
        CASE WHEN by_key.id IS NULL THEN adopted."landed part" ELSE by_key."landed part" END AS "landed part",
        s.row_number,
        s.element_id,
        s.graph_id,
        s.reject,
        s.conversion_errors,
        s.opportunity_id AS opportunity_id,
        s.name AS name,
        s.currency AS currency,
        s.currency IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'currency'::text), false)) AS "currency lost",
        s.account_id AS account_id,
        s.deal_ref AS deal_ref,
        s.qualification_status AS qualification_status,
        s.opportunity_summary AS opportunity_summary,
        s.evolution_summary AS evolution_summary,
        s.meddic_metrics AS meddic_metrics,
        s.meddic_metrics_confidence AS meddic_metrics_confidence,
        s.meddic_economic_buyer AS meddic_economic_buyer,
        s.meddic_economic_buyer_confidence AS meddic_economic_buyer_confidence,
        s.meddic_decision_criteria AS meddic_decision_criteria,
        s.meddic_decision_criteria_confidence AS meddic_decision_criteria_confidence,
        s.meddic_decision_process AS meddic_decision_process,
        s.meddic_decision_process_confidence AS meddic_decision_process_confidence,
        s.meddic_identified_pain AS meddic_identified_pain,
        s.meddic_identified_pain_confidence AS meddic_identified_pain_confidence,
        s.meddic_champion AS meddic_champion,
        s.meddic_champion_confidence AS meddic_champion_confidence,
        s.meddic_completeness AS meddic_completeness,
        s.meddic_paper_process AS meddic_paper_process,
        s.meddic_competition AS meddic_competition,
        s.dim_champion_strength AS dim_champion_strength,
        s.dim_champion_strength_confidence AS dim_champion_strength_confidence,
        s.dim_economic_buyer_access AS dim_economic_buyer_access,
        s.dim_economic_buyer_access_confidence AS dim_economic_buyer_access_confidence,
        s.dim_identified_pain AS dim_identified_pain,
        s.dim_identified_pain_confidence AS dim_identified_pain_confidence,
        s.dim_metrics_business_case AS dim_metrics_business_case,
        s.dim_metrics_business_case_confidence AS dim_metrics_business_case_confidence,
        s.dim_decision_criteria_alignment AS dim_decision_criteria_alignment,
        s.dim_decision_criteria_alignment_confidence AS dim_decision_criteria_alignment_confidence,
        s.dim_decision_process_clarity AS dim_decision_process_clarity,
        s.dim_decision_process_clarity_confidence AS dim_decision_process_clarity_confidence,
        s.dim_competitive_position AS dim_competitive_position,
        s.dim_competitive_position_confidence AS dim_competitive_position_confidence,
        s.dim_incumbent_displacement_risk AS dim_incumbent_displacement_risk,
        s.dim_incumbent_displacement_risk_confidence AS dim_incumbent_displacement_risk_confidence,
        s.dim_pricing_alignment AS dim_pricing_alignment,
        s.dim_pricing_alignment_confidence AS dim_pricing_alignment_confidence,
        s.dim_procurement_legal_progress AS dim_procurement_legal_progress,
        s.dim_procurement_legal_progress_confidence AS dim_procurement_legal_progress_confidence,
        s.dim_responsiveness AS dim_responsiveness,
        s.dim_responsiveness_confidence AS dim_responsiveness_confidence,
        s.dim_close_date_credibility AS dim_close_date_credibility,
        s.dim_close_date_credibility_confidence AS dim_close_date_credibility_confidence,
        s.dim_technical_fit AS dim_technical_fit,
        s.dim_technical_fit_confidence AS dim_technical_fit_confidence,
        s.dim_integration_security_risk AS dim_integration_security_risk,
        s.dim_integration_security_risk_confidence AS dim_integration_security_risk_confidence,
        s.dim_change_readiness AS dim_change_readiness,
        s.dim_change_readiness_confidence AS dim_change_readiness_confidence,
        s.ontology_scores_json AS ontology_scores_json,
        s.ontology_completeness AS ontology_completeness,
        s.ontology_version AS ontology_version,
        s.embedding AS embedding,
        s.embedding IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding'::text), false)) AS "embedding lost",
        s.embedding_current AS embedding_current,
        s.embedding_current IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding_current'::text), false)) AS "embedding_current lost",
        s.confidence AS confidence,
        s.version AS version,
        s.source_interaction_id AS source_interaction_id,
        s.closed_at AS closed_at,
        s.ai_workflow_metadata AS ai_workflow_metadata
    FROM (
        SELECT *
        FROM pg_temp.deal_sync_deals AS f
        WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))
    ) AS s
    LEFT JOIN LATERAL (
        SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
        FROM public.opportunities AS k
        WHERE
            k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
            AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
        ORDER BY k.graph_opportunity_id
        LIMIT 1
    ) AS by_key ON true
    LEFT JOIN LATERAL (
        SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
        FROM public.opportunities AS k
        WHERE
            k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
            AND k.id BETWEEN s.opportunity_id AND s.opportunity_id
        ORDER BY k.id
        LIMIT 1
    ) AS adopted ON adopted.graph_opportunity_id IS NULL
    WHERE (SELECT _deal_sync.plan_freely())
    ORDER BY s.row_number
) AS s
ON t.ctid = s."landed place" AND t.tableoid = s."landed part"
WHEN MATCHED AND ROW(
    t.graph_opportunity_id,
    t.deal_ref,
    t.qualification_status,
    t.latest_ai_summary,
    t.ai_evolution_summary,
    t.meddic_metrics,
    t.meddic_metrics_confidence,
    t.meddic_economic_buyer,
    t.meddic_economic_buyer_confidence,
    t.meddic_decision_criteria,
    t.meddic_decision_criteria_confidence,
    t.meddic_decision_process,
    t.meddic_decision_process_confidence,
    t.meddic_identified_pain,
    t.meddic_identified_pain_confidence,
    t.meddic_champion,
    t.meddic_champion_confidence,
    t.meddic_completeness,
    t.meddic_paper_process,
    t.meddic_competition,
    t.dim_champion_strength,
    t.dim_champion_strength_confidence,
    t.dim_economic_buyer_access,
    t.dim_economic_buyer_access_confidence,
    t.dim_identified_pain,
    t.dim_identified_pain_confidence,
    t.dim_metrics_business_case,
    t.dim_metrics_business_case_confidence,
    t.dim_decision_criteria_alignment,
    t.dim_decision_criteria_alignment_confidence,
    t.dim_decision_process_clarity,
    t.dim_decision_process_clarity_confidence,
    t.dim_competitive_position,
    t.dim_competitive_position_confidence,
    t.dim_incumbent_displacement_risk,
    t.dim_incumbent_displacement_risk_confidence,
    t.dim_pricing_alignment,
    t.dim_pricing_alignment_confidence,
    t.dim_procurement_legal_progress,
    t.dim_procurement_legal_progress_confidence,
    t.dim_responsiveness,
    t.dim_responsiveness_confidence,
    t.dim_close_date_credibility,
    t.dim_close_date_credibility_confidence,
    t.dim_technical_fit,
    t.dim_technical_fit_confidence,
    t.dim_integration_security_risk,
    t.dim_integration_security_risk_confidence,
    t.dim_change_readiness,
    t.dim_change_readiness_confidence,
    t.ontology_scores_json,
    t.ontology_completeness,
    t.ontology_version,
    t.extraction_embedding,
    t.extraction_embedding_current,
    t.extraction_confidence,
    t.extraction_version,
    t.source_interaction_id,
    t.ai_workflow_metadata
)::record OPERATOR(pg_catalog.*<>) ROW(
    s.opportunity_id,
    s.deal_ref,
    s.qualification_status,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_metrics_confidence,
    s.meddic_economic_buyer,
    s.meddic_economic_buyer_confidence,
    s.meddic_decision_criteria,
    s.meddic_decision_criteria_confidence,
    s.meddic_decision_process,
    s.meddic_decision_process_confidence,
    s.meddic_identified_pain,
    s.meddic_identified_pain_confidence,
    s.meddic_champion,
    s.meddic_champion_confidence,
    s.meddic_completeness,
    s.meddic_paper_process,
    s.meddic_competition,
    s.dim_champion_strength,
    s.dim_champion_strength_confidence,
    s.dim_economic_buyer_access,
    s.dim_economic_buyer_access_confidence,
    s.dim_identified_pain,
    s.dim_identified_pain_confidence,
    s.dim_metrics_business_case,
    s.dim_metrics_business_case_confidence,
    s.dim_decision_criteria_alignment,
    s.dim_decision_criteria_alignment_confidence,
    s.dim_decision_process_clarity,
    s.dim_decision_process_clarity_confidence,
    s.dim_competitive_position,
    s.dim_competitive_position_confidence,
    s.dim_incumbent_displacement_risk,
    s.dim_incumbent_displacement_risk_confidence,
    s.dim_pricing_alignment,
    s.dim_pricing_alignment_confidence,
    s.dim_procurement_legal_progress,
    s.dim_procurement_legal_progress_confidence,
    s.dim_responsiveness,
    s.dim_responsiveness_confidence,
    s.dim_close_date_credibility,
    s.dim_close_date_credibility_confidence,
    s.dim_technical_fit,
    s.dim_technical_fit_confidence,
    s.dim_integration_security_risk,
    s.dim_integration_security_risk_confidence,
    s.dim_change_readiness,
    s.dim_change_readiness_confidence,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    CASE WHEN s."embedding lost" THEN t.extraction_embedding ELSE s.embedding END,
    CASE WHEN s."embedding_current lost" THEN t.extraction_embedding_current ELSE s.embedding_current END,
    s.confidence,
    s.version,
    s.source_interaction_id,
    s.ai_workflow_metadata
)::record THEN UPDATE SET
    graph_opportunity_id = s.opportunity_id,
    deal_ref = s.deal_ref,
    qualification_status = s.qualification_status,
    latest_ai_summary = s.opportunity_summary,
    ai_evolution_summary = s.evolution_summary,
    meddic_metrics = s.meddic_metrics,
    meddic_metrics_confidence = s.meddic_metrics_confidence,
    meddic_economic_buyer = s.meddic_economic_buyer,
    meddic_economic_buyer_confidence = s.meddic_economic_buyer_confidence,
    meddic_decision_criteria = s.meddic_decision_criteria,
    meddic_decision_criteria_confidence = s.meddic_decision_criteria_confidence,
    meddic_decision_process = s.meddic_decision_process,
    meddic_decision_process_confidence = s.meddic_decision_process_confidence,
    meddic_identified_pain = s.meddic_identified_pain,
    meddic_identified_pain_confidence = s.meddic_identified_pain_confidence,
    meddic_champion = s.meddic_champion,
    meddic_champion_confidence = s.meddic_champion_confidence,
    meddic_completeness = s.meddic_completeness,
    meddic_paper_process = s.meddic_paper_process,
    meddic_competition = s.meddic_competition,
    dim_champion_strength = s.dim_champion_strength,
    dim_champion_strength_confidence = s.dim_champion_strength_confidence,
    dim_economic_buyer_access = s.dim_economic_buyer_access,
    dim_economic_buyer_access_confidence = s.dim_economic_buyer_access_confidence,
    dim_identified_pain = s.dim_identified_pain,
    dim_identified_pain_confidence = s.dim_identified_pain_confidence,
    dim_metrics_business_case = s.dim_metrics_business_case,
    dim_metrics_business_case_confidence = s.dim_metrics_business_case_confidence,
    dim_decision_criteria_alignment = s.dim_decision_criteria_alignment,
    dim_decision_criteria_alignment_confidence = s.dim_decision_criteria_alignment_confidence,
    dim_decision_process_clarity = s.dim_decision_process_clarity,
    dim_decision_process_clarity_confidence = s.dim_decision_process_clarity_confidence,
    dim_competitive_position = s.dim_competitive_position,
    dim_competitive_position_confidence = s.dim_competitive_position_confidence,
    dim_incumbent_displacement_risk = s.dim_incumbent_displacement_risk,
    dim_incumbent_displacement_risk_confidence = s.dim_incumbent_displacement_risk_confidence,
    dim_pricing_alignment = s.dim_pricing_alignment,
    dim_pricing_alignment_confidence = s.dim_pricing_alignment_confidence,
    dim_procurement_legal_progress = s.dim_procurement_legal_progress,
    dim_procurement_legal_progress_confidence = s.dim_procurement_legal_progress_confidence,
    dim_responsiveness = s.dim_responsiveness,
    dim_responsiveness_confidence = s.dim_responsiveness_confidence,
    dim_close_date_credibility = s.dim_close_date_credibility,
    dim_close_date_credibility_confidence = s.dim_close_date_credibility_confidence,
    dim_technical_fit = s.dim_technical_fit,
    dim_technical_fit_confidence = s.dim_technical_fit_confidence,
    dim_integration_security_risk = s.dim_integration_security_risk,
    dim_integration_security_risk_confidence = s.dim_integration_security_risk_confidence,
    dim_change_readiness = s.dim_change_readiness,
    dim_change_readiness_confidence = s.dim_change_readiness_confidence,
    ontology_scores_json = s.ontology_scores_json,
    ontology_completeness = s.ontology_completeness,
    ontology_version = s.ontology_version,
    extraction_embedding = CASE WHEN s."embedding lost" THEN t.extraction_embedding ELSE s.embedding END,
    extraction_embedding_current = CASE WHEN s."embedding_current lost" THEN t.extraction_embedding_current ELSE s.embedding_current END,
    extraction_confidence = s.confidence,
    extraction_version = s.version,
    source_interaction_id = s.source_interaction_id,
    ai_workflow_metadata = s.ai_workflow_metadata,
    updated_at = now()
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    graph_opportunity_id,
    opportunity_name,
    currency,
    account_id,
    deal_ref,
    qualification_status,
    latest_ai_summary,
    ai_evolution_summary,
    meddic_metrics,
    meddic_metrics_confidence,
    meddic_economic_buyer,
    meddic_economic_buyer_confidence,
    meddic_decision_criteria,
    meddic_decision_criteria_confidence,
    meddic_decision_process,
    meddic_decision_process_confidence,
    meddic_identified_pain,
    meddic_identified_pain_confidence,
    meddic_champion,
    meddic_champion_confidence,
    meddic_completeness,
    meddic_paper_process,
    meddic_competition,
    dim_champion_strength,
    dim_champion_strength_confidence,
    dim_economic_buyer_access,
    dim_economic_buyer_access_confidence,
    dim_identified_pain,
    dim_identified_pain_confidence,
    dim_metrics_business_case,
    dim_metrics_business_case_confidence,
    dim_decision_criteria_alignment,
    dim_decision_criteria_alignment_confidence,
    dim_decision_process_clarity,
    dim_decision_process_clarity_confidence,
    dim_competitive_position,
    dim_competitive_position_confidence,
    dim_incumbent_displacement_risk,
    dim_incumbent_displacement_risk_confidence,
    dim_pricing_alignment,
    dim_pricing_alignment_confidence,
    dim_procurement_legal_progress,
    dim_procurement_legal_progress_confidence,
    dim_responsiveness,
    dim_responsiveness_confidence,
    dim_close_date_credibility,
    dim_close_date_credibility_confidence,
    dim_technical_fit,
    dim_technical_fit_confidence,
    dim_integration_security_risk,
    dim_integration_security_risk_confidence,
    dim_change_readiness,
    dim_change_readiness_confidence,
    ontology_scores_json,
    ontology_completeness,
    ontology_version,
    extraction_embedding,
    extraction_embedding_current,
    extraction_confidence,
    extraction_version,
    source_interaction_id,
    actual_close_date,
    ai_workflow_metadata,
    updated_at
) VALUES (
    s.opportunity_id,
    'aaaaaaaa-0000-4000-8000-000000000001'::uuid,
    s.opportunity_id,
    s.name,
    CASE WHEN s."currency lost" THEN NULL ELSE coalesce(s.currency, 'USD') END,
    s.account_id,
    s.deal_ref,
    s.qualification_status,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_metrics_confidence,
    s.meddic_economic_buyer,
    s.meddic_economic_buyer_confidence,
    s.meddic_decision_criteria,
    s.meddic_decision_criteria_confidence,
    s.meddic_decision_process,
    s.meddic_decision_process_confidence,
    s.meddic_identified_pain,
    s.meddic_identified_pain_confidence,
    s.meddic_champion,
    s.meddic_champion_confidence,
    s.meddic_completeness,
    s.meddic_paper_process,
    s.meddic_competition,
    s.dim_champion_strength,
    s.dim_champion_strength_confidence,
    s.dim_economic_buyer_access,
    s.dim_economic_buyer_access_confidence,
    s.dim_identified_pain,
    s.dim_identified_pain_confidence,
    s.dim_metrics_business_case,
    s.dim_metrics_business_case_confidence,
    s.dim_decision_criteria_alignment,
    s.dim_decision_criteria_alignment_confidence,
    s.dim_decision_process_clarity,
    s.dim_decision_process_clarity_confidence,
    s.dim_competitive_position,
    s.dim_competitive_position_confidence,
    s.dim_incumbent_displacement_risk,
    s.dim_incumbent_displacement_risk_confidence,
    s.dim_pricing_alignment,
    s.dim_pricing_alignment_confidence,
    s.dim_procurement_legal_progress,
    s.dim_procurement_legal_progress_confidence,
    s.dim_responsiveness,
    s.dim_responsiveness_confidence,
    s.dim_close_date_credibility,
    s.dim_close_date_credibility_confidence,
    s.dim_technical_fit,
    s.dim_technical_fit_confidence,
    s.dim_integration_security_risk,
    s.dim_integration_security_risk_confidence,
    s.dim_change_readiness,
    s.dim_change_readiness_confidence,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    s.embedding,
    s.embedding_current,
    s.confidence,
    s.version,
    s.source_interaction_id,
    s.closed_at,
    s.ai_workflow_metadata,
    now()
)

-- deal: count of values
SELECT
    jsonb_object(
        ARRAY[
            'graph_opportunity_id',
            'deal_ref',
            'qualification_status',
            'latest_ai_summary',
            'ai_evolution_summary',
            'meddic_metrics',
            'meddic_metrics_confidence',
            'meddic_economic_buyer',
            'meddic_economic_buyer_confidence',
            'meddic_decision_criteria',
            'meddic_decision_criteria_confidence',
            'meddic_decision_process',
            'meddic_decision_process_confidence',
            'meddic_identified_pain',
            'meddic_identified_pain_confidence',
            'meddic_champion',
            'meddic_champion_confidence',
            'meddic_completeness',
            'meddic_paper_process',
            'meddic_competition',
            'dim_champion_strength',
            'dim_champion_strength_confidence',
            'dim_economic_buyer_access',
            'dim_economic_buyer_access_confidence',
            'dim_identified_pain',
            'dim_identified_pain_confidence',
            'dim_metrics_business_case',
            'dim_metrics_business_case_confidence',
            'dim_decision_criteria_alignment',
            'dim_decision_criteria_alignment_confidence',
            'dim_decision_process_clarity',
            'dim_decision_process_clarity_confidence',
            'dim_competitive_position',
            'dim_competitive_position_confidence',
            'dim_incumbent_displacement_risk',
            'dim_incumbent_displacement_risk_confidence',
            'dim_pricing_alignment',
            'dim_pricing_alignment_confidence',
            'dim_procurement_legal_progress',
            'dim_procurement_legal_progress_confidence',
            'dim_responsiveness',
            'dim_responsiveness_confidence',
            'dim_close_date_credibility',
            'dim_close_date_credibility_confidence',
            'dim_technical_fit',
            'dim_technical_fit_confidence',
            'dim_integration_security_risk',
            'dim_integration_security_risk_confidence',
            'dim_change_readiness',
            'dim_change_readiness_confidence',
            'ontology_scores_json',
            'ontology_completeness',
            'ontology_version',
            'extraction_embedding',
            'extraction_embedding_current',
            'extraction_confidence',
            'extraction_version',
            'source_interaction_id',
            'ai_workflow_metadata'
        ]::text[],
        ARRAY[
            count(t.graph_opportunity_id),
            count(t.deal_ref),
            count(t.qualification_status),
            count(t.latest_ai_summary),
            count(t.ai_evolution_summary),
            count(t.meddic_metrics),
            count(t.meddic_metrics_confidence),
            count(t.meddic_economic_buyer),
            count(t.meddic_economic_buyer_confidence),
            count(t.meddic_decision_criteria),
            count(t.meddic_decision_criteria_confidence),
            count(t.meddic_decision_process),
            count(t.meddic_decision_process_confidence),
            count(t.meddic_identified_pain),
            count(t.meddic_identified_pain_confidence),
            count(t.meddic_champion),
            count(t.meddic_champion_confidence),
            count(t.meddic_completeness),
            count(t.meddic_paper_process),
            count(t.meddic_competition),
            count(t.dim_champion_strength),
            count(t.dim_champion_strength_confidence),
            count(t.dim_economic_buyer_access),
            count(t.dim_economic_buyer_access_confidence),
            count(t.dim_identified_pain),
            count(t.dim_identified_pain_confidence),
            count(t.dim_metrics_business_case),
            count(t.dim_metrics_business_case_confidence),
            count(t.dim_decision_criteria_alignment),
            count(t.dim_decision_criteria_alignment_confidence),
            count(t.dim_decision_process_clarity),
            count(t.dim_decision_process_clarity_confidence),
            count(t.dim_competitive_position),
            count(t.dim_competitive_position_confidence),
            count(t.dim_incumbent_displacement_risk),
            count(t.dim_incumbent_displacement_risk_confidence),
            count(t.dim_pricing_alignment),
            count(t.dim_pricing_alignment_confidence),
            count(t.dim_procurement_legal_progress),
            count(t.dim_procurement_legal_progress_confidence),
            count(t.dim_responsiveness),
            count(t.dim_responsiveness_confidence),
            count(t.dim_close_date_credibility),
            count(t.dim_close_date_credibility_confidence),
            count(t.dim_technical_fit),
            count(t.dim_technical_fit_confidence),
            count(t.dim_integration_security_risk),
            count(t.dim_integration_security_risk_confidence),
            count(t.dim_change_readiness),
            count(t.dim_change_readiness_confidence),
            count(t.ontology_scores_json),
            count(t.ontology_completeness),
            count(t.ontology_version),
            count(t.extraction_embedding),
            count(t.extraction_embedding_current),
            count(t.extraction_confidence),
            count(t.extraction_version),
            count(t.source_interaction_id),
            count(t.ai_workflow_metadata)
        ]::text[]
    )
FROM public.opportunities AS t
WHERE t.tenant_id = $1

-- deal: counted
SELECT
    count(*) FILTER (WHERE p.landed AND p.state = 'new' AND NOT p.met) AS inserted,
    count(*) FILTER (WHERE p.landed AND p.state = 'adopted') AS adopted,
    count(*) FILTER (WHERE p.landed AND (p.state = 'changed' OR p.state = 'new' AND p.met)) AS updated,
    count(*) FILTER (WHERE p.state = 'unchanged') AS unchanged,
    count(*) FILTER (WHERE p.landed AND p.state = 'changed') AS completed,
    coalesce(array_agg(p.row_number) FILTER (WHERE p.landed OR p.state = 'unchanged'), '{}') AS there,
    coalesce(array_agg(p.row_number) FILTER (WHERE p.sqlstate IS NOT NULL), '{}') AS failed,
    (
        SELECT coalesce(jsonb_object_agg(r.reason, r.times), '{}')
        FROM (
            SELECT format('%s %s', f.sqlstate, f.message) AS reason, count(*) AS times
            FROM pg_temp.deal_sync_deal_plan AS f
            WHERE f.sqlstate IS NOT NULL
            GROUP BY 1
        ) AS r
    ) AS reasons
FROM (
    SELECT
        w.*, w.row_number = ANY ($1) AS met,
        w.sqlstate IS NULL AND w.state IN ('new', 'changed', 'adopted') AS landed
    FROM pg_temp.deal_sync_deal_plan AS w
) AS p

-- deal: failed
UPDATE pg_temp.deal_sync_deal_plan AS p
SET
    sqlstate = f.sqlstate, message = f.message, server_text = f.server_text,
    null_in = CASE WHEN f.sqlstate = '23502' AND f.relation = 'public.opportunities' THEN f.column_name END
FROM unnest($1::_deal_sync.failure[]) AS f
WHERE f.row_number = p.row_number

-- deal: linked
SELECT coalesce(array_agg(DISTINCT link.interaction_id), '{}')
FROM pg_temp.deal_sync_deals AS s
CROSS JOIN LATERAL (VALUES (s.source_interaction_id)) AS link (interaction_id)
WHERE s.row_number = ANY ($1) AND link.interaction_id IS NOT NULL

-- deal: links
INSERT INTO public.interaction_links (
    id,
    tenant_id,
    interaction_id,
    entity_type,
    entity_id
)
SELECT
    gen_random_uuid(),
    'aaaaaaaa-0000-4000-8000-000000000001'::uuid,
    pair.interaction_id,
    'opportunity',
    pair.entity_id
FROM (
    SELECT DISTINCT m.interaction_id, m.entity_id
    FROM (
        SELECT s.row_number, link.interaction_id, o.id AS entity_id
        FROM pg_temp.deal_sync_deals AS s
        CROSS JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS o
        CROSS JOIN LATERAL (VALUES (s.source_interaction_id)) AS link (interaction_id)
        LEFT JOIN LATERAL (
            SELECT l.entity_id
            FROM public.interaction_links AS l
            WHERE
                l.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND l.interaction_id BETWEEN link.interaction_id AND link.interaction_id
                AND l.entity_type::text = 'opportunity'
                AND l.entity_id = o.id
            ORDER BY l.interaction_id
            LIMIT 1
        ) AS there ON true
        WHERE
            s.row_number = ANY ($1)
            AND link.interaction_id IS NOT NULL
            AND there.entity_id IS NULL
        AND (SELECT _deal_sync.plan_freely())
    ) AS m
) AS pair
ON CONFLICT DO NOTHING

-- deal: locks
SELECT
FROM (
    SELECT p.place AS "landed place", p.part AS "landed part"
    FROM pg_temp.deal_sync_deal_plan AS p
    WHERE p.state IN ('changed', 'adopted')
    ORDER BY p.row_number
) AS s
CROSS JOIN LATERAL (
    SELECT k.*
    FROM public.opportunities AS k
    WHERE k.ctid = s."landed place" AND k.tableoid = s."landed part"
    OFFSET 0
    FOR NO KEY UPDATE
) AS t

-- deal: merge
MERGE INTO public.opportunities AS t
USING (
    SELECT
        coalesce(by_key.id, adopted.id) AS landed_id,
        by_key.id IS NOT NULL AND adopted.id IS NOT NULL AS shadows,
        CASE WHEN by_key.id IS NULL THEN adopted."landed place" ELSE by_key."landed place" END AS "landed place",
        CASE WHEN by_key.id IS NULL THEN adopted."landed part" ELSE by_key."landed part" END AS "landed part",
        s.row_number,
        s.element_id,
        s.graph_id,
        s.reject,
        s.conversion_errors,
        s.opportunity_id AS opportunity_id,
        s.name AS name,
        s.currency AS currency,
        s.currency IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'currency'::text), false)) AS "currency lost",
        s.account_id AS account_id,
        s.deal_ref AS deal_ref,
        s.qualification_status AS qualification_status,
        s.opportunity_summary AS opportunity_summary,
        s.evolution_summary AS evolution_summary,
        s.meddic_metrics AS meddic_metrics,
        s.meddic_metrics_confidence AS meddic_metrics_confidence,
        s.meddic_economic_buyer AS meddic_economic_buyer,
        s.meddic_economic_buyer_confidence AS meddic_economic_buyer_confidence,
        s.meddic_decision_criteria AS meddic_decision_criteria,
        s.meddic_decision_criteria_confidence AS meddic_decision_criteria_confidence,
        s.meddic_decision_process AS meddic_decision_process,
        s.meddic_decision_process_confidence AS meddic_decision_process_confidence,
        s.meddic_identified_pain AS meddic_identified_pain,
        s.meddic_identified_pain_confidence AS meddic_identified_pain_confidence,
        s.meddic_champion AS meddic_champion,
        s.meddic_champion_confidence AS meddic_champion_confidence,
        s.meddic_completeness AS meddic_completeness,
        s.meddic_paper_process AS meddic_paper_process,
        s.meddic_competition AS meddic_competition,
        s.dim_champion_strength AS dim_champion_strength,
        s.dim_champion_strength_confidence AS dim_champion_strength_confidence,
        s.dim_economic_buyer_access AS dim_economic_buyer_access,
        s.dim_economic_buyer_access_confidence AS dim_economic_buyer_access_confidence,
        s.dim_identified_pain AS dim_identified_pain,
        s.dim_identified_pain_confidence AS dim_identified_pain_confidence,
        s.dim_metrics_business_case AS dim_metrics_business_case,
        s.dim_metrics_business_case_confidence AS dim_metrics_business_case_confidence,
        s.dim_decision_criteria_alignment AS dim_decision_criteria_alignment,
        s.dim_decision_criteria_alignment_confidence AS dim_decision_criteria_alignment_confidence,
        s.dim_decision_process_clarity AS dim_decision_process_clarity,
        s.dim_decision_process_clarity_confidence AS dim_decision_process_clarity_confidence,
        s.dim_competitive_position AS dim_competitive_position,
        s.dim_competitive_position_confidence AS dim_competitive_position_confidence,
        s.dim_incumbent_displacement_risk AS dim_incumbent_displacement_risk,
        s.dim_incumbent_displacement_risk_confidence AS dim_incumbent_displacement_risk_confidence,
        s.dim_pricing_alignment AS dim_pricing_alignment,
        s.dim_pricing_alignment_confidence AS dim_pricing_alignment_confidence,
        s.dim_procurement_legal_progress AS dim_procurement_legal_progress,
        s.dim_procurement_legal_progress_confidence AS dim_procurement_legal_progress_confidence,
        s.dim_responsiveness AS dim_responsiveness,
        s.dim_responsiveness_confidence AS dim_responsiveness_confidence,
        s.dim_close_date_credibility AS dim_close_date_credibility,
        s.dim_close_date_credibility_confidence AS dim_close_date_credibility_confidence,
        s.dim_technical_fit AS dim_technical_fit,
        s.dim_technical_fit_confidence AS dim_technical_fit_confidence,
        s.dim_integration_security_risk AS dim_integration_security_risk,
        s.dim_integration_security_risk_confidence AS dim_integration_security_risk_confidence,
        s.dim_change_readiness AS dim_change_readiness,
        s.dim_change_readiness_confidence AS dim_change_readiness_confidence,
        s.ontology_scores_json AS ontology_scores_json,
        s.ontology_completeness AS ontology_completeness,
        s.ontology_version AS ontology_version,
        s.embedding AS embedding,
        s.embedding IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding'::text), false)) AS "embedding lost",
        s.embedding_current AS embedding_current,
        s.embedding_current IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding_current'::text), false)) AS "embedding_current lost",
        s.confidence AS confidence,
        s.version AS version,
        s.source_interaction_id AS source_interaction_id,
        s.closed_at AS closed_at,
        s.ai_workflow_metadata AS ai_workflow_metadata
    FROM (
        SELECT *
        FROM pg_temp.deal_sync_deals AS f
        WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))
    ) AS s
    LEFT JOIN LATERAL (
        SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
        FROM public.opportunities AS k
        WHERE
            k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
            AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
        ORDER BY k.graph_opportunity_id
        LIMIT 1
    ) AS by_key ON true
    LEFT JOIN LATERAL (
        SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
        FROM public.opportunities AS k
        WHERE
            k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
            AND k.id BETWEEN s.opportunity_id AND s.opportunity_id
        ORDER BY k.id
        LIMIT 1
    ) AS adopted ON adopted.graph_opportunity_id IS NULL
    WHERE (SELECT _deal_sync.plan_freely())
    ORDER BY s.row_number
) AS s
ON t.ctid = s."landed place" AND t.tableoid = s."landed part"
WHEN MATCHED AND ROW(
    t.graph_opportunity_id,
    t.deal_ref,
    t.qualification_status,
    t.latest_ai_summary,
    t.ai_evolution_summary,
    t.meddic_metrics,
    t.meddic_metrics_confidence,
    t.meddic_economic_buyer,
    t.meddic_economic_buyer_confidence,
    t.meddic_decision_criteria,
    t.meddic_decision_criteria_confidence,
    t.meddic_decision_process,
    t.meddic_decision_process_confidence,
    t.meddic_identified_pain,
    t.meddic_identified_pain_confidence,
    t.meddic_champion,
    t.meddic_champion_confidence,
    t.meddic_completeness,
    t.meddic_paper_process,
    t.meddic_competition,
    t.dim_champion_strength,
    t.dim_champion_strength_confidence,
    t.dim_economic_buyer_access,
    t.dim_economic_buyer_access_confidence,
    t.dim_identified_pain,
    t.dim_identified_pain_confidence,
    t.dim_metrics_business_case,
    t.dim_metrics_business_case_confidence,
    t.dim_decision_criteria_alignment,
    t.dim_decision_criteria_alignment_confidence,
    t.dim_decision_process_clarity,
    t.dim_decision_process_clarity_confidence,
    t.dim_competitive_position,
    t.dim_competitive_position_confidence,
    t.dim_incumbent_displacement_risk,
    t.dim_incumbent_displacement_risk_confidence,
    t.dim_pricing_alignment,
    t.dim_pricing_alignment_confidence,
    t.dim_procurement_legal_progress,
    t.dim_procurement_legal_progress_confidence,
    t.dim_responsiveness,
    t.dim_responsiveness_confidence,
    t.dim_close_date_credibility,
    t.dim_close_date_credibility_confidence,
    t.dim_technical_fit,
    t.dim_technical_fit_confidence,
    t.dim_integration_security_risk,
    t.dim_integration_security_risk_confidence,
    t.dim_change_readiness,
    t.dim_change_readiness_confidence,
    t.ontology_scores_json,
    t.ontology_completeness,
    t.ontology_version,
    t.extraction_embedding,
    t.extraction_embedding_current,
    t.extraction_confidence,
    t.extraction_version,
    t.source_interaction_id,
    t.ai_workflow_metadata
)::record OPERATOR(pg_catalog.*<>) ROW(
    s.opportunity_id,
    s.deal_ref,
    s.qualification_status,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_metrics_confidence,
    s.meddic_economic_buyer,
    s.meddic_economic_buyer_confidence,
    s.meddic_decision_criteria,
    s.meddic_decision_criteria_confidence,
    s.meddic_decision_process,
    s.meddic_decision_process_confidence,
    s.meddic_identified_pain,
    s.meddic_identified_pain_confidence,
    s.meddic_champion,
    s.meddic_champion_confidence,
    s.meddic_completeness,
    s.meddic_paper_process,
    s.meddic_competition,
    s.dim_champion_strength,
    s.dim_champion_strength_confidence,
    s.dim_economic_buyer_access,
    s.dim_economic_buyer_access_confidence,
    s.dim_identified_pain,
    s.dim_identified_pain_confidence,
    s.dim_metrics_business_case,
    s.dim_metrics_business_case_confidence,
    s.dim_decision_criteria_alignment,
    s.dim_decision_criteria_alignment_confidence,
    s.dim_decision_process_clarity,
    s.dim_decision_process_clarity_confidence,
    s.dim_competitive_position,
    s.dim_competitive_position_confidence,
    s.dim_incumbent_displacement_risk,
    s.dim_incumbent_displacement_risk_confidence,
    s.dim_pricing_alignment,
    s.dim_pricing_alignment_confidence,
    s.dim_procurement_legal_progress,
    s.dim_procurement_legal_progress_confidence,
    s.dim_responsiveness,
    s.dim_responsiveness_confidence,
    s.dim_close_date_credibility,
    s.dim_close_date_credibility_confidence,
    s.dim_technical_fit,
    s.dim_technical_fit_confidence,
    s.dim_integration_security_risk,
    s.dim_integration_security_risk_confidence,
    s.dim_change_readiness,
    s.dim_change_readiness_confidence,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    CASE WHEN s."embedding lost" THEN t.extraction_embedding ELSE s.embedding END,
    CASE WHEN s."embedding_current lost" THEN t.extraction_embedding_current ELSE s.embedding_current END,
    s.confidence,
    s.version,
    s.source_interaction_id,
    s.ai_workflow_metadata
)::record THEN UPDATE SET
    graph_opportunity_id = s.opportunity_id,
    deal_ref = s.deal_ref,
    qualification_status = s.qualification_status,
    latest_ai_summary = s.opportunity_summary,
    ai_evolution_summary = s.evolution_summary,
    meddic_metrics = s.meddic_metrics,
    meddic_metrics_confidence = s.meddic_metrics_confidence,
    meddic_economic_buyer = s.meddic_economic_buyer,
    meddic_economic_buyer_confidence = s.meddic_economic_buyer_confidence,
    meddic_decision_criteria = s.meddic_decision_criteria,
    meddic_decision_criteria_confidence = s.meddic_decision_criteria_confidence,
    meddic_decision_process = s.meddic_decision_process,
    meddic_decision_process_confidence = s.meddic_decision_process_confidence,
    meddic_identified_pain = s.meddic_identified_pain,
    meddic_identified_pain_confidence = s.meddic_identified_pain_confidence,
    meddic_champion = s.meddic_champion,
    meddic_champion_confidence = s.meddic_champion_confidence,
    meddic_completeness = s.meddic_completeness,
    meddic_paper_process = s.meddic_paper_process,
    meddic_competition = s.meddic_competition,
    dim_champion_strength = s.dim_champion_strength,
    dim_champion_strength_confidence = s.dim_champion_strength_confidence,
    dim_economic_buyer_access = s.dim_economic_buyer_access,
    dim_economic_buyer_access_confidence = s.dim_economic_buyer_access_confidence,
    dim_identified_pain = s.dim_identified_pain,
    dim_identified_pain_confidence = s.dim_identified_pain_confidence,
    dim_metrics_business_case = s.dim_metrics_business_case,
    dim_metrics_business_case_confidence = s.dim_metrics_business_case_confidence,
    dim_decision_criteria_alignment = s.dim_decision_criteria_alignment,
    dim_decision_criteria_alignment_confidence = s.dim_decision_criteria_alignment_confidence,
    dim_decision_process_clarity = s.dim_decision_process_clarity,
    dim_decision_process_clarity_confidence = s.dim_decision_process_clarity_confidence,
    dim_competitive_position = s.dim_competitive_position,
    dim_competitive_position_confidence = s.dim_competitive_position_confidence,
    dim_incumbent_displacement_risk = s.dim_incumbent_displacement_risk,
    dim_incumbent_displacement_risk_confidence = s.dim_incumbent_displacement_risk_confidence,
    dim_pricing_alignment = s.dim_pricing_alignment,
    dim_pricing_alignment_confidence = s.dim_pricing_alignment_confidence,
    dim_procurement_legal_progress = s.dim_procurement_legal_progress,
    dim_procurement_legal_progress_confidence = s.dim_procurement_legal_progress_confidence,
    dim_responsiveness = s.dim_responsiveness,
    dim_responsiveness_confidence = s.dim_responsiveness_confidence,
    dim_close_date_credibility = s.dim_close_date_credibility,
    dim_close_date_credibility_confidence = s.dim_close_date_credibility_confidence,
    dim_technical_fit = s.dim_technical_fit,
    dim_technical_fit_confidence = s.dim_technical_fit_confidence,
    dim_integration_security_risk = s.dim_integration_security_risk,
    dim_integration_security_risk_confidence = s.dim_integration_security_risk_confidence,
    dim_change_readiness = s.dim_change_readiness,
    dim_change_readiness_confidence = s.dim_change_readiness_confidence,
    ontology_scores_json = s.ontology_scores_json,
    ontology_completeness = s.ontology_completeness,
    ontology_version = s.ontology_version,
    extraction_embedding = CASE WHEN s."embedding lost" THEN t.extraction_embedding ELSE s.embedding END,
    extraction_embedding_current = CASE WHEN s."embedding_current lost" THEN t.extraction_embedding_current ELSE s.embedding_current END,
    extraction_confidence = s.confidence,
    extraction_version = s.version,
    source_interaction_id = s.source_interaction_id,
    ai_workflow_metadata = s.ai_workflow_metadata,
    updated_at = now()
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    graph_opportunity_id,
    opportunity_name,
    currency,
    account_id,
    deal_ref,
    qualification_status,
    latest_ai_summary,
    ai_evolution_summary,
    meddic_metrics,
    meddic_metrics_confidence,
    meddic_economic_buyer,
    meddic_economic_buyer_confidence,
    meddic_decision_criteria,
    meddic_decision_criteria_confidence,
    meddic_decision_process,
    meddic_decision_process_confidence,
    meddic_identified_pain,
    meddic_identified_pain_confidence,
    meddic_champion,
    meddic_champion_confidence,
    meddic_completeness,
    meddic_paper_process,
    meddic_competition,
    dim_champion_strength,
    dim_champion_strength_confidence,
    dim_economic_buyer_access,
    dim_economic_buyer_access_confidence,
    dim_identified_pain,
    dim_identified_pain_confidence,
    dim_metrics_business_case,
    dim_metrics_business_case_confidence,
    dim_decision_criteria_alignment,
    dim_decision_criteria_alignment_confidence,
    dim_decision_process_clarity,
    dim_decision_process_clarity_confidence,
    dim_competitive_position,
    dim_competitive_position_confidence,
    dim_incumbent_displacement_risk,
    dim_incumbent_displacement_risk_confidence,
    dim_pricing_alignment,
    dim_pricing_alignment_confidence,
    dim_procurement_legal_progress,
    dim_procurement_legal_progress_confidence,
    dim_responsiveness,
    dim_responsiveness_confidence,
    dim_close_date_credibility,
    dim_close_date_credibility_confidence,
    dim_technical_fit,
    dim_technical_fit_confidence,
    dim_integration_security_risk,
    dim_integration_security_risk_confidence,
    dim_change_readiness,
    dim_change_readiness_confidence,
    ontology_scores_json,
    ontology_completeness,
    ontology_version,
    extraction_embedding,
    extraction_embedding_current,
    extraction_confidence,
    extraction_version,
    source_interaction_id,
    actual_close_date,
    ai_workflow_metadata,
    updated_at
) VALUES (
    s.opportunity_id,
    'aaaaaaaa-0000-4000-8000-000000000001'::uuid,
    s.opportunity_id,
    s.name,
    CASE WHEN s."currency lost" THEN NULL ELSE coalesce(s.currency, 'USD') END,
    s.account_id,
    s.deal_ref,
    s.qualification_status,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_metrics_confidence,
    s.meddic_economic_buyer,
    s.meddic_economic_buyer_confidence,
    s.meddic_decision_criteria,
    s.meddic_decision_criteria_confidence,
    s.meddic_decision_process,
    s.meddic_decision_process_confidence,
    s.meddic_identified_pain,
    s.meddic_identified_pain_confidence,
    s.meddic_champion,
    s.meddic_champion_confidence,
    s.meddic_completeness,
    s.meddic_paper_process,
    s.meddic_competition,
    s.dim_champion_strength,
    s.dim_champion_strength_confidence,
    s.dim_economic_buyer_access,
    s.dim_economic_buyer_access_confidence,
    s.dim_identified_pain,
    s.dim_identified_pain_confidence,
    s.dim_metrics_business_case,
    s.dim_metrics_business_case_confidence,
    s.dim_decision_criteria_alignment,
    s.dim_decision_criteria_alignment_confidence,
    s.dim_decision_process_clarity,
    s.dim_decision_process_clarity_confidence,
    s.dim_competitive_position,
    s.dim_competitive_position_confidence,
    s.dim_incumbent_displacement_risk,
    s.dim_incumbent_displacement_risk_confidence,
    s.dim_pricing_alignment,
    s.dim_pricing_alignment_confidence,
    s.dim_procurement_legal_progress,
    s.dim_procurement_legal_progress_confidence,
    s.dim_responsiveness,
    s.dim_responsiveness_confidence,
    s.dim_close_date_credibility,
    s.dim_close_date_credibility_confidence,
    s.dim_technical_fit,
    s.dim_technical_fit_confidence,
    s.dim_integration_security_risk,
    s.dim_integration_security_risk_confidence,
    s.dim_change_readiness,
    s.dim_change_readiness_confidence,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    s.embedding,
    s.embedding_current,
    s.confidence,
    s.version,
    s.source_interaction_id,
    s.closed_at,
    s.ai_workflow_metadata,
    now()
)

-- deal: merge by hand
MERGE INTO public.opportunities AS t
USING (
    SELECT
        coalesce(by_key.id, adopted.id) AS landed_id,
        by_key.id IS NOT NULL AND adopted.id IS NOT NULL AS shadows,
        _deal_sync.to_uuid(s.opportunity_id) AS opportunity_id,
        nullif(s.name, '') AS name,
        _deal_sync.to_varchar(s.currency, 3)::character varying(3) AS currency,
        _deal_sync.to_varchar(s.currency, 3)::character varying(3) IS NULL AND (s.currency IS NOT NULL OR coalesce(jsonb_exists(s.conversion_errors, 'currency'::text), false)) AS "currency lost",
        _deal_sync.to_uuid(s.account_id) AS account_id,
        _deal_sync.to_varchar(s.deal_ref, 50)::character varying(50) AS deal_ref,
        _deal_sync.to_varchar(s.qualification_status, 20)::character varying(20) AS qualification_status,
        nullif(s.opportunity_summary, '') AS opportunity_summary,
        nullif(s.evolution_summary, '') AS evolution_summary,
        s.meddic_metrics AS meddic_metrics,
        _deal_sync.to_numeric(s.meddic_metrics_confidence, 3, 2)::numeric(3,2) AS meddic_metrics_confidence,
        s.meddic_economic_buyer AS meddic_economic_buyer,
        _deal_sync.to_numeric(s.meddic_economic_buyer_confidence, 3, 2)::numeric(3,2) AS meddic_economic_buyer_confidence,
        s.meddic_decision_criteria AS meddic_decision_criteria,
        _deal_sync.to_numeric(s.meddic_decision_criteria_confidence, 3, 2)::numeric(3,2) AS meddic_decision_criteria_confidence,
        s.meddic_decision_process AS meddic_decision_process,
        _deal_sync.to_numeric(s.meddic_decision_process_confidence, 3, 2)::numeric(3,2) AS meddic_decision_process_confidence,
        s.meddic_identified_pain AS meddic_identified_pain,
        _deal_sync.to_numeric(s.meddic_identified_pain_confidence, 3, 2)::numeric(3,2) AS meddic_identified_pain_confidence,
        s.meddic_champion AS meddic_champion,
        _deal_sync.to_numeric(s.meddic_champion_confidence, 3, 2)::numeric(3,2) AS meddic_champion_confidence,
        _deal_sync.to_numeric(s.meddic_completeness, 3, 2)::numeric(3,2) AS meddic_completeness,
        s.meddic_paper_process AS meddic_paper_process,
        s.meddic_competition AS meddic_competition,
        _deal_sync.to_smallint(s.dim_champion_strength) AS dim_champion_strength,
        _deal_sync.to_numeric(s.dim_champion_strength_confidence, 3, 2)::numeric(3,2) AS dim_champion_strength_confidence,
        _deal_sync.to_smallint(s.dim_economic_buyer_access) AS dim_economic_buyer_access,
        _deal_sync.to_numeric(s.dim_economic_buyer_access_confidence, 3, 2)::numeric(3,2) AS dim_economic_buyer_access_confidence,
        _deal_sync.to_smallint(s.dim_identified_pain) AS dim_identified_pain,
        _deal_sync.to_numeric(s.dim_identified_pain_confidence, 3, 2)::numeric(3,2) AS dim_identified_pain_confidence,
        _deal_sync.to_smallint(s.dim_metrics_business_case) AS dim_metrics_business_case,
        _deal_sync.to_numeric(s.dim_metrics_business_case_confidence, 3, 2)::numeric(3,2) AS dim_metrics_business_case_confidence,
        _deal_sync.to_smallint(s.dim_decision_criteria_alignment) AS dim_decision_criteria_alignment,
        _deal_sync.to_numeric(s.dim_decision_criteria_alignment_confidence, 3, 2)::numeric(3,2) AS dim_decision_criteria_alignment_confidence,
        _deal_sync.to_smallint(s.dim_decision_process_clarity) AS dim_decision_process_clarity,
        _deal_sync.to_numeric(s.dim_decision_process_clarity_confidence, 3, 2)::numeric(3,2) AS dim_decision_process_clarity_confidence,
        _deal_sync.to_smallint(s.dim_competitive_position) AS dim_competitive_position,
        _deal_sync.to_numeric(s.dim_competitive_position_confidence, 3, 2)::numeric(3,2) AS dim_competitive_position_confidence,
        _deal_sync.to_smallint(s.dim_incumbent_displacement_risk) AS dim_incumbent_displacement_risk,
        _deal_sync.to_numeric(s.dim_incumbent_displacement_risk_confidence, 3, 2)::numeric(3,2) AS dim_incumbent_displacement_risk_confidence,
        _deal_sync.to_smallint(s.dim_pricing_alignment) AS dim_pricing_alignment,
        _deal_sync.to_numeric(s.dim_pricing_alignment_confidence, 3, 2)::numeric(3,2) AS dim_pricing_alignment_confidence,
        _deal_sync.to_smallint(s.dim_procurement_legal_progress) AS dim_procurement_legal_progress,
        _deal_sync.to_numeric(s.dim_procurement_legal_progress_confidence, 3, 2)::numeric(3,2) AS dim_procurement_legal_progress_confidence,
        _deal_sync.to_smallint(s.dim_responsiveness) AS dim_responsiveness,
        _deal_sync.to_numeric(s.dim_responsiveness_confidence, 3, 2)::numeric(3,2) AS dim_responsiveness_confidence,
        _deal_sync.to_smallint(s.dim_close_date_credibility) AS dim_close_date_credibility,
        _deal_sync.to_numeric(s.dim_close_date_credibility_confidence, 3, 2)::numeric(3,2) AS dim_close_date_credibility_confidence,
        _deal_sync.to_smallint(s.dim_technical_fit) AS dim_technical_fit,
        _deal_sync.to_numeric(s.dim_technical_fit_confidence, 3, 2)::numeric(3,2) AS dim_technical_fit_confidence,
        _deal_sync.to_smallint(s.dim_integration_security_risk) AS dim_integration_security_risk,
        _deal_sync.to_numeric(s.dim_integration_security_risk_confidence, 3, 2)::numeric(3,2) AS dim_integration_security_risk_confidence,
        _deal_sync.to_smallint(s.dim_change_readiness) AS dim_change_readiness,
        _deal_sync.to_numeric(s.dim_change_readiness_confidence, 3, 2)::numeric(3,2) AS dim_change_readiness_confidence,
        s.ontology_scores_json AS ontology_scores_json,
        _deal_sync.to_numeric(s.ontology_completeness, 5, 2)::numeric(5,2) AS ontology_completeness,
        _deal_sync.to_varchar(s.ontology_version, 64)::character varying(64) AS ontology_version,
        s.embedding AS embedding,
        s.embedding IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding'::text), false)) AS "embedding lost",
        s.embedding_current AS embedding_current,
        s.embedding_current IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding_current'::text), false)) AS "embedding_current lost",
        _deal_sync.to_numeric(s.confidence, 3, 2)::numeric(3,2) AS confidence,
        _deal_sync.to_integer(s.version) AS version,
        _deal_sync.to_uuid(s.source_interaction_id) AS source_interaction_id,
        _deal_sync.to_type(s.closed_at, 'date')::date AS closed_at,
        s.ai_workflow_metadata AS ai_workflow_metadata
    FROM (
        SELECT DISTINCT ON (_deal_sync.to_uuid(f.opportunity_id)) f.*
        FROM (
            SELECT lower(current_setting('app.tenant_id')) UNION SELECT upper(current_setting('app.tenant_id'))
        ) AS spelling (id)
        INNER JOIN neo4j.deals AS f ON f.tenant_id = spelling.id
        WHERE
            _deal_sync.to_uuid(f.opportunity_id) IS NOT NULL
        ORDER BY _deal_sync.to_uuid(f.opportunity_id), f.last_updated_at DESC NULLS LAST, f.element_id
    ) AS s
    LEFT JOIN public.opportunities AS by_key
        ON by_key.tenant_id = current_setting('app.tenant_id')::uuid AND by_key.graph_opportunity_id = _deal_sync.to_uuid(s.opportunity_id)
    LEFT JOIN public.opportunities AS adopted
        ON adopted.tenant_id = current_setting('app.tenant_id')::uuid AND adopted.id = _deal_sync.to_uuid(s.opportunity_id) AND adopted.graph_opportunity_id IS NULL
) AS s
ON t.tenant_id = current_setting('app.tenant_id')::uuid AND t.id = s.landed_id
WHEN MATCHED AND ROW(
    t.graph_opportunity_id,
    t.deal_ref,
    t.qualification_status,
    t.latest_ai_summary,
    t.ai_evolution_summary,
    t.meddic_metrics,
    t.meddic_metrics_confidence,
    t.meddic_economic_buyer,
    t.meddic_economic_buyer_confidence,
    t.meddic_decision_criteria,
    t.meddic_decision_criteria_confidence,
    t.meddic_decision_process,
    t.meddic_decision_process_confidence,
    t.meddic_identified_pain,
    t.meddic_identified_pain_confidence,
    t.meddic_champion,
    t.meddic_champion_confidence,
    t.meddic_completeness,
    t.meddic_paper_process,
    t.meddic_competition,
    t.dim_champion_strength,
    t.dim_champion_strength_confidence,
    t.dim_economic_buyer_access,
    t.dim_economic_buyer_access_confidence,
    t.dim_identified_pain,
    t.dim_identified_pain_confidence,
    t.dim_metrics_business_case,
    t.dim_metrics_business_case_confidence,
    t.dim_decision_criteria_alignment,
    t.dim_decision_criteria_alignment_confidence,
    t.dim_decision_process_clarity,
    t.dim_decision_process_clarity_confidence,
    t.dim_competitive_position,
    t.dim_competitive_position_confidence,
    t.dim_incumbent_displacement_risk,
    t.dim_incumbent_displacement_risk_confidence,
    t.dim_pricing_alignment,
    t.dim_pricing_alignment_confidence,
    t.dim_procurement_legal_progress,
    t.dim_procurement_legal_progress_confidence,
    t.dim_responsiveness,
    t.dim_responsiveness_confidence,
    t.dim_close_date_credibility,
    t.dim_close_date_credibility_confidence,
    t.dim_technical_fit,
    t.dim_technical_fit_confidence,
    t.dim_integration_security_risk,
    t.dim_integration_security_risk_confidence,
    t.dim_change_readiness,
    t.dim_change_readiness_confidence,
    t.ontology_scores_json,
    t.ontology_completeness,
    t.ontology_version,
    t.extraction_embedding,
    t.extraction_embedding_current,
    t.extraction_confidence,
    t.extraction_version,
    t.source_interaction_id,
    t.ai_workflow_metadata
)::record OPERATOR(pg_catalog.*<>) ROW(
    s.opportunity_id,
    s.deal_ref,
    s.qualification_status,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_metrics_confidence,
    s.meddic_economic_buyer,
    s.meddic_economic_buyer_confidence,
    s.meddic_decision_criteria,
    s.meddic_decision_criteria_confidence,
    s.meddic_decision_process,
    s.meddic_decision_process_confidence,
    s.meddic_identified_pain,
    s.meddic_identified_pain_confidence,
    s.meddic_champion,
    s.meddic_champion_confidence,
    s.meddic_completeness,
    s.meddic_paper_process,
    s.meddic_competition,
    s.dim_champion_strength,
    s.dim_champion_strength_confidence,
    s.dim_economic_buyer_access,
    s.dim_economic_buyer_access_confidence,
    s.dim_identified_pain,
    s.dim_identified_pain_confidence,
    s.dim_metrics_business_case,
    s.dim_metrics_business_case_confidence,
    s.dim_decision_criteria_alignment,
    s.dim_decision_criteria_alignment_confidence,
    s.dim_decision_process_clarity,
    s.dim_decision_process_clarity_confidence,
    s.dim_competitive_position,
    s.dim_competitive_position_confidence,
    s.dim_incumbent_displacement_risk,
    s.dim_incumbent_displacement_risk_confidence,
    s.dim_pricing_alignment,
    s.dim_pricing_alignment_confidence,
    s.dim_procurement_legal_progress,
    s.dim_procurement_legal_progress_confidence,
    s.dim_responsiveness,
    s.dim_responsiveness_confidence,
    s.dim_close_date_credibility,
    s.dim_close_date_credibility_confidence,
    s.dim_technical_fit,
    s.dim_technical_fit_confidence,
    s.dim_integration_security_risk,
    s.dim_integration_security_risk_confidence,
    s.dim_change_readiness,
    s.dim_change_readiness_confidence,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    CASE WHEN s."embedding lost" THEN t.extraction_embedding ELSE s.embedding END,
    CASE WHEN s."embedding_current lost" THEN t.extraction_embedding_current ELSE s.embedding_current END,
    s.confidence,
    s.version,
    s.source_interaction_id,
    s.ai_workflow_metadata
)::record THEN UPDATE SET
    graph_opportunity_id = s.opportunity_id,
    deal_ref = s.deal_ref,
    qualification_status = s.qualification_status,
    latest_ai_summary = s.opportunity_summary,
    ai_evolution_summary = s.evolution_summary,
    meddic_metrics = s.meddic_metrics,
    meddic_metrics_confidence = s.meddic_metrics_confidence,
    meddic_economic_buyer = s.meddic_economic_buyer,
    meddic_economic_buyer_confidence = s.meddic_economic_buyer_confidence,
    meddic_decision_criteria = s.meddic_decision_criteria,
    meddic_decision_criteria_confidence = s.meddic_decision_criteria_confidence,
    meddic_decision_process = s.meddic_decision_process,
    meddic_decision_process_confidence = s.meddic_decision_process_confidence,
    meddic_identified_pain = s.meddic_identified_pain,
    meddic_identified_pain_confidence = s.meddic_identified_pain_confidence,
    meddic_champion = s.meddic_champion,
    meddic_champion_confidence = s.meddic_champion_confidence,
    meddic_completeness = s.meddic_completeness,
    meddic_paper_process = s.meddic_paper_process,
    meddic_competition = s.meddic_competition,
    dim_champion_strength = s.dim_champion_strength,
    dim_champion_strength_confidence = s.dim_champion_strength_confidence,
    dim_economic_buyer_access = s.dim_economic_buyer_access,
    dim_economic_buyer_access_confidence = s.dim_economic_buyer_access_confidence,
    dim_identified_pain = s.dim_identified_pain,
    dim_identified_pain_confidence = s.dim_identified_pain_confidence,
    dim_metrics_business_case = s.dim_metrics_business_case,
    dim_metrics_business_case_confidence = s.dim_metrics_business_case_confidence,
    dim_decision_criteria_alignment = s.dim_decision_criteria_alignment,
    dim_decision_criteria_alignment_confidence = s.dim_decision_criteria_alignment_confidence,
    dim_decision_process_clarity = s.dim_decision_process_clarity,
    dim_decision_process_clarity_confidence = s.dim_decision_process_clarity_confidence,
    dim_competitive_position = s.dim_competitive_position,
    dim_competitive_position_confidence = s.dim_competitive_position_confidence,
    dim_incumbent_displacement_risk = s.dim_incumbent_displacement_risk,
    dim_incumbent_displacement_risk_confidence = s.dim_incumbent_displacement_risk_confidence,
    dim_pricing_alignment = s.dim_pricing_alignment,
    dim_pricing_alignment_confidence = s.dim_pricing_alignment_confidence,
    dim_procurement_legal_progress = s.dim_procurement_legal_progress,
    dim_procurement_legal_progress_confidence = s.dim_procurement_legal_progress_confidence,
    dim_responsiveness = s.dim_responsiveness,
    dim_responsiveness_confidence = s.dim_responsiveness_confidence,
    dim_close_date_credibility = s.dim_close_date_credibility,
    dim_close_date_credibility_confidence = s.dim_close_date_credibility_confidence,
    dim_technical_fit = s.dim_technical_fit,
    dim_technical_fit_confidence = s.dim_technical_fit_confidence,
    dim_integration_security_risk = s.dim_integration_security_risk,
    dim_integration_security_risk_confidence = s.dim_integration_security_risk_confidence,
    dim_change_readiness = s.dim_change_readiness,
    dim_change_readiness_confidence = s.dim_change_readiness_confidence,
    ontology_scores_json = s.ontology_scores_json,
    ontology_completeness = s.ontology_completeness,
    ontology_version = s.ontology_version,
    extraction_embedding = CASE WHEN s."embedding lost" THEN t.extraction_embedding ELSE s.embedding END,
    extraction_embedding_current = CASE WHEN s."embedding_current lost" THEN t.extraction_embedding_current ELSE s.embedding_current END,
    extraction_confidence = s.confidence,
    extraction_version = s.version,
    source_interaction_id = s.source_interaction_id,
    ai_workflow_metadata = s.ai_workflow_metadata,
    updated_at = now()
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    graph_opportunity_id,
    opportunity_name,
    currency,
    account_id,
    deal_ref,
    qualification_status,
    latest_ai_summary,
    ai_evolution_summary,
    meddic_metrics,
    meddic_metrics_confidence,
    meddic_economic_buyer,
    meddic_economic_buyer_confidence,
    meddic_decision_criteria,
    meddic_decision_criteria_confidence,
    meddic_decision_process,
    meddic_decision_process_confidence,
    meddic_identified_pain,
    meddic_identified_pain_confidence,
    meddic_champion,
    meddic_champion_confidence,
    meddic_completeness,
    meddic_paper_process,
    meddic_competition,
    dim_champion_strength,
    dim_champion_strength_confidence,
    dim_economic_buyer_access,
    dim_economic_buyer_access_confidence,
    dim_identified_pain,
    dim_identified_pain_confidence,
    dim_metrics_business_case,
    dim_metrics_business_case_confidence,
    dim_decision_criteria_alignment,
    dim_decision_criteria_alignment_confidence,
    dim_decision_process_clarity,
    dim_decision_process_clarity_confidence,
    dim_competitive_position,
    dim_competitive_position_confidence,
    dim_incumbent_displacement_risk,
    dim_incumbent_displacement_risk_confidence,
    dim_pricing_alignment,
    dim_pricing_alignment_confidence,
    dim_procurement_legal_progress,
    dim_procurement_legal_progress_confidence,
    dim_responsiveness,
    dim_responsiveness_confidence,
    dim_close_date_credibility,
    dim_close_date_credibility_confidence,
    dim_technical_fit,
    dim_technical_fit_confidence,
    dim_integration_security_risk,
    dim_integration_security_risk_confidence,
    dim_change_readiness,
    dim_change_readiness_confidence,
    ontology_scores_json,
    ontology_completeness,
    ontology_version,
    extraction_embedding,
    extraction_embedding_current,
    extraction_confidence,
    extraction_version,
    source_interaction_id,
    actual_close_date,
    ai_workflow_metadata,
    updated_at
) VALUES (
    s.opportunity_id,
    current_setting('app.tenant_id')::uuid,
    s.opportunity_id,
    s.name,
    CASE WHEN s."currency lost" THEN NULL ELSE coalesce(s.currency, 'USD') END,
    s.account_id,
    s.deal_ref,
    s.qualification_status,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_metrics_confidence,
    s.meddic_economic_buyer,
    s.meddic_economic_buyer_confidence,
    s.meddic_decision_criteria,
    s.meddic_decision_criteria_confidence,
    s.meddic_decision_process,
    s.meddic_decision_process_confidence,
    s.meddic_identified_pain,
    s.meddic_identified_pain_confidence,
    s.meddic_champion,
    s.meddic_champion_confidence,
    s.meddic_completeness,
    s.meddic_paper_process,
    s.meddic_competition,
    s.dim_champion_strength,
    s.dim_champion_strength_confidence,
    s.dim_economic_buyer_access,
    s.dim_economic_buyer_access_confidence,
    s.dim_identified_pain,
    s.dim_identified_pain_confidence,
    s.dim_metrics_business_case,
    s.dim_metrics_business_case_confidence,
    s.dim_decision_criteria_alignment,
    s.dim_decision_criteria_alignment_confidence,
    s.dim_decision_process_clarity,
    s.dim_decision_process_clarity_confidence,
    s.dim_competitive_position,
    s.dim_competitive_position_confidence,
    s.dim_incumbent_displacement_risk,
    s.dim_incumbent_displacement_risk_confidence,
    s.dim_pricing_alignment,
    s.dim_pricing_alignment_confidence,
    s.dim_procurement_legal_progress,
    s.dim_procurement_legal_progress_confidence,
    s.dim_responsiveness,
    s.dim_responsiveness_confidence,
    s.dim_close_date_credibility,
    s.dim_close_date_credibility_confidence,
    s.dim_technical_fit,
    s.dim_technical_fit_confidence,
    s.dim_integration_security_risk,
    s.dim_integration_security_risk_confidence,
    s.dim_change_readiness,
    s.dim_change_readiness_confidence,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    s.embedding,
    s.embedding_current,
    s.confidence,
    s.version,
    s.source_interaction_id,
    s.closed_at,
    s.ai_workflow_metadata,
    now()
)

-- deal: planned
INSERT INTO pg_temp.deal_sync_deal_plan (row_number, place, part, reject, note, state)
SELECT p.row_number, p.place, p.part, p.reject, p.note, CASE WHEN p.reject IS NULL THEN p.state ELSE 'rejected' END
FROM (
    SELECT
        s.row_number,
        s."landed place" AS place,
        s."landed part" AS part,
        CASE
            WHEN s.reject IS NOT NULL THEN s.reject
        END AS reject,
        CASE WHEN s.shadows THEN 'duplicate opportunity: a row has the deal''s id, another one its graph id' END AS note,
        CASE
            WHEN t.id IS NULL THEN 'new'
            WHEN t.graph_opportunity_id IS NULL THEN 'adopted'
            WHEN ROW(
                t.graph_opportunity_id,
                t.deal_ref,
                t.qualification_status,
                t.latest_ai_summary,
                t.ai_evolution_summary,
                t.meddic_metrics,
                t.meddic_metrics_confidence,
                t.meddic_economic_buyer,
                t.meddic_economic_buyer_confidence,
                t.meddic_decision_criteria,
                t.meddic_decision_criteria_confidence,
                t.meddic_decision_process,
                t.meddic_decision_process_confidence,
                t.meddic_identified_pain,
                t.meddic_identified_pain_confidence,
                t.meddic_champion,
                t.meddic_champion_confidence,
                t.meddic_completeness,
                t.meddic_paper_process,
                t.meddic_competition,
                t.dim_champion_strength,
                t.dim_champion_strength_confidence,
                t.dim_economic_buyer_access,
                t.dim_economic_buyer_access_confidence,
                t.dim_identified_pain,
                t.dim_identified_pain_confidence,
                t.dim_metrics_business_case,
                t.dim_metrics_business_case_confidence,
                t.dim_decision_criteria_alignment,
                t.dim_decision_criteria_alignment_confidence,
                t.dim_decision_process_clarity,
                t.dim_decision_process_clarity_confidence,
                t.dim_competitive_position,
                t.dim_competitive_position_confidence,
                t.dim_incumbent_displacement_risk,
                t.dim_incumbent_displacement_risk_confidence,
                t.dim_pricing_alignment,
                t.dim_pricing_alignment_confidence,
                t.dim_procurement_legal_progress,
                t.dim_procurement_legal_progress_confidence,
                t.dim_responsiveness,
                t.dim_responsiveness_confidence,
                t.dim_close_date_credibility,
                t.dim_close_date_credibility_confidence,
                t.dim_technical_fit,
                t.dim_technical_fit_confidence,
                t.dim_integration_security_risk,
                t.dim_integration_security_risk_confidence,
                t.dim_change_readiness,
                t.dim_change_readiness_confidence,
                t.ontology_scores_json,
                t.ontology_completeness,
                t.ontology_version,
                t.extraction_embedding,
                t.extraction_embedding_current,
                t.extraction_confidence,
                t.extraction_version,
                t.source_interaction_id,
                t.ai_workflow_metadata
            )::record OPERATOR(pg_catalog.*<>) ROW(
                s.opportunity_id,
                s.deal_ref,
                s.qualification_status,
                s.opportunity_summary,
                s.evolution_summary,
                s.meddic_metrics,
                s.meddic_metrics_confidence,
                s.meddic_economic_buyer,
                s.meddic_economic_buyer_confidence,
                s.meddic_decision_criteria,
                s.meddic_decision_criteria_confidence,
                s.meddic_decision_process,
                s.meddic_decision_process_confidence,
                s.meddic_identified_pain,
                s.meddic_identified_pain_confidence,
                s.meddic_champion,
                s.meddic_champion_confidence,
                s.meddic_completeness,
                s.meddic_paper_process,
                s.meddic_competition,
                s.dim_champion_strength,
                s.dim_champion_strength_confidence,
                s.dim_economic_buyer_access,
                s.dim_economic_buyer_access_confidence,
                s.dim_identified_pain,
                s.dim_identified_pain_confidence,
                s.dim_metrics_business_case,
                s.dim_metrics_business_case_confidence,
                s.dim_decision_criteria_alignment,
                s.dim_decision_criteria_alignment_confidence,
                s.dim_decision_process_clarity,
                s.dim_decision_process_clarity_confidence,
                s.dim_competitive_position,
                s.dim_competitive_position_confidence,
                s.dim_incumbent_displacement_risk,
                s.dim_incumbent_displacement_risk_confidence,
                s.dim_pricing_alignment,
                s.dim_pricing_alignment_confidence,
                s.dim_procurement_legal_progress,
                s.dim_procurement_legal_progress_confidence,
                s.dim_responsiveness,
                s.dim_responsiveness_confidence,
                s.dim_close_date_credibility,
                s.dim_close_date_credibility_confidence,
                s.dim_technical_fit,
                s.dim_technical_fit_confidence,
                s.dim_integration_security_risk,
                s.dim_integration_security_risk_confidence,
                s.dim_change_readiness,
                s.dim_change_readiness_confidence,
                s.ontology_scores_json,
                s.ontology_completeness,
                s.ontology_version,
                CASE WHEN s."embedding lost" THEN t.extraction_embedding ELSE s.embedding END,
                CASE WHEN s."embedding_current lost" THEN t.extraction_embedding_current ELSE s.embedding_current END,
                s.confidence,
                s.version,
                s.source_interaction_id,
                s.ai_workflow_metadata
            )::record THEN 'changed'
            ELSE 'unchanged'
        END AS state
    FROM (
        SELECT
            coalesce(by_key.id, adopted.id) AS landed_id,
            by_key.id IS NOT NULL AND adopted.id IS NOT NULL AS shadows,
            CASE WHEN by_key.id IS NULL THEN adopted."landed place" ELSE by_key."landed place" END AS "landed place",
            CASE WHEN by_key.id IS NULL THEN adopted."landed part" ELSE by_key."landed part" END AS "landed part",
            s.row_number,
            s.element_id,
            s.graph_id,
            s.reject,
            s.conversion_errors,
            s.opportunity_id AS opportunity_id,
            s.name AS name,
            s.currency AS currency,
            s.currency IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'currency'::text), false)) AS "currency lost",
            s.account_id AS account_id,
            s.deal_ref AS deal_ref,
            s.qualification_status AS qualification_status,
            s.opportunity_summary AS opportunity_summary,
            s.evolution_summary AS evolution_summary,
            s.meddic_metrics AS meddic_metrics,
            s.meddic_metrics_confidence AS meddic_metrics_confidence,
            s.meddic_economic_buyer AS meddic_economic_buyer,
            s.meddic_economic_buyer_confidence AS meddic_economic_buyer_confidence,
            s.meddic_decision_criteria AS meddic_decision_criteria,
            s.meddic_decision_criteria_confidence AS meddic_decision_criteria_confidence,
            s.meddic_decision_process AS meddic_decision_process,
            s.meddic_decision_process_confidence AS meddic_decision_process_confidence,
            s.meddic_identified_pain AS meddic_identified_pain,
            s.meddic_identified_pain_confidence AS meddic_identified_pain_confidence,
            s.meddic_champion AS meddic_champion,
            s.meddic_champion_confidence AS meddic_champion_confidence,
            s.meddic_completeness AS meddic_completeness,
            s.meddic_paper_process AS meddic_paper_process,
            s.meddic_competition AS meddic_competition,
            s.dim_champion_strength AS dim_champion_strength,
            s.dim_champion_strength_confidence AS dim_champion_strength_confidence,
            s.dim_economic_buyer_access AS dim_economic_buyer_access,
            s.dim_economic_buyer_access_confidence AS dim_economic_buyer_access_confidence,
            s.dim_identified_pain AS dim_identified_pain,
            s.dim_identified_pain_confidence AS dim_identified_pain_confidence,
            s.dim_metrics_business_case AS dim_metrics_business_case,
            s.dim_metrics_business_case_confidence AS dim_metrics_business_case_confidence,
            s.dim_decision_criteria_alignment AS dim_decision_criteria_alignment,
            s.dim_decision_criteria_alignment_confidence AS dim_decision_criteria_alignment_confidence,
            s.dim_decision_process_clarity AS dim_decision_process_clarity,
            s.dim_decision_process_clarity_confidence AS dim_decision_process_clarity_confidence,
            s.dim_competitive_position AS dim_competitive_position,
            s.dim_competitive_position_confidence AS dim_competitive_position_confidence,
            s.dim_incumbent_displacement_risk AS dim_incumbent_displacement_risk,
            s.dim_incumbent_displacement_risk_confidence AS dim_incumbent_displacement_risk_confidence,
            s.dim_pricing_alignment AS dim_pricing_alignment,
            s.dim_pricing_alignment_confidence AS dim_pricing_alignment_confidence,
            s.dim_procurement_legal_progress AS dim_procurement_legal_progress,
            s.dim_procurement_legal_progress_confidence AS dim_procurement_legal_progress_confidence,
            s.dim_responsiveness AS dim_responsiveness,
            s.dim_responsiveness_confidence AS dim_responsiveness_confidence,
            s.dim_close_date_credibility AS dim_close_date_credibility,
            s.dim_close_date_credibility_confidence AS dim_close_date_credibility_confidence,
            s.dim_technical_fit AS dim_technical_fit,
            s.dim_technical_fit_confidence AS dim_technical_fit_confidence,
            s.dim_integration_security_risk AS dim_integration_security_risk,
            s.dim_integration_security_risk_confidence AS dim_integration_security_risk_confidence,
            s.dim_change_readiness AS dim_change_readiness,
            s.dim_change_readiness_confidence AS dim_change_readiness_confidence,
            s.ontology_scores_json AS ontology_scores_json,
            s.ontology_completeness AS ontology_completeness,
            s.ontology_version AS ontology_version,
            s.embedding AS embedding,
            s.embedding IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding'::text), false)) AS "embedding lost",
            s.embedding_current AS embedding_current,
            s.embedding_current IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'embedding_current'::text), false)) AS "embedding_current lost",
            s.confidence AS confidence,
            s.version AS version,
            s.source_interaction_id AS source_interaction_id,
            s.closed_at AS closed_at,
            s.ai_workflow_metadata AS ai_workflow_metadata
        FROM (
            SELECT *
            FROM pg_temp.deal_sync_deals AS f
            WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))
        ) AS s
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS by_key ON true
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.id BETWEEN s.opportunity_id AND s.opportunity_id
            ORDER BY k.id
            LIMIT 1
        ) AS adopted ON adopted.graph_opportunity_id IS NULL
    ) AS s
    INNER JOIN pg_temp.deal_sync_deals AS raw USING (row_number)
    LEFT JOIN LATERAL (
        SELECT k.*
        FROM public.opportunities AS k
        WHERE k.ctid = s."landed place" AND k.tableoid = s."landed part"
        OFFSET 0
    ) AS t ON true
    ORDER BY s.row_number
) AS p

-- deal: rejects
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'kind', f.kind, 'level', f.level, 'graph_id', s.graph_id, 'element_id', s.element_id, 'column_name', f."column",
    'sqlstate', f.sqlstate, 'message', f.message, 'value', f.value, 'server_text', f.server_text
)), '[]')
FROM (
    SELECT
        'deal' AS kind, 'row' AS level, p.row_number, p.reject ->> 'column' AS "column",
        p.reject ->> 'sqlstate' AS sqlstate, p.reject ->> 'message' AS message, p.reject ->> 'value' AS value,
        NULL AS server_text
    FROM pg_temp.deal_sync_deal_plan AS p
    WHERE p.reject IS NOT NULL
    UNION ALL
    SELECT 'deal', 'note', p.row_number, NULL, '00000', p.note, NULL, NULL
    FROM pg_temp.deal_sync_deal_plan AS p
    WHERE p.reject IS NULL AND p.note IS NOT NULL
    UNION ALL
    SELECT
        'deal', 'row', p.row_number, m.name, coalesce(e.error ->> 'sqlstate', p.sqlstate),
        coalesce(e.error ->> 'message', p.message), e.error ->> 'value', p.server_text
    FROM pg_temp.deal_sync_deal_plan AS p
    INNER JOIN pg_temp.deal_sync_deals AS raw USING (row_number)
    LEFT JOIN (VALUES ('opportunity_id', 'graph_opportunity_id'), ('name', 'opportunity_name'), ('currency', 'currency'), ('account_id', 'account_id'), ('deal_ref', 'deal_ref'), ('qualification_status', 'qualification_status'), ('opportunity_summary', 'latest_ai_summary'), ('evolution_summary', 'ai_evolution_summary'), ('meddic_metrics', 'meddic_metrics'), ('meddic_metrics_confidence', 'meddic_metrics_confidence'), ('meddic_economic_buyer', 'meddic_economic_buyer'), ('meddic_economic_buyer_confidence', 'meddic_economic_buyer_confidence'), ('meddic_decision_criteria', 'meddic_decision_criteria'), ('meddic_decision_criteria_confidence', 'meddic_decision_criteria_confidence'), ('meddic_decision_process', 'meddic_decision_process'), ('meddic_decision_process_confidence', 'meddic_decision_process_confidence'), ('meddic_identified_pain', 'meddic_identified_pain'), ('meddic_identified_pain_confidence', 'meddic_identified_pain_confidence'), ('meddic_champion', 'meddic_champion'), ('meddic_champion_confidence', 'meddic_champion_confidence'), ('meddic_completeness', 'meddic_completeness'), ('meddic_paper_process', 'meddic_paper_process'), ('meddic_competition', 'meddic_competition'), ('dim_champion_strength', 'dim_champion_strength'), ('dim_champion_strength_confidence', 'dim_champion_strength_confidence'), ('dim_economic_buyer_access', 'dim_economic_buyer_access'), ('dim_economic_buyer_access_confidence', 'dim_economic_buyer_access_confidence'), ('dim_identified_pain', 'dim_identified_pain'), ('dim_identified_pain_confidence', 'dim_identified_pain_confidence'), ('dim_metrics_business_case', 'dim_metrics_business_case'), ('dim_metrics_business_case_confidence', 'dim_metrics_business_case_confidence'), ('dim_decision_criteria_alignment', 'dim_decision_criteria_alignment'), ('dim_decision_criteria_alignment_confidence', 'dim_decision_criteria_alignment_confidence'), ('dim_decision_process_clarity', 'dim_decision_process_clarity'), ('dim_decision_process_clarity_confidence', 'dim_decision_process_clarity_confidence'), ('dim_competitive_position', 'dim_competitive_position'), ('dim_competitive_position_confidence', 'dim_competitive_position_confidence'), ('dim_incumbent_displacement_risk', 'dim_incumbent_displacement_risk'), ('dim_incumbent_displacement_risk_confidence', 'dim_incumbent_displacement_risk_confidence'), ('dim_pricing_alignment', 'dim_pricing_alignment'), ('dim_pricing_alignment_confidence', 'dim_pricing_alignment_confidence'), ('dim_procurement_legal_progress', 'dim_procurement_legal_progress'), ('dim_procurement_legal_progress_confidence', 'dim_procurement_legal_progress_confidence'), ('dim_responsiveness', 'dim_responsiveness'), ('dim_responsiveness_confidence', 'dim_responsiveness_confidence'), ('dim_close_date_credibility', 'dim_close_date_credibility'), ('dim_close_date_credibility_confidence', 'dim_close_date_credibility_confidence'), ('dim_technical_fit', 'dim_technical_fit'), ('dim_technical_fit_confidence', 'dim_technical_fit_confidence'), ('dim_integration_security_risk', 'dim_integration_security_risk'), ('dim_integration_security_risk_confidence', 'dim_integration_security_risk_confidence'), ('dim_change_readiness', 'dim_change_readiness'), ('dim_change_readiness_confidence', 'dim_change_readiness_confidence'), ('ontology_scores_json', 'ontology_scores_json'), ('ontology_completeness', 'ontology_completeness'), ('ontology_version', 'ontology_version'), ('embedding', 'extraction_embedding'), ('embedding_current', 'extraction_embedding_current'), ('confidence', 'extraction_confidence'), ('version', 'extraction_version'), ('source_interaction_id', 'source_interaction_id'), ('closed_at', 'actual_close_date'), ('ai_workflow_metadata', 'ai_workflow_metadata')) AS m (name, target)
        ON m.target = p.null_in
    CROSS JOIN LATERAL (SELECT raw.conversion_errors -> m.name) AS e (error)
    WHERE p.sqlstate IS NOT NULL
    UNION ALL
    SELECT 'link', 'row', l.row_number, NULL, l.sqlstate, l.message, NULL, l.server_text
    FROM unnest($2::_deal_sync.failure[]) AS l
    UNION ALL
    SELECT 'deal', 'value', v.row_number, v.field, v.error ->> 'sqlstate', concat(v.error ->> 'message', v.remark), v.error ->> 'value', NULL
    FROM (
        WITH s AS (
            SELECT * FROM pg_temp.deal_sync_deals AS f WHERE f.row_number = ANY ($1) AND f.conversion_errors IS NOT NULL
        ),
        
        lost (row_number, field, error) AS (
            SELECT s.row_number, e.key, e.value
            FROM s
            CROSS JOIN LATERAL jsonb_each(s.conversion_errors) AS e
        )
        
        SELECT
            s.row_number, lost.field, lost.error,
            CASE
                WHEN m.write = 'insert' AND NOT coalesce((lost.error -> 'landed')::boolean, false)
                    THEN ' (the column of an existing row is not written, so this is not retried: set it by hand,'
                        ' or ALTER the column''s option write to ''fill'')'
            END AS remark
        FROM lost
        INNER JOIN pg_temp.deal_sync_deals AS s USING (row_number)
        INNER JOIN pg_temp.deal_sync_deal_plan AS p USING (row_number)
        INNER JOIN (VALUES ('tenant_id', 'always'), ('opportunity_id', 'always'), ('name', 'insert'), ('stage', 'never'), ('amount', 'never'), ('currency', 'insert'), ('account_id', 'insert'), ('deal_ref', 'always'), ('qualification_status', 'always'), ('opportunity_summary', 'always'), ('evolution_summary', 'always'), ('meddic_metrics', 'always'), ('meddic_metrics_confidence', 'always'), ('meddic_economic_buyer', 'always'), ('meddic_economic_buyer_confidence', 'always'), ('meddic_decision_criteria', 'always'), ('meddic_decision_criteria_confidence', 'always'), ('meddic_decision_process', 'always'), ('meddic_decision_process_confidence', 'always'), ('meddic_identified_pain', 'always'), ('meddic_identified_pain_confidence', 'always'), ('meddic_champion', 'always'), ('meddic_champion_confidence', 'always'), ('meddic_completeness', 'always'), ('meddic_paper_process', 'always'), ('meddic_competition', 'always'), ('dim_champion_strength', 'always'), ('dim_champion_strength_confidence', 'always'), ('dim_economic_buyer_access', 'always'), ('dim_economic_buyer_access_confidence', 'always'), ('dim_identified_pain', 'always'), ('dim_identified_pain_confidence', 'always'), ('dim_metrics_business_case', 'always'), ('dim_metrics_business_case_confidence', 'always'), ('dim_decision_criteria_alignment', 'always'), ('dim_decision_criteria_alignment_confidence', 'always'), ('dim_decision_process_clarity', 'always'), ('dim_decision_process_clarity_confidence', 'always'), ('dim_competitive_position', 'always'), ('dim_competitive_position_confidence', 'always'), ('dim_incumbent_displacement_risk', 'always'), ('dim_incumbent_displacement_risk_confidence', 'always'), ('dim_pricing_alignment', 'always'), ('dim_pricing_alignment_confidence', 'always'), ('dim_procurement_legal_progress', 'always'), ('dim_procurement_legal_progress_confidence', 'always'), ('dim_responsiveness', 'always'), ('dim_responsiveness_confidence', 'always'), ('dim_close_date_credibility', 'always'), ('dim_close_date_credibility_confidence', 'always'), ('dim_technical_fit', 'always'), ('dim_technical_fit_confidence', 'always'), ('dim_integration_security_risk', 'always'), ('dim_integration_security_risk_confidence', 'always'), ('dim_change_readiness', 'always'), ('dim_change_readiness_confidence', 'always'), ('ontology_scores_json', 'always'), ('ontology_completeness', 'always'), ('ontology_version', 'always'), ('embedding', 'always'), ('embedding_current', 'always'), ('confidence', 'always'), ('version', 'always'), ('source_interaction_id', 'always'), ('expected_close_date', 'always'), ('closed_at', 'insert'), ('ai_workflow_metadata', 'always'), ('created_at', 'always'), ('last_updated_at', 'always'), ('element_id', 'always'), ('conversion_errors', 'always')) AS m (name, write)
            ON m.name = lost.field
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS t ON true
        WHERE
            p.state = 'new'
            OR CASE lost.field
                WHEN 'name' THEN
                    t.opportunity_name IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.opportunity_name)::record OPERATOR(pg_catalog.*=) ROW(s.name)::record
                WHEN 'currency' THEN
                    t.currency IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.currency)::record OPERATOR(pg_catalog.*=) ROW(s.currency)::record
                WHEN 'account_id' THEN
                    t.account_id IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.account_id)::record OPERATOR(pg_catalog.*=) ROW(s.account_id)::record
                WHEN 'closed_at' THEN
                    t.actual_close_date IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.actual_close_date)::record OPERATOR(pg_catalog.*=) ROW(s.closed_at)::record
                ELSE true
            END
    ) AS v
) AS f
INNER JOIN pg_temp.deal_sync_deals AS s USING (row_number)

-- deal: suppressed
SELECT coalesce(array_agg(ROW(u.row_number, '09000', $4, NULL, NULL, NULL)::_deal_sync.failure), '{}')
FROM (
    SELECT DISTINCT m.row_number
    FROM (
        SELECT s.row_number, link.interaction_id, o.id AS entity_id
        FROM pg_temp.deal_sync_deals AS s
        CROSS JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS o
        CROSS JOIN LATERAL (VALUES (s.source_interaction_id)) AS link (interaction_id)
        LEFT JOIN LATERAL (
            SELECT l.entity_id
            FROM public.interaction_links AS l
            WHERE
                l.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND l.interaction_id BETWEEN link.interaction_id AND link.interaction_id
                AND l.entity_type::text = 'opportunity'
                AND l.entity_id = o.id
            ORDER BY l.interaction_id
            LIMIT 1
        ) AS there ON true
        WHERE
            s.row_number = ANY ($1)
            AND link.interaction_id IS NOT NULL
            AND there.entity_id IS NULL
    ) AS m
    WHERE m.row_number <> ALL ($3)
) AS u

-- deal: to_write
SELECT
    coalesce(array_agg(p.row_number ORDER BY p.row_number), '{}') AS rows,
    count(*) FILTER (WHERE p.state <> 'new') AS changes
FROM pg_temp.deal_sync_deal_plan AS p
WHERE p.state IN ('new', 'changed', 'adopted')

-- deal: unlinked
SELECT coalesce(array_agg(DISTINCT u.row_number ORDER BY u.row_number), '{}')
FROM (
    SELECT s.row_number, link.interaction_id, o.id AS entity_id
    FROM pg_temp.deal_sync_deals AS s
    CROSS JOIN LATERAL (
        SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
        FROM public.opportunities AS k
        WHERE
            k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
            AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
        ORDER BY k.graph_opportunity_id
        LIMIT 1
    ) AS o
    CROSS JOIN LATERAL (VALUES (s.source_interaction_id)) AS link (interaction_id)
    LEFT JOIN LATERAL (
        SELECT l.entity_id
        FROM public.interaction_links AS l
        WHERE
            l.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
            AND l.interaction_id BETWEEN link.interaction_id AND link.interaction_id
            AND l.entity_type::text = 'opportunity'
            AND l.entity_id = o.id
        ORDER BY l.interaction_id
        LIMIT 1
    ) AS there ON true
    WHERE
        s.row_number = ANY ($1)
        AND link.interaction_id IS NOT NULL
        AND there.entity_id IS NULL
) AS u

-- deal: unwritten
UPDATE pg_temp.deal_sync_deal_plan AS p
SET
    sqlstate = CASE WHEN p.row_number = ANY ($1) THEN '23505' ELSE '09000' END,
    message = CASE WHEN p.row_number = ANY ($1) THEN $2 ELSE 'a trigger of the table returned NULL' END
FROM pg_temp.deal_sync_deals AS s
LEFT JOIN LATERAL (
    SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
    FROM public.opportunities AS k
    WHERE
        k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
        AND k.graph_opportunity_id BETWEEN s.opportunity_id AND s.opportunity_id
    ORDER BY k.graph_opportunity_id
    LIMIT 1
) AS t ON true
WHERE
    s.row_number = p.row_number AND p.sqlstate IS NULL AND p.state IN ('new', 'changed', 'adopted')
    AND (t.id IS NULL OR (t."landed place" = p.place AND t."landed part" = p.part))

-- tenant: comparison
WITH found AS MATERIALIZED (
    SELECT n.*
    FROM (VALUES ('deal'), ('version')) AS k (kind)
    CROSS JOIN LATERAL _deal_sync.compare_nodes(
        k.kind, $1, CASE WHEN $2 THEN '{}' ELSE _deal_sync.embedding_columns(k.kind) END, $3
    ) AS n
),

missing_deals AS MATERIALIZED (
    SELECT f.key FROM found AS f WHERE f.kind = 'deal' AND f.state = 'missing'
),

nodes AS MATERIALIZED (
    SELECT
        f.kind, f.element_id, f.graph_id, f.key, f.deal, f.taken_by, f.links,
        CASE
            WHEN f.state <> 'awaiting its deal' THEN f.state
            WHEN f.deal IN (SELECT m.key FROM missing_deals AS m) THEN 'missing'
            ELSE 'rejected'
        END AS state
    FROM found AS f
    WHERE f.state <> 'value'
),

deals AS MATERIALIZED (
    SELECT o.id, o.graph_opportunity_id AS key FROM public.opportunities AS o
    WHERE o.tenant_id = $1 AND o.graph_opportunity_id IS NOT NULL
),

by_key AS MATERIALIZED (
    SELECT n.kind, n.key, min(n.state) FILTER (WHERE n.state <> 'rejected') AS state
    FROM nodes AS n
    WHERE n.key IS NOT NULL
    GROUP BY n.kind, n.key
),

pairs AS MATERIALIZED (
    SELECT
        link.interaction_id, coalesce(d.id, n.deal) AS entity_id, min(n.deal::text) AS deal,
        bool_or(n.state <> 'rejected') AS is_expected, bool_or(r.element_id IS NOT NULL) AS is_rejected
    FROM nodes AS n
    LEFT JOIN deals AS d ON d.key = n.deal
    CROSS JOIN LATERAL unnest(n.links) AS link (interaction_id)
    LEFT JOIN (
        SELECT DISTINCT j.element_id FROM deal_sync.rejects AS j
        WHERE j.tenant_id = $1 AND j.kind = 'link' AND j.level = 'row'
    ) AS r ON r.element_id = n.element_id
    WHERE link.interaction_id IS NOT NULL AND n.deal IS NOT NULL
    GROUP BY link.interaction_id, coalesce(d.id, n.deal)
),

link_rows AS MATERIALIZED (
    SELECT DISTINCT l.interaction_id, l.entity_id FROM public.interaction_links AS l
    WHERE l.tenant_id = $1 AND l.entity_type::text = 'opportunity' AND l.entity_id IS NOT NULL
)

SELECT n.kind, n.state, NULL::text, n.graph_id, NULL::text, NULL::text, NULL::text, NULL::text FROM nodes AS n
UNION ALL
SELECT
    'deal', NULL, CASE WHEN b.key IS NULL THEN 'extra' ELSE coalesce(b.state, 'kept') END,
    d.key::text, d.id::text, NULL, NULL, NULL
FROM deals AS d
LEFT JOIN by_key AS b ON b.kind = 'deal' AND b.key = d.key
UNION ALL
SELECT
    'version', NULL,
    CASE
        WHEN b.key IS NOT NULL THEN coalesce(b.state, 'kept')
        WHEN v.id IN (SELECT t.taken_by FROM nodes AS t WHERE t.taken_by IS NOT NULL) THEN 'legacy'
        ELSE 'extra'
    END,
    d.key::text, v.id::text, NULL, NULL, NULL
FROM public.deal_versions AS v
LEFT JOIN deals AS d ON d.id = v.opportunity_id
LEFT JOIN by_key AS b ON b.kind = 'version' AND b.key = v.id
WHERE v.tenant_id = $1 AND (d.id IS NOT NULL OR b.key IS NOT NULL)
UNION ALL
SELECT
    'link',
    CASE WHEN p.interaction_id IS NOT NULL THEN CASE
        WHEN NOT p.is_expected THEN 'rejected'
        WHEN l.interaction_id IS NOT NULL THEN 'matching'
        WHEN p.is_rejected THEN 'rejected'
        ELSE 'missing'
    END END,
    CASE WHEN l.interaction_id IS NOT NULL THEN CASE
        WHEN p.is_expected THEN 'matching'
        WHEN NOT p.is_expected THEN 'kept'
        WHEN d.id IS NULL THEN 'legacy'
        ELSE 'extra'
    END END,
    coalesce(p.deal, d.key::text, l.entity_id::text),
    coalesce(l.interaction_id, p.interaction_id)::text, NULL, NULL, NULL
FROM pairs AS p
FULL JOIN link_rows AS l ON l.interaction_id = p.interaction_id AND l.entity_id = p.entity_id
LEFT JOIN deals AS d ON d.id = l.entity_id
WHERE
    p.interaction_id IS NOT NULL OR d.id IS NOT NULL
    OR l.entity_id IN (SELECT g.key FROM deals AS g WHERE g.key <> g.id)
UNION ALL
SELECT f.kind, 'value', NULL, f.graph_id, NULL, f.column_name, f.graph_value, f.table_value
FROM found AS f
WHERE f.state = 'value'

-- version: completion
MERGE INTO public.deal_versions AS t
USING (
    SELECT *
    FROM (
        SELECT
            there.id AS landed_id,
            o.id AS "landed deal",
            taken.id AS "number taken by",
            there."landed place",
            there."landed part",
            s.row_number,
            s.element_id,
            s.graph_id,
            s.reject,
            s.conversion_errors,
            s.version_id AS version_id,
            s.version_id IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'version_id'::text), false)) AS "version_id lost",
            s.deal_opportunity_id AS deal_opportunity_id,
            s.version AS version,
            s.name AS name,
            s.stage AS stage,
            s.amount AS amount,
            s.opportunity_summary AS opportunity_summary,
            s.evolution_summary AS evolution_summary,
            s.meddic_metrics AS meddic_metrics,
            s.meddic_economic_buyer AS meddic_economic_buyer,
            s.meddic_decision_criteria AS meddic_decision_criteria,
            s.meddic_decision_process AS meddic_decision_process,
            s.meddic_identified_pain AS meddic_identified_pain,
            s.meddic_champion AS meddic_champion,
            s.meddic_completeness AS meddic_completeness,
            s.ontology_scores_json AS ontology_scores_json,
            s.ontology_completeness AS ontology_completeness,
            s.ontology_version AS ontology_version,
            s.change_summary AS change_summary,
            s.change_summary IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'change_summary'::text), false)) AS "change_summary lost",
            s.changed_fields AS changed_fields,
            s.changed_fields IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'changed_fields'::text), false)) AS "changed_fields lost",
            s.change_source_interaction_id AS change_source_interaction_id,
            s.created_at AS created_at,
            s.created_at IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'created_at'::text), false)) AS "created_at lost",
            s.valid_from AS valid_from,
            s.valid_from IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'valid_from'::text), false)) AS "valid_from lost",
            s.valid_until AS valid_until
        FROM (
            SELECT *
            FROM pg_temp.deal_sync_versions AS f
            WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))
        ) AS s
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.deal_versions AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.id BETWEEN s.version_id AND s.version_id
            ORDER BY k.id
            LIMIT 1
        ) AS there ON true
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.deal_opportunity_id AND s.deal_opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS o ON true
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.deal_versions AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND (k.opportunity_id, k.version_number) BETWEEN (o.id, s.version) AND (o.id, s.version)
            ORDER BY k.opportunity_id, k.version_number
            LIMIT 1
        ) AS taken ON true
        WHERE (SELECT _deal_sync.plan_freely())
    ) AS s
    WHERE
        s."landed deal" IS NOT NULL
        AND s.version IS NOT NULL
        AND s."number taken by" IS NULL
) AS s
ON t.ctid = s."landed place" AND t.tableoid = s."landed part"
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    opportunity_id,
    version_number,
    name,
    stage,
    amount,
    opportunity_summary,
    evolution_summary,
    meddic_metrics,
    meddic_economic_buyer,
    meddic_decision_criteria,
    meddic_decision_process,
    meddic_identified_pain,
    meddic_champion,
    meddic_completeness,
    ontology_scores_json,
    ontology_completeness,
    ontology_version,
    change_summary,
    changed_fields,
    change_source_interaction_id,
    created_at,
    valid_from,
    valid_until
) VALUES (
    s.version_id,
    'aaaaaaaa-0000-4000-8000-000000000001'::uuid,
    s."landed deal",
    s.version,
    s.name,
    s.stage,
    s.amount,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_economic_buyer,
    s.meddic_decision_criteria,
    s.meddic_decision_process,
    s.meddic_identified_pain,
    s.meddic_champion,
    s.meddic_completeness,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    CASE WHEN s."change_summary lost" THEN NULL ELSE coalesce(s.change_summary, '') END,
    CASE WHEN s."changed_fields lost" THEN NULL ELSE coalesce(s.changed_fields, '[]') END,
    s.change_source_interaction_id,
    CASE WHEN s."created_at lost" THEN NULL ELSE coalesce(s.created_at, s.valid_until, now()) END,
    CASE WHEN s."valid_from lost" THEN NULL ELSE coalesce(s.valid_from, s.created_at, s.valid_until, now()) END,
    s.valid_until
)

-- version: counted
SELECT
    count(*) FILTER (WHERE p.landed AND p.state = 'new' AND NOT p.met) AS inserted,
    count(*) FILTER (WHERE p.landed AND p.state = 'adopted') AS adopted,
    count(*) FILTER (WHERE p.landed AND (p.state = 'changed' OR p.state = 'new' AND p.met)) AS updated,
    count(*) FILTER (WHERE p.state = 'unchanged') AS unchanged,
    count(*) FILTER (WHERE p.landed AND p.state = 'changed') AS completed,
    coalesce(array_agg(p.row_number) FILTER (WHERE p.landed OR p.state = 'unchanged'), '{}') AS there,
    coalesce(array_agg(p.row_number) FILTER (WHERE p.sqlstate IS NOT NULL), '{}') AS failed,
    (
        SELECT coalesce(jsonb_object_agg(r.reason, r.times), '{}')
        FROM (
            SELECT format('%s %s', f.sqlstate, f.message) AS reason, count(*) AS times
            FROM pg_temp.deal_sync_version_plan AS f
            WHERE f.sqlstate IS NOT NULL
            GROUP BY 1
        ) AS r
    ) AS reasons
FROM (
    SELECT
        w.*, w.row_number = ANY ($1) AS met,
        w.sqlstate IS NULL AND w.state IN ('new', 'changed', 'adopted') AS landed
    FROM pg_temp.deal_sync_version_plan AS w
) AS p

-- version: failed
UPDATE pg_temp.deal_sync_version_plan AS p
SET
    sqlstate = f.sqlstate, message = f.message, server_text = f.server_text,
    null_in = CASE WHEN f.sqlstate = '23502' AND f.relation = 'public.deal_versions' THEN f.column_name END
FROM unnest($1::_deal_sync.failure[]) AS f
WHERE f.row_number = p.row_number

-- version: linked
SELECT coalesce(array_agg(DISTINCT link.interaction_id), '{}')
FROM pg_temp.deal_sync_versions AS s
CROSS JOIN LATERAL (VALUES (s.change_source_interaction_id)) AS link (interaction_id)
WHERE s.row_number = ANY ($1) AND link.interaction_id IS NOT NULL

-- version: links
INSERT INTO public.interaction_links (
    id,
    tenant_id,
    interaction_id,
    entity_type,
    entity_id
)
SELECT
    gen_random_uuid(),
    'aaaaaaaa-0000-4000-8000-000000000001'::uuid,
    pair.interaction_id,
    'opportunity',
    pair.entity_id
FROM (
    SELECT DISTINCT m.interaction_id, m.entity_id
    FROM (
        SELECT s.row_number, link.interaction_id, o.id AS entity_id
        FROM pg_temp.deal_sync_versions AS s
        CROSS JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.deal_opportunity_id AND s.deal_opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS o
        CROSS JOIN LATERAL (VALUES (s.change_source_interaction_id)) AS link (interaction_id)
        LEFT JOIN LATERAL (
            SELECT l.entity_id
            FROM public.interaction_links AS l
            WHERE
                l.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND l.interaction_id BETWEEN link.interaction_id AND link.interaction_id
                AND l.entity_type::text = 'opportunity'
                AND l.entity_id = o.id
            ORDER BY l.interaction_id
            LIMIT 1
        ) AS there ON true
        WHERE
            s.row_number = ANY ($1)
            AND link.interaction_id IS NOT NULL
            AND there.entity_id IS NULL
        AND (SELECT _deal_sync.plan_freely())
    ) AS m
) AS pair
ON CONFLICT DO NOTHING

-- version: locks
SELECT
FROM (
    SELECT p.place AS "landed place", p.part AS "landed part"
    FROM pg_temp.deal_sync_version_plan AS p
    WHERE p.state IN ('changed', 'adopted')
    ORDER BY p.row_number
) AS s
CROSS JOIN LATERAL (
    SELECT k.*
    FROM public.deal_versions AS k
    WHERE k.ctid = s."landed place" AND k.tableoid = s."landed part"
    OFFSET 0
    FOR NO KEY UPDATE
) AS t

-- version: merge
MERGE INTO public.deal_versions AS t
USING (
    SELECT *
    FROM (
        SELECT
            there.id AS landed_id,
            o.id AS "landed deal",
            taken.id AS "number taken by",
            there."landed place",
            there."landed part",
            s.row_number,
            s.element_id,
            s.graph_id,
            s.reject,
            s.conversion_errors,
            s.version_id AS version_id,
            s.version_id IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'version_id'::text), false)) AS "version_id lost",
            s.deal_opportunity_id AS deal_opportunity_id,
            s.version AS version,
            s.name AS name,
            s.stage AS stage,
            s.amount AS amount,
            s.opportunity_summary AS opportunity_summary,
            s.evolution_summary AS evolution_summary,
            s.meddic_metrics AS meddic_metrics,
            s.meddic_economic_buyer AS meddic_economic_buyer,
            s.meddic_decision_criteria AS meddic_decision_criteria,
            s.meddic_decision_process AS meddic_decision_process,
            s.meddic_identified_pain AS meddic_identified_pain,
            s.meddic_champion AS meddic_champion,
            s.meddic_completeness AS meddic_completeness,
            s.ontology_scores_json AS ontology_scores_json,
            s.ontology_completeness AS ontology_completeness,
            s.ontology_version AS ontology_version,
            s.change_summary AS change_summary,
            s.change_summary IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'change_summary'::text), false)) AS "change_summary lost",
            s.changed_fields AS changed_fields,
            s.changed_fields IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'changed_fields'::text), false)) AS "changed_fields lost",
            s.change_source_interaction_id AS change_source_interaction_id,
            s.created_at AS created_at,
            s.created_at IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'created_at'::text), false)) AS "created_at lost",
            s.valid_from AS valid_from,
            s.valid_from IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'valid_from'::text), false)) AS "valid_from lost",
            s.valid_until AS valid_until
        FROM (
            SELECT *
            FROM pg_temp.deal_sync_versions AS f
            WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))
        ) AS s
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.deal_versions AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.id BETWEEN s.version_id AND s.version_id
            ORDER BY k.id
            LIMIT 1
        ) AS there ON true
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.deal_opportunity_id AND s.deal_opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS o ON true
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.deal_versions AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND (k.opportunity_id, k.version_number) BETWEEN (o.id, s.version) AND (o.id, s.version)
            ORDER BY k.opportunity_id, k.version_number
            LIMIT 1
        ) AS taken ON true
        WHERE (SELECT _deal_sync.plan_freely())
    ) AS s
    WHERE
        s."landed deal" IS NOT NULL
        AND s.version IS NOT NULL
        AND s."number taken by" IS NULL
) AS s
ON t.ctid = s."landed place" AND t.tableoid = s."landed part"
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    opportunity_id,
    version_number,
    name,
    stage,
    amount,
    opportunity_summary,
    evolution_summary,
    meddic_metrics,
    meddic_economic_buyer,
    meddic_decision_criteria,
    meddic_decision_process,
    meddic_identified_pain,
    meddic_champion,
    meddic_completeness,
    ontology_scores_json,
    ontology_completeness,
    ontology_version,
    change_summary,
    changed_fields,
    change_source_interaction_id,
    created_at,
    valid_from,
    valid_until
) VALUES (
    s.version_id,
    'aaaaaaaa-0000-4000-8000-000000000001'::uuid,
    s."landed deal",
    s.version,
    s.name,
    s.stage,
    s.amount,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_economic_buyer,
    s.meddic_decision_criteria,
    s.meddic_decision_process,
    s.meddic_identified_pain,
    s.meddic_champion,
    s.meddic_completeness,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    CASE WHEN s."change_summary lost" THEN NULL ELSE coalesce(s.change_summary, '') END,
    CASE WHEN s."changed_fields lost" THEN NULL ELSE coalesce(s.changed_fields, '[]') END,
    s.change_source_interaction_id,
    CASE WHEN s."created_at lost" THEN NULL ELSE coalesce(s.created_at, s.valid_until, now()) END,
    CASE WHEN s."valid_from lost" THEN NULL ELSE coalesce(s.valid_from, s.created_at, s.valid_until, now()) END,
    s.valid_until
)

-- version: merge by hand
MERGE INTO public.deal_versions AS t
USING (
    SELECT *
    FROM (
        SELECT
            there.id AS landed_id,
            o.id AS "landed deal",
            taken.id AS "number taken by",
            _deal_sync.to_uuid(s.version_id) AS version_id,
            _deal_sync.to_uuid(s.version_id) IS NULL AND (s.version_id IS NOT NULL OR coalesce(jsonb_exists(s.conversion_errors, 'version_id'::text), false)) AS "version_id lost",
            _deal_sync.to_uuid(s.deal_opportunity_id) AS deal_opportunity_id,
            _deal_sync.to_integer(s.version) AS version,
            s.name AS name,
            _deal_sync.to_varchar(s.stage, 20)::character varying(20) AS stage,
            _deal_sync.to_numeric(s.amount, 15, 2)::numeric(15,2) AS amount,
            s.opportunity_summary AS opportunity_summary,
            s.evolution_summary AS evolution_summary,
            s.meddic_metrics AS meddic_metrics,
            s.meddic_economic_buyer AS meddic_economic_buyer,
            s.meddic_decision_criteria AS meddic_decision_criteria,
            s.meddic_decision_process AS meddic_decision_process,
            s.meddic_identified_pain AS meddic_identified_pain,
            s.meddic_champion AS meddic_champion,
            _deal_sync.to_numeric(s.meddic_completeness, 3, 2)::numeric(3,2) AS meddic_completeness,
            s.ontology_scores_json AS ontology_scores_json,
            _deal_sync.to_numeric(s.ontology_completeness, 5, 2)::numeric(5,2) AS ontology_completeness,
            _deal_sync.to_varchar(s.ontology_version, 64)::character varying(64) AS ontology_version,
            s.change_summary AS change_summary,
            s.change_summary IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'change_summary'::text), false)) AS "change_summary lost",
            to_jsonb(s.changed_fields) AS changed_fields,
            to_jsonb(s.changed_fields) IS NULL AND (s.changed_fields IS NOT NULL OR coalesce(jsonb_exists(s.conversion_errors, 'changed_fields'::text), false)) AS "changed_fields lost",
            _deal_sync.to_uuid(s.change_source_interaction_id) AS change_source_interaction_id,
            s.created_at AS created_at,
            s.created_at IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'created_at'::text), false)) AS "created_at lost",
            s.valid_from AS valid_from,
            s.valid_from IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'valid_from'::text), false)) AS "valid_from lost",
            s.valid_until AS valid_until
        FROM (
            SELECT DISTINCT ON (_deal_sync.to_uuid(f.deal_opportunity_id), f.version) f.*
            FROM (
                SELECT lower(current_setting('app.tenant_id')) UNION SELECT upper(current_setting('app.tenant_id'))
            ) AS spelling (id)
            INNER JOIN neo4j.deal_versions AS f ON f.tenant_id = spelling.id
            WHERE
                _deal_sync.to_uuid(f.version_id) IS NOT NULL
            ORDER BY _deal_sync.to_uuid(f.deal_opportunity_id), f.version, f.created_at, f.version_id
        ) AS s
        LEFT JOIN public.deal_versions AS there
            ON there.tenant_id = current_setting('app.tenant_id')::uuid AND there.id = _deal_sync.to_uuid(s.version_id)
        LEFT JOIN public.opportunities AS o
            ON o.tenant_id = current_setting('app.tenant_id')::uuid AND o.graph_opportunity_id = _deal_sync.to_uuid(s.deal_opportunity_id)
        LEFT JOIN LATERAL (
            SELECT v.id
            FROM public.deal_versions AS v
            WHERE v.tenant_id = current_setting('app.tenant_id')::uuid AND v.opportunity_id = o.id AND v.version_number = s.version
            LIMIT 1
        ) AS taken ON true
    ) AS s
    WHERE
        s."landed deal" IS NOT NULL
        AND s.version IS NOT NULL
        AND s."number taken by" IS NULL
) AS s
ON t.tenant_id = current_setting('app.tenant_id')::uuid AND t.id = s.landed_id
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    opportunity_id,
    version_number,
    name,
    stage,
    amount,
    opportunity_summary,
    evolution_summary,
    meddic_metrics,
    meddic_economic_buyer,
    meddic_decision_criteria,
    meddic_decision_process,
    meddic_identified_pain,
    meddic_champion,
    meddic_completeness,
    ontology_scores_json,
    ontology_completeness,
    ontology_version,
    change_summary,
    changed_fields,
    change_source_interaction_id,
    created_at,
    valid_from,
    valid_until
) VALUES (
    s.version_id,
    current_setting('app.tenant_id')::uuid,
    s."landed deal",
    s.version,
    s.name,
    s.stage,
    s.amount,
    s.opportunity_summary,
    s.evolution_summary,
    s.meddic_metrics,
    s.meddic_economic_buyer,
    s.meddic_decision_criteria,
    s.meddic_decision_process,
    s.meddic_identified_pain,
    s.meddic_champion,
    s.meddic_completeness,
    s.ontology_scores_json,
    s.ontology_completeness,
    s.ontology_version,
    CASE WHEN s."change_summary lost" THEN NULL ELSE coalesce(s.change_summary, '') END,
    CASE WHEN s."changed_fields lost" THEN NULL ELSE coalesce(s.changed_fields, '[]') END,
    s.change_source_interaction_id,
    CASE WHEN s."created_at lost" THEN NULL ELSE coalesce(s.created_at, s.valid_until, now()) END,
    CASE WHEN s."valid_from lost" THEN NULL ELSE coalesce(s.valid_from, s.created_at, s.valid_until, now()) END,
    s.valid_until
)

-- version: planned
INSERT INTO pg_temp.deal_sync_version_plan (row_number, place, part, reject, note, state)
SELECT p.row_number, p.place, p.part, p.reject, p.note, CASE WHEN p.reject IS NULL THEN p.state ELSE 'rejected' END
FROM (
    SELECT
        s.row_number,
        s."landed place" AS place,
        s."landed part" AS part,
        CASE
            WHEN s.landed_id IS NOT NULL AND NOT coalesce(s.reject ? 'even_if_there', false) THEN NULL
            WHEN s.reject IS NOT NULL AND NOT (s.reject ? 'ahead' AND NOT EXISTS (
                SELECT FROM jsonb_array_elements_text(s.reject -> 'ahead') AS a (id)
                CROSS JOIN LATERAL (SELECT a.id::uuid AS id) AS ahead
                LEFT JOIN LATERAL (
                    SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
                    FROM public.deal_versions AS k
                    WHERE
                        k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                        AND k.id BETWEEN ahead.id AND ahead.id
                    ORDER BY k.id
                    LIMIT 1
                ) AS l ON true
                WHERE l.id IS NULL
            )) THEN s.reject
            WHEN s.version IS NULL THEN NULL
            WHEN s."landed deal" IS NULL THEN jsonb_build_object(
                'column', 'deal_opportunity_id', 'sqlstate', '23503', 'value', s.deal_opportunity_id::text,
                'message', 'its deal is not synced yet; it is retried automatically'
            )
            WHEN s."number taken by" IS NOT NULL THEN jsonb_build_object(
                'column', 'version', 'sqlstate', '23505', 'value', s.version::text,
                'message', format('duplicate version number: version %s has it', s."number taken by")
            )
        END AS reject,
        CASE WHEN s.landed_id IS NULL AND s.version IS NULL THEN 'version without a number' END AS note,
        CASE
            WHEN s.landed_id IS NOT NULL THEN 'unchanged'
            WHEN s.version IS NULL THEN 'none'
            ELSE 'new'
        END AS state
    FROM (
        SELECT
            there.id AS landed_id,
            o.id AS "landed deal",
            taken.id AS "number taken by",
            there."landed place",
            there."landed part",
            s.row_number,
            s.element_id,
            s.graph_id,
            s.reject,
            s.conversion_errors,
            s.version_id AS version_id,
            s.version_id IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'version_id'::text), false)) AS "version_id lost",
            s.deal_opportunity_id AS deal_opportunity_id,
            s.version AS version,
            s.name AS name,
            s.stage AS stage,
            s.amount AS amount,
            s.opportunity_summary AS opportunity_summary,
            s.evolution_summary AS evolution_summary,
            s.meddic_metrics AS meddic_metrics,
            s.meddic_economic_buyer AS meddic_economic_buyer,
            s.meddic_decision_criteria AS meddic_decision_criteria,
            s.meddic_decision_process AS meddic_decision_process,
            s.meddic_identified_pain AS meddic_identified_pain,
            s.meddic_champion AS meddic_champion,
            s.meddic_completeness AS meddic_completeness,
            s.ontology_scores_json AS ontology_scores_json,
            s.ontology_completeness AS ontology_completeness,
            s.ontology_version AS ontology_version,
            s.change_summary AS change_summary,
            s.change_summary IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'change_summary'::text), false)) AS "change_summary lost",
            s.changed_fields AS changed_fields,
            s.changed_fields IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'changed_fields'::text), false)) AS "changed_fields lost",
            s.change_source_interaction_id AS change_source_interaction_id,
            s.created_at AS created_at,
            s.created_at IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'created_at'::text), false)) AS "created_at lost",
            s.valid_from AS valid_from,
            s.valid_from IS NULL AND (coalesce(jsonb_exists(s.conversion_errors, 'valid_from'::text), false)) AS "valid_from lost",
            s.valid_until AS valid_until
        FROM (
            SELECT *
            FROM pg_temp.deal_sync_versions AS f
            WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))
        ) AS s
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.deal_versions AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.id BETWEEN s.version_id AND s.version_id
            ORDER BY k.id
            LIMIT 1
        ) AS there ON true
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.deal_opportunity_id AND s.deal_opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS o ON true
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.deal_versions AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND (k.opportunity_id, k.version_number) BETWEEN (o.id, s.version) AND (o.id, s.version)
            ORDER BY k.opportunity_id, k.version_number
            LIMIT 1
        ) AS taken ON true
    ) AS s
    INNER JOIN pg_temp.deal_sync_versions AS raw USING (row_number)
    ORDER BY s.row_number
) AS p

-- version: rejects
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'kind', f.kind, 'level', f.level, 'graph_id', s.graph_id, 'element_id', s.element_id, 'column_name', f."column",
    'sqlstate', f.sqlstate, 'message', f.message, 'value', f.value, 'server_text', f.server_text
)), '[]')
FROM (
    SELECT
        'version' AS kind, 'row' AS level, p.row_number, p.reject ->> 'column' AS "column",
        p.reject ->> 'sqlstate' AS sqlstate, p.reject ->> 'message' AS message, p.reject ->> 'value' AS value,
        NULL AS server_text
    FROM pg_temp.deal_sync_version_plan AS p
    WHERE p.reject IS NOT NULL
    UNION ALL
    SELECT 'version', 'note', p.row_number, NULL, '00000', p.note, NULL, NULL
    FROM pg_temp.deal_sync_version_plan AS p
    WHERE p.reject IS NULL AND p.note IS NOT NULL
    UNION ALL
    SELECT
        'version', 'row', p.row_number, m.name, coalesce(e.error ->> 'sqlstate', p.sqlstate),
        coalesce(e.error ->> 'message', p.message), e.error ->> 'value', p.server_text
    FROM pg_temp.deal_sync_version_plan AS p
    INNER JOIN pg_temp.deal_sync_versions AS raw USING (row_number)
    LEFT JOIN (VALUES ('version_id', 'id'), ('deal_opportunity_id', 'opportunity_id'), ('version', 'version_number'), ('name', 'name'), ('stage', 'stage'), ('amount', 'amount'), ('opportunity_summary', 'opportunity_summary'), ('evolution_summary', 'evolution_summary'), ('meddic_metrics', 'meddic_metrics'), ('meddic_economic_buyer', 'meddic_economic_buyer'), ('meddic_decision_criteria', 'meddic_decision_criteria'), ('meddic_decision_process', 'meddic_decision_process'), ('meddic_identified_pain', 'meddic_identified_pain'), ('meddic_champion', 'meddic_champion'), ('meddic_completeness', 'meddic_completeness'), ('ontology_scores_json', 'ontology_scores_json'), ('ontology_completeness', 'ontology_completeness'), ('ontology_version', 'ontology_version'), ('change_summary', 'change_summary'), ('changed_fields', 'changed_fields'), ('change_source_interaction_id', 'change_source_interaction_id'), ('created_at', 'created_at'), ('valid_from', 'valid_from'), ('valid_until', 'valid_until')) AS m (name, target)
        ON m.target = p.null_in
    CROSS JOIN LATERAL (SELECT raw.conversion_errors -> m.name) AS e (error)
    WHERE p.sqlstate IS NOT NULL
    UNION ALL
    SELECT 'link', 'row', l.row_number, NULL, l.sqlstate, l.message, NULL, l.server_text
    FROM unnest($2::_deal_sync.failure[]) AS l
    UNION ALL
    SELECT 'version', 'value', v.row_number, v.field, v.error ->> 'sqlstate', concat(v.error ->> 'message', v.remark), v.error ->> 'value', NULL
    FROM (
        WITH s AS (
            SELECT * FROM pg_temp.deal_sync_versions AS f WHERE f.row_number = ANY ($1) AND f.conversion_errors IS NOT NULL
        ),
        
        lost (row_number, field, error) AS (
            SELECT s.row_number, e.key, e.value
            FROM s
            CROSS JOIN LATERAL jsonb_each(s.conversion_errors) AS e
        )
        
        SELECT
            s.row_number, lost.field, lost.error,
            CASE
                WHEN NOT coalesce((lost.error -> 'landed')::boolean, false)
                    THEN ' (only a replay fills the NULL in a landed version: fix the node and replay it, or set it by hand)'
            END AS remark
        FROM lost
        INNER JOIN pg_temp.deal_sync_versions AS s USING (row_number)
        INNER JOIN pg_temp.deal_sync_version_plan AS p USING (row_number)
        INNER JOIN (VALUES ('tenant_id', 'always'), ('version_id', 'always'), ('deal_opportunity_id', 'always'), ('version', 'always'), ('name', 'always'), ('stage', 'always'), ('amount', 'always'), ('opportunity_summary', 'always'), ('evolution_summary', 'always'), ('meddic_metrics', 'always'), ('meddic_economic_buyer', 'always'), ('meddic_decision_criteria', 'always'), ('meddic_decision_process', 'always'), ('meddic_identified_pain', 'always'), ('meddic_champion', 'always'), ('meddic_completeness', 'always'), ('dim_champion_strength', 'always'), ('dim_economic_buyer_access', 'always'), ('dim_identified_pain', 'always'), ('dim_metrics_business_case', 'always'), ('dim_decision_criteria_alignment', 'always'), ('dim_decision_process_clarity', 'always'), ('dim_competitive_position', 'always'), ('dim_incumbent_displacement_risk', 'always'), ('dim_pricing_alignment', 'always'), ('dim_procurement_legal_progress', 'always'), ('dim_responsiveness', 'always'), ('dim_close_date_credibility', 'always'), ('dim_technical_fit', 'always'), ('dim_integration_security_risk', 'always'), ('dim_change_readiness', 'always'), ('dim_champion_strength_confidence', 'always'), ('dim_economic_buyer_access_confidence', 'always'), ('dim_identified_pain_confidence', 'always'), ('dim_metrics_business_case_confidence', 'always'), ('dim_decision_criteria_alignment_confidence', 'always'), ('dim_decision_process_clarity_confidence', 'always'), ('dim_competitive_position_confidence', 'always'), ('dim_incumbent_displacement_risk_confidence', 'always'), ('dim_pricing_alignment_confidence', 'always'), ('dim_procurement_legal_progress_confidence', 'always'), ('dim_responsiveness_confidence', 'always'), ('dim_close_date_credibility_confidence', 'always'), ('dim_technical_fit_confidence', 'always'), ('dim_integration_security_risk_confidence', 'always'), ('dim_change_readiness_confidence', 'always'), ('ontology_scores_json', 'always'), ('ontology_completeness', 'always'), ('ontology_version', 'always'), ('change_summary', 'always'), ('changed_fields', 'always'), ('change_source_interaction_id', 'always'), ('created_at', 'always'), ('valid_from', 'always'), ('valid_until', 'always'), ('element_id', 'always'), ('conversion_errors', 'always')) AS m (name, write)
            ON m.name = lost.field
        LEFT JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.deal_versions AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.id BETWEEN s.version_id AND s.version_id
            ORDER BY k.id
            LIMIT 1
        ) AS t ON true
        WHERE
            p.state = 'new'
            OR CASE lost.field
                WHEN 'version_id' THEN
                    t.id IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.id)::record OPERATOR(pg_catalog.*=) ROW(s.version_id)::record
                WHEN 'deal_opportunity_id' THEN
                    t.opportunity_id IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.opportunity_id)::record OPERATOR(pg_catalog.*=) ROW(s.deal_opportunity_id)::record
                WHEN 'version' THEN
                    t.version_number IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.version_number)::record OPERATOR(pg_catalog.*=) ROW(s.version)::record
                WHEN 'name' THEN
                    t.name IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.name)::record OPERATOR(pg_catalog.*=) ROW(s.name)::record
                WHEN 'stage' THEN
                    t.stage IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.stage)::record OPERATOR(pg_catalog.*=) ROW(s.stage)::record
                WHEN 'amount' THEN
                    t.amount IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.amount)::record OPERATOR(pg_catalog.*=) ROW(s.amount)::record
                WHEN 'opportunity_summary' THEN
                    t.opportunity_summary IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.opportunity_summary)::record OPERATOR(pg_catalog.*=) ROW(s.opportunity_summary)::record
                WHEN 'evolution_summary' THEN
                    t.evolution_summary IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.evolution_summary)::record OPERATOR(pg_catalog.*=) ROW(s.evolution_summary)::record
                WHEN 'meddic_metrics' THEN
                    t.meddic_metrics IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.meddic_metrics)::record OPERATOR(pg_catalog.*=) ROW(s.meddic_metrics)::record
                WHEN 'meddic_economic_buyer' THEN
                    t.meddic_economic_buyer IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.meddic_economic_buyer)::record OPERATOR(pg_catalog.*=) ROW(s.meddic_economic_buyer)::record
                WHEN 'meddic_decision_criteria' THEN
                    t.meddic_decision_criteria IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.meddic_decision_criteria)::record OPERATOR(pg_catalog.*=) ROW(s.meddic_decision_criteria)::record
                WHEN 'meddic_decision_process' THEN
                    t.meddic_decision_process IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.meddic_decision_process)::record OPERATOR(pg_catalog.*=) ROW(s.meddic_decision_process)::record
                WHEN 'meddic_identified_pain' THEN
                    t.meddic_identified_pain IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.meddic_identified_pain)::record OPERATOR(pg_catalog.*=) ROW(s.meddic_identified_pain)::record
                WHEN 'meddic_champion' THEN
                    t.meddic_champion IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.meddic_champion)::record OPERATOR(pg_catalog.*=) ROW(s.meddic_champion)::record
                WHEN 'meddic_completeness' THEN
                    t.meddic_completeness IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.meddic_completeness)::record OPERATOR(pg_catalog.*=) ROW(s.meddic_completeness)::record
                WHEN 'ontology_scores_json' THEN
                    t.ontology_scores_json IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.ontology_scores_json)::record OPERATOR(pg_catalog.*=) ROW(s.ontology_scores_json)::record
                WHEN 'ontology_completeness' THEN
                    t.ontology_completeness IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.ontology_completeness)::record OPERATOR(pg_catalog.*=) ROW(s.ontology_completeness)::record
                WHEN 'ontology_version' THEN
                    t.ontology_version IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.ontology_version)::record OPERATOR(pg_catalog.*=) ROW(s.ontology_version)::record
                WHEN 'change_summary' THEN
                    t.change_summary IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.change_summary)::record OPERATOR(pg_catalog.*=) ROW(s.change_summary)::record
                WHEN 'changed_fields' THEN
                    t.changed_fields IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.changed_fields)::record OPERATOR(pg_catalog.*=) ROW(s.changed_fields)::record
                WHEN 'change_source_interaction_id' THEN
                    t.change_source_interaction_id IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.change_source_interaction_id)::record OPERATOR(pg_catalog.*=) ROW(s.change_source_interaction_id)::record
                WHEN 'created_at' THEN
                    t.created_at IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.created_at)::record OPERATOR(pg_catalog.*=) ROW(s.created_at)::record
                WHEN 'valid_from' THEN
                    t.valid_from IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.valid_from)::record OPERATOR(pg_catalog.*=) ROW(s.valid_from)::record
                WHEN 'valid_until' THEN
                    t.valid_until IS NULL
                    OR coalesce((lost.error -> 'landed')::boolean, false)
                    AND ROW(t.valid_until)::record OPERATOR(pg_catalog.*=) ROW(s.valid_until)::record
                ELSE true
            END
    ) AS v
) AS f
INNER JOIN pg_temp.deal_sync_versions AS s USING (row_number)

-- version: suppressed
SELECT coalesce(array_agg(ROW(u.row_number, '09000', $4, NULL, NULL, NULL)::_deal_sync.failure), '{}')
FROM (
    SELECT DISTINCT m.row_number
    FROM (
        SELECT s.row_number, link.interaction_id, o.id AS entity_id
        FROM pg_temp.deal_sync_versions AS s
        CROSS JOIN LATERAL (
            SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
            FROM public.opportunities AS k
            WHERE
                k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND k.graph_opportunity_id BETWEEN s.deal_opportunity_id AND s.deal_opportunity_id
            ORDER BY k.graph_opportunity_id
            LIMIT 1
        ) AS o
        CROSS JOIN LATERAL (VALUES (s.change_source_interaction_id)) AS link (interaction_id)
        LEFT JOIN LATERAL (
            SELECT l.entity_id
            FROM public.interaction_links AS l
            WHERE
                l.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
                AND l.interaction_id BETWEEN link.interaction_id AND link.interaction_id
                AND l.entity_type::text = 'opportunity'
                AND l.entity_id = o.id
            ORDER BY l.interaction_id
            LIMIT 1
        ) AS there ON true
        WHERE
            s.row_number = ANY ($1)
            AND link.interaction_id IS NOT NULL
            AND there.entity_id IS NULL
    ) AS m
    WHERE m.row_number <> ALL ($3)
) AS u

-- version: to_write
SELECT
    coalesce(array_agg(p.row_number ORDER BY p.row_number), '{}') AS rows,
    count(*) FILTER (WHERE p.state <> 'new') AS changes
FROM pg_temp.deal_sync_version_plan AS p
WHERE p.state IN ('new', 'changed', 'adopted')

-- version: unlinked
SELECT coalesce(array_agg(DISTINCT u.row_number ORDER BY u.row_number), '{}')
FROM (
    SELECT s.row_number, link.interaction_id, o.id AS entity_id
    FROM pg_temp.deal_sync_versions AS s
    CROSS JOIN LATERAL (
        SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
        FROM public.opportunities AS k
        WHERE
            k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
            AND k.graph_opportunity_id BETWEEN s.deal_opportunity_id AND s.deal_opportunity_id
        ORDER BY k.graph_opportunity_id
        LIMIT 1
    ) AS o
    CROSS JOIN LATERAL (VALUES (s.change_source_interaction_id)) AS link (interaction_id)
    LEFT JOIN LATERAL (
        SELECT l.entity_id
        FROM public.interaction_links AS l
        WHERE
            l.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
            AND l.interaction_id BETWEEN link.interaction_id AND link.interaction_id
            AND l.entity_type::text = 'opportunity'
            AND l.entity_id = o.id
        ORDER BY l.interaction_id
        LIMIT 1
    ) AS there ON true
    WHERE
        s.row_number = ANY ($1)
        AND link.interaction_id IS NOT NULL
        AND there.entity_id IS NULL
) AS u

-- version: unwritten
UPDATE pg_temp.deal_sync_version_plan AS p
SET
    sqlstate = CASE WHEN p.row_number = ANY ($1) THEN '23505' ELSE '09000' END,
    message = CASE WHEN p.row_number = ANY ($1) THEN $2 ELSE 'a trigger of the table returned NULL' END
FROM pg_temp.deal_sync_versions AS s
LEFT JOIN LATERAL (
    SELECT k.*, k.ctid AS "landed place", k.tableoid AS "landed part"
    FROM public.deal_versions AS k
    WHERE
        k.tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'::uuid
        AND k.id BETWEEN s.version_id AND s.version_id
    ORDER BY k.id
    LIMIT 1
) AS t ON true
WHERE
    s.row_number = p.row_number AND p.sqlstate IS NULL AND p.state IN ('new', 'changed', 'adopted')
    AND (t.id IS NULL OR (t."landed place" = p.place AND t."landed part" = p.part))
