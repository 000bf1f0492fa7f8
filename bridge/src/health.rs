//! Whether the store can do its work.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::store::StoreError;

/// Whether the store can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Good,
    /// There is no room on its disk: what runs can still be settled, nothing new is taken, and output is better not
    /// recorded. It becomes good by itself when there is room.
    Full(StoreError),
    /// Too much failed: it is only read until it is opened again.
    ReadOnly(StoreError),
}

impl Health {
    /// The name in metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Full(_) => "full",
            Self::ReadOnly(_) => "read_only",
        }
    }
}

impl Serialize for Health {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

const GOOD: u8 = 0;
const FULL: u8 = 1;
const READ_ONLY: u8 = 2;

/// Where it stands: written by the writer, read by everybody. While all is well a look is one load.
#[derive(Debug, Default)]
pub(crate) struct HealthCell {
    level: AtomicU8,
    reason: Mutex<Option<StoreError>>,
}

impl HealthCell {
    pub(crate) fn get(&self) -> Health {
        match (self.level.load(Ordering::Acquire), self.reason()) {
            (FULL, Some(reason)) => Health::Full(reason),
            (READ_ONLY, Some(reason)) => Health::ReadOnly(reason),
            _ => Health::Good,
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.level.load(Ordering::Acquire) == GOOD
    }

    pub(crate) fn is_full(&self) -> bool {
        self.level.load(Ordering::Acquire) == FULL
    }

    /// Why nothing can be recorded any more, if that is so.
    pub(crate) fn read_only(&self) -> Option<StoreError> {
        (self.level.load(Ordering::Acquire) == READ_ONLY).then(|| self.reason()).flatten()
    }

    pub(crate) fn set(&self, health: Health) {
        let (level, reason) = match health {
            Health::Good => (GOOD, None),
            Health::Full(reason) => (FULL, Some(reason)),
            Health::ReadOnly(reason) => (READ_ONLY, Some(reason)),
        };
        let mut held = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        *held = reason;
        self.level.store(level, Ordering::Release);
    }

    fn reason(&self) -> Option<StoreError> {
        if self.is_good() {
            return None;
        }
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
