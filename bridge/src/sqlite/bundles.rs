//! Bundles as rows, and which files go with them.

use cob_protocol::checkpoint::CheckpointView;
use cob_protocol::crash_point;
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::limits::{BUNDLES_MAX, CHUNKS_REMOVED_AT_ONCE_MAX};
use cob_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::SqliteStore;
use super::fault::{Fault, Outcome};
use super::rows::{body_checksum, table};
use super::writing::Transaction;
use crate::checksum::Checksum;
use crate::chunks::{BundleMetrics, Chunks};
use crate::payloads::PARTS;
use crate::store::{BridgeError, BundleRecord, ChunkHash, SignedManifest, StoreError};

const KEEP: &str =
    "INSERT INTO bundles (id, session, number, view, mac, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const LIST: &str = "SELECT id, session, number, view, mac, checksum FROM bundles";

/// What is kept, counted.
pub(super) fn metrics(connection: &Connection) -> Outcome<BundleMetrics> {
    let sql = "SELECT (SELECT count(*) FROM bundles), count(*), coalesce(sum(bytes), 0) \
               FROM (SELECT max(bytes) AS bytes FROM chunks GROUP BY hash)";
    let unsigned = |row: &Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let metrics = |row: &Row<'_>| {
        let (bundles, chunks) = (unsigned(row, 0)?, unsigned(row, 1)?);
        Ok(BundleMetrics { bundles, chunks, bytes: unsigned(row, 2)? })
    };
    Ok(connection.prepare_cached(sql)?.query_row([], metrics)?)
}

