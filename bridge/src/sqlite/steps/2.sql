-- Version 2: the audit trail.

CREATE TABLE audit (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  what TEXT NOT NULL,
  subject TEXT NOT NULL,
  details TEXT NOT NULL,               -- a JSON object
  hash BLOB NOT NULL                   -- SHA-256 over the hash of the row before and all of this row; see audit.rs
) STRICT;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END;

CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END;

-- Head of the trail with the settlement of this promise.
ALTER TABLE promises ADD COLUMN audit BLOB;

-- The last row that is about this session.
ALTER TABLE standings ADD COLUMN audit INTEGER NOT NULL DEFAULT 0;
ALTER TABLE standings ADD COLUMN audit_hash BLOB;
