-- Version 3: a cell of the history knows its execution.

-- 0: not known, as of cells that were typed before this version. Not in the checksum then.
ALTER TABLE history ADD COLUMN execution INTEGER NOT NULL DEFAULT 0;

CREATE INDEX history_executions ON history (session, execution) WHERE execution > 0;
