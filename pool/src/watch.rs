//! Watching a process that is not ours.

use std::io;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::readiness::watch;

/// Waits until the process `pid` has ended.
///
/// # Errors
/// When there is no such process, or the system cannot watch it.
pub async fn exit_of(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
    pidfd.readable().await?.retain_ready();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let end = tokio::spawn(exit_of(child.id()));
        drop(child.stdin.take());
        end.await.unwrap().unwrap();
        child.wait().unwrap();
        assert!(exit_of(0).await.is_err());
    }
}
