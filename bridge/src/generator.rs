//! Groups of writes made from bytes, for the differential test and for fuzzing: mostly ones that make sense, as the
//! plain store sees it, and now and then one that does not.

use std::sync::Arc;

use cob_protocol::checkpoint::{CheckpointView, Tier};
use cob_protocol::event::{ErrorText, Event};
use cob_protocol::frame::StreamName;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::promise::{CHANNEL_PRINCIPAL, Durability, Key, SessionState, Settlement, State, Tally};
use cob_protocol::time::Timestamp;

use crate::memory::MemoryStore;
use crate::sqlite::{SqliteStore, StoreOptions};
use crate::store::{
    BridgeError, BundleRecord, Created, Custody, Filter, Group, NewExecution, OutputState, Progress, Read,
    SignedManifest, Store, Unsettled, Write, Written,
};

/// Choices made by bytes; where there are none left, everything is 0.
#[derive(Debug)]
pub struct Generator<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// Advances with every group, and now and then steps back.
    micros: i64,
}

const SESSIONS: u64 = 3;

/// Fuzzing: the groups that `bytes` make, for the store in `folder`, which does not exist yet, and for the plain one;
/// now and then the store is closed and opened again. In the end both must have the same to be read.
///
/// # Panics
/// When the two do not say the same.
pub fn compare(bytes: &[u8], folder: &std::path::Path) {
    const PENDING_MAX: usize = 14;
    let options = StoreOptions { pending_max: PENDING_MAX, ballast_bytes: 0, ..StoreOptions::new(folder) };
    let open = || match SqliteStore::open(&options) {
        Ok(store) => store,
        Err(error) => unreachable!("{error}"),
    };
    let (mut store, mut oracle) = (open(), MemoryStore::oracle(PENDING_MAX));
    let mut generator = Generator::new(bytes);
    while !generator.is_done() {
        let groups = [generator.group(&mut oracle)];
        let mut outcomes = store.commit(&groups);
        for outcome in outcomes.iter_mut().flatten().flatten() {
            without_audit(outcome);
        }
        assert_eq!(outcomes, oracle.commit(&groups), "{groups:#?}");
        if generator.once_in(24) {
            drop(store);
            store = open();
        }
    }
    compare_reads(&mut store, &mut oracle);
    let whole = store.reader().map(|mut reader| (reader.verify(), reader.verify_audit().map(drop)));
    assert!(matches!(whole, Ok((Ok(()), Ok(())))), "{whole:?}");
}

/// Both have the same to be read.
fn compare_reads(store: &mut SqliteStore, oracle: &mut MemoryStore) {
    let sessions = oracle.sessions();
    assert_eq!(store.sessions(), sessions);
    for session in sessions.into_iter().flatten().map(|session| session.session) {
        let mut unsettled = store.unsettled(session);
        unsettled.iter_mut().flatten().for_each(|one| one.promise.audit = None);
        assert_eq!(unsettled, oracle.unsettled(session));
        assert_eq!(store.session(session), oracle.session(session));
        assert_eq!(store.history_of(session, 3), oracle.history_of(session, 3));
    }
    let everything = Filter::default();
    let mut promises = store.promises(&everything);
    promises.iter_mut().flatten().for_each(|promise| promise.audit = None);
    assert_eq!(promises, oracle.promises(&everything));
    for id in promises.into_iter().flatten().map(|promise| promise.id) {
        assert_eq!(store.request(id), oracle.request(id));
        assert_eq!(store.source_of(id), oracle.source_of(id));
        assert_eq!(
            store.events(id, 1, usize::MAX, usize::MAX),
            oracle.events(id, 1, usize::MAX, usize::MAX),
            "{id}"
        );
    }
    assert_eq!(store.next_due(), oracle.next_due());
    assert_eq!(store.totals(), oracle.totals());
    assert_eq!(store.history(usize::MAX), oracle.history(usize::MAX));
    let bundles = oracle.bundles(None);
    assert_eq!(store.bundles(None), bundles);
    for checkpoint in bundles.into_iter().flatten().map(|view| view.checkpoint) {
        assert_eq!(store.bundle(checkpoint), oracle.bundle(checkpoint));
    }
}

/// The plain store keeps no trail.
pub(crate) fn without_audit(outcome: &mut Result<Written, BridgeError>) {
    if let Ok(Written::Settled(promise) | Written::Created(Created::Joined(promise))) = outcome {
        promise.audit = None;
    }
}

