//! What the system knows of this process that a fork does not copy, or that both would have then.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use cob_protocol::checkpoint::Finding;
use cob_protocol::limits::ZYGOTE_PACKET_BYTES_MAX;
use rustix::fs::{FileType, fstat};
use rustix::net::sockopt::socket_peercred;
use rustix::process::getpid;

use crate::descriptors::standard;

/// Names of one kind that are told; more are only counted.
const NAMES_MAX: usize = 8;
/// Findings are cut here, so that they fit into one packet.
const FINDINGS_BYTES_MAX: usize = ZYGOTE_PACKET_BYTES_MAX / 2;
/// What a finding costs beside its words.
const FINDING_BYTES: usize = 64;

/// Numbers of all open descriptors.
pub(crate) fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let entries = fs::read_dir("/proc/self/fd")?;
    let numbers: Vec<RawFd> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // Without the one that reads the folder, which is closed by now.
    Ok(numbers.into_iter().filter(|number| rustix::io::fcntl_getfd(standard(*number)).is_ok()).collect())
}

/// Processes that this one has started and that run, but for `helpers`: they would belong to nobody in a copy.
pub(crate) fn children(helpers: &[u32]) -> Option<Finding> {
    let children = of_threads().unwrap_or_else(of_everybody);
    let names: Vec<_> =
        children.into_iter().filter(|pid| !helpers.contains(pid)).filter_map(name_of).collect();
    let text = format!("processes that the session has started are running: {}", list(&names));
    (!names.is_empty()).then(|| Finding { kind: "child".to_owned(), text, blocks: true })
}

/// As every thread is told to have them; `None` where the system does not tell.
fn of_threads() -> Option<Vec<u32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task").ok()? {
        let children = fs::read_to_string(thread.ok()?.path().join("children"));
        match children {
            Ok(children) => {
                found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()))
            }
            // The thread has ended just now, or no thread has such a file.
            Err(_) if fs::exists("/proc/thread-self/children").unwrap_or(false) => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

fn of_everybody() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| state_and_parent(*pid).is_some_and(|(_, parent)| parent == std::process::id()))
        .collect()
}

/// What a process is called, if it runs: of one that has ended only its status is left.
fn name_of(pid: u32) -> Option<String> {
    let (state, _) = state_and_parent(pid)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (state != "Z" && state != "X").then(|| format!("{} ({pid})", name.trim_end()))
}

fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// What both processes would hold, and what none but this one can use. `is_ours` knows the worker's own descriptors.
pub(crate) fn shared(is_ours: impl Fn(RawFd) -> bool) -> Vec<Finding> {
    let mut found = Shared::default();
    for number in open_descriptors().unwrap_or_default().into_iter().filter(|number| !is_ours(*number)) {
        found.look_at(number);
    }
    found.look_at_memory(&fs::read_to_string("/proc/self/maps").unwrap_or_default());
    found.told()
}

/// A clock that will send a signal here, and nowhere else: a fork does not pass it on.
pub(crate) fn alarm() -> Option<Finding> {
    let mut left = MaybeUninit::<libc::itimerval>::zeroed();
    // SAFETY: the structure is written by the system, and all zeroes are valid besides.
    let left = unsafe {
        libc::getitimer(libc::ITIMER_REAL, left.as_mut_ptr());
        left.assume_init().it_value
    };
    let text =
        "an alarm is set (signal.alarm, setitimer) and will not ring in a copy of the session".to_owned();
    (left.tv_sec != 0 || left.tv_usec != 0).then(|| Finding { kind: "alarm".to_owned(), text, blocks: false })
}

#[derive(Default)]
struct Shared {
    devices: Vec<String>,
    sockets: Vec<String>,
    pipes: Vec<String>,
    loops: Vec<String>,
    others: Vec<String>,
    memory: Vec<String>,
}

