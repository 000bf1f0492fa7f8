//! What output can belong to: the request that runs, and those that ran lately, whose threads, tasks and children
//! may still print.

use std::collections::{HashMap, VecDeque};

use cob_protocol::frame::StreamName;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::{OUTPUT_KEPT_BYTES_MAX, OUTPUT_TAIL_BYTES};

use crate::text::Utf8Decoder;

/// Ended requests whose late output is still known to be theirs.
const LATE_CONTEXTS: usize = 256;

/// One request that can produce output.
#[derive(Debug)]
pub(crate) struct Context {
    /// Its promise; the number of the execution is what the worker knows it by.
    pub(crate) promise: PromiseId,
    /// What its messages carry as their parent.
    pub(crate) parent: Json,
    pub(crate) budget: Budget,
    decoders: [Utf8Decoder; 2],
}

impl Context {
    pub(crate) fn new(promise: PromiseId, parent: Json) -> Self {
        Self { promise, parent, budget: Budget::default(), decoders: Default::default() }
    }

    pub(crate) fn decoder(&mut self, stream: StreamName) -> &mut Utf8Decoder {
        let [stdout, stderr] = &mut self.decoders;
        match stream {
            StreamName::Stdout => stdout,
            StreamName::Stderr => stderr,
        }
    }
}

/// How much of an execution's text is kept: a head that is broadcast as it comes, and the last of the rest.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    pub(crate) written: u64,
    head: usize,
    tail: VecDeque<(StreamName, String)>,
    tail_bytes: usize,
    pub(crate) dropped: u64,
}

/// What is to be done with a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Broadcast it.
    Pass(String),
    /// It waits in the tail.
    Held,
    /// It waits in the tail, and for the first time something was dropped.
    HeldFirstDrop,
}

impl Budget {
    pub(crate) fn admit(&mut self, stream: StreamName, text: String) -> Admission {
        self.written += text.len() as u64;
        if self.head + text.len() <= OUTPUT_KEPT_BYTES_MAX - OUTPUT_TAIL_BYTES && self.tail.is_empty() {
            self.head += text.len();
            return Admission::Pass(text);
        }
        self.tail_bytes += text.len();
        self.tail.push_back((stream, text));
        let nothing_dropped = self.dropped == 0;
        while self.tail_bytes > OUTPUT_TAIL_BYTES && self.tail.len() > 1 {
            let Some((_, oldest)) = self.tail.pop_front() else { break };
            self.tail_bytes -= oldest.len();
            self.dropped += oldest.len() as u64;
        }
        if nothing_dropped && self.dropped > 0 { Admission::HeldFirstDrop } else { Admission::Held }
    }

    /// The end of the text, when there will be no more.
    pub(crate) fn take_tail(&mut self) -> VecDeque<(StreamName, String)> {
        self.head += std::mem::take(&mut self.tail_bytes);
        std::mem::take(&mut self.tail)
    }
}

/// Contexts by execution number.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    known: HashMap<u64, Context>,
    /// Ended ones, oldest first.
    ended: VecDeque<u64>,
    /// The one that output without a name belongs to.
    latest: u64,
}

impl Contexts {
    /// A request begins.
    pub(crate) fn open(&mut self, context: Context) {
        self.latest = context.promise.execution;
        self.known.insert(self.latest, context);
    }

    /// A request ended; its late output is still known for a while.
    pub(crate) fn close(&mut self, execution: u64) {
        self.ended.push_back(execution);
        if self.ended.len() > LATE_CONTEXTS
            && let Some(oldest) = self.ended.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(crate) fn get_mut(&mut self, execution: u64) -> Option<&mut Context> {
        self.known.get_mut(&execution)
    }

    /// Whose output comes out of the pipes now: that of the running request, or late output of the last one.
    pub(crate) fn latest(&self) -> u64 {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: StreamName = StreamName::Stdout;

    #[test]
    fn output_up_to_the_limit_passes_untouched() {
        let mut budget = Budget::default();
        let piece = 64 * 1024;
        let mut passed = 0;
        for _ in 0..OUTPUT_KEPT_BYTES_MAX / piece {
            match budget.admit(OUT, "x".repeat(piece)) {
                Admission::Pass(text) => passed += text.len(),
                Admission::Held => {}
                Admission::HeldFirstDrop => panic!("dropped within the limit"),
            }
        }
        passed += budget.take_tail().iter().map(|(_, text)| text.len()).sum::<usize>();
        assert_eq!((passed, budget.dropped), (OUTPUT_KEPT_BYTES_MAX, 0));
    }

    #[test]
    fn r03_beyond_the_limit_head_and_tail_are_kept_and_the_rest_is_counted() {
        let mut budget = Budget::default();
        let (mut passed, mut first_drops) = (0u64, 0);
        for i in 0..3000 {
            match budget.admit(OUT, format!("{i:<32768}{:32768}", "")) {
                Admission::Pass(text) => passed += text.len() as u64,
                Admission::Held => {}
                Admission::HeldFirstDrop => first_drops += 1,
            }
        }
        let tail = budget.take_tail();
        let kept = passed + tail.iter().map(|(_, text)| text.len() as u64).sum::<u64>();
        assert!(tail.back().unwrap().1.starts_with("2999 "));
        assert_eq!(budget.written, kept + budget.dropped);
        assert_eq!((budget.written, first_drops), (3000 * 65536, 1));
    }

    #[test]
    fn ended_contexts_are_known_for_a_while_and_forgotten_then() {
        let mut contexts = Contexts::default();
        for execution in 1..=LATE_CONTEXTS as u64 + 1 {
            let promise = PromiseId::execution(cob_protocol::ids::SessionId(1), execution);
            contexts.open(Context::new(promise, Json::object()));
            contexts.close(execution);
        }
        assert!(contexts.get_mut(1).is_none());
        assert!(contexts.get_mut(2).is_some());
        assert_eq!(contexts.latest(), LATE_CONTEXTS as u64 + 1);
    }
}
