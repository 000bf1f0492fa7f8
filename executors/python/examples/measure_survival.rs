//! Measures what it costs that a session outlives its server: `cargo run -p cob-python --example measure_survival --
//! PYTHON...` (the module is optimized in any case, and all that is compared runs in it).
//!
//! A round trip of `1+1`, and one frame: small, and with a payload of 64 KiB; both ways in turn, the best of each.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[cfg(not(feature = "module"))]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(feature = "module")]
fn main() {}

#[cfg(not(feature = "module"))]
fn main() {
    std::env::args().skip(1).for_each(|python| measure::measure(&python));
}

#[cfg(not(feature = "module"))]
mod measure {
    use std::time::{Duration, Instant};

    use crate::support::{Host, Start, result};

    const ROUNDS: usize = 9;
    const TRIPS: usize = 1_000;
    const FRAMES: &str = "
import time, _cob
def frames(count, items):
    t = time.perf_counter()
    for _ in range(count): _cob.display(items, '{}', '{}')
    return (time.perf_counter() - t) / count * 1e6
";
    // Batches that the socket takes without being read, and pauses in which it is.
    const SMALL: &str = "min(frames(50, [('text/plain', 't', 'x')]) for _ in range(1))";
    const LARGE: &str = "min(frames(2, [('image/png', 'b', bytes(65536))]) for _ in range(1))";

    pub(crate) fn measure(python: &str) {
        let start = Start { python, ..Start::default() };
        let mut hosts = [Host::start(&start), Host::start_surviving(&start)];
        let mut best = [[f64::INFINITY; 3]; 2];
        for host in &mut hosts {
            host.run(FRAMES);
        }
        for _ in 0..ROUNDS {
            for (host, best) in hosts.iter_mut().zip(&mut best) {
                let mut trips: Vec<Duration> = (0..TRIPS).map(|_| trip(host)).collect();
                trips.sort_unstable();
                best[0] = best[0].min(trips[TRIPS / 2].as_secs_f64() * 1e6);
                for (best, code) in best[1..].iter_mut().zip([SMALL, LARGE]) {
                    for _ in 0..50 {
                        let took = result(&host.run(code)).unwrap();
                        host.acknowledge();
                        *best = best.min(took.parse().unwrap());
                    }
                }
            }
        }
        println!("{python}");
        for (name, best) in ["plain", "survives"].iter().zip(best) {
            println!(
                "  {name}: 1+1 {:.1} µs (median), frame {:.2} µs, 64 KiB {:.2} µs",
                best[0], best[1], best[2]
            );
        }
    }

    fn trip(host: &mut Host) -> Duration {
        let began = Instant::now();
        host.run("1+1");
        let took = began.elapsed();
        host.acknowledge();
        took
    }
}
