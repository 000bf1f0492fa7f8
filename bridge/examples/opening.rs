//! How long it takes to open a store with many promises that are not settled, and until the first that is overdue is
//! due.
//!
//! `cargo run --release -p cob-bridge --example opening [PROMISES]`

use std::sync::Arc;
use std::time::Instant;

use cob_bridge::{Bridge, NewExecution, StoreOptions, Write};
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::promise::Durability;
use cob_protocol::time::{Clock, SystemClock};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let options = StoreOptions::new(folder.path());
    let clock = Arc::new(SystemClock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let before = Instant::now();
        let bridge = Bridge::open(&options, clock.clone())?;
        let session = SessionId(1);
        let open = Write::OpenSession { session, about: Json::object() };
        drop(bridge.submit(Durability::Process, vec![open]).await);
        for number in 0..count {
            // One in ten is overdue.
            let deadline = if number % 10 == 0 { -1000 } else { 3_600_000 };
            let new = NewExecution {
                session,
                key: None,
                durability: Durability::Process,
                deadline: Some(clock.now().after_ms(deadline)),
                request: None,
                start: None,
            };
            drop(bridge.submit(Durability::Process, vec![Write::CreateExecution(new)]));
            bridge.room().await;
        }
        bridge.close().await;
        println!("{count} made in {:?}", before.elapsed());
        let before = Instant::now();
        let bridge = Bridge::open(&options, clock)?;
        println!("opened in {:?}", before.elapsed());
        println!("{} is due after {:?}", bridge.due().await, before.elapsed());
        bridge.close().await;
        Ok(())
    })
}
