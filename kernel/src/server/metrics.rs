//! What the server counts, and how it is written for Prometheus (text exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::interceptors::{Interceptor, Observation};

/// The name of the interceptor that counts.
pub(crate) const METRICS: &str = "metrics";

/// Upper bounds of the buckets of latencies, in microseconds.
const BUCKETS_MICROS: [u64; 14] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
];

/// What was counted since the server began.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    asked: BTreeMap<&'static str, u64>,
    asked_bytes: u64,
    answered: BTreeMap<(&'static str, &'static str), u64>,
    executed: BTreeMap<&'static str, u64>,
    acknowledged: Histogram,
    execution: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    /// One more than there are bounds.
    buckets: [u64; BUCKETS_MICROS.len() + 1],
    micros: u64,
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let index = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
        }
        self.micros = self.micros.saturating_add(micros);
    }
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all of it.
    pub(crate) fn write(&self, text: &mut Exposition) {
        let counted = self.lock();
        text.family("cob_requests_total", "counter", "Requests of agents, by type.");
        for (name, count) in &counted.asked {
            text.sample("cob_requests_total", &[("type", name)], count);
        }
        text.family("cob_request_bytes_total", "counter", "Bytes of the contents of these requests.");
        text.sample("cob_request_bytes_total", &[], counted.asked_bytes);
        text.family("cob_replies_total", "counter", "Replies, by type of the request and by outcome.");
        for ((name, code), count) in &counted.answered {
            text.sample("cob_replies_total", &[("type", name), ("outcome", code)], count);
        }
        text.family(
            "cob_executions_total",
            "counter",
            "Executions delivered, by the state of their promises.",
        );
        for (state, count) in &counted.executed {
            text.sample("cob_executions_total", &[("state", state)], count);
        }
        text.histogram("cob_ack_seconds", "From a request until it is recorded.", &counted.acknowledged);
        text.histogram("cob_execution_seconds", "From a request to its reply.", &counted.execution);
    }
}

/// The interceptor that counts.
#[derive(Debug)]
pub(crate) struct Counting(pub(crate) Arc<Tally>);

impl Interceptor for Counting {
    fn name(&self) -> &'static str {
        METRICS
    }

    fn observe(&mut self, observation: &Observation) {
        let mut counted = self.0.lock();
        match observation {
            Observation::Asked { name, bytes, .. } => {
                *counted.asked.entry(name).or_default() += 1;
                counted.asked_bytes = counted.asked_bytes.saturating_add(*bytes as u64);
            }
            Observation::Answered { name, code, .. } => {
                *counted.answered.entry((name, code.unwrap_or("ok"))).or_default() += 1;
            }
            Observation::Acknowledged { took, .. } => counted.acknowledged.add(*took),
            Observation::Executed { state, took, .. } => {
                *counted.executed.entry(state.as_str()).or_default() += 1;
                counted.execution.add(*took);
            }
        }
    }
}

/// The text of a page of figures.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// Begins a family of samples; all of them must follow.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family with one sample.
    pub(crate) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A gauge for each number in a JSON object, whatever its place: `cob_pool_zygotes_ready`.
    pub(crate) fn numbers(&mut self, prefix: &str, help: &str, value: &serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                for (field, value) in fields {
                    self.numbers(&format!("{prefix}_{}", metric_name(field)), help, value);
                }
            }
            serde_json::Value::Number(number) => self.one(prefix, "gauge", help, number),
            serde_json::Value::Bool(is_so) => self.one(prefix, "gauge", help, u8::from(*is_so)),
            _ => {}
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let (bucket, mut count) = (format!("{name}_bucket"), 0);
        for (index, found) in histogram.buckets.iter().enumerate() {
            count += found;
            let bound = BUCKETS_MICROS.get(index).map_or("+Inf".to_owned(), |bound| seconds(*bound));
            self.sample(&bucket, &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], seconds(histogram.micros));
        self.sample(&format!("{name}_count"), &[], count);
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

fn seconds(micros: u64) -> String {
    (Duration::from_micros(micros).as_secs_f64()).to_string()
}

fn metric_name(text: &str) -> String {
    text.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '_' }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;

    use cob_protocol::ids::{PromiseId, SessionId};
    use cob_protocol::promise::State;

    use super::*;

    /// Reads a page as Prometheus would, and checks its rules: every sample belongs to the family that was announced
    /// last, no family comes twice, values are numbers.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> HashMap<String, f64> {
        let (mut samples, mut families, mut kind) = (HashMap::new(), Vec::<String>::new(), String::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(!text.is_empty() && !families.iter().any(|known| known == name), "{line}");
                let announced = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
                let (named, its_kind) = announced.split_once(' ').unwrap();
                assert!(
                    named == name && ["counter", "gauge", "histogram"].contains(&its_kind),
                    "{announced}"
                );
                families.push(name.to_owned());
                its_kind.clone_into(&mut kind);
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let family = families.last().unwrap();
            let suffix = name.strip_prefix(family.as_str()).unwrap();
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(allowed.contains(&suffix), "{line} in {family}");
            let is_name = |name: &str| name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_');
            assert!(is_name(name) && (series == name || series.ends_with("\"}")), "{line}");
            assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
        samples
    }

    #[test]
    fn what_was_seen_is_counted_and_can_be_read() {
        let tally = Arc::<Tally>::default();
        let mut counting = Counting(Arc::clone(&tally));
        let promise = PromiseId::execution(SessionId(1), 1);
        for (code, took) in [(None, 300), (Some("busy"), 200)] {
            let took = Duration::from_micros(took);
            counting.observe(&Observation::Answered { name: "execute_request", code, took });
            counting.observe(&Observation::Acknowledged { promise, took });
        }
        let took = Duration::from_secs(1000);
        counting.observe(&Observation::Executed { promise, state: State::Resolved, took });
        let mut text = Exposition::default();
        tally.write(&mut text);
        text.sample("cob_execution_seconds_count", &[("odd", "a\"b\\c")], 1);
        text.numbers(
            "cob_pool",
            "The pool.",
            &serde_json::json!({ "ready": 2, "by kind": { "cold": 1 }, "why": "x" }),
        );
        let found = parse(&text.into_text());
        let of = |series: &str| found.get(series).copied();
        assert_eq!(of("cob_replies_total{type=\"execute_request\",outcome=\"busy\"}"), Some(1.0));
        assert_eq!(of("cob_ack_seconds_bucket{le=\"0.00025\"}"), Some(1.0));
        assert_eq!(of("cob_ack_seconds_bucket{le=\"+Inf\"}"), Some(2.0));
        assert_eq!(of("cob_ack_seconds_sum"), Some(0.0005));
        assert_eq!(of("cob_execution_seconds_bucket{le=\"300\"}"), Some(0.0));
        assert_eq!(of("cob_execution_seconds_count"), Some(1.0));
        assert_eq!(of("cob_executions_total{state=\"resolved\"}"), Some(1.0));
        assert_eq!((of("cob_pool_ready"), of("cob_pool_by_kind_cold")), (Some(2.0), Some(1.0)));
    }
}
