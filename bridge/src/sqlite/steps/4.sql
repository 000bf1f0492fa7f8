-- Version 4: durable checkpoints. From this version on `session_state` of a promise may also be 2: restored.

-- The highest number of a checkpoint that was given. Not in the checksum while it is 0.
ALTER TABLE standings ADD COLUMN checkpoints INTEGER NOT NULL DEFAULT 0;

-- What is known of a bundle. That its row is here says that it is there, as a whole.
CREATE TABLE bundles (
  id INTEGER PRIMARY KEY,              -- not used again before all of it is gone
  session INTEGER NOT NULL,
  number INTEGER NOT NULL,
  view TEXT NOT NULL,                  -- JSON
  mac BLOB NOT NULL,                   -- HMAC-SHA256 of the manifest
  checksum INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX bundle_names ON bundles (session, number);

-- What is signed of a bundle. Apart, since it is long.
CREATE TABLE manifests (
  id INTEGER PRIMARY KEY,              -- that of the bundle
  body BLOB NOT NULL,                  -- JSON
  checksum INTEGER NOT NULL
) STRICT;

-- Files that bundles are made of. A file goes when the last row that names it is gone.
CREATE TABLE chunks (
  bundle INTEGER NOT NULL,             -- the id of a bundle, or one in bundles_gone
  hash BLOB NOT NULL,                  -- SHA-256
  bytes INTEGER NOT NULL,
  PRIMARY KEY (bundle, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX chunk_uses ON chunks (hash, bytes);

-- Bundles that are given up, and still have chunks.
CREATE TABLE bundles_gone (
  id INTEGER PRIMARY KEY
) STRICT;
