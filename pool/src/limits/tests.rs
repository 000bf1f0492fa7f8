//! Real processes at their limits.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use super::*;

/// Python that waits for a line, then runs `code`.
fn python(code: &str) -> Child {
    let mut command = Command::new("python3");
    command.args(["-c", &format!("input()\n{code}")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Encloses it, runs it, and gives what it printed, and how it ended.
fn run(mut child: Child, cgroups: &Cgroups, limits: &str) -> (String, Exit, Enforced) {
    let mut enclosure = Enclosure::new(cgroups);
    enclosure.admit(child.id()).unwrap();
    let enforced = enclosure.apply(child.id(), &Limits::parse(limits).unwrap());
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
    drop(child.stdin.take());
    let pid = child.id();
    let mut text = String::new();
    for mut pipe in [
        Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read>,
        Box::new(child.stderr.take().unwrap()),
    ] {
        pipe.read_to_string(&mut text).unwrap();
    }
    let process = rustix::process::Pid::from_child(&child);
    let until_over = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(process), until_over).unwrap();
    let used = cpu_ms(pid);
    let status = child.wait().unwrap();
    let exit = status.code().map_or_else(|| Exit::Signal(status.signal().unwrap()), Exit::Status);
    (text, enclosure.verdict(exit, used), enforced)
}

fn without_groups() -> Cgroups {
    Cgroups::none("there are none in this test")
}

fn has_memory_groups(cgroups: &Cgroups) -> bool {
    if let Err(why) = cgroups.memory() {
        skipped(&format!("no memory cgroup for us: {why}"));
    }
    cgroups.memory().is_ok()
}

#[test]
fn memory_that_is_used_up_is_a_memory_limit() {
    let cgroups = Cgroups::detect();
    if !has_memory_groups(&cgroups) {
        return;
    }
    let code = "b = [bytearray(b'x' * 100000) for _ in range(100000)]";
    let (text, exit, enforced) = run(python(code), &cgroups, "memory=64M");
    assert_eq!(exit, Exit::MemoryLimit(64 << 20), "{text}");
    assert!(matches!(enforced.0[0].by, Means::CgroupV1 | Means::CgroupV2));
}

#[test]
fn an_allocation_that_is_too_large_is_the_users_error_with_and_without_groups() {
    for cgroups in [Cgroups::detect(), without_groups()] {
        let code = "try: bytearray(8 << 30)\nexcept MemoryError: print('no memory')";
        let (text, exit, _) = run(python(code), &cgroups, "memory=64M");
        assert_eq!((text.as_str(), exit), ("no memory\n", Exit::Status(0)));
    }
}

#[test]
fn processor_time_that_is_used_up_is_named() {
    let spin = "while True: pass";
    let (_, exit, enforced) = run(python(spin), &without_groups(), "cpu=1s");
    assert_eq!(exit, Exit::CpuLimit(1));
    assert_eq!(enforced.0[0].to_string(), "cpu=1s: rlimit");
    let stubborn = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass";
    assert_eq!(run(python(stubborn), &without_groups(), "cpu=1s").1, Exit::CpuLimit(1));
}

#[test]
fn who_is_killed_for_another_reason_reached_no_limit() {
    let cgroups = Cgroups::detect();
    let code = "import os\nos.kill(os.getpid(), 9)";
    let (_, exit, _) = run(python(code), &cgroups, "memory=64M,cpu=5s");
    assert_eq!(exit, Exit::Signal(libc::SIGKILL));
}

#[test]
fn descriptors_and_files_are_limited_in_a_process_that_runs() {
    let code = "import os, tempfile\ntry:\n  while True: os.dup(0)\nexcept OSError as e: print(e.errno)\n\
                os.closerange(5, 100)\ntry: tempfile.TemporaryFile(buffering=0).write(b'x' * 5000); print('short')\n\
                except OSError as e: print(e.errno)";
    let (text, exit, enforced) = run(python(code), &without_groups(), "open_files=40,file=4K");
    assert_eq!((text.as_str(), exit), ("24\nshort\n", Exit::Status(0)));
    let shown: Vec<_> = enforced.0.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["open_files=40: rlimit", "file=4K: rlimit"]);
}

#[test]
fn what_is_enforced_is_told_for_each_limit() {
    let mut enclosure = Enclosure::new(&without_groups());
    let mut child = python("");
    let limits = Limits::parse("memory=512M,processes=9,time=1s,disk=1G").unwrap();
    let enforced = enclosure.apply(child.id(), &limits);
    let json = serde_json::to_value(&enforced).unwrap();
    assert_eq!(json[0]["limit"], "memory");
    assert_eq!(json[0]["value"], 512 << 20);
    let by = json[0]["by"].as_str().unwrap();
    assert!(by.starts_with("rlimit, for each process alone") && by.contains("none in this test"), "{by}");
    assert_eq!(json[1]["by"], "kernel");
    let processes = json[2]["by"].as_str().unwrap();
    match rustix::process::getuid().is_root() {
        true => assert!(processes.starts_with("not enforced: the system does not count"), "{processes}"),
        false => assert!(processes.starts_with("rlimit, counted with all other"), "{processes}"),
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    // Nobody is there any more.
    assert_eq!(enclosure.apply(child.id(), &Limits::parse("open_files=64").unwrap()).missing().count(), 1);
}

#[test]
fn the_forecast_has_a_row_for_every_limit() {
    let forecast = forecast(&without_groups());
    assert_eq!(forecast.0.len(), Limit::ALL.len());
    assert!(forecast.0[0].to_string().starts_with("memory: rlimit, for each process alone"));
}
