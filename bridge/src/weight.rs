//! What writes weigh, roughly: for bounds, not for accounts.

use crate::store::{Group, OutputState, Write};

/// What any write costs beside its texts.
const WRITE_BYTES: usize = 128;

/// A group.
pub(crate) fn of_group(group: &Group) -> usize {
    group.writes.iter().map(of_write).sum::<usize>() + WRITE_BYTES
}

fn of_write(write: &Write) -> usize {
    let texts = match write {
        Write::OpenSession { about, .. } => about.as_str().len(),
        Write::CreateExecution(new) => new.request.as_ref().map_or(0, |request| request.as_str().len()),
        Write::CreateCall { request, .. } => request.as_str().len(),
        Write::Append { event, .. } => event.bytes(),
        Write::Output { output, .. } => of_output(output),
        Write::Settle { settlement, .. } | Write::Expire { settlement, .. } => {
            settlement.value.as_str().len()
        }
        Write::HistoryInput { source, .. } => source.len(),
        Write::HistoryOutput { text, .. } => text.len(),
        Write::KeepBundle(bundle) => bundle.signed.body.len() + WRITE_BYTES * bundle.chunks.len(),
        Write::Recover { .. }
        | Write::RemoveBundle { .. }
        | Write::Custody { .. }
        | Write::Progress { .. }
        | Write::NumberCheckpoints { .. }
        | Write::CloseSession { .. }
        | Write::Start { .. } => 0,
    };
    texts + WRITE_BYTES
}

fn of_output(output: &OutputState) -> usize {
    output.tail.iter().map(|(_, text)| text.len()).sum()
}
