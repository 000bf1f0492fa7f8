//! What output can belong to: the request that runs, and those that ran lately, whose threads, tasks and children
//! may still print.

use std::collections::{HashMap, VecDeque};

use cob_bridge::OutputState;
use cob_protocol::event::EventNumber;
use cob_protocol::frame::StreamName;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::{OUTPUT_KEPT_BYTES_MAX, OUTPUT_TAIL_BYTES};
use cob_protocol::promise::Tally;

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
    /// The number that its next event will have.
    pub(crate) next_event: EventNumber,
    decoders: [Utf8Decoder; 2],
}

impl Context {
    pub(crate) fn new(promise: PromiseId, parent: Json, budget: Budget) -> Self {
        Self { promise, parent, budget, next_event: 1, decoders: Default::default() }
    }

    /// What it printed besides its events, so that another process can go on.
    pub(crate) fn output(&self) -> OutputState {
        let [stdout, stderr] = &self.decoders;
        OutputState { incomplete: [stdout.incomplete(), stderr.incomplete()], ..self.budget.state() }
    }

    /// Goes on where another process stood.
    pub(crate) fn resume(&mut self, output: OutputState, next_event: EventNumber) {
        self.next_event = next_event;
        let [stdout, stderr] = output.incomplete.clone();
        self.decoders = [Utf8Decoder::resume(stdout), Utf8Decoder::resume(stderr)];
        self.budget.resume(output);
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
#[derive(Debug)]
pub(crate) struct Budget {
    /// What is broadcast as it comes.
    head_max: usize,
    /// How much of the rest is kept.
    tail_max: usize,
    pub(crate) written: u64,
    head: usize,
    tail: VecDeque<(StreamName, String)>,
    tail_bytes: usize,
    pub(crate) dropped: u64,
}

/// What is to be done with a piece of text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Broadcast this; the rest waits in the tail.
    pub(crate) pass: String,
    /// For the first time something was dropped.
    pub(crate) is_first_drop: bool,
    /// Something waits in the tail.
    pub(crate) is_held: bool,
}

impl Budget {
    /// Head and tail together are at most `limit` bytes, and never more than [`OUTPUT_KEPT_BYTES_MAX`].
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(OUTPUT_KEPT_BYTES_MAX);
        // Of a small budget both ends get the same.
        let tail_max = OUTPUT_TAIL_BYTES.min(limit / 2);
        let tail = VecDeque::new();
        Self { head_max: limit - tail_max, tail_max, written: 0, head: 0, tail, tail_bytes: 0, dropped: 0 }
    }

    /// What is kept at most, and how much of that is the end.
    pub(crate) fn limits(&self) -> (usize, usize) {
        (self.head_max + self.tail_max, self.tail_max)
    }

    /// Bytes that were not dropped.
    pub(crate) fn kept(&self) -> u64 {
        self.written - self.dropped
    }

    pub(crate) fn admit(&mut self, stream: StreamName, mut text: String) -> Admission {
        self.written += text.len() as u64;
        let room = text.floor_char_boundary(self.head_max - self.head);
        let rest = text.split_off(room);
        self.head += text.len();
        if rest.is_empty() {
            return Admission { pass: text, ..Admission::default() };
        }
        // Less than one character of room is none.
        self.head = self.head_max;
        self.tail_bytes += rest.len();
        self.tail.push_back((stream, rest));
        let nothing_dropped = self.dropped == 0;
        while self.tail_bytes > self.tail_max
            && let Some((_, oldest)) = self.tail.front_mut()
        {
            let cut = oldest.ceil_char_boundary(self.tail_bytes - self.tail_max);
            oldest.drain(..cut);
            let is_gone = oldest.is_empty();
            self.tail_bytes -= cut;
            self.dropped += cut as u64;
            if is_gone {
                self.tail.pop_front();
            }
        }
        Admission { pass: text, is_first_drop: nothing_dropped && self.dropped > 0, is_held: true }
    }

    /// Text that is neither shown nor kept.
    pub(crate) fn refuse(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.dropped += bytes as u64;
    }

