//! Both ends against each other, and the reader against whatever may come.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::thread;

use cob_protocol::bundle::{Outline, RecordHead, Runtime, Tag};
use cob_protocol::limits::BUNDLE_PIECE_BYTES;

use super::{BundleReader, BundleWriter};

/// Numbers that look like chance, the same ones every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

fn outline(language: &str) -> Outline {
    Outline {
        language: language.to_owned(),
        runtime: Runtime::default(),
        components: Vec::new(),
        missing: Vec::new(),
        extra: serde_json::Value::Null,
    }
}

/// Everything that `write` writes, as records.
fn written(write: impl FnOnce(&mut BundleWriter)) -> Vec<(Tag, Vec<u8>)> {
    let (mut reader, writer) = io::pipe().unwrap();
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    write(&mut BundleWriter::new(OwnedFd::from(writer)));
    let bytes = reading.join().unwrap();
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    while let Some((head, others)) = rest.split_first_chunk() {
        let RecordHead { tag, bytes } = RecordHead::from_bytes(*head).unwrap();
        let (body, others) = others.split_at(bytes);
        records.push((tag, body.to_vec()));
        rest = others;
    }
    records
}

fn bytes_of(records: &[(Tag, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, body) in records {
        bytes.extend_from_slice(&RecordHead { tag: *tag, bytes: body.len() }.to_bytes());
        bytes.extend_from_slice(body);
    }
    bytes
}

/// What a reader makes of these bytes, in parts of which each comes by itself.
fn reading<T>(bytes: Vec<u8>, read: impl FnOnce(&mut BundleReader) -> T) -> T {
    let (reader, writer) = io::pipe().unwrap();
    // The reader may not want them all.
    let sending = thread::spawn(move || drop(File::from(OwnedFd::from(writer)).write_all(&bytes)));
    let mut reader = BundleReader::new(reader.into());
    let result = read(&mut reader);
    drop(reader);
    sending.join().unwrap();
    result
}

fn read_all(reader: &mut BundleReader) -> io::Result<(Outline, Vec<Vec<u8>>)> {
    let outline = reader.outline()?;
    let mut blobs = Vec::new();
    while let Some(blob) = reader.blob()? {
        blobs.push(blob);
    }
    Ok((outline, blobs))
}

/// As a host sends it: the outline first.
fn for_loading(mut records: Vec<(Tag, Vec<u8>)>) -> Vec<u8> {
    records.sort_by_key(|(tag, _)| match tag {
        Tag::Outline => 0,
        _ => 1,
    });
    bytes_of(&records)
}

#[test]
fn blobs_of_every_size_survive_the_way() {
    let mut chance = Chance(7);
    let piece = BUNDLE_PIECE_BYTES;
    let sizes = [0, 1, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 5, 0];
    let blobs: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(|at| at as u8).collect()).collect();
    // Longer than a piece as well.
    let language = "l".repeat(piece + 9);
    let records = written(|writer| {
        for (number, blob) in blobs.iter().enumerate() {
            let mut rest = &blob[..];
            while !rest.is_empty() {
                let (part, others) = rest.split_at(1 + chance.below(rest.len()));
                writer.write(part).unwrap();
                rest = others;
            }
            assert_eq!(writer.end_blob().unwrap() as usize, number);
        }
        writer.finish(&outline(&language)).unwrap();
    });
    assert!(records.iter().all(|(_, body)| body.len() <= piece));
    let (told, read) = reading(for_loading(records.clone()), read_all).unwrap();
    assert!(told == outline(&language) && read == blobs);

    // The same, into memory of one's own.
    let pieces = reading(for_loading(records), |reader| {
        reader.outline().unwrap();
        let mut pieces = Vec::new();
        while reader.next_blob().unwrap() {
            let (mut blob, mut scratch) = (Vec::new(), vec![0; 100_000]);
            while let count @ 1.. = reader.read(&mut scratch).unwrap() {
                blob.extend_from_slice(&scratch[..count]);
            }
            pieces.push(blob);
        }
        assert!(!reader.next_blob().unwrap(), "asked once more");
        pieces
    });
    assert!(pieces == blobs);
}

#[test]
fn an_unfinished_bundle_is_no_bundle() {
    let records = written(|writer| {
        writer.write(b"x").unwrap();
        let error = writer.finish(&outline("")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        writer.fail(&"é".repeat(5000)).unwrap();
    });
    assert_eq!(records.len(), 1);
    assert!(records[0].0 == Tag::Failed && records[0].1.len() == 4096);
    let error = reading(bytes_of(&records), |reader| reader.outline().unwrap_err());
    assert!(error.to_string().starts_with("éé"), "{error}");
    // After an error nothing is read.
    reading(bytes_of(&[(Tag::Failed, b"no".to_vec()), (Tag::Outline, b"{}".to_vec())]), |reader| {
        assert_eq!(reader.outline().unwrap_err().to_string(), "no");
        assert_eq!(reader.outline().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(reader.blob().unwrap_err().kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn whatever_comes_a_reader_ends_and_makes_up_nothing() {
    let valid = for_loading(written(|writer| {
        for size in [3, 0, 70_000] {
            writer.write(&vec![5; size]).unwrap();
            writer.end_blob().unwrap();
        }
        writer.finish(&outline("fuzz")).unwrap();
    }));
    let whole = reading(valid.clone(), read_all).unwrap();
    let mut chance = Chance(42);
    for turn in 0..600 {
        let mut bytes = valid.clone();
        match turn % 3 {
            0 => bytes.truncate(chance.below(valid.len())),
            1 => {
                // Mostly in what is not a value.
                let at = chance.below(400.min(valid.len()));
                bytes[at] = chance.below(256) as u8;
            }
            _ => bytes = (0..chance.below(300)).map(|_| chance.below(6) as u8).collect(),
        }
        let sent = bytes.len();
        if let Ok((_, blobs)) = reading(bytes, read_all) {
            assert!(blobs.iter().map(Vec::len).sum::<usize>() <= sent);
            assert!(turn % 3 == 1 || blobs == whole.1, "a part is not taken for the whole");
        }
    }
}
