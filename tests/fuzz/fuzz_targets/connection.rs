//! Hands its input to `cob_tests::fuzz::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cob_tests::fuzz::connection(data));
