//! What was written is recorded once, whenever the one who records it is killed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cob_protocol::frame::StreamName;
use proptest::prelude::*;

use super::Progress;
use super::take_over::recover;
use crate::drain::Drain;
use crate::page::SharedPage;
use crate::spawn::output_pipe;
use crate::staging::{Receipt, Source, Step, peek};

const STREAMS: [StreamName; 2] = [StreamName::Stdout, StreamName::Stderr];

/// What outlives a server: the pipes, the receipt, the page, and the store.
struct World {
    readers: [OwnedFd; 2],
    writers: [OwnedFd; 2],
    receipt: [OwnedFd; 2],
    page: OwnedFd,
    written: [Vec<u8>; 2],
    stored: [Vec<u8>; 2],
}

/// What dies with it.
struct Server {
    page: SharedPage,
    receipt: Arc<Receipt>,
    drains: [Drain; 2],
    /// Given out and not recorded.
    given: [Vec<u8>; 2],
}

impl World {
    fn new() -> Self {
        let pipes = [output_pipe().unwrap(), output_pipe().unwrap()];
        let [(stdout, stdout_writer), (stderr, stderr_writer)] = pipes;
        let Receipt { reader, writer } = Receipt::new().unwrap();
        for writer in [&stdout_writer, &stderr_writer] {
            rustix::io::ioctl_fionbio(writer, true).unwrap();
        }
        Self {
            readers: [stdout, stderr],
            writers: [stdout_writer, stderr_writer],
            receipt: [reader, writer],
            page: crate::page::create().unwrap(),
            written: Default::default(),
            stored: Default::default(),
        }
    }

    fn write(&mut self, stream: usize, count: usize) {
        let from = self.written[stream].len();
        let bytes: Vec<u8> = (from..from + count).map(|at| (at % 251) as u8).collect();
        // A full pipe takes less, or nothing.
        let count = rustix::io::write(&self.writers[stream], &bytes).unwrap_or(0);
        self.written[stream].extend_from_slice(&bytes[..count]);
    }

    /// The next server, which knows only what the world keeps.
    fn serve(&self) -> Server {
        let page = SharedPage::map(&self.page).unwrap();
        let [reader, writer] = &self.receipt;
        let receipt = Receipt { reader: reader.try_clone().unwrap(), writer: writer.try_clone().unwrap() };
        let receipt = Arc::new(receipt);
        let source = |stream: usize| Source {
            stream: STREAMS[stream],
            pipe: self.readers[stream].as_fd(),
            receipt: &receipt,
            page: page.get(),
        };
        let [stdout, stderr] = [0, 1].map(|stream| self.stored[stream].len() as u64);
        let totals = recover([source(0), source(1)], Progress { frames: 0, stdout, stderr }).unwrap();
        assert_eq!(totals, [stdout, stderr]);
        let drains = [0, 1].map(|stream| {
            let pipe = self.readers[stream].try_clone().unwrap();
            Drain::staged(STREAMS[stream], pipe, Arc::clone(&receipt), totals[stream], true).unwrap()
        });
        Server { page, receipt, drains, given: Default::default() }
    }
}

impl Server {
    fn give(&mut self, stream: usize, looks: usize, bytes_max: usize) {
        let drain = &mut self.drains[stream];
        for _ in 0..looks {
            drain.read(self.page.get(), bytes_max).unwrap();
        }
        while let Some(bytes) = drain.pop(bytes_max as u64) {
            self.given[stream].extend_from_slice(&bytes);
        }
    }

