//! A session becomes a checkpoint, and goes on from one.
//!
//! A checkpoint is a fork of the process that waits; the workers that come of it are forks of that. So everything is
//! as it was: timers, promises, closures. What must differ from sibling to sibling is made anew where a process is
//! forked, in [`crate::here`].

use cob_protocol::checkpoint::Finding;

use crate::engine::Engine;

/// What a checkpoint of this session would not hold, or hold in another way than one may think.
#[cfg(not(feature = "v8"))]
pub(crate) fn look(engine: &Engine) -> Vec<Finding> {
    let pending = engine.pending();
    let told = |count: usize, kind: &str, one: &str, many: &str| {
        let text = match count {
            0 => return None,
            1 => format!("one {one}"),
            count => format!("{count} {many}"),
        };
        Some(Finding { kind: kind.to_owned(), text, blocks: false })
    };
    [
        told(
            pending.timers,
            "timer",
            "timer goes on in whatever is forked off",
            "timers go on in whatever is forked off",
        ),
        told(
            pending.operations,
            "operation",
            "asynchronous operation is under way, and goes on in whatever is forked off",
            "asynchronous operations are under way, and go on in whatever is forked off",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// V8 has threads of its own, and a fork has none of them.
#[cfg(feature = "v8")]
pub(crate) fn look(_: &Engine) -> Vec<Finding> {
    vec![Finding {
        kind: "language".to_owned(),
        text: "the engine V8 has threads and cannot be forked: there are only durable checkpoints".to_owned(),
        blocks: true,
    }]
}
