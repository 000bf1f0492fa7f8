//! How fast bundles are written and read: `bundles FOLDER [MEGABYTES]`, on the disk of that folder.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "it measures")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cob_bridge::{Bridge, Bundles, Facts, StoreOptions, Write};
use cob_protocol::bundle::Tag;
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::limits::BUNDLE_PIECE_BYTES;
use cob_protocol::promise::Durability;
use cob_protocol::time::SystemClock;

const SESSION: SessionId = SessionId(1);

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap();
    let megabytes: usize = arguments.next().map_or(300, |text| text.parse().unwrap());
    let bridge = Bridge::open(&StoreOptions::new(folder), Arc::new(SystemClock)).unwrap();
    let open = Write::OpenSession { session: SESSION, about: Json::object() };
    bridge.submit(Durability::Power, vec![open]).await.unwrap();
    let bundles = bridge.bundles().unwrap();
    let mut state = 88_172_645_463_325_252_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut data: Vec<u8> = words.flatten().take(megabytes << 20).collect();
    for number in 1..=3 {
        if number == 3 {
            // Somebody changed a value.
            data.iter_mut().take(1000).for_each(|byte| *byte ^= 1);
        }
        let begin = Instant::now();
        let (bytes, new) = save(&bundles, number, &Bytes::from(data.clone())).await;
        told("written", begin, bytes);
        println!("  {new} new bytes");
    }
    let begin = Instant::now();
    let mut stored = bundles.open(CheckpointId { session: SESSION, number: 3 }).await.unwrap();
    let mut bytes = 0;
    while let Some((_, piece)) = stored.next().await.unwrap() {
        bytes += piece.len() as u64;
    }
    told("read", begin, bytes);
    bridge.close().await;
}

fn told(what: &str, begin: Instant, bytes: u64) {
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what}: {:.0} MB/s ({seconds:.3} s)", bytes as f64 / 1e6 / seconds);
}

async fn save(bundles: &Bundles, number: u64, data: &Bytes) -> (u64, u64) {
    let facts = Facts {
        checkpoint: CheckpointId { session: SESSION, number },
        label: None,
        automatic: false,
        execution: 1,
        count: 1,
        taken_at: 0,
        parent: None,
        findings: Vec::new(),
    };
    let mut bundle = bundles.begin(facts).await.unwrap();
    for start in (0..data.len()).step_by(BUNDLE_PIECE_BYTES) {
        let piece = data.slice(start..data.len().min(start + BUNDLE_PIECE_BYTES));
        bundle.record(Tag::Piece, piece).await.unwrap();
    }
    bundle.record(Tag::BlobEnd, Bytes::new()).await.unwrap();
    let runtime = r#"{"implementation":"cpython","version":"3","abi":"x","platform":"x"}"#;
    let outline = format!(
        r#"{{"language":"python","runtime":{runtime},"components":[{{"names":["x"],"kind":"b","codec":"p","bytes":{},"blobs":[0]}}]}}"#,
        data.len()
    );
    bundle.record(Tag::Outline, outline.into()).await.unwrap();
    bundle.record(Tag::End, Bytes::new()).await.unwrap();
    let view = bundle.commit().await.unwrap();
    (view.bytes.unwrap(), view.new_bytes.unwrap())
}