    /// The store has it; nothing has left the pipe yet.
    fn store(&mut self, world: &mut World, stream: usize, share: usize) -> u64 {
        let count = self.given[stream].len() * share / 100;
        world.stored[stream].extend(self.given[stream].drain(..count));
        world.stored[stream].len() as u64
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(usize, usize),
    Give(usize, usize, usize),
    Record(usize, usize),
    /// Killed while it records: after so many steps, of which a part is what the system moved.
    Die(usize, usize, usize),
    /// Killed after bytes were moved and before they were counted.
    DieUncounted(usize, usize),
}

fn acts() -> impl Strategy<Value = Act> {
    let stream = || 0..2_usize;
    prop_oneof![
        4 => (stream(), prop_oneof![1..100_usize, 1..200_000_usize]).prop_map(|(s, n)| Act::Write(s, n)),
        3 => (stream(), 0..3_usize, prop_oneof![1..100_usize, Just(usize::MAX)])
            .prop_map(|(s, n, max)| Act::Give(s, n, max)),
        3 => (stream(), 0..=100_usize).prop_map(|(s, share)| Act::Record(s, share)),
        1 => (stream(), 0..=100_usize, 0..=4_usize).prop_map(|(s, share, steps)| Act::Die(s, share, steps)),
        1 => (stream(), 0..=100_usize).prop_map(|(s, share)| Act::DieUncounted(s, share)),
    ]
}

fn play(acts: Vec<Act>) {
    let mut world = World::new();
    let mut server = world.serve();
    for act in acts {
        match act {
            Act::Write(stream, count) => world.write(stream, count),
            Act::Give(stream, looks, bytes_max) => server.give(stream, looks, bytes_max),
            Act::Record(stream, share) => {
                let total = server.store(&mut world, stream, share);
                server.drains[stream].record(server.page.get(), total).unwrap();
            }
            Act::Die(stream, share, steps) => {
                let (before, total) =
                    (world.stored[stream].len() as u64, server.store(&mut world, stream, share));
                let pipe = world.readers[stream].as_fd();
                let (receipt, page) = (&*server.receipt, server.page.get());
                let source = Source { stream: STREAMS[stream], pipe, receipt, page };
                // What was recorded before has left the pipe before: this is the next part.
                let count = total - before;
                for step in Step::ALL.into_iter().take(if count == 0 { 0 } else { steps }) {
                    source.take(step, count).unwrap();
                }
                server = world.serve();
            }
            Act::DieUncounted(stream, share) => {
                let before = world.stored[stream].len() as u64;
                let count = server.store(&mut world, stream, share) - before;
                server.page.get().intend(STREAMS[stream]);
                if count > 0 {
                    let count = usize::try_from(count).unwrap();
                    let flags = rustix::pipe::SpliceFlags::NONBLOCK;
                    let (pipe, receipt) = (&world.readers[stream], &world.receipt[1]);
                    rustix::pipe::splice(pipe, None, receipt, None, count, flags).unwrap();
                }
                server = world.serve();
            }
        }
    }
    for (stream, name) in STREAMS.into_iter().enumerate() {
        while world.stored[stream].len() < world.written[stream].len() {
            let before = world.stored[stream].len();
            server.give(stream, 1, usize::MAX);
            let total = server.store(&mut world, stream, 100);
            server.drains[stream].record(server.page.get(), total).unwrap();
            assert!(world.stored[stream].len() > before, "bytes are lost");
        }
        assert!(world.stored[stream] == world.written[stream]);
        let left = peek(world.readers[stream].as_fd(), 0, 1).unwrap();
        assert!(matches!(left, crate::staging::Peek::Nothing), "{left:?}");
        let page = server.page.get();
        assert_eq!(page.consumed(name), world.written[stream].len() as u64);
        assert_eq!(page.written(name, || 0), world.written[stream].len() as u64);
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_and_nothing_comes_twice_whenever_the_server_is_killed(
        acts in proptest::collection::vec(acts(), 0..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        play(acts);
    }
}

/// Recording less than was seen neither loses nor repeats what follows, and nobody is woken by bytes that wait.
#[tokio::test]
async fn bytes_that_wait_to_be_recorded_wake_nobody() {
    let mut world = World::new();
    let mut server = world.serve();
    world.write(0, 1000);
    server.drains[0].due().await.unwrap();
    server.drains[0].take(server.page.get()).unwrap();
    server.give(0, 0, usize::MAX);
    assert_eq!(server.given[0].len(), 1000);
    let wait = std::time::Duration::from_millis(50);
    // Once for the end of the nap, and never again.
    assert!(tokio::time::timeout(wait, server.drains[0].due()).await.is_err());
    world.write(0, 10);
    server.drains[0].due().await.unwrap();
    server.drains[0].take(server.page.get()).unwrap();
    let total = server.store(&mut world, 0, 99);
    server.drains[0].record(server.page.get(), total).unwrap();
    assert!(tokio::time::timeout(wait, server.drains[0].due()).await.is_err());
    // The writer goes away: that is no news either, and what waits stays.
    let [stdout, stderr] = world.writers;
    drop(stdout);
    assert!(tokio::time::timeout(wait, server.drains[0].due()).await.is_err());
    server.give(0, 1, usize::MAX);
    assert_eq!(server.given[0].len() as u64 + total, 1010);
    server.drains[0].record(server.page.get(), 1010).unwrap();
    assert_eq!(server.page.get().consumed(StreamName::Stdout), 1010);
    drop(stderr);
}

/// With a pipe for copies that is smaller than what waits, the rest is seen once something is recorded.
#[tokio::test]
async fn what_cannot_be_seen_yet_is_seen_after_something_was_recorded() {
    let mut world = World::new();
    let mut server = world.serve();
    crate::staging::with_small_copy(|| {
        world.write(0, 100_000);
        server.give(0, 100, usize::MAX);
        let first = server.given[0].len();
        assert!(first < 100_000 && server.drains[0].is_starved(), "{first}");
        let total = server.store(&mut world, 0, 100);
        server.drains[0].record(server.page.get(), total).unwrap();
        assert!(!server.drains[0].is_starved());
        server.give(0, 100, usize::MAX);
        assert!(!server.given[0].is_empty());
    });
    play(vec![Act::Write(0, 10)]);
}
