//! A server whose disk is full, whose store is locked by somebody else, or whose disk does not synchronise.

use std::time::{Duration, Instant};

use cob_protocol::limits::{BALLAST_BYTES, STORE_FREE_BYTES_MIN};
use cob_tests::durable::{Client, Durable, GRACE, setup};
use cob_tests::history::Asked;
use cob_tests::kernel::{GATE, Setup};
use cob_tests::small_disk::SmallDisk;
use cob_tests::strace::{self, Trace};
use serde_json::Value;

fn effect(durable: &Durable, key: &str) -> (String, Asked) {
    (durable.effects.python(key), Asked { has_effect: true, ..Asked::default() })
}

async fn run(durable: &Durable, client: &mut Client, key: &str) -> Value {
    let (code, asked) = effect(durable, key);
    client.run(key, &code, asked).await.expect("a reply")
}

#[tokio::test]
async fn d01_on_a_full_disk_new_requests_are_refused_what_runs_is_settled_and_space_brings_it_back() {
    let place = tempfile::tempdir().unwrap();
    let bytes = usize::try_from(BALLAST_BYTES + 6 * STORE_FREE_BYTES_MIN).unwrap();
    let Some(disk) = SmallDisk::mount(place.path(), bytes) else {
        return cob_tests::cgroups::skipped("this host lets nobody mount a tmpfs");
    };
    let setup = Setup::new().argument("--store").argument(place.path().join("store"));
    let setup = setup.argument("--grace").argument(GRACE).launcher(disk.launcher());
    let mut durable = Durable::start_as(&setup).await;
    let mut client = durable.client("one").await;
    assert_eq!(run(&durable, &mut client, "before").await["status"], "ok");
    let (code, asked) = effect(&durable, "running");
    let code = format!("{code}\nprint('on')\n{GATE}\nprint('off')");
    client.execute("running", &code, asked).await;
    assert!(client.printed("running", "on\n").await);
    disk.fill(0);
    for key in ["refused one", "refused two"] {
        client.execute(key, &durable.effects.python(key), Asked::default()).await;
        let reply = client.until(|came| came.key == key && came.is_reply()).await.unwrap().json();
        assert_eq!(reply["code"], "store_full", "{reply:#}");
    }
    durable.kernel.open_gate();
    assert_eq!(client.finish("running").await.unwrap()["status"], "ok");
    disk.free();
    assert_eq!(run(&durable, &mut client, "after").await["status"], "ok");
    assert_eq!(run(&durable, &mut client, "refused one").await["status"], "ok");
    drop(client);
    assert_eq!((durable.effects.of("refused one"), durable.effects.of("refused two")), (1, 0));
    durable.end().await;
    durable.fetch_store(&disk.outside().join("store"));
    durable.finish().await;
}

#[tokio::test]
async fn d03_a_store_that_somebody_else_has_locked_delays_records_and_nothing_else() {
    let durable = Durable::start().await;
    let mut client = durable.client("one").await;
    assert_eq!(run(&durable, &mut client, "before").await["status"], "ok");
    let other = rusqlite::Connection::open(durable.store().join("cob.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (code, asked) = effect(&durable, "during");
    client.execute("during", &code, asked).await;
    // Answered by a loop that does not wait for the store.
    for _ in 0..20 {
        let before = Instant::now();
        client.control("kernel_info_request").await;
        assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
    }
    assert_eq!(durable.effects.of("during"), 0);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(client.finish("during").await.unwrap()["status"], "ok");
    drop((other, client));
    durable.finish().await;
}

#[tokio::test]
async fn d03_after_five_seconds_the_request_is_refused_as_one_that_can_be_made_again() {
    let mut durable = Durable::start().await;
    durable.expect_errors();
    let mut client = durable.client("one").await;
    assert_eq!(run(&durable, &mut client, "before").await["status"], "ok");
    let other = rusqlite::Connection::open(durable.store().join("cob.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let reply = run(&durable, &mut client, "during").await;
    assert_eq!(reply["code"], "store_busy", "{reply:#}");
    assert_eq!(durable.effects.of("during"), 0);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(run(&durable, &mut client, "during").await["status"], "ok");
    drop((other, client));
    durable.finish().await;
}

#[tokio::test]
async fn d05_a_server_whose_disk_does_not_synchronise_ends_and_the_next_one_has_all_that_was_acknowledged() {
    if !strace::works() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = Trace::new(folder.path(), "fsync,fdatasync").inject("fsync,fdatasync:error=EIO:when=25+");
    let setup = setup().argument("--durability").argument("power").launcher(trace.launcher());
    let mut durable = Durable::start_as(&setup).await;
    durable.expect_errors();
    let mut client = durable.client("one").await;
    let mut number = 0;
    loop {
        number += 1;
        let key = format!("k{number}");
        let (code, asked) = effect(&durable, &key);
        if client.run(&key, &code, asked).await.is_none() {
            break;
        }
        assert!(number < 30, "it never synchronised:\n{:#?}", trace.calls());
    }
    drop(client);
    let status = durable.kernel.end_by_itself().await;
    assert!(!status.success(), "{status}");
    durable.kernel.log_line("store_failed", 0).await.expect("a reason");
    // The next one has a good disk.
    durable.kernel.relaunch_by([]);
    assert!(durable.is_ready().await);
    let mut client = durable.client("one").await;
    for again in 1..=number {
        assert_eq!(run(&durable, &mut client, &format!("k{again}")).await["status"], "ok");
    }
    drop(client);
    durable.finish().await;
}
