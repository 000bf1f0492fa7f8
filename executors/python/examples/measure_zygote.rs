//! Measures forks: `cargo run --release -p cob-python --example measure_zygote -- PYTHON [MODULE...]`
//!
//! How long a zygote takes to get ready and to fork, how long a parked worker takes from `hello` to `ready`, and
//! what it costs in memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[cfg(not(feature = "module"))]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(feature = "module")]
fn main() {}

#[cfg(not(feature = "module"))]
fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(python) = arguments.next() else { panic!("name a Python") };
    let modules: Vec<_> = arguments.collect();
    measure::measure(&python, &modules.iter().map(String::as_str).collect::<Vec<_>>());
}

#[cfg(not(feature = "module"))]
mod measure {
    use std::time::{Duration, Instant};

    use rustix::event::{Timespec, poll};

    use crate::support::zygote::{Zygote, surroundings};
    use crate::support::{Host, Start, read_text};

    const FORKS: usize = 40;
    /// Long enough for a forked worker to warm up.
    const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

    pub(crate) fn measure(python: &str, modules: &[&str]) {
        let start = Start { python, ..Start::default() };
        let variables: Vec<_> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
        let variables: Vec<_> = variables.iter().map(String::as_str).collect();
        let payloads = surroundings(&variables, "/");
        let greet = |host: &mut Host| {
            host.hello_with(&payloads, Some(0o22));
            host.until_ready();
        };
        let began = Instant::now();
        let (mut zygote, prepared) = Zygote::prepared(&start, modules);
        println!("{python} {modules:?}; missing: {:?}", prepared.missing);
        println!("    {:<36} {:?}", "start to prepared", began.elapsed());

        let mut at_once: Vec<_> = (0..FORKS).map(|_| timed(|| greet(&mut zygote.fork()))).collect();
        let (mut fork, mut lease, mut first, mut second) = (vec![], vec![], vec![], vec![]);
        for _ in 0..FORKS {
            let began = Instant::now();
            let mut host = zygote.fork();
            fork.push(began.elapsed());
            let _ = poll(&mut [], Some(&NAP));
            lease.push(timed(|| greet(&mut host)));
            first.push(timed(|| drop(host.run("1+1"))));
            second.push(timed(|| drop(host.run("1+1"))));
        }
        show("fork to pid known", &mut fork);
        show("fork to ready, not parked", &mut at_once);
        show("hello to ready, parked", &mut lease);
        show("first 1+1", &mut first);
        show("second 1+1", &mut second);

        let parked: Vec<_> = (0..8).map(|_| zygote.fork()).collect();
        let _ = poll(&mut [], Some(&NAP));
        let mut host = zygote.fork();
        let _ = poll(&mut [], Some(&NAP));
        let at_first = faults(&host);
        greet(&mut host);
        let at_ready = faults(&host);
        host.run("1+1");
        let (hello, run) = (at_ready - at_first, faults(&host) - at_ready);
        println!(
            "    {:<36} until parked {at_first}, hello to ready {hello}, first 1+1 {run}",
            "page faults"
        );
        memory("zygote with eight parked", zygote.child.id());
        memory("parked", parked[0].child.id());
        let mut host = zygote.session();
        memory("ready", host.child.id());
        host.run("1+1");
        memory("after 1+1", host.child.id());
        host.run("import gc; _ = gc.collect()");
        memory("after gc.collect()", host.child.id());
    }

    fn timed(work: impl FnOnce()) -> Duration {
        let began = Instant::now();
        work();
        began.elapsed()
    }

    fn show(what: &str, times: &mut [Duration]) {
        times.sort_unstable();
        let at = |part: f64| times[(times.len() as f64 * part) as usize];
        println!("    {what:<36} min {:?}, p50 {:?}, p90 {:?}", times[0], at(0.5), at(0.9));
    }

    /// Page faults so far that needed no disk.
    fn faults(host: &Host) -> u64 {
        let text = read_text(&format!("/proc/{}/stat", host.child.id()));
        let after_name = text.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(7).and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    fn memory(what: &str, pid: u32) {
        let text = read_text(&format!("/proc/{pid}/smaps_rollup"));
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default()
                / 1024.0
        };
        println!(
            "    {what:<36} private {:.2} MiB, PSS {:.1}, RSS {:.1}",
            value("Private_Dirty:"),
            value("Pss:"),
            value("Rss:")
        );
    }
}
