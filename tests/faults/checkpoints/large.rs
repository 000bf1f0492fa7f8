//! A session with a gigabyte: checkpoints cost what has changed, and the server holds nothing of it.

use cob_tests::cgroups::skipped;
use cob_tests::process;

use super::*;

/// Bytes of memory that somebody could have now.
fn available() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

const DIGEST: &str =
    "import hashlib\nprint(*[hashlib.sha256(part).hexdigest()[:16] for part in parts], alias is parts[1])";

#[tokio::test]
async fn a_gigabyte_is_kept_changed_a_little_and_restored_elsewhere() {
    if available() < 4 << 30 {
        return skipped("less than 4 GiB of memory are available");
    }
    let serve = Serve::start_as(with_grace(0)).await;
    let mut agent = serve.agent("a").await;
    let session = agent.open().await;
    // A page of random bytes per MiB: no two of their pieces are the same.
    let code = "import os\nparts = [bytearray(256 << 20) for n in range(4)]\nfor part in parts:\n    \
                for at in range(0, len(part), 1 << 20): part[at:at + 64] = os.urandom(64)\nalias = parts[1]";
    printed(&mut agent, &session, "make", code).await;
    let first = printed(&mut agent, &session, "one", DIGEST).await;
    let before = serve.resident_bytes();
    agent.ok("checkpoint", json!({ "session_id": session, "label": "memory" })).await;
    let durable = json!({ "session_id": session, "durable": true });
    let view = agent.ok("checkpoint", durable.clone()).await["checkpoint"].clone();
    let whole = view["new_bytes"].as_u64().unwrap();
    assert!((1 << 30..(1 << 30) + (8 << 20)).contains(&whole), "{view:#}");
    let id = name(&view);
    printed(&mut agent, &session, "change", "parts[2][12345678:12345700] = b'x' * 22; small = [1, 2]").await;
    let second = printed(&mut agent, &session, "two", DIGEST).await;
    let view = agent.ok("checkpoint", durable).await["checkpoint"].clone();
    let new = view["new_bytes"].as_u64().unwrap();
    assert!(new > 0 && new <= whole / 20, "{view:#}");
    let bytes = view["bytes"].as_u64().unwrap();
    assert!(bytes >= 1 << 30, "{view:#}");
    // Nowhere is more of it held than a few pieces.
    let peak = process::resident_bytes_peak(serve.server.pid());
    assert!(peak < before + (64 << 20), "{before} then {peak}");
    for (checkpoint, expected) in [(&id, &first), (&name(&view), &second)] {
        let other = agent.open().await;
        let restore = json!({ "session_id": other, "checkpoint": checkpoint, "fresh": true });
        let back = agent.ok("restore", restore).await["restored"].clone();
        assert_eq!((&back["tier"], &back["missing"]), (&json!("durable"), &Value::Null), "{back:#}");
        assert_eq!(printed(&mut agent, &other, "look", DIGEST).await, *expected);
        agent.ok("session_close", json!({ "session_id": other })).await;
    }
    agent.ok("restore", json!({ "session_id": session, "label": "memory" })).await;
    assert_eq!(printed(&mut agent, &session, "back", DIGEST).await, first);
    let peak = process::resident_bytes_peak(serve.server.pid());
    assert!(peak < before + (64 << 20), "{before} then {peak}");
    drop(agent);
    ends_clean(serve).await;
}
