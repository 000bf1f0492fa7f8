//! The fuzz targets on a bounded number of inputs: their examples, and those after small and large accidents.

use cob_tests::fuzz::{TARGETS, examples};
use cob_tests::seed::Seed;

/// Inputs per target: a parser needs microseconds for one, the bridge makes a store for it.
fn count(target: &str) -> u64 {
    match target {
        "bridge" => 150,
        // A file for each.
        "bundle" => 1_000,
        _ => 4_000,
    }
}

fn damaged(seed: &mut Seed, mut data: Vec<u8>) -> Vec<u8> {
    for _ in 0..=seed.below(4) {
        let at = seed.below(data.len().max(1));
        match seed.below(6) {
            0 => data.truncate(at),
            1 => data.extend(seed.bytes(40)),
            2 => drop(data.splice(at.min(data.len())..at.min(data.len()), seed.bytes(8))),
            3 => data.extend_from_within(at.min(data.len())..),
            _ => {
                let extreme = [0, 1, 0x7f, 0x80, 0xff, b'{', b'"', b'<'][seed.below(8)];
                if let Some(byte) = data.get_mut(at) {
                    *byte = if seed.below(2) == 0 {
                        extreme
                    } else {
                        seed.bytes(2).first().map_or(3, |b| byte.wrapping_add(*b))
                    };
                }
            }
        }
    }
    data
}

#[test]
fn no_parser_of_outside_bytes_panics_or_contradicts_itself() {
    for (name, target) in TARGETS {
        let examples = examples(name);
        assert!(!examples.is_empty(), "{name} has no example");
        examples.iter().for_each(|example| target(example));
        for number in 0..count(name) {
            let mut seed = Seed::new(number);
            let data = match seed.below(4) {
                0 => seed.bytes(200),
                _ => {
                    let example = examples[seed.below(examples.len())].clone();
                    damaged(&mut seed, example)
                }
            };
            // The test's name and the number are all that is needed to see it again.
            if std::panic::catch_unwind(|| target(&data)).is_err() {
                unreachable!("target {name}, input {number}: {data:?}");
            }
        }
    }
}

#[test]
fn every_prefix_of_every_example_is_survived() {
    for (name, target) in TARGETS {
        for example in examples(name) {
            (0..example.len()).for_each(|end| target(&example[..end]));
        }
    }
}