impl<'a> Generator<'a> {
    /// One that these bytes decide for.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), micros: 1_700_000_000_000_000 }
    }

    /// Whether there is nothing left to decide by.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.bytes.len() == 0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        let byte = u64::from(self.bytes.next().copied().unwrap_or_default());
        let byte = if end > 256 {
            byte << 8 | u64::from(self.bytes.next().copied().unwrap_or_default())
        } else {
            byte
        };
        byte % end.max(1)
    }

    /// Whether something that happens once in `times` times happens.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == times - 1
    }

    /// The time, moved on.
    pub fn now(&mut self) -> Timestamp {
        let step = self.below(1000).cast_signed();
        self.micros += if self.once_in(20) { -step } else { step };
        Timestamp::from_micros(self.micros)
    }

    /// A few writes for a store that stands as `oracle` does.
    pub fn group(&mut self, oracle: &mut MemoryStore) -> Group {
        let now = self.now();
        let durability = match self.below(24) {
            0 => Durability::Power,
            1..6 => Durability::None,
            _ => Durability::Process,
        };
        let count = 1 + self.below(4);
        let writes = (0..count).map(|_| self.write(oracle, now)).collect();
        Group { now, durability, writes }
    }

    fn write(&mut self, oracle: &mut MemoryStore, now: Timestamp) -> Write {
        let session = SessionId(1 + self.below(SESSIONS));
        match self.below(28) {
            0 => Write::OpenSession { session, about: self.json() },
            1 => {
                let custody = Custody { socket: format!("/{}", self.below(4)), secret: "x".into() };
                Write::Custody { session, custody: (!self.once_in(3)).then_some(custody) }
            }
            2 if self.once_in(4) => Write::Recover { session },
            2 => {
                let progress =
                    Progress { frames: self.below(99), stdout: self.below(99), stderr: self.below(99) };
                Write::Progress { session, progress }
            }
            // Rare, or nothing would go on.
            3 if self.once_in(6) => Write::CloseSession { session: SessionId(self.below(1 << 16)) },
            3 if self.once_in(60) => Write::CloseSession { session },
            3..=7 => Write::CreateExecution(self.execution(session, now)),
            8 | 9 => {
                let of = self.id(oracle, session);
                let id = PromiseId { call: None, ..of }.with_call(self.below(4));
                Write::CreateCall { id, request: self.json(), deadline: self.deadline(now) }
            }
            10 | 11 => Write::Start { id: self.id(oracle, session), count: self.below(300) as u32 },
            12..=17 => {
                let (id, next) = self.unsettled(oracle, session);
                let number = if self.once_in(12) { self.below(9) } else { next };
                Write::Append { id, number, event: Arc::new(self.event()) }
            }
            18 => Write::Output { id: self.id(oracle, session), output: self.output() },
            19..=21 => {
                let id = self.id(oracle, session);
                Write::Settle { id, settlement: self.settlement() }
            }
            22 => {
                let due = oracle.next_due().ok().flatten().filter(|_| !self.once_in(4));
                let id = due.map_or_else(|| self.id(oracle, session), |(id, _)| id);
                Write::Expire { id, settlement: self.settlement() }
            }
            23 | 24 => {
                let source = self.text();
                let execution = self.below(6);
                Write::HistoryInput { session, execution, line: self.below(5) as u32, source }
            }
            25 => Write::NumberCheckpoints { session, up_to: self.below(200) },
            26 if self.once_in(2) => {
                let checkpoint = CheckpointId { session, number: self.below(6) };
                Write::RemoveBundle { checkpoint }
            }
            26 => Write::KeepBundle(Box::new(self.bundle(session))),
            _ => {
                let text = self.text();
                Write::HistoryOutput { session, line: self.below(5) as u32, text }
            }
        }
    }

    /// One that waits, mostly; a call now and then.
    fn id(&mut self, oracle: &mut MemoryStore, session: SessionId) -> PromiseId {
        self.unsettled(oracle, session).0
    }

    fn unsettled(&mut self, oracle: &mut MemoryStore, session: SessionId) -> (PromiseId, u64) {
        if self.once_in(12) {
            let id = PromiseId::execution(session, self.below(6));
            return (if self.once_in(4) { id.with_call(self.below(3)) } else { id }, 1);
        }
        if self.once_in(10) {
            // Late output.
            let filter = Filter { session: Some(session), is_settled: Some(true), ..Filter::default() };
            let settled = oracle.promises(&filter).unwrap_or_default();
            if let Some(promise) = settled.get(self.below(settled.len() as u64) as usize) {
                let next = oracle.next_event(promise.id).unwrap_or(1);
                return (promise.id, next);
            }
        }
        let found: Vec<Unsettled> = oracle.unsettled(session).unwrap_or_default();
        match found.get(self.below(found.len() as u64) as usize) {
            Some(unsettled) => (unsettled.promise.id, unsettled.next_event),
            None => (PromiseId::execution(session, 1), 1),
        }
    }

    fn execution(&mut self, session: SessionId, now: Timestamp) -> NewExecution {
        let key = (!self.once_in(3)).then(|| Key {
            principal: ["alice", "bob", CHANNEL_PRINCIPAL][self.below(3) as usize].into(),
            key: format!("k{}", self.below(60)),
            body: [u8::from(self.once_in(8)); 32],
        });
        NewExecution {
            session,
            key,
            durability: if self.once_in(5) { Durability::Power } else { Durability::Process },
            deadline: self.deadline(now),
            request: (!self.once_in(4)).then(|| self.json()),
            start: self.once_in(3).then(|| self.below(300) as u32),
        }
    }

    /// One without chunks: what is signed is nothing to the rows.
    fn bundle(&mut self, session: SessionId) -> BundleRecord {
        let view = CheckpointView {
            checkpoint: CheckpointId { session, number: self.below(6) },
            label: self.once_in(2).then(|| self.text()),
            tier: Tier::Durable,
            automatic: self.once_in(2),
            execution: self.below(9),
            count: 1,
            taken_at: self.micros,
            parent: None,
            private_bytes: None,
            bytes: Some(self.below(999)),
            new_bytes: None,
            findings: Vec::new(),
            missing: Vec::new(),
        };
        let signed = SignedManifest { body: self.text().into_bytes(), mac: [self.below(256) as u8; 32] };
        BundleRecord { view, signed, chunks: Vec::new(), _pinned: None }
    }

    fn deadline(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.once_in(3).then(|| Timestamp::from_micros(now.micros() + self.below(4000).cast_signed() - 500))
    }

    fn settlement(&mut self) -> Settlement {
        let state = match self.below(12) {
            0 => State::Pending,
            1 => State::Started,
            n => State::ALL[2 + (n % 4) as usize],
        };
        Settlement {
            state,
            value: self.json(),
            session_state: [SessionState::Kept, SessionState::Lost, SessionState::Restored]
                [self.below(3) as usize],
            last_event: self.below(9),
            tally: Tally { written: self.below(999), dropped: self.below(99) },
        }
    }

    fn output(&mut self) -> OutputState {
        let tail = (0..self.below(3)).map(|_| (StreamName::Stderr, self.text())).collect();
        OutputState {
            written: self.below(999),
            dropped: self.below(99),
            head: self.below(99),
            tail,
            incomplete: [vec![0xc3; self.below(2) as usize], vec![0xe2; self.below(3) as usize]],
        }
    }

    fn event(&mut self) -> Event {
        match self.below(14) {
            0 => Event::Display(self.json()),
            12 | 13 => Event::Data(self.json()),
            1 => Event::Result(self.json()),
            2 => Event::ClearOutput { wait: self.once_in(2) },
            3 => {
                let traceback = vec![self.text(), self.text()];
                Event::Error(ErrorText { ename: "E".into(), evalue: self.text(), traceback })
            }
            4 => Event::Done { last: self.below(9) },
            5 => Event::Truncated { written: self.below(999), kept: 1, dropped: self.below(99) },
            6 if self.once_in(4) => {
                // Large enough for a file; of few kinds, so that files are shared.
                let letter = ["a", "b", "c"][self.below(3) as usize];
                Event::Stream { name: StreamName::Stdout, text: letter.repeat(70_000) }
            }
            _ => Event::Stream { name: StreamName::Stdout, text: self.text() },
        }
    }

    fn text(&mut self) -> String {
        let long = self.once_in(20);
        let length = self.below(if long { 6000 } else { 30 });
        ["é", "x", "\0", "\u{1f600}"][self.below(4) as usize].repeat(length as usize)
    }

    fn json(&mut self) -> Json {
        serde_json::json!({ "a": self.text(), "n": self.below(9) }).into()
    }
}
