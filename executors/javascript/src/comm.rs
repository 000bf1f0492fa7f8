//! Comm messages of the front end, on their way to the handlers of the session.

use bytes::Bytes;
use cob_protocol::frame::{Comm, DoneStatus};
use cob_worker::Worker;

use crate::cells;
use crate::engine::Engine;
use crate::errors::Stop;
use crate::ops;

/// Hands a message over, and waits for what its handler awaits.
pub(crate) fn deliver(engine: &mut Engine, worker: &Worker, comm: &Comm, buffers: &[Bytes]) -> DoneStatus {
    ops::call::allow_input(false);
    let status = cells::guarded(engine, worker, comm.execution, |engine| try_deliver(engine, comm, buffers));
    ops::comm::set_buffers(&[]);
    status
}

fn try_deliver(engine: &mut Engine, comm: &Comm, buffers: &[Bytes]) -> Result<(), Stop> {
    ops::comm::set_buffers(buffers);
    let target = comm.target_name.as_deref().unwrap_or_default();
    let parts =
        [ops::comm::name(comm.action), &comm.comm_id, target, comm.data.as_str(), comm.metadata.as_str()];
    let arguments = parts.map(|part| engine.text(part));
    let handled = engine.call("comms.receive", &arguments)?;
    engine.settled(handled).map(drop)
}
