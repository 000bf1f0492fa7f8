//! What a process tells of itself while it works: lines on stderr, and spans for a collector.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::Failure;

/// Kept as long as the process tells: at its end the last spans go out.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Begins to tell. Lines go to stderr; `COB_LOG` says what is worth one (`info`, `cob_pool=debug`, …). Spans go to the
/// collector at `otlp`, if there is one.
pub(crate) fn start(otlp: Option<&str>) -> Result<Telemetry, Failure> {
    let worth = EnvFilter::try_from_env("COB_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_filter(worth);
    let Some(url) = otlp else {
        tracing_subscriber::registry().with(lines).init();
        return Ok(Telemetry::default());
    };
    spans::start(lines, url)
}

#[cfg(not(feature = "otel"))]
mod spans {
    use tracing_subscriber::{Layer, Registry};

    use super::{Failure, Telemetry};

    pub(super) fn start(_: impl Layer<Registry>, _: &str) -> Result<Telemetry, Failure> {
        Err(Failure::usage("this cob exports no spans; build it with `--features otel`"))
    }
}

#[cfg(feature = "otel")]
mod spans {
    use std::time::Duration;

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{Layer, Registry};

    use super::{Failure, Telemetry};

    /// A collector that takes longer is given up for this batch.
    const COLLECTOR_PATIENCE: Duration = Duration::from_secs(5);

    pub(super) fn start(
        lines: impl Layer<Registry> + Send + Sync + 'static,
        url: &str,
    ) -> Result<Telemetry, Failure> {
        let provider = provider(url)?;
        let ours = Targets::new().with_target("cob", LevelFilter::DEBUG);
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("cob")).with_filter(ours);
        tracing_subscriber::registry().with(lines).with(spans).init();
        Ok(Telemetry { provider: Some(provider) })
    }

    /// Spans go out in batches, on a thread of their own; what it cannot keep up with is dropped.
    pub(super) fn provider(url: &str) -> Result<SdkTracerProvider, Failure> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client(agent()))
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(url)
            .build()
            .map_err(|error| Failure::Usage(format!("spans cannot be exported to {url}: {error}")))?;
        let resource = Resource::builder().with_service_name("cob").build();
        Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
    }

    fn agent() -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(COLLECTOR_PATIENCE))
            .http_status_as_error(false)
            .build();
        config.into()
    }

    #[derive(Debug)]
    struct Client(ureq::Agent);

    #[async_trait::async_trait]
    impl HttpClient for Client {
        /// Blocks; only the exporter's own thread calls it.
        async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            let (parts, body) = request.into_parts();
            let response = self.0.run(Request::from_parts(parts, body.to_vec()))?;
            let (parts, mut body) = response.into_parts();
            Ok(Response::from_parts(parts, Bytes::from(body.read_to_vec()?)))
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        #[cfg(feature = "otel")]
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

#[cfg(test)]
#[cfg(feature = "otel")]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use cob_kernel::trace::TraceContext;
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    /// The body of the one request that a collector gets.
    fn collect(listener: &TcpListener) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn a_collector_gets_our_spans_as_children_of_the_one_who_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let collector = std::thread::spawn(move || collect(&listener));
        let provider = super::spans::provider(&url).unwrap();
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("cob"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(spans), || {
            let span = tracing::debug_span!("execute", session = "s7");
            let asked = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            TraceContext::parse(asked).unwrap().adopt(&span);
            span.in_scope(|| {});
        });
        provider.shutdown().unwrap();
        let body = collector.join().unwrap();
        for expected in
            ["4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "\"execute\"", "\"s7\"", "service.name"]
        {
            assert!(body.contains(expected), "{expected}: {body}");
        }
    }
}
