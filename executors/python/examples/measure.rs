//! Measures a worker from outside: `cargo run --release -p cob-python --example measure -- [--sources FOLDER] PYTHON...`
//!
//! Start (spawn to ready, with a bare interpreter for comparison), a ping, `1+1`, and what a print costs.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[cfg(not(feature = "module"))]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(feature = "module")]
fn main() {}

#[cfg(not(feature = "module"))]
fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    let sources = arguments.next_if_eq("--sources").and_then(|_| arguments.next());
    for python in arguments {
        measure::measure(&python, sources.as_deref().map(std::path::Path::new));
    }
}

#[cfg(not(feature = "module"))]
mod measure {
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use cob_protocol::frame::{Frame, Ping};

    use crate::support::{Event, Host, Start, text};

    const STARTS: usize = 40;
    const TRIPS: usize = 20_000;
    const PRINTS: &str = "
import time
def prints(n, line):
    t = time.perf_counter()
    for _ in range(n): print(line)
    return (time.perf_counter() - t) / n * 1e6
took = [prints(20_000, 'x' * 36) for _ in range(5)]
import sys
print('%.2f' % min(took), file=sys.stderr)
";

    pub(crate) fn measure(python: &str, sources: Option<&Path>) {
        let start = Start { python, sources, ..Start::default() };
        let (mut bare, mut ready) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            bare.push(timed(|| {
                assert!(Command::new(python).args(["-c", "pass"]).status().unwrap().success())
            }));
            let began = Instant::now();
            let host = Host::start(&start);
            ready.push(began.elapsed());
            drop(host);
        }
        let mut host = Host::start(&start);
        let mut ping: Vec<_> = (0..TRIPS as u64)
            .map(|number| {
                timed(|| {
                    host.send(Ping { number }, &[]);
                    assert!(matches!(host.event(), Event::Frame(Frame::Pong(_), _)));
                })
            })
            .collect();
        let mut cell: Vec<_> = (0..TRIPS).map(|_| timed(|| drop(host.run("1+1")))).collect();
        println!("{python}");
        show("bare python -c pass, start and exit", &mut bare);
        show("spawn to ready", &mut ready);
        show("ping", &mut ping);
        show("1+1", &mut cell);
        let events = host.run(PRINTS);
        let per_print = text(&events);
        println!("    {:<36} {} µs", "print of 36 characters", per_print.lines().last().unwrap_or_default());
    }

    fn timed(work: impl FnOnce()) -> Duration {
        let began = Instant::now();
        work();
        began.elapsed()
    }

    fn show(what: &str, times: &mut [Duration]) {
        times.sort_unstable();
        let at = |part: f64| times[(times.len() as f64 * part) as usize];
        println!("    {what:<36} min {:?}, p50 {:?}, p99 {:?}", times[0], at(0.5), at(0.99));
    }
}
