-- The numbers behind the charts of targets.
CREATE TABLE sample (
    at timestamptz NOT NULL,
    target text NOT NULL,
    pending bigint NOT NULL,
    delivered bigint NOT NULL,
    failed bigint NOT NULL,
    PRIMARY KEY (at, target)
);
