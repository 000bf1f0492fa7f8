//! Where a request stands in somebody's trace: the `traceparent` of W3C Trace Context, which comes with a request, is
//! handed to its code, and names the parent of our spans when they are exported.

use std::fmt;

use tracing::Span;

/// A `traceparent` that was read: <https://www.w3.org/TR/trace-context/>, version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    parent: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Reads one; `None` when it is not one. Of later versions what version 00 knows is taken, as the specification asks.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let (trace, rest) = rest.split_once('-')?;
        let (parent, rest) = rest.split_once('-')?;
        let (flags, more) = rest.split_once('-').map_or((rest, None), |(flags, more)| (flags, Some(more)));
        let [version] = digits::<1>(version)?;
        if version == 0xff || (version == 0 && more.is_some()) {
            return None;
        }
        let [flags] = digits::<1>(flags)?;
        let found = Self { trace: digits(trace)?, parent: digits(parent)?, flags };
        (found.trace != [0; 16] && found.parent != [0; 8]).then_some(found)
    }

    /// The trace, in hexadecimal digits: what logs name.
    #[must_use]
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace)
    }

    /// Makes the sender of the request the parent of `span`, where spans are exported.
    pub fn adopt(&self, span: &Span) {
        #[cfg(feature = "otel")]
        {
            use opentelemetry::trace::{
                SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
            };
            use tracing_opentelemetry::OpenTelemetrySpanExt;
            let remote = SpanContext::new(
                TraceId::from_bytes(self.trace),
                SpanId::from_bytes(self.parent),
                TraceFlags::new(self.flags),
                true,
                TraceState::default(),
            );
            // It fails when nothing is exported.
            let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
        }
        #[cfg(not(feature = "otel"))]
        let _ = span;
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", hex::encode(self.trace), hex::encode(self.parent), self.flags)
    }
}

/// Exactly so many bytes, in small hexadecimal digits.
fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_small = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    (is_small && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written_again() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = GOOD.replace("00-4b", "cc-4b") + "-more";
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_no_trace_context_is_not_taken_for_one() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47ßx-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
