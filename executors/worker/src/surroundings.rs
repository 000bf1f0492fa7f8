//! What a worker that was forked is told about its place in the world: a started one has it from the system.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use cob_protocol::handshake::Hello;
use rustix::fs::Mode;
use rustix::process::umask;

/// An environment that replaces the one the process has, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Names and values, in the order they came.
    pub variables: Option<Vec<(Bytes, Bytes)>>,
}

impl Surroundings {
    /// Enters what came with `hello`; the environment is left to the language, which has its own view of it.
    pub(crate) fn enter(hello: &Hello, payloads: &[Bytes]) -> Result<Self, String> {
        if let Some(mask) = hello.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if let Some(directory) = payloads.get(1).filter(|directory| !directory.is_empty()) {
            let directory = OsStr::from_bytes(directory);
            env::set_current_dir(directory).map_err(|error| {
                format!("the working directory {} cannot be entered: {error}", directory.display())
            })?;
        }
        Self::parse(payloads)
    }

    pub(crate) fn parse(payloads: &[Bytes]) -> Result<Self, String> {
        Ok(Self { variables: payloads.first().map(parse).transpose()? })
    }
}

/// `NAME=VALUE` with a NUL after each.
fn parse(block: &Bytes) -> Result<Vec<(Bytes, Bytes)>, String> {
    let mut variables = Vec::new();
    let mut rest = block.clone();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let mut name = rest.split_to(end);
        rest = rest.slice(1..);
        // A name may begin with the sign: Windows programs leave such variables behind.
        let sign = name.iter().skip(1).position(|byte| *byte == b'=').ok_or("a variable has no value")?;
        let value = name.split_off(sign + 1).slice(1..);
        variables.push((name, value));
    }
    if rest.is_empty() { Ok(variables) } else { Err("the environment does not end with a NUL".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_names_and_values() {
        let parsed = parse(&Bytes::from_static(b"A=1\0EMPTY=\0PAIRS=a=b\0")).unwrap();
        let expected = [("A", "1"), ("EMPTY", ""), ("PAIRS", "a=b")];
        assert_eq!(parsed, expected.map(|(name, value)| (Bytes::from(name), Bytes::from(value))));
        assert_eq!(parse(&Bytes::new()), Ok(Vec::new()));
        parse(&Bytes::from_static(b"A=1")).unwrap_err();
        parse(&Bytes::from_static(b"A\0")).unwrap_err();
        parse(&Bytes::from_static(b"\0")).unwrap_err();
    }
}
