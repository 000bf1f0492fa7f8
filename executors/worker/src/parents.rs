//! The client headers of recent executions, for code that asks which message it runs for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cob_protocol::frame::ExecutionNumber;
use cob_protocol::json::Json;

/// Older ones are forgotten; a thread that still prints for one is only missing the header.
const PARENTS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Parents(Mutex<VecDeque<(ExecutionNumber, Json)>>);

impl Parents {
    pub(crate) fn remember(&self, execution: ExecutionNumber, parent: Json) {
        let mut parents = self.lock();
        if parents.len() == PARENTS_MAX {
            parents.pop_front();
        }
        parents.push_back((execution, parent));
    }

    pub(crate) fn get(&self, execution: ExecutionNumber) -> Option<Json> {
        self.lock().iter().rev().find(|(number, _)| *number == execution).map(|(_, parent)| parent.clone())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(ExecutionNumber, Json)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_parent_is_forgotten() {
        let parents = Parents::default();
        for number in 0..=PARENTS_MAX as u64 {
            parents.remember(number, Json::object());
        }
        assert_eq!(parents.get(0), None);
        assert!(parents.get(1).is_some() && parents.get(256).is_some());
    }
}
