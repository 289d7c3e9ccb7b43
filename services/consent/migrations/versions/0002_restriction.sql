-- Restriction of processing (Art. 18 GDPR): since when, and what was held then, sealed.
CREATE TABLE restriction (
    subject_id uuid PRIMARY KEY REFERENCES data_subject,
    since timestamptz NOT NULL DEFAULT now(),
    kept bytea
);
