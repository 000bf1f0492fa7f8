//! Measures checkpoints in memory: `cargo run --release -p cob-python --example measure_frozen -- PYTHON...`
//!
//! How long a session waits for one, and how long it takes until a worker that comes of it is ready, with little and
//! with much in memory: bytes that were never looked at one by one, and many small objects.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[cfg(not(feature = "module"))]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(feature = "module")]
fn main() {}

#[cfg(not(feature = "module"))]
fn main() {
    for python in std::env::args().skip(1) {
        println!("{python}");
        for (what, code) in measure::CASES {
            measure::measure(&python, what, code);
        }
    }
}

#[cfg(not(feature = "module"))]
mod measure {
    use std::time::{Duration, Instant};

    use crate::support::{Host, Start};

    const TIMES: usize = 20;

    pub(crate) const CASES: &[(&str, &str)] = &[
        ("nothing", "x = 0"),
        ("100 MB in one piece", "x = bytearray(b'x') * 100_000_000"),
        ("1 GB in one piece", "x = bytearray(b'x') * 1_000_000_000"),
        ("a million strings", "x = [str(i) for i in range(1_000_000)]"),
    ];

    pub(crate) fn measure(python: &str, what: &str, code: &str) {
        let mut host = Host::start(&Start { python, ..Start::default() });
        host.run(code);
        let (mut frozen, mut gone_on, mut thawed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let began = Instant::now();
            let checkpoint = host.freeze(false).unwrap();
            frozen.push(began.elapsed());
            host.run("1+1");
            gone_on.push(began.elapsed());
            let began = Instant::now();
            let worker = checkpoint.thaw();
            thawed.push(began.elapsed());
            drop(worker);
        }
        println!("    {what}");
        for (name, mut took) in
            [("frozen", frozen), ("frozen, and 1+1", gone_on), ("thawed and ready", thawed)]
        {
            took.sort();
            println!(
                "        {name:20} min {:?}, p50 {:?}, max {:?}",
                took[0],
                median(&took),
                took[TIMES - 1]
            );
        }
    }

    fn median(took: &[Duration]) -> Duration {
        took[took.len() / 2]
    }
}