impl Transaction<'_> {
    /// Its session is open.
    pub(super) fn keep_bundle(&mut self, bundle: &BundleRecord) -> Outcome<()> {
        let checkpoint = bundle.view.checkpoint;
        let Some((session, number)) = name(checkpoint) else {
            return Err(BridgeError::UnknownBundle(checkpoint).into());
        };
        let connection = self.connection;
        let known = "SELECT count(*), count(*) FILTER (WHERE number = ?2) FROM bundles WHERE session = ?1";
        let (count, same): (usize, usize) =
            connection.prepare_cached(known)?.query_row([session, number], |row| {
                Ok((
                    row.get::<_, i64>(0)?.cast_unsigned() as usize,
                    row.get::<_, i64>(1)?.cast_unsigned() as usize,
                ))
            })?;
        if same > 0 {
            return Err(BridgeError::Exists(checkpoint.to_string()).into());
        }
        if count >= BUNDLES_MAX {
            return Err(BridgeError::BundlesFull(checkpoint.session).into());
        }
        // Not the number of one whose chunks are still to go.
        let next = "SELECT max((SELECT coalesce(max(id), 0) FROM bundles), \
                    (SELECT coalesce(max(id), 0) FROM bundles_gone)) + 1";
        let row: i64 = connection.prepare_cached(next)?.query_row([], |row| row.get(0))?;
        let view = serde_json::to_string(&bundle.view)
            .map_err(|error| Fault::Damaged(format!("a checkpoint that cannot be written down: {error}")))?;
        let SignedManifest { body, mac } = &bundle.signed;
        let checksum = bundle_checksum(row, (session, number), &view, mac);
        connection.prepare_cached(KEEP)?.execute(params![row, session, number, view, mac, checksum])?;
        let manifest = "INSERT INTO manifests (id, body, checksum) VALUES (?1, ?2, ?3)";
        let checksum = body_checksum(table::MANIFESTS, &[row], body);
        connection.prepare_cached(manifest)?.execute(params![row, body, checksum])?;
        self.name_chunks(row, &bundle.chunks)?;
        self.remembered.bundles.bundles += 1;
        crash_point!("bundle_row_before");
        Ok(())
    }

    fn name_chunks(&mut self, row: i64, chunks: &[(ChunkHash, u32)]) -> Outcome<()> {
        let mut known = self.connection.prepare_cached("SELECT 1 FROM chunks WHERE hash = ?1")?;
        let mut insert =
            self.connection.prepare_cached("INSERT INTO chunks (bundle, hash, bytes) VALUES (?1, ?2, ?3)")?;
        for (hash, bytes) in chunks {
            if !known.exists([hash.as_slice()])? {
                self.remembered.bundles.chunks += 1;
                self.remembered.bundles.bytes += u64::from(*bytes);
            }
            insert.execute(params![row, hash.as_slice(), bytes])?;
        }
        Ok(())
    }

    pub(super) fn remove_bundle(&mut self, checkpoint: CheckpointId) -> Outcome<()> {
        let unknown = || Fault::Refused(BridgeError::UnknownBundle(checkpoint));
        let name = name(checkpoint).ok_or_else(unknown)?;
        let find = "SELECT id FROM bundles WHERE session = ?1 AND number = ?2";
        let found = self.connection.prepare_cached(find)?.query_row(name, |row| row.get(0)).optional()?;
        self.give_up(found.ok_or_else(unknown)?)
    }

    /// It is no more; its chunks go in steps of their own.
    fn give_up(&mut self, row: i64) -> Outcome<()> {
        for sql in [
            "DELETE FROM bundles WHERE id = ?1",
            "DELETE FROM manifests WHERE id = ?1",
            "INSERT INTO bundles_gone (id) VALUES (?1)",
        ] {
            self.connection.prepare_cached(sql)?.execute([row])?;
        }
        self.remembered.bundles.bundles -= 1;
        Ok(())
    }

    /// Gives up some chunks of a bundle that was given up; those that no other names.
    fn discard(&mut self) -> Outcome<Vec<ChunkHash>> {
        let connection = self.connection;
        let first = "SELECT min(id) FROM bundles_gone";
        let row: Option<i64> = connection.prepare_cached(first)?.query_row([], |row| row.get(0))?;
        let sql = "SELECT hash, bytes FROM chunks WHERE bundle = ?1 LIMIT ?2";
        let mut statement = connection.prepare_cached(sql)?;
        let chunks = statement.query_map((row, CHUNKS_REMOVED_AT_ONCE_MAX as i64), |chunk| {
            Ok((chunk.get::<_, ChunkHash>(0)?, chunk.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        let chunks = chunks.collect::<Result<Vec<_>, _>>()?;
        let mut unnamed = Vec::new();
        for (hash, bytes) in &chunks {
            let delete = "DELETE FROM chunks WHERE bundle = ?1 AND hash = ?2";
            connection.prepare_cached(delete)?.execute(params![row, hash.as_slice()])?;
            if !is_named(connection, hash)? {
                unnamed.push(*hash);
                self.remembered.bundles.chunks -= 1;
                self.remembered.bundles.bytes -= bytes;
            }
        }
        if chunks.len() < CHUNKS_REMOVED_AT_ONCE_MAX {
            connection.prepare_cached("DELETE FROM bundles_gone WHERE id = ?1")?.execute([row])?;
        }
        Ok(unnamed)
    }

    /// Gives up the oldest bundle of a closed session that is kept no longer; says whether there was one.
    pub(super) fn forget_bundle(&mut self, cutoff: i64, bytes_max: u64) -> Outcome<bool> {
        // What is on its way out is not counted as gone yet.
        if has_gone(self.connection)? {
            return Ok(false);
        }
        let is_full = self.remembered.bundles.bytes > bytes_max;
        let sql = "SELECT min(bundles.id) FROM bundles JOIN sessions USING (session) \
                   JOIN standings ON standings.id = sessions.id \
                   WHERE closed_at IS NOT NULL AND (?1 OR closed_at <= ?2)";
        let mut statement = self.connection.prepare_cached(sql)?;
        let found: Option<i64> = statement.query_row(params![is_full, cutoff], |row| row.get(0))?;
        found.map_or(Ok(false), |row| self.give_up(row).map(|()| true))
    }
}

/// One step of removing what is given up: chunks of a bundle, else one part of the folder after a sweep was asked for.
/// Says whether there is more.
pub(super) fn discard(store: &mut SqliteStore) -> Result<bool, StoreError> {
    if has_gone(&store.connection).map_err(|fault| store.place.store_error(fault))? {
        // A file may be gone only when the row that named it cannot come back.
        let unnamed = store.in_transaction(true, |transaction| transaction.discard())?;
        crash_point!("bundle_removed");
        unnamed.iter().for_each(|hash| store.chunks.remove(hash));
        return Ok(true);
    }
    if store.chunks.take_sweep() {
        store.swept_chunks = 0;
    }
    let Some(part) = u8::try_from(store.swept_chunks).ok().filter(|_| store.swept_chunks < PARTS) else {
        return Ok(false);
    };
    for hash in store.chunks.files.part(part) {
        let is_named = is_named(&store.connection, &hash).map_err(|fault| store.place.store_error(fault))?;
        if !is_named {
            store.chunks.remove(&hash);
        }
    }
    store.swept_chunks += 1;
    Ok(store.swept_chunks < PARTS)
}

fn has_gone(connection: &Connection) -> Outcome<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM bundles_gone")?.exists([])?)
}

fn is_named(connection: &Connection, hash: &ChunkHash) -> Outcome<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM chunks WHERE hash = ?1")?.exists([hash.as_slice()])?)
}

/// The place of a name in the index. A number that no integer of SQLite holds is in no store.
fn name(checkpoint: CheckpointId) -> Option<(i64, i64)> {
    let number = |number: u64| i64::try_from(number).ok();
    Some((number(checkpoint.session.0)?, number(checkpoint.number)?))
}

/// Bundles of a session, or of all, in the order of their names.
pub(super) fn list(connection: &Connection, session: Option<SessionId>) -> Outcome<Vec<CheckpointView>> {
    let condition = if session.is_some() { " WHERE session = ?1" } else { " WHERE ?1 IS NULL" };
    let sql = [LIST, condition, " ORDER BY session, number"].concat();
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([session.map(|session| session.0.cast_signed())])?;
    let mut views = Vec::new();
    while let Some(row) = rows.next()? {
        views.push(read(row)?.1);
    }
    Ok(views)
}

/// What is signed of a bundle.
pub(super) fn one(connection: &Connection, checkpoint: CheckpointId) -> Outcome<Option<SignedManifest>> {
    let Some(name) = name(checkpoint) else { return Ok(None) };
    let sql = [LIST, " WHERE session = ?1 AND number = ?2"].concat();
    let mut statement = connection.prepare_cached(&sql)?;
    let Some((row, _, mac)) = statement.query_row(name, |row| Ok(read(row))).optional()?.transpose()? else {
        return Ok(None);
    };
    let sql = "SELECT body, checksum FROM manifests WHERE id = ?1";
    let damaged = || Fault::Damaged(format!("the manifest of {checkpoint}"));
    let found = connection
        .prepare_cached(sql)?
        .query_row([row], |found| Ok((found.get::<_, Vec<u8>>(0)?, found.get::<_, i64>(1)?)))
        .optional()?;
    let (body, checksum) = found.ok_or_else(damaged)?;
    if body_checksum(table::MANIFESTS, &[row], &body) != checksum {
        return Err(damaged());
    }
    Ok(Some(SignedManifest { body, mac }))
}

/// Every file that bundles need is what was written.
pub(super) fn check(connection: &Connection, chunks: &Chunks) -> Outcome<()> {
    for view in list(connection, None)? {
        one(connection, view.checkpoint)?;
    }
    let sql = "SELECT DISTINCT hash FROM chunks JOIN bundles ON bundles.id = chunks.bundle";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let hash: ChunkHash = row.get(0)?;
        if let Err(reason) = chunks.files.read(&hash)
            // It may have been given up since this look at the database began.
            && is_named(connection, &hash)?
        {
            return Err(Fault::Damaged(format!("a chunk of checkpoints: {}", String::from(reason))));
        }
    }
    Ok(())
}

fn read(row: &Row<'_>) -> Outcome<(i64, CheckpointView, [u8; 32])> {
    let (id, name): (i64, (i64, i64)) = (row.get(0)?, (row.get(1)?, row.get(2)?));
    let (text, mac): (String, Vec<u8>) = (row.get(3)?, row.get(4)?);
    let damaged = || Fault::Damaged(format!("row {id} of the bundles"));
    let mac = mac.try_into().map_err(|_| damaged())?;
    if bundle_checksum(id, name, &text, &mac) != row.get::<_, i64>(5)? {
        return Err(damaged());
    }
    let view = serde_json::from_str(&text).map_err(|_| damaged())?;
    Ok((id, view, mac))
}

fn bundle_checksum(row: i64, (session, number): (i64, i64), view: &str, mac: &[u8; 32]) -> i64 {
    let sum = Checksum::of(table::BUNDLES).int(row).int(session).int(number);
    sum.bytes(view.as_bytes()).bytes(mac).finish()
}

/// Before this moment a session must have been closed whose bundles go.
pub(super) fn cutoff(now: Timestamp, age_s: u64) -> i64 {
    now.micros().saturating_sub_unsigned(age_s.saturating_mul(1_000_000))
}
