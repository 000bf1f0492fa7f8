//! Passed, failed, skipped: read from what cargo and pytest print, and added up.

use std::fmt;
use std::ops::AddAssign;

use crate::shell::Failure;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// A step that failed without saying how many tests did.
    pub(crate) fn one_failure() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// Reads a summary line of `cargo test` (`test result: ok. 5 passed; …`).
    pub(crate) fn from_cargo(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        Some(Self::from_words(counts, ';'))
    }

    /// Reads the last line of pytest (`== 5 passed, 1 skipped in 2.30s ==`).
    pub(crate) fn from_pytest(line: &str) -> Option<Self> {
        let line = without_colour(line);
        let (counts, time) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
        let (seconds, _) = time.split_once('s')?;
        seconds.parse::<f64>().ok()?;
        Some(Self::from_words(counts, ','))
    }

    fn from_words(counts: &str, separator: char) -> Self {
        let mut tally = Self::default();
        for count in counts.split(separator) {
            let Some((number, word)) = count.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" | "xpassed" => tally.passed += number,
                "failed" | "error" | "errors" => tally.failed += number,
                "skipped" | "ignored" | "xfailed" => tally.skipped += number,
                _ => {} // measured, filtered out, deselected, warnings
            }
        }
        tally
    }

    /// Adds a failure when a step failed although no test did: it did not
    /// compile, or ended before its summary.
    pub(crate) fn with_outcome(mut self, outcome: Result<(), Failure>) -> Self {
        if let Err(failure) = outcome {
            eprintln!("xtask: {failure}");
            self.failed = self.failed.max(1);
        }
        self
    }

    /// For a step that is called alone: its total, then success or failure.
    pub(crate) fn into_result(self) -> Result<(), Failure> {
        println!("{self}");
        if self.failed == 0 { Ok(()) } else { Err(Failure::new("not everything passed.")) }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The line without terminal colours (`ESC [ … m`).
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn tally(passed: u64, failed: u64, skipped: u64) -> Option<Tally> {
        Some(Tally { passed, failed, skipped })
    }

    #[test]
    fn cargo_summaries_are_read() {
        let ok =
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.01s";
        assert_eq!(Tally::from_cargo(ok), tally(12, 0, 3));
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Tally::from_cargo(bad), tally(1, 2, 0));
        assert_eq!(Tally::from_cargo("test tally::tests::something ... ok"), None);
    }

    #[test]
    fn pytest_summaries_are_read() {
        for (line, expected) in [
            ("== 5 passed in 2.30s ==", tally(5, 0, 0)),
            ("1 failed, 5 passed, 2 skipped, 3 warnings in 61.10s (0:01:01)", tally(5, 1, 2)),
            ("===== 3 passed, 1 deselected, 1 error in 0.10s =====", tally(3, 1, 0)),
            ("\x1b[32m== \x1b[1m7 passed\x1b[0m\x1b[32m in 1.00s ==\x1b[0m", tally(7, 0, 0)),
            ("no tests ran in 0.01s", tally(0, 0, 0)),
            ("tests/python/test_order.py ....", None),
            ("something went wrong in the parser", None),
        ] {
            assert_eq!(Tally::from_pytest(line), expected, "{line}");
        }
    }

    #[test]
    fn a_failed_step_without_failed_tests_counts_once() {
        let broken = || Err(Failure::new("it did not compile"));
        assert_eq!(Tally::default().with_outcome(broken()).failed, 1);
        assert_eq!(Tally { failed: 3, ..Tally::default() }.with_outcome(broken()).failed, 3);
        assert_eq!(Tally::default().with_outcome(Ok(())).failed, 0);
    }

    #[test]
    fn the_total_is_one_plain_line() {
        let mut total = Tally { passed: 1, failed: 0, skipped: 2 };
        total += Tally { passed: 3, failed: 1, skipped: 0 };
        assert_eq!(total.to_string(), "4 passed, 1 failed, 2 skipped");
    }
}
