//! Many sessions behind one socket: what `cob serve` adds to a session.
//!
//! A request of an agent comes in through the hub, which knows every connection and never waits for a session; the
//! directory finds the session, whose own loop does the rest. What becomes of an execution is delivered
//! from the journal, at the pace of whoever reads it.
//!
//! **Invariant:** no session and no peer can hold up the hub: whatever is full is answered with `busy`.

mod agents;
mod attach;
mod branch;
mod callbacks;
mod closing;
mod copying;
mod deeds;
mod delivery;
mod directory;
mod flow;
mod hub;
mod interceptors;
mod keys;
mod life;
mod line;
mod metrics;
mod outlet;
mod own;
mod peers;
mod pressure;
mod reading;
mod recover;
mod refusals;
mod relief;
mod requests;
mod settings;
mod sightings;
mod spec;
mod subscription;
#[cfg(test)]
mod tests;
mod ticket;
mod unrecorded;
mod views;

pub use attach::{REASON_CLOSED, REASON_RESTARTED, REASON_SHUTDOWN};
pub use branch::Branches;
pub use callbacks::{Later, Life};
pub use directory::{Directory, Handle};
pub use hub::{Hub, HubConfig};
pub use life::Sessions;
pub use outlet::{Holding, ServerOutlet, SessionStatus};
pub use own::OwnFolder;
pub use pressure::Pressure;
pub use settings::{Defaults, Languages, Settings};
pub use spec::SessionSpec;
