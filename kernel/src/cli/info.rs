//! `cob info`: what the server on this machine holds and has done; `cob metrics`: the same as figures.

mod server;
mod session;

use std::io::Write;

use clap::Args;
use cob_clients::agent::AgentConnection;
use cob_protocol::ids::SessionId;
use serde_json::{Value, json};

use super::figures::text;
use super::language::Language;
use super::remote::{self, Server, ask, none_runs, say};
use super::surroundings::shared_pool;
use super::{Failure, block_on};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Everything about this session instead
    #[arg(value_name = "SESSION", value_parser = remote::session)]
    session: Option<SessionId>,
    /// With the names, types and sizes of the session's variables; never their values
    #[arg(long, requires = "session")]
    namespace: bool,
    /// The whole document as JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Args)]
pub(crate) struct Metrics {
    #[command(flatten)]
    server: Server,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    block_on(async {
        if let Some(session) = options.session {
            let mut connection = options.server.connect().await?;
            return of_session(&mut connection, session, &options).await;
        }
        let server = match options.server.running().await? {
            Some(mut connection) => Some(ask(&mut connection, "server_info", json!({})).await?),
            None => None,
        };
        of_server(server, &options).await
    })?
}

pub(crate) fn metrics(options: Metrics) -> Result<(), Failure> {
    let reply = block_on(async {
        let mut connection = options.server.connect().await?;
        ask(&mut connection, "metrics", json!({})).await
    })??;
    say(text(&reply["text"]).trim_end());
    Ok(())
}

async fn of_session(
    connection: &mut AgentConnection,
    session: SessionId,
    options: &Options,
) -> Result<(), Failure> {
    let request = json!({ "session_id": session.to_string(), "namespace": options.namespace });
    let mut reply = ask(connection, "session_info", request).await?;
    let document = reply["session"].take();
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough (`| head`) is no failure.
    let _ = if options.json { writeln!(out, "{document}") } else { session::show(&mut out, &document) };
    Ok(())
}

/// What a server says of itself, and what the pool of this machine does.
async fn of_server(server: Option<Value>, options: &Options) -> Result<(), Failure> {
    let pool = shared_pool(Language::default()).info().await;
    let pool: Option<Value> = match (&server, pool) {
        (_, Ok(document)) => serde_json::from_str(&document).ok(),
        (Some(_), Err(_)) => None,
        (None, Err(error)) => {
            tracing::debug!(%error, "nobody keeps warm workers here either");
            return Err(none_runs());
        }
    };
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough (`| head`) is no failure.
    let _ = if options.json {
        writeln!(out, "{}", document(server, pool))
    } else {
        let file = options.server.file();
        let shown = server.as_ref().map_or(Ok(()), |server| {
            server::show(&mut out, server, file.as_ref()).and_then(|()| writeln!(out))
        });
        shown.and_then(|()| pool.as_ref().map_or(Ok(()), |pool| show(&mut out, pool)))
    };
    Ok(())
}

/// The pool's document, with the server's beside it.
fn document(server: Option<Value>, pool: Option<Value>) -> Value {
    let mut document = pool.unwrap_or_else(|| json!({}));
    if let Some(Value::Object(mut server)) = server {
        server.remove("status");
        document["server"] = Value::Object(server);
    }
    document
}

/// The pool for people.
fn show(out: &mut impl Write, info: &Value) -> std::io::Result<()> {
    for environment in info["environments"].as_array().into_iter().flatten() {
        show_environment(out, environment)?;
    }
    let (counters, latency) = (&info["counters"], &info["latency"]);
    let of = |name: &str| counters[name].as_u64().unwrap_or(0);
    writeln!(
        out,
        "leases     {} warm, {} forked, {} cold; {} refused",
        of("leased_warm"),
        of("leased_forked"),
        of("leased_cold"),
        of("refused")
    )?;
    if let [Some(median), Some(slow)] = ["p50_us", "p99_us"].map(|name| latency[name].as_f64()) {
        writeln!(out, "took       {:.1} ms, 99 of 100 at most {:.1} ms", median / 1e3, slow / 1e3)?;
    }
    let bytes = |name: &str| info["budget"][name].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
    writeln!(out, "memory     {:.0} of {:.0} MiB", bytes("bytes"), bytes("bytes_max"))
}

fn show_environment(out: &mut impl Write, environment: &Value) -> std::io::Result<()> {
    let zygote = &environment["zygote"];
    let number = |name: &str| environment[name].as_u64().unwrap_or(0);
    writeln!(out, "{}", environment["name"].as_str().unwrap_or("?"))?;
    let state = zygote["state"].as_str().unwrap_or("?");
    match zygote["reason"].as_str() {
        Some(reason) => writeln!(out, "  zygote   {state}: {}", reason.replace('\n', "\n           "))?,
        None => writeln!(out, "  zygote   {state}")?,
    }
    let imports = &environment["imports"];
    let imported: Vec<&str> =
        imports["imported"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !imported.is_empty() {
        writeln!(out, "  imported {}", imported.join(", "))?;
    }
    for without in ["missing", "left_out"] {
        for problem in imports[without].as_array().into_iter().flatten() {
            let text = |name: &str| problem[name].as_str().unwrap_or("?").to_owned();
            writeln!(
                out,
                "  without  {}: {}",
                text("module"),
                text("reason").replace('\n', "\n           ")
            )?;
        }
    }
    if let Some(error) = environment["breaker"]["last_error"].as_str() {
        writeln!(out, "  starts   fail: {}", error.replace('\n', "\n           "))?;
    }
    writeln!(
        out,
        "  workers  {} warm, {} starting, {} in use",
        number("warm"),
        number("starting"),
        number("leased")
    )
}
