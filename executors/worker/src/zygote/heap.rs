//! The C library's heap before a fork.
//!
//! Imports leave holes all over it. What a forked worker allocates would go into them, and each time that touches a
//! page for the first time the page is copied: of the copies between the greeting of a worker and its answer, most
//! were such. So the holes are filled once, and workers allocate behind them, where few pages hold it all.
#![allow(unsafe_code)]

/// Sizes of blocks, the largest first: what remains of a large hole is filled by smaller ones.
const SIZES: &[usize] = &[65_536, 16_384, 4_096, 2_048, 1_024, 512, 256, 192, 128, 96, 64, 48, 32, 24];
/// A block of this size lies behind all holes, but is not so large that it gets a mapping of its own.
const BEHIND: usize = 120 * 1024;
/// More than this is not filled.
const FILLED_BYTES_MAX: usize = 16 << 20;

/// Allocates whatever lies before the end of the heap, for good. Says how many bytes that were.
pub(super) fn fill_holes() -> usize {
    let end = block(BEHIND);
    let mut filled = 0;
    for size in SIZES {
        while filled < FILLED_BYTES_MAX {
            let hole = block(*size);
            if hole >= end || hole == 0 {
                release(hole);
                break;
            }
            filled += size;
        }
    }
    release(end);
    filled
}

/// The address of a new block.
fn block(size: usize) -> usize {
    // SAFETY: has no precondition.
    unsafe { libc::malloc(size) as usize }
}

fn release(block: usize) {
    // SAFETY: comes from `malloc`, was not given back, and nobody else knows it.
    unsafe { libc::free(block as *mut libc::c_void) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_and_only_once() {
        // Every other one of many blocks is given back.
        let blocks: Vec<usize> = (0..4000).map(|_| block(200)).collect();
        blocks.iter().step_by(2).for_each(|block| release(*block));
        let first = fill_holes();
        assert!(fill_holes() <= first, "a second time there is less to fill");
        blocks.iter().skip(1).step_by(2).for_each(|block| release(*block));
    }
}
