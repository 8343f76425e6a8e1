t.tenant_id = {{ tenant | sql }}::uuid AND t.id = s.landed_id
