//! Where bytes are read to before it is known how many there are: one buffer for all workers of a thread. With one
//! for each, most of what an idle session costs this process was memory that nothing lies in.

use std::cell::RefCell;

use cob_protocol::limits::{READ_AHEAD_BYTES_MAX, STREAM_EVENT_BYTES_MAX, ZYGOTE_PACKET_BYTES_MAX};

/// The size of the buffer.
pub(crate) const BYTES: usize = READ_AHEAD_BYTES_MAX;
const _: () = assert!(STREAM_EVENT_BYTES_MAX <= BYTES && ZYGOTE_PACKET_BYTES_MAX <= BYTES);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BYTES]);
}

/// Lends the buffer, which holds anything.
pub(crate) fn with<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => read(&mut scratch),
        // Whoever reads while it reads gets one of its own.
        Err(_) => read(&mut vec![0; BYTES]),
    })
}
