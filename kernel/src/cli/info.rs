//! `cob info`: what the server on this machine holds and has done.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::surroundings::shared_pool;
use super::{Failure, block_on};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The whole document as JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let document = block_on(shared_pool().info())?.map_err(Failure::failed)?;
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough (`| head`) is no failure.
    let _ = if options.json { writeln!(out, "{document}") } else { show(&mut out, &document) };
    Ok(())
}

/// The same for people.
fn show(out: &mut impl Write, document: &str) -> std::io::Result<()> {
    let info: Value = serde_json::from_str(document).unwrap_or_default();
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
