//! Conversations with a server, written down as documentation and played as tests: the pages in `tests/specs`.
//!
//! A page is Markdown; its blocks marked `transcript` are one conversation, from the first to the last:
//!
//! ````text
//! ```transcript
//! # Whose lines follow; the first time, it connects.
//! client a
//! # What it sends, and what it must be answered: type and content.
//! > hello_request {"versions": [1]}
//! < hello_reply {"status": "ok", ...}
//! # The answers to a request that has a name.
//! > run: execute_request {"session_id": $s, "code": "1+1", "credit": 9}
//! < run: ack {"promise": $p, ...}
//! # Its connection ends.
//! hang up
//! ```
//! ````
//!
//! A line that is indented goes on with the one before it. In what must come, `<any>`, `<text>` and `<number>` stand for
//! such a value, `<has "part">` for a text that contains this part, `$name` for a value that is remembered the first
//! time and must be the same from then on, and `...` for any further fields or items. In what is sent, `$name` is what
//! was remembered; within a text it is written `${name}`.
//!
//! Everything that concerns one request must come in the order of the page, and nothing else may come: its `ack`, its
//! reply, and whatever carries its id as `subscription`. A `<` without a name means the client's last request. What comes
//! unasked (`call`, `session_detached`, `session_status`) is a row of its own. `< ...` means that whatever else comes for a request does not
//! matter.

mod pattern;
mod play;
mod script;

pub use pattern::{Captures, Pattern};
pub use play::play;
pub use script::{Line, Script, Step};
