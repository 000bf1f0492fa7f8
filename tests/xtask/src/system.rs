//! What the machine must have, and how it gets there.

use std::process::{Command, Stdio};

use crate::shell::{self, Failure};

/// Installs Debian packages, or says in one line what to install.
pub(crate) fn install(packages: &[&str], why: &str) -> Result<(), Failure> {
    let names = packages.join(" ");
    let Some(mut apt) = apt_get() else {
        return Err(Failure::new(format!("{why}. Install it first: sudo apt-get install {names}")));
    };
    println!("{why}: installing {names}");
    // Package lists are missing on a fresh machine; old ones are good enough.
    let _ = apt_get().map(|mut apt| shell::run(apt.args(["-q", "update"])));
    shell::run(apt.args(["-q", "install", "-y", "--no-install-recommends"]).args(packages))
}

/// Whether packages can be installed unasked.
pub(crate) fn may_install() -> bool {
    apt_get().is_some()
}

/// `apt-get` with the right to install, if there is a way to have it unasked.
fn apt_get() -> Option<Command> {
    let id = shell::output_of(Command::new("id").arg("-u"))?;
    shell::output_of(Command::new("apt-get").arg("--version"))?;
    let mut apt = if id == "0" {
        Command::new("apt-get")
    } else {
        shell::output_of(Command::new("sudo").args(["-n", "true"]))?;
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "apt-get"]);
        sudo
    };
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    Some(apt)
}
