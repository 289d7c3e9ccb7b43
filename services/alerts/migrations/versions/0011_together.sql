-- Work messages hold several rows once every process reads them.
ALTER TABLE replica ADD COLUMN together boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN replica.together IS
    'it reads several works in one message; a release before does not';
