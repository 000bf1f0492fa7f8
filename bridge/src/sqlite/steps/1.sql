-- Version 1: sessions, promises, the journal, and the history.
--
-- `checksum` covers the columns before it, but of promises also `audit`. Numbers without a sign are kept as the integer with the same bits.
-- Times are microseconds since 1970.

-- What a session is.
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY,              -- the order of their beginning
  session INTEGER NOT NULL UNIQUE,
  about TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;

-- Where it stands, and how much there is of it: written by nearly every commit, so it is kept apart and small, and all
-- counts are in this one row.
CREATE TABLE standings (
  id INTEGER PRIMARY KEY,              -- that of the session
  closed_at INTEGER,
  socket TEXT,                         -- of the custodian
  secret TEXT,
  frames INTEGER NOT NULL,
  stdout INTEGER NOT NULL,
  stderr INTEGER NOT NULL,
  count INTEGER NOT NULL,
  executions INTEGER NOT NULL,
  events INTEGER NOT NULL,             -- that are kept
  event_bytes INTEGER NOT NULL,
  cells INTEGER NOT NULL,              -- of its history
  cell_bytes INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;

CREATE TABLE promises (
  id INTEGER PRIMARY KEY,              -- the order of their creation
  session INTEGER NOT NULL,
  execution INTEGER NOT NULL,
  call INTEGER NOT NULL,               -- 0: the execution itself
  state INTEGER NOT NULL,              -- 0 pending, 1 started; settled: 2 resolved, 3 rejected, 4 canceled, 5 timed out
  durability INTEGER NOT NULL,         -- 0 none, 1 process, 2 power
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  deadline INTEGER,
  settled_at INTEGER,
  principal TEXT,
  key TEXT,
  body BLOB,                           -- SHA-256 of what the key names
  last_event INTEGER NOT NULL,
  written INTEGER NOT NULL,
  dropped INTEGER NOT NULL,
  session_state INTEGER,               -- 0 kept, 1 lost
  value TEXT,
  checksum INTEGER NOT NULL,
  request TEXT,                        -- of an execution: until it is settled
  request_checksum INTEGER
) STRICT;

CREATE UNIQUE INDEX promise_names ON promises (session, execution, call);
CREATE UNIQUE INDEX promise_keys ON promises (session, principal, key) WHERE key IS NOT NULL;
CREATE INDEX promises_unsettled ON promises (session, call, created_at) WHERE state < 2;
CREATE INDEX promises_due ON promises (deadline, session, execution, call) WHERE state < 2 AND deadline IS NOT NULL;

-- What an unsettled execution printed besides its events.
CREATE TABLE outputs (
  id INTEGER PRIMARY KEY,              -- that of the promise
  state BLOB NOT NULL,                 -- MessagePack
  checksum INTEGER NOT NULL
) STRICT;

-- The journal. One tree without an index: the events of an execution lie side by side.
CREATE TABLE events (
  id INTEGER PRIMARY KEY,              -- that of the promise * 2^28 + the number of the event
  at INTEGER NOT NULL,
  bytes INTEGER NOT NULL,              -- what it weighs
  is_payload INTEGER NOT NULL,         -- 1: the body is the SHA-256 of a file
  body BLOB NOT NULL,                  -- MessagePack
  checksum INTEGER NOT NULL
) STRICT;

-- How many of the first events of an execution are forgotten.
CREATE TABLE forgotten (
  id INTEGER PRIMARY KEY,              -- that of the promise
  events INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;

-- Files of events, and how many events each of them is the body of.
CREATE TABLE payloads (
  hash BLOB PRIMARY KEY,
  uses INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
  id INTEGER PRIMARY KEY,
  session INTEGER NOT NULL,
  line INTEGER NOT NULL,
  source TEXT NOT NULL,
  output TEXT,
  checksum INTEGER NOT NULL
) STRICT;

CREATE INDEX history_lines ON history (session, line);
