//! Where this process stands in the cgroup hierarchies of the host, read from `/proc`.
//!
//! Nothing is made or changed here.

use std::fs;
use std::path::{Path, PathBuf};

/// Where to look; tests have a host of their own.
#[derive(Clone, Debug)]
pub struct Host {
    /// Usually `/proc/self`.
    pub process: PathBuf,
    /// Put before every mount point; usually `/`.
    pub root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { process: PathBuf::from("/proc/self"), root: PathBuf::from("/") }
    }
}

/// The directories of this process's own cgroups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hierarchies {
    /// In the v1 hierarchy of the memory controller.
    pub(crate) memory: Option<PathBuf>,
    /// In the v1 hierarchy of the pids controller.
    pub(crate) pids: Option<PathBuf>,
    /// In the v2 hierarchy.
    pub(crate) unified: Option<PathBuf>,
}

/// A mount of a cgroup file system.
struct Mount<'a> {
    /// The directory of the hierarchy that is visible.
    root: &'a str,
    /// Where.
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// A line of `mountinfo`: `id parent device root point options [optional…] - kind source options`.
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (root, point) = (left.next()?, left.next()?);
        Some(Self { root, point, kind: right.next()?, options: right.nth(1)? })
    }

    fn has(&self, controller: &str) -> bool {
        self.kind == "cgroup" && self.options.split(',').any(|option| option == controller)
    }

    /// Where the cgroup `path` of the hierarchy is visible.
    fn directory(&self, host: &Host, path: &str) -> PathBuf {
        // In a container the path may be that of the host while only a part of the hierarchy is mounted.
        let relative = Path::new(path).strip_prefix(self.root).unwrap_or(Path::new(""));
        let point = self.point.replace("\\040", " ");
        let relative = relative.strip_prefix("/").unwrap_or(relative);
        host.root.join(point.trim_start_matches('/')).join(relative)
    }
}

impl Hierarchies {
    pub(crate) fn of(host: &Host) -> Self {
        let read = |name: &str| fs::read_to_string(host.process.join(name)).unwrap_or_default();
        let (memberships, mounts) = (read("cgroup"), read("mountinfo"));
        let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::parse).collect();
        let mut found = Self::default();
        for line in memberships.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let place = |is_it: &dyn Fn(&Mount<'_>) -> bool| {
                Some(mounts.iter().find(|mount| is_it(mount))?.directory(host, path))
            };
            if names.is_empty() {
                found.unified = place(&|mount| mount.kind == "cgroup2");
            }
            for name in names.split(',') {
                match name {
                    "memory" => found.memory = place(&|mount| mount.has("memory")),
                    "pids" => found.pids = place(&|mount| mount.has("pids")),
                    _ => {}
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(memberships: &str, mounts: &str) -> Hierarchies {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup"), memberships).unwrap();
        fs::write(folder.path().join("mountinfo"), mounts).unwrap();
        Hierarchies::of(&Host { process: folder.path().to_owned(), root: "/host".into() })
    }

    #[test]
    fn each_controller_has_its_own_place_in_the_old_hierarchies() {
        let found = found(
            "8:pids:/\n4:cpuset,memory:/a/b\n0::/\n",
            "1 2 0:3 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,cpuset,memory\n\
             1 2 0:3 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
        );
        assert_eq!(found.memory.unwrap(), Path::new("/host/sys/fs/cgroup/memory/a/b"));
        assert_eq!(found.pids.unwrap(), Path::new("/host/sys/fs/cgroup/pids"));
        assert_eq!(found.unified, None);
    }

    #[test]
    fn a_container_sees_a_part_of_the_hierarchy_as_its_root() {
        let mounts = "1 2 0:3 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        for (path, place) in [("/docker/x/y", "/host/sys/fs/cgroup/y"), ("/", "/host/sys/fs/cgroup")] {
            assert_eq!(found(&format!("0::{path}\n"), mounts).unified.unwrap(), Path::new(place));
        }
    }
}
