-- The roles of a service, in the server.
DO $$ BEGIN CREATE ROLE {service}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE {owner}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
ALTER ROLE {service} LOGIN PASSWORD {password} CONNECTION LIMIT {limit};
ALTER ROLE {owner} LOGIN PASSWORD {owner_password};
ALTER ROLE {service} SET search_path = {service};
ALTER ROLE {owner} SET search_path = {service};

-- Its schema, in our database.
CREATE SCHEMA IF NOT EXISTS {service} AUTHORIZATION {owner};
GRANT USAGE ON SCHEMA {service} TO {service};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {service}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {service};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {service}
    GRANT USAGE, SELECT ON SEQUENCES TO {service};
