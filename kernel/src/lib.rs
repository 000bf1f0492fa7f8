//! The cob kernel: sessions, the road of a request, and nothing that belongs to one language or one transport.
//!
//! A *client* sends a *message* in a *session*; the kernel writes the execution down as a *promise* through the
//! *bridge*, sends a *frame* to the *worker* from the *pool*, records its numbered *events* in the *journal*, and
//! *settles* the promise; only then does it reply.
//!
//! Follow a request: [`notebook`] or a command line puts it into [`session`], whose loop hands it to
//! [`dispatch`](mod@dispatch), which queues or answers it with the help of `handlers`; `outputs` turns what the
//! worker says into events and broadcasts; `outlet` carries them out.
//! `hearing` is where the worker is listened to, `ending` how an execution and the session end.
//! `commands` is what a server asks of it, `queue` whose turn is next, `standing` what everybody may know of it.
//! `checkpoints` is how a session goes back to what it was.
//! What does not end by itself is ended by `interrupts`, which climbs the `ladder`; `disk` measures what was left.

mod answers;
mod arrivals;
mod calls;
mod channels;
mod checkpoints;
mod commands;
mod contexts;
mod disk;
mod dispatch;
mod ending;
mod handlers;
mod hearing;
mod interrupts;
mod ladder;
pub mod local;
pub mod notebook;
pub mod outlet;
mod outputs;
mod queue;
mod records;
pub mod recovery;
mod refusals;
mod replies;
pub mod request;
pub mod server;
pub mod session;
mod standing;
mod streams;
pub mod survival;
mod telling;
mod text;
mod tools;
pub mod trace;
mod waits;
