//! Owner of worker processes: start, transport, output, liveness, interrupt, kill.
//!
//! Only this crate knows processes and signals. It knows no language: a [`Program`] says what to start. It never
//! talks to clients and keeps nothing: what a worker says goes out of [`Worker::next`] and is forgotten.

mod breaker;
mod custody;
mod drain;
mod enclosure;
mod environment;
mod exit;
mod folder_watch;
mod forks;
mod frame_reader;
mod frame_writer;
mod frozen;
mod household;
mod keeper;
mod lease;
mod life;
pub mod limits;
pub mod metrics;
mod open_files;
mod orphans;
mod packets;
mod page;
mod parked;
mod pidfd;
mod pool;
mod pressure;
mod processes;
mod readiness;
mod scratch;
mod share;
mod signals;
mod slots;
mod spared;
mod spawn;
mod staging;
mod start_error;
mod survival;
mod tree;
pub mod usage;
mod watch;
mod worker;
mod workers;
mod zygote;

pub use custody::{Custodian, CustodyError, Deposit, Progress, Taken, custodian_main, take_over};
pub use enclosure::cleared;
pub use exit::Exit;
pub use folder_watch::FolderWatch;
pub use frame_reader::{FrameReader, ReadError};
pub use frame_writer::{FrameWriter, Lane, SendError};
pub use frozen::{FreezeError, Freezing, Frozen, Loading, Place, Saving, Thaw};
pub use lease::{LeaseError, Leased, Origin, Request};
pub use open_files::raise_open_files;
pub use orphans::{adopt_orphans, output_of};
pub use pool::{Pool, PoolConfig, Warmth};
pub use pressure::MemoryPressure;
pub use share::{Build, InfoError, ListenError, Listener, SharedPool, private_folder};
pub use spawn::Program;
pub use start_error::StartError;
pub use tree::TreeError;
pub use watch::exit_of;
pub use worker::{Worker, WorkerEvent};
pub use workers::Workers;
