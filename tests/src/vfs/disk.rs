//! What a disk with a cache in front of it makes of writes when the power goes: pure bookkeeping over real files.
//!
//! The real file holds what has reached the platter. What was written since the last sync of a file lives in memory:
//! everybody reads it, and a cut keeps some of it.
//!
//! **Invariant:** whatever a successful sync covered is in the real file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::seed::Seed;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Opening a file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making a file shorter.
    Truncate,
    /// Synchronising a file.
    Sync,
    /// Removing a file.
    Delete,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Read, Self::Write, Self::Truncate, Self::Sync, Self::Delete];
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device reports an error. What a failed sync should have covered is lost, and no later sync saves it:
    /// the system marks such pages as clean.
    Eio,
    /// There is no room.
    Enospc,
    /// Half of it is written, then there is no room.
    Short,
}

/// A fault to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which call.
    pub call: Call,
    /// The how-manieth from now, from 1.
    pub nth: u64,
    /// How.
    pub failure: Failure,
    /// Whether all after it fail too.
    pub lasting: bool,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

/// A file as processes see it, and what of that is not safe.
#[derive(Debug)]
struct Image {
    platter: File,
    seen: Vec<u8>,
    /// Since the last sync, oldest first.
    pending: Vec<Change>,
    /// Whether its name is safe too.
    is_linked: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    files: BTreeMap<PathBuf, Image>,
    /// Removed files whose removal is not safe, with what was in them.
    ghosts: BTreeMap<PathBuf, Vec<u8>>,
    pub(super) has_power: bool,
    /// A handle that was opened in another life is dead.
    pub(super) life: u64,
    counts: BTreeMap<Call, u64>,
    fault: Option<Fault>,
    /// The power goes with the so-manieth write, truncation, sync or removal from now.
    pub(super) power_left: Option<u64>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            has_power: true,
            life: 0,
            counts: BTreeMap::new(),
            fault: None,
            power_left: None,
        }
    }

    pub(super) fn fail(&mut self, fault: Option<Fault>) {
        self.counts.clear();
        self.fault = fault;
    }

    pub(super) fn count(&self, call: Call) -> u64 {
        self.counts.get(&call).copied().unwrap_or(0)
    }

    /// Counts a call; how it must fail, if it must.
    pub(super) fn calls(&mut self, call: Call) -> Option<Failure> {
        let changes = matches!(call, Call::Write | Call::Truncate | Call::Sync | Call::Delete);
        if let Some(left) = self.power_left.as_mut().filter(|_| changes) {
            *left = left.saturating_sub(1);
            self.has_power &= *left > 0;
        }
        if !self.has_power {
            return Some(Failure::Eio);
        }
        let count = self.counts.entry(call).or_default();
        *count += 1;
        let fault = self.fault.filter(|fault| fault.call == call)?;
        (*count == fault.nth || (fault.lasting && *count > fault.nth)).then_some(fault.failure)
    }

    /// A file is opened; it is there already. `is_new`: only just.
    pub(super) fn open(&mut self, path: &Path, is_new: bool) -> std::io::Result<()> {
        if !self.files.contains_key(path) {
            let platter = OpenOptions::new().read(true).write(true).open(path)?;
            let seen = std::fs::read(path)?;
            let image = Image { platter, seen, pending: Vec::new(), is_linked: !is_new };
            self.files.insert(path.to_owned(), image);
        }
        Ok(())
    }

    /// Its length as processes see it, if it is known.
    pub(super) fn length(&self, path: &Path) -> Option<usize> {
        self.files.get(path).map(|image| image.seen.len())
    }

    /// Fills `buffer` as far as the file goes.
    pub(super) fn read(&self, path: &Path, at: usize, buffer: &mut [u8]) -> usize {
        let Some(image) = self.files.get(path) else { return 0 };
        let there = image.seen.get(at..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(there) {
            *to = *from;
        }
        count
    }

    pub(super) fn write(&mut self, path: &Path, at: usize, bytes: &[u8]) {
        self.change(path, Change::Write { at, bytes: bytes.to_owned() });
    }

    pub(super) fn resize(&mut self, path: &Path, length: usize) {
        self.change(path, Change::Resize(length));
    }

    fn change(&mut self, path: &Path, change: Change) {
        if let Some(image) = self.files.get_mut(path) {
            change.apply(&mut image.seen);
            image.pending.push(change);
        }
    }

    /// `with_folder`: names are made safe too, as SQLite does at the first sync of a new journal.
    pub(super) fn sync(&mut self, path: &Path, with_folder: bool) -> std::io::Result<()> {
        if let Some(image) = self.files.get_mut(path) {
            for change in image.pending.drain(..) {
                change.reach(&image.platter)?;
            }
        }
        if with_folder {
            self.sync_folder();
        }
        Ok(())
    }

    /// The system forgets that these pages were written, as it does after a failed sync.
    pub(super) fn forget_pending(&mut self, path: &Path) {
        if let Some(image) = self.files.get_mut(path) {
            image.pending.clear();
        }
    }

    fn sync_folder(&mut self) {
        self.ghosts.clear();
        for image in self.files.values_mut() {
            image.is_linked = true;
        }
    }

    pub(super) fn remove(&mut self, path: &Path, with_folder: bool) -> std::io::Result<()> {
        let platter = std::fs::read(path)?;
        std::fs::remove_file(path)?;
        let was_linked = self.files.remove(path).is_none_or(|image| image.is_linked);
        if was_linked {
            self.ghosts.insert(path.to_owned(), platter);
        }
        if with_folder {
            self.sync_folder();
        }
        Ok(())
    }

    /// The power goes: of what was not safe a random subset reaches the platter, in random order, and of the last
    /// write only a part.
    pub(super) fn cut(&mut self, seed: &mut Seed) -> std::io::Result<()> {
        self.end_life();
        for (path, mut image) in std::mem::take(&mut self.files) {
            if !image.is_linked && seed.below(2) == 0 {
                std::fs::remove_file(&path)?;
                continue;
            }
            for change in survivors(std::mem::take(&mut image.pending), seed) {
                change.reach(&image.platter)?;
            }
        }
        for (path, platter) in std::mem::take(&mut self.ghosts) {
            if !path.exists() && seed.below(2) == 0 {
                std::fs::write(&path, platter)?;
            }
        }
        Ok(())
    }

    /// Only the process dies: the system still has everything, and writes it when it likes.
    pub(super) fn kill(&mut self) -> std::io::Result<()> {
        self.end_life();
        for (_, mut image) in std::mem::take(&mut self.files) {
            for change in image.pending.drain(..) {
                change.reach(&image.platter)?;
            }
        }
        self.ghosts.clear();
        Ok(())
    }

    fn end_life(&mut self) {
        self.has_power = false;
        self.power_left = None;
        self.life += 1;
        self.fail(None);
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                if let Some(place) = image.get_mut(*at..end) {
                    place.copy_from_slice(bytes);
                }
            }
            Self::Resize(length) => image.resize(*length, 0),
        }
    }

    fn reach(&self, platter: &File) -> std::io::Result<()> {
        match self {
            Self::Write { at, bytes } => platter.write_all_at(bytes, *at as u64),
            Self::Resize(length) => platter.set_len(*length as u64),
        }
    }

    /// A part of it: its beginning or its end, as the drive came to write its sectors.
    fn torn(self, seed: &mut Seed) -> Self {
        let Self::Write { at, mut bytes } = self else { return self };
        let middle = seed.below(bytes.len());
        if seed.below(2) == 0 {
            bytes.truncate(middle);
            Self::Write { at, bytes }
        } else {
            Self::Write { at: at + middle, bytes: bytes.split_off(middle) }
        }
    }
}

