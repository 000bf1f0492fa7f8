//! Hands its input to `cob_tests::fuzz::zygote`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cob_tests::fuzz::zygote(data));
