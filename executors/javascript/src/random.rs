//! Chance: bytes of the system, for `Math.random` and `crypto`.
//!
//! Drawn in advance, since `Math.random` is called often. A forked process must not go on with those of its parent.

use std::cell::RefCell;

use deno_core::v8;

/// How many bytes are drawn at once.
const BYTES: usize = 1024;

struct Drawn {
    bytes: [u8; BYTES],
    /// From here on they were not given away.
    next: usize,
}

thread_local! {
    static DRAWN: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; BYTES], next: BYTES }) };
}

/// Makes it what `Math.random` draws from: what came of a seed would be the same in all workers of a zygote. Before
/// there is a runtime.
pub(crate) fn set_up() {
    v8::V8::set_entropy_source(|wanted: &mut [u8]| fill(wanted).is_ok());
}

/// In a process that was just forked.
pub(crate) fn renew() {
    DRAWN.with_borrow_mut(|drawn| drawn.next = BYTES);
}

/// Fills `wanted`.
///
/// # Errors
/// The system has none.
pub(crate) fn fill(wanted: &mut [u8]) -> Result<(), getrandom::Error> {
    if wanted.len() > BYTES {
        return getrandom::fill(wanted);
    }
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.next + wanted.len() > BYTES {
            getrandom::fill(&mut drawn.bytes)?;
            drawn.next = 0;
        }
        let end = drawn.next + wanted.len();
        if let Some(bytes) = drawn.bytes.get_mut(drawn.next..end) {
            wanted.copy_from_slice(bytes);
            // Nobody finds out later what was drawn.
            bytes.fill(0);
        }
        drawn.next = end;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_drawn_is_not_drawn_again() {
        let [mut first, mut second] = [[0u8; 16]; 2];
        fill(&mut first).unwrap();
        fill(&mut second).unwrap();
        assert_ne!(first, second);
        assert_ne!(first, [0; 16]);
    }

    #[test]
    fn a_copy_of_the_process_draws_anew() {
        let mut first = [0u8; 8];
        fill(&mut first).unwrap();
        renew();
        assert_eq!(DRAWN.with_borrow(|drawn| drawn.next), BYTES);
        let mut large = vec![0u8; BYTES + 1];
        fill(&mut large).unwrap();
        assert!(large.iter().any(|byte| *byte != 0));
    }
}
