//! Hands its input to `cob_tests::fuzz::bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cob_tests::fuzz::bundle(data));