/// What of `pending` reaches the platter.
fn survivors(pending: Vec<Change>, seed: &mut Seed) -> Vec<Change> {
    // From next to nothing to nearly all: each is the weak spot of something.
    let percent = [3, 25, 50, 75, 97][seed.below(5)];
    let mut kept: Vec<Change> = pending.into_iter().filter(|_| seed.below(100) < percent).collect();
    for at in (1..kept.len()).rev() {
        kept.swap(at, seed.below(at + 1));
    }
    if let Some(last) = kept.pop() {
        kept.push(last.torn(seed));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(path: &Path, text: &str) -> State {
        std::fs::write(path, text).unwrap();
        let mut disk = State::new();
        disk.open(path, false).unwrap();
        disk
    }

    fn on_platter(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_else(|_| "gone".to_owned())
    }

    #[test]
    fn what_was_synchronised_is_left_by_every_cut_and_of_the_rest_anything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut left = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let mut disk = disk_with(&path, "");
            disk.write(&path, 0, b"aaaa");
            disk.sync(&path, false).unwrap();
            disk.write(&path, 4, b"bb");
            disk.write(&path, 6, b"cc");
            let mut seen = [0; 9];
            assert_eq!((disk.read(&path, 0, &mut seen), &seen), (8, b"aaaabbcc\0"));
            disk.cut(&mut Seed::new(seed)).unwrap();
            left.insert(on_platter(&path).replace('\0', "."));
        }
        let expected = [
            "aaaa", "aaaa...c", "aaaa..c", "aaaa..cc", "aaaa.b", "aaaa.bcc", "aaaab", "aaaab.cc", "aaaabb",
            "aaaabb.c", "aaaabbc", "aaaabbcc",
        ];
        assert!(left.iter().all(|text| text.starts_with("aaaa")), "{left:?}");
        assert!(expected.iter().all(|text| left.contains(*text)), "{left:?}");
    }

    #[test]
    fn d05_what_a_failed_sync_should_have_covered_is_lost_though_the_next_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut disk = disk_with(&path, "old");
        disk.write(&path, 0, b"new");
        disk.forget_pending(&path);
        disk.sync(&path, true).unwrap();
        disk.cut(&mut Seed::new(1)).unwrap();
        assert_eq!(on_platter(&path), "old");
    }

    #[test]
    fn names_are_safe_once_their_folder_was_synchronised() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let mut outcomes = std::collections::BTreeSet::new();
        for (seed, is_synchronised) in (0..40).flat_map(|seed| [(seed, false), (seed, true)]) {
            let mut disk = disk_with(&old, "old");
            disk.remove(&old, false).unwrap();
            std::fs::write(&new, "").unwrap();
            disk.open(&new, true).unwrap();
            disk.write(&new, 0, b"new");
            disk.sync(&new, is_synchronised).unwrap();
            disk.cut(&mut Seed::new(seed)).unwrap();
            outcomes.insert((is_synchronised, on_platter(&old), on_platter(&new)));
        }
        let of =
            |is_synchronised| outcomes.iter().filter(move |outcome| outcome.0 == is_synchronised).count();
        assert_eq!((of(true), of(false)), (1, 4), "{outcomes:?}");
    }

    #[test]
    fn the_death_of_a_process_leaves_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut disk = disk_with(&path, "old");
        disk.write(&path, 3, b"er");
        disk.resize(&path, 4);
        disk.kill().unwrap();
        assert_eq!(on_platter(&path), "olde");
        assert!(!disk.has_power && disk.calls(Call::Read).is_some());
    }

    #[test]
    fn a_fault_comes_at_its_call_and_once_unless_it_lasts() {
        let mut disk = State::new();
        for lasting in [false, true] {
            disk.fail(Some(Fault { call: Call::Write, nth: 2, failure: Failure::Enospc, lasting }));
            let outcomes = [(); 4].map(|()| disk.calls(Call::Write).is_some());
            assert_eq!(outcomes, [false, true, lasting, lasting]);
            assert_eq!((disk.calls(Call::Sync), disk.count(Call::Write)), (None, 4));
        }
    }
}