    /// The sums, for the record of an execution.
    pub(crate) fn tally(&self) -> Tally {
        Tally { written: self.written, dropped: self.dropped }
    }

    fn state(&self) -> OutputState {
        OutputState {
            written: self.written,
            dropped: self.dropped,
            head: self.head as u64,
            tail: self.tail.iter().cloned().collect(),
            ..OutputState::default()
        }
    }

    fn resume(&mut self, state: OutputState) {
        (self.written, self.dropped) = (state.written, state.dropped);
        self.head = usize::try_from(state.head).unwrap_or(usize::MAX).min(self.head_max);
        self.tail_bytes = state.tail.iter().map(|(_, text)| text.len()).sum();
        self.tail = state.tail.into();
    }

    /// The end of the text, when there will be no more.
    pub(crate) fn take_tail(&mut self) -> VecDeque<(StreamName, String)> {
        self.tail_bytes = 0;
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

    pub(crate) fn get(&self, execution: u64) -> Option<&Context> {
        self.known.get(&execution)
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

    /// Writes `pieces` of `bytes` bytes; returns what passed, the tail, and how often a first drop was reported.
    fn print(budget: &mut Budget, pieces: usize, text: &str) -> (usize, usize, usize) {
        let (mut passed, mut first_drops) = (0, 0);
        for _ in 0..pieces {
            let admission = budget.admit(OUT, text.to_owned());
            passed += admission.pass.len();
            first_drops += usize::from(admission.is_first_drop);
        }
        (passed, budget.take_tail().iter().map(|(_, text)| text.len()).sum(), first_drops)
    }

    #[test]
    fn output_up_to_the_limit_passes_untouched_however_it_is_cut() {
        for bytes in [1 << 16, (1 << 16) - 77, 1 << 20] {
            let mut budget = Budget::new(OUTPUT_KEPT_BYTES_MAX);
            let pieces = OUTPUT_KEPT_BYTES_MAX / bytes;
            let (passed, tail, first_drops) = print(&mut budget, pieces, &"x".repeat(bytes));
            assert_eq!((passed + tail, budget.dropped, first_drops), (pieces * bytes, 0, 0));
        }
    }

    #[test]
    fn r03_beyond_the_limit_head_and_tail_are_kept_and_the_rest_is_counted() {
        for text in ["x".repeat(65_536), "é€".repeat(9_999), "x".repeat(1 << 20)] {
            let mut budget = Budget::new(usize::MAX);
            let (passed, tail, first_drops) =
                print(&mut budget, OUTPUT_KEPT_BYTES_MAX / text.len() * 2, &text);
            assert_eq!(budget.written, (passed + tail) as u64 + budget.dropped);
            // A character is not cut in two.
            assert!((OUTPUT_KEPT_BYTES_MAX - 8..=OUTPUT_KEPT_BYTES_MAX).contains(&(passed + tail)));
            assert_eq!(first_drops, 1);
        }
    }

    #[test]
    fn a_small_budget_keeps_as_much_of_the_end_as_of_the_beginning() {
        let mut budget = Budget::new(1000);
        assert_eq!(print(&mut budget, 100, &"x".repeat(100)), (500, 500, 1));
        assert_eq!((budget.written, budget.dropped, budget.kept()), (10_000, 9_000, 1_000));
        let mut nothing = Budget::new(0);
        assert_eq!(print(&mut nothing, 3, "text"), (0, 0, 1));
        assert_eq!(nothing.dropped, 12);
    }

    #[test]
    fn ended_contexts_are_known_for_a_while_and_forgotten_then() {
        let mut contexts = Contexts::default();
        for execution in 1..=LATE_CONTEXTS as u64 + 1 {
            let promise = PromiseId::execution(cob_protocol::ids::SessionId(1), execution);
            contexts.open(Context::new(promise, Json::object(), Budget::new(0)));
            contexts.close(execution);
        }
        assert!(contexts.get_mut(1).is_none());
        assert!(contexts.get_mut(2).is_some());
        assert_eq!(contexts.latest(), LATE_CONTEXTS as u64 + 1);
    }
}
