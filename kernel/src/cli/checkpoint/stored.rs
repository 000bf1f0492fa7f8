//! Durable checkpoints in a store, whether a server uses it or not.

use std::path::Path;

use cob_bridge::{BundleError, KeptBundles};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::{CheckpointId, SessionId};
use serde_json::{Value, json};

use crate::cli::{Failure, state};

/// What `cob checkpoint list` of a server says.
pub(super) fn list(store: &Path, session: SessionId) -> Result<Value, Failure> {
    let mut bundles = KeptBundles::open(store).map_err(state::not_opened)?;
    let checkpoints = bundles.list(Some(session)).map_err(failure)?;
    Ok(json!({ "checkpoints": checkpoints }))
}

/// What `cob checkpoint export` of a server says.
pub(super) fn export(store: &Path, checkpoint: CheckpointId, file: &Path) -> Result<Value, Failure> {
    let mut bundles = KeptBundles::open(store).map_err(state::not_opened)?;
    let bytes = bundles.export(checkpoint, file).map_err(failure)?;
    Ok(json!({ "bytes": bytes, "path": file }))
}

/// As a server says it.
fn failure(error: BundleError) -> Failure {
    let hint = match &error {
        BundleError::Unknown(_) => ErrorCode::UnknownCheckpoint.hint(),
        BundleError::Untrusted(_) => ErrorCode::UntrustedBundle.hint(),
        BundleError::Damaged(_) => ErrorCode::DamagedBundle.hint(),
        _ => return Failure::failed(error),
    };
    Failure::Usage(format!("{error}\n  {hint}"))
}
