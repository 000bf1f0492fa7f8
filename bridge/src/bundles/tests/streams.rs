//! Records as a worker sends them, who may send anything.

use std::panic::AssertUnwindSafe;

use super::*;

/// The error of the first record that is refused.
async fn refused(records: &[(Tag, Bytes)]) -> String {
    let folder = in_memory();
    let bridge = bridge(folder.path()).await;
    let mut bundle = bridge.bundles().unwrap().begin(facts(1)).await.unwrap();
    let mut error = None;
    for (tag, bytes) in records {
        if let Err(refused) = bundle.record(*tag, bytes.clone()).await {
            error = Some(refused);
            break;
        }
    }
    let error = match error {
        None => bundle.commit().await.unwrap_err(),
        Some(error) => {
            bundle.record(Tag::End, Bytes::new()).await.unwrap_err();
            bundle.commit().await.unwrap_err();
            error
        }
    };
    assert!(bridge.bundles().unwrap().list(SESSION).await.unwrap().is_empty());
    assert_eq!(left(folder.path(), bridge).await, 0);
    error.to_string()
}

fn piece(bytes: usize) -> (Tag, Bytes) {
    (Tag::Piece, noise(1, bytes))
}

const END: (Tag, Bytes) = (Tag::End, Bytes::from_static(b""));
const BLOB_END: (Tag, Bytes) = (Tag::BlobEnd, Bytes::from_static(b""));

fn said(outline: serde_json::Value) -> (Tag, Bytes) {
    (Tag::Outline, outline.to_string().into())
}

#[tokio::test]
async fn records_in_an_order_that_is_none_are_refused() {
    let whole = (Tag::Outline, Bytes::from(outline(&[])));
    let cases: &[(&[(Tag, Bytes)], &str)] = &[
        (&[], "not whole"),
        (std::slice::from_ref(&whole), "not whole"),
        (&[END], "out of order: End"),
        (&[piece(9), whole.clone()], "out of order: Outline"),
        (&[piece(9), END], "out of order: End"),
        (&[whole.clone(), piece(9)], "out of order: Piece"),
        (&[whole.clone(), BLOB_END], "out of order: BlobEnd"),
        (&[whole.clone(), END, END], "out of order: End"),
        (&[whole.clone(), END, whole.clone()], "out of order: Outline"),
        (&[piece(9), piece(9)], "not full, and not the last"),
        (&[piece(0)], "empty"),
        (&[piece(BUNDLE_PIECE_BYTES + 1)], "too long"),
        (&[(Tag::BlobEnd, "x".into())], "has no bytes"),
        (&[piece(200_000), (Tag::Failed, "out of ink".into())], "out of ink"),
    ];
    for (records, expected) in cases {
        let error = refused(records).await;
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn an_outline_that_cannot_be_true_is_refused() {
    let good: serde_json::Value = serde_json::from_str(&outline(&[noise(1, 9)])).unwrap();
    let with = |pointer: &str, value: serde_json::Value| {
        let mut outline = good.clone();
        *outline.pointer_mut(pointer).unwrap() = value;
        said(outline)
    };
    let long = "n".repeat(5000);
    let cases = [
        ((Tag::Outline, Bytes::from_static(b"{")), "its outline"),
        ((Tag::Outline, Bytes::from_static(b"\xff")), "UTF-8"),
        ((Tag::Outline, "[".repeat(100_000).into()), "its outline"),
        (said(json!({})), "missing field"),
        (with("/components/0/blobs", json!([1])), "names blob 1"),
        (with("/components/0/blobs", json!([u32::MAX])), "names blob 4294967295"),
        (with("/components/0/blobs", json!([-1])), "its outline"),
        (with("/components/0/blobs", json!([0, 0])), "has 18 bytes, not 9"),
        (with("/components/0/bytes", json!(u64::MAX)), "has 9 bytes, not"),
        (with("/components/0/names/0", json!(long)), "a name"),
        (with("/components/0/kind", json!(long)), "a name"),
        (with("/missing/0/name", json!(long)), "a name"),
    ];
    for (outline, expected) in cases {
        let error = refused(&[piece(9), BLOB_END, outline, END]).await;
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let error = refused(&vec![(Tag::Outline, noise(1, BUNDLE_PIECE_BYTES)); 17]).await;
    assert!(error.contains("description") && error.contains("16777216"), "{error}");
}

#[tokio::test]
async fn a_record_whose_future_was_dropped_makes_it_void() {
    let folder = in_memory();
    let bridge = bridge(folder.path()).await;
    let bundles = bridge.bundles().unwrap();
    let mut bundle = written(&bundles, 1, &[]).await;
    drop(AssertUnwindSafe(bundle.record(Tag::End, Bytes::new())));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut other = bundles.begin(facts(2)).await.unwrap();
    let mut pending = 0;
    for number in 0..200 {
        let mut record = Box::pin(other.record(Tag::Piece, noise(number, BUNDLE_PIECE_BYTES)));
        if record.as_mut().poll(&mut context).is_pending() {
            pending += 1;
            break;
        }
    }
    assert_eq!(pending, 1, "only a few are written at a time");
    let error = other.record(Tag::BlobEnd, Bytes::new()).await.unwrap_err();
    assert!(error.to_string().contains("refused before"), "{error}");
    bundle.commit().await.unwrap();
}
