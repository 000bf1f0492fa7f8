//! What is kept and what goes. Pure.

use cob_protocol::ids::CheckpointId;

/// A checkpoint, as far as it matters here; in the order in which they were taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighed {
    pub(super) id: CheckpointId,
    pub(super) is_automatic: bool,
    /// What only it holds.
    pub(super) bytes: u64,
}

/// Automatic ones beyond what is kept, oldest first.
pub(super) fn beyond_keep(weighed: &[Weighed], keep: usize) -> Vec<CheckpointId> {
    let automatic: Vec<_> = weighed.iter().filter(|one| one.is_automatic).map(|one| one.id).collect();
    let surplus = automatic.len().saturating_sub(keep);
    automatic.into_iter().take(surplus).collect()
}

/// Automatic ones that have to go for what is held to fit in, oldest first.
pub(super) fn beyond_budget(weighed: &[Weighed], budget: u64) -> Vec<CheckpointId> {
    let mut bytes = held(weighed);
    let automatic = weighed.iter().filter(|one| one.is_automatic);
    automatic
        .take_while(|one| {
            let is_over = bytes > budget;
            bytes = bytes.saturating_sub(one.bytes);
            is_over
        })
        .map(|one| one.id)
        .collect()
}

/// What all of them hold.
pub(super) fn held(weighed: &[Weighed]) -> u64 {
    weighed.iter().map(|one| one.bytes).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use cob_protocol::ids::SessionId;

    use super::*;

    fn weighed(all: &[(bool, u64)]) -> Vec<Weighed> {
        (1..)
            .zip(all)
            .map(|(number, (is_automatic, bytes))| Weighed {
                id: CheckpointId { session: SessionId(1), number },
                is_automatic: *is_automatic,
                bytes: *bytes,
            })
            .collect()
    }

    fn numbers(ids: Vec<CheckpointId>) -> Vec<u64> {
        ids.into_iter().map(|id| id.number).collect()
    }

    #[test]
    fn the_oldest_automatic_ones_go_and_what_was_asked_for_stays() {
        let all = weighed(&[(true, 0), (false, 0), (true, 0), (true, 0)]);
        assert_eq!(numbers(beyond_keep(&all, 2)), [1]);
        assert_eq!(numbers(beyond_keep(&all, 0)), [1, 3, 4]);
        assert_eq!(numbers(beyond_keep(&all, 3)), [0; 0]);
    }

    #[test]
    fn as_many_go_as_are_needed_to_fit_in() {
        let all = weighed(&[(true, 5), (false, 10), (true, 0), (true, 7)]);
        assert_eq!(numbers(beyond_budget(&all, 22)), [0; 0]);
        assert_eq!(numbers(beyond_budget(&all, 21)), [1]);
        assert_eq!(numbers(beyond_budget(&all, 16)), [1, 3, 4]);
        // What was asked for alone is too much: there is nothing more that may go.
        assert_eq!(numbers(beyond_budget(&all, 3)), [1, 3, 4]);
        assert_eq!(held(&all), 22);
    }
}
