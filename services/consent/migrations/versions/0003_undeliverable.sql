-- Addresses to which followups sends nothing more, because their mail comes back.
CREATE TABLE undeliverable (
    subject_id uuid PRIMARY KEY REFERENCES data_subject ON DELETE CASCADE,
    since timestamptz NOT NULL,
    takes_mail boolean NOT NULL
);