impl Shared {
    fn look_at(&mut self, number: RawFd) {
        let Ok(stat) = fstat(standard(number)) else { return };
        let target = || fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket if !is_within(number) => self.sockets.push(number.to_string()),
            FileType::Fifo => self.pipes.push(number.to_string()),
            FileType::CharacterDevice => self.look_at_device(&target().to_string_lossy()),
            FileType::Unknown => {
                let target = target();
                let name = target.to_string_lossy();
                let name = name.trim_start_matches("anon_inode:").trim_matches(['[', ']']);
                if name == "eventpoll" {
                    self.loops.push(number.to_string());
                } else {
                    self.others.push(format!("{name} ({number})"));
                }
            }
            _ => {}
        }
    }

    fn look_at_device(&mut self, path: &str) {
        let is_accelerator = ["/dev/nvidia", "/dev/kfd", "/dev/dri/"].iter().any(|it| path.starts_with(it));
        if is_accelerator && !self.devices.iter().any(|device| device == path) {
            self.devices.push(path.to_owned());
        }
    }

    /// Mappings that can be written and that others see: `address access offset device inode path`.
    fn look_at_memory(&mut self, maps: &str) {
        for line in maps.lines() {
            let mut fields = line.splitn(6, ' ');
            let access = fields.nth(1).unwrap_or_default();
            let path = fields.last().unwrap_or_default().trim_start();
            let is_shared = access.get(1..2) == Some("w") && access.ends_with('s');
            // The page that is shared with the host is given up by itself.
            if is_shared && !path.starts_with("/memfd:cob-page") && !path.starts_with("/dev/nvidia") {
                self.memory.push(if path.is_empty() { "without a name".to_owned() } else { path.to_owned() });
            }
        }
        self.memory.dedup();
    }

    fn told(self) -> Vec<Finding> {
        let Self { devices, sockets, pipes, loops, others, memory } = self;
        let kinds = [
            ("cuda", true, "what a graphics processor holds is not copied", devices),
            ("socket", false, "connections are shared with the session that goes on: descriptors", sockets),
            ("pipe", false, "pipes are shared with the session that goes on: descriptors", pipes),
            (
                "event_loop",
                false,
                "event loops wait together with the session that goes on: descriptors",
                loops,
            ),
            ("descriptor", false, "descriptors are shared with the session that goes on", others),
            ("shared_memory", false, "memory is shared with the session that goes on", memory),
        ];
        let told = kinds.into_iter().filter(|(.., names)| !names.is_empty());
        told.map(|(kind, blocks, what, names)| {
            let text = format!("{what}: {}", list(&names)).replace("descriptors: ", "descriptors ");
            Finding { kind: kind.to_owned(), text, blocks }
        })
        .collect()
    }
}

/// A pair of sockets that this process has made for itself, as event loops do.
fn is_within(number: RawFd) -> bool {
    socket_peercred(standard(number)).is_ok_and(|peer| peer.pid == getpid())
}

fn list(names: &[String]) -> String {
    let (told, rest) = names.split_at(NAMES_MAX.min(names.len()));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", told.join(", "))
}

/// As many as fit into a packet, those that block first.
pub(crate) fn fitting(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| !finding.blocks);
    let mut bytes = 0;
    let mut fits = |finding: &Finding| {
        bytes += FINDING_BYTES + finding.kind.len() + finding.text.len();
        bytes <= FINDINGS_BYTES_MAX
    };
    let count = findings.iter().take_while(|finding| fits(finding)).count();
    let left = findings.len() - count;
    if left > 0 {
        let blocks = findings.iter().skip(count).any(|finding| finding.blocks);
        findings.truncate(count);
        findings.push(Finding { kind: "more".to_owned(), text: format!("{left} more were found"), blocks });
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    use super::*;

    fn kinds(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.kind.as_str()).collect()
    }

    #[test]
    fn a_child_is_found_until_it_has_ended() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let is_named =
            || children(&[]).is_some_and(|it| it.blocks && it.text.contains(&format!("({})", child.id())));
        assert!(is_named());
        assert!(!children(&[child.id()]).is_some_and(|it| it.text.contains(&format!("({})", child.id()))));
        assert!(of_everybody().contains(&child.id()), "the slow way finds it as well");
        let id = child.id();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!of_everybody().contains(&id));
    }

    #[test]
    fn what_is_shared_is_told_once_for_each_kind() {
        let (reader, _writer) = io::pipe().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _pair = std::os::unix::net::UnixStream::pair().unwrap();
        let ours = [reader.as_raw_fd(), listener.as_raw_fd()];
        let mut found = Shared::default();
        ours.iter().for_each(|number| found.look_at(*number));
        found.look_at(_pair.0.as_raw_fd());
        found.look_at_device("/dev/nvidia0");
        found.look_at_device("/dev/nvidia0");
        found.look_at_device("/dev/null");
        let maps = "7f00-7f01 rw-s 00000000 00:01 7 /dev/shm/psm_1 (deleted)\n\
            7f01-7f02 rw-s 00000000 00:01 7 /memfd:cob-page (deleted)\n\
            7f02-7f03 r--s 00000000 00:01 7 /usr/lib/locale\n7f03-7f04 rw-p 00000000 00:00 0 \n\
            7f04-7f05 rw-s 00000000 00:01 9 ";
        found.look_at_memory(maps);
        let told = found.told();
        assert_eq!(kinds(&told), ["cuda", "socket", "pipe", "shared_memory"]);
        assert!(told[0].blocks && !told[1].blocks);
        assert!(told[2].text.ends_with(&format!("descriptors {}", ours[0])), "{}", told[2].text);
        assert!(told[3].text.ends_with(": /dev/shm/psm_1 (deleted), without a name"), "{}", told[3].text);
    }

    #[test]
    fn findings_fit_into_a_packet_and_what_blocks_comes_first() {
        let finding = |blocks| Finding { kind: "file".to_owned(), text: "x".repeat(1000), blocks };
        let mut many = vec![finding(false); 100];
        many.push(finding(true));
        let fit = fitting(many);
        assert!(fit.len() < 40 && fit[0].blocks && fit.last().is_some_and(|it| it.kind == "more"));
        assert_eq!(fitting(vec![finding(false)]).len(), 1);
    }
}
