//! Reading the audit trail, for people and programs; whether it is whole is another question (`audit.rs`).

use cob_protocol::json::Json;
use cob_protocol::time::Timestamp;

use super::SqliteReader;
use super::fault::{Fault, Outcome};
use crate::store::BridgeError;

/// A row of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number, from 1.
    pub seq: i64,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub what: String,
    /// To which session or promise.
    pub subject: String,
    /// The rest: a JSON object.
    pub details: Json,
    /// Its hash, which goes into that of the next.
    pub hash: [u8; 32],
}

const PAGE: &str =
    "SELECT seq, at, what, subject, details, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";

impl SqliteReader {
    /// Rows of the audit trail behind number `after`, at most so many.
    ///
    /// # Errors
    /// [`BridgeError::Store`]
    pub fn audit(&mut self, after: i64, count_max: usize) -> Result<Vec<AuditEntry>, BridgeError> {
        self.audit_page(after, count_max).map_err(|fault| self.place.bridge_error(fault))
    }

    fn audit_page(&self, after: i64, count_max: usize) -> Outcome<Vec<AuditEntry>> {
        let mut statement = self.connection.prepare_cached(PAGE)?;
        let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
        let mut rows = statement.query((after, count_max))?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            let seq = row.get(0)?;
            let details: String = row.get(4)?;
            page.push(AuditEntry {
                seq,
                at: Timestamp::from_micros(row.get(1)?),
                what: row.get(2)?,
                subject: row.get(3)?,
                details: Json::parse(details)
                    .map_err(|error| Fault::Damaged(format!("row {seq} of the audit trail ({error})")))?,
                hash: row.get(5)?,
            });
        }
        Ok(page)
    }
}
