CREATE TABLE restriction (
    subject_id uuid PRIMARY KEY REFERENCES data_subject,
    since timestamptz NOT NULL DEFAULT now(),
    kept bytea
);
