//! The parsers of outside bytes as functions of bytes: what the fuzz targets call, and the smoke test of a normal
//! run. A target returns, whatever it is given; what it accepts must survive being written and read again.
//!
//! One is no parser: `bridge` makes operations of the bytes, for the store on disk and for the plain one.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use cob_clients::notebook::ConnectionFile;
use cob_clients::zmtp::codec::{Caps, Decoder, Encoded, Item};
use cob_clients::zmtp::command::Command;
use cob_clients::zmtp::curve::{CurveServer, SecretKey};
use cob_clients::zmtp::greeting::Greeting;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::limits::MESSAGE_PARTS_MAX;
use cob_protocol::message::Channel;
use cob_protocol::registry::Request;
use cob_protocol::resources::Limits;
use cob_protocol::signing::{ReplayWindow, Signer};
use cob_protocol::wire;
use cob_protocol::zygote::{Order, Report, Status};

use crate::seed::Seed;

/// A parser, under the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("frames", frames),
    ("wire", wire),
    ("greeting", greeting),
    ("command", command),
    ("zmtp", zmtp),
    ("curve", curve),
    ("connection", connection),
    ("request", request),
    ("limits", limits),
    ("zygote", zygote),
    ("bridge", bridge),
    ("bundle", bundle),
];

/// Frames of a worker, in pieces of a size that the first byte says, before and after the handshake.
pub fn frames(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut decoder = FrameDecoder::new();
    if first & 1 == 1 {
        decoder.handshake_done();
    }
    for piece in rest.chunks(usize::from(first >> 1) + 1) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(envelope)) => {
                    // Written again it may be larger: the header may have been packed more tightly than ours.
                    let numbers = (envelope.sequence, envelope.acknowledged);
                    let Ok(head) = encode(&envelope.frame, &envelope.payloads, numbers.0, numbers.1) else {
                        continue;
                    };
                    let mut again = FrameDecoder::new();
                    again.handshake_done();
                    again.push(&head);
                    envelope.payloads.iter().for_each(|payload| again.push(payload));
                    assert_eq!(again.next_frame().ok().flatten(), Some(envelope));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Bundles that somebody exported: the first byte says whether the rest is a file, or a manifest.
///
/// # Panics
/// When there is no folder for the file.
pub fn bundle(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    if first & 1 == 1 {
        return cob_bridge::check_manifest(rest);
    }
    let folder = crate::durable::memory_folder();
    let path = folder.path().join("file");
    std::fs::write(&path, rest).expect("a file");
    let is_one = cob_bridge::check_archive(&path);
    let (whole, _) = cob_bridge::example_archive().expect("an example");
    assert!(is_one || rest != whole);
}

/// Multipart messages: a part ends at a byte 0xff, and `<` alone stands for the delimiter.
pub fn wire(data: &[u8]) {
    let part = |part: &[u8]| match part {
        b"<" => Bytes::from_static(wire::DELIMITER),
        other => Bytes::copy_from_slice(other),
    };
    let parts: Vec<Bytes> = data.split(|byte| *byte == 0xff).map(part).collect();
    for key in [&b""[..], b"key"] {
        let Ok(signer) = Signer::new("hmac-sha256", key) else { return };
        if let Ok(message) = wire::parse(&parts, &signer, &mut ReplayWindow::default()) {
            assert!(parts.len() <= MESSAGE_PARTS_MAX);
            assert!(message.buffers.len() + 6 <= parts.len());
        }
    }
}

/// The first bytes of a connection: more of them never turn a refusal into a greeting.
pub fn greeting(data: &[u8]) {
    let mut refused = false;
    for end in 0..=data.len().min(80) {
        let outcome = Greeting::parse(data.get(..end).unwrap_or_default());
        assert!(!(refused && outcome.is_ok()), "{data:?} was refused before byte {end}");
        refused |= outcome.is_err();
    }
}

/// Bodies of ZMTP commands.
pub fn command(data: &[u8]) {
    // A parser that returns has passed.
    let _ = Command::parse(&Bytes::copy_from_slice(data));
}

/// A ZMTP stream after the greeting, in pieces of a size that the first byte says.
pub fn zmtp(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let caps = if first & 1 == 1 { Caps::HANDSHAKE } else { Caps { message_bytes: 4096, ..Caps::default() } };
    let mut decoder = Decoder::new(caps);
    for piece in rest.chunks(usize::from(first >> 1) + 1) {
        decoder.push(piece);
        loop {
            assert!(decoder.held() <= rest.len(), "more held than arrived");
            match decoder.pull() {
                Ok(Some(Item::Message(parts))) => {
                    let mut again = Decoder::new(caps);
                    again.push(&Encoded::message(&parts).to_vec());
                    assert_eq!(again.pull(), Ok(Some(Item::Message(parts))));
                }
                Ok(Some(Item::Command(body))) => command(&body),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Bodies of the commands of a client under CURVE: the first byte says which. Nobody who lacks the keys of a client comes in.
///
/// # Panics
/// When somebody does.
pub fn curve(data: &[u8]) {
    static SERVER: OnceLock<Arc<CurveServer>> = OnceLock::new();
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(secret) = SecretKey::generate() else { return };
    let Ok(handshake) = SERVER.get_or_init(|| CurveServer::new(secret)).begin() else { return };
    if first & 1 == 0 {
        assert!(handshake.hello(rest).is_err(), "HELLO without a key");
    } else {
        assert!(handshake.initiate(rest).is_err(), "INITIATE without a key");
    }
}

/// Connection files, and the addresses in them.
pub fn connection(data: &[u8]) {
    let Ok(file) = serde_json::from_slice::<ConnectionFile>(data) else { return };
    for port in [file.shell_port, file.iopub_port, file.stdin_port, file.control_port, file.hb_port] {
        if let Ok(endpoint) = file.endpoint(port) {
            assert_eq!(endpoint.to_string().parse().ok(), Some(endpoint));
        }
    }
    let _ = Signer::new(&file.signature_scheme, file.key.as_bytes());
}

/// Contents of requests: the first byte chooses the type and the channel, the rest is the content.
pub fn request(data: &[u8]) {
    const NAMES: [&str; 16] = [
        "execute_request",
        "complete_request",
        "inspect_request",
        "is_complete_request",
        "history_request",
        "comm_open",
        "comm_msg",
        "comm_close",
        "comm_info_request",
        "kernel_info_request",
        "connect_request",
        "shutdown_request",
        "interrupt_request",
        "usage_request",
        "input_reply",
        "debug_request",
    ];
    let Some((first, content)) = data.split_first() else { return };
    let name = NAMES.get(usize::from(first & 15)).copied().unwrap_or_default();
    let channel = match first >> 6 {
        0 => Channel::Shell,
        1 => Channel::Control,
        2 => Channel::Stdin,
        _ => Channel::Iopub,
    };
    // A reader that returns has passed.
    let _ = Request::read(name, channel, content);
}

/// Limits, as text and as JSON. Either refusal is one line.
pub fn limits(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let as_text = Limits::parse(&text).map_err(|error| error.to_string());
    let as_json = serde_json::from_slice::<Limits>(data).map_err(|error| error.to_string());
    for found in [as_text, as_json] {
        match found {
            Ok(limits) => {
                assert_eq!(Limits::parse(&limits.to_string()).as_ref(), Ok(&limits));
                let json = serde_json::to_vec(&limits).unwrap_or_default();
                assert_eq!(serde_json::from_slice::<Limits>(&json).ok().as_ref(), Some(&limits));
                assert_eq!(limits.within(&limits).as_ref(), Ok(&limits));
            }
            Err(sentence) => assert!(!sentence.contains(char::is_control), "{sentence:?}"),
        }
    }
}

/// What host and zygote say to each other, and what is said of a worker.
pub fn zygote(data: &[u8]) {
    if let Ok(order) = Order::decode(data) {
        let again = order.encode().ok().and_then(|packet| Order::decode(&packet).ok());
        assert_eq!(again, Some(order));
    }
    if let Ok(report) = Report::decode(data) {
        let again = report.encode().ok().and_then(|packet| Report::decode(&packet).ok());
        assert_eq!(again, Some(report));
    }
    let (records, _) = data.as_chunks::<{ Status::BYTES }>();
    for status in records.iter().filter_map(|record| Status::from_bytes(*record)) {
        assert_eq!(Status::from_bytes(status.to_bytes()), Some(status));
    }
}

/// Operations on a store on disk and on the plain one, which must say the same. In memory, if there is such a folder:
/// this is not about the disk.
///
/// # Panics
/// When they do not, or when there is no room for a folder.
pub fn bridge(data: &[u8]) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    match folder {
        Ok(folder) => cob_bridge::compare(data, &folder.path().join("store")),
        Err(error) => unreachable!("no folder for a store: {error}"),
    }
}

/// What each target would accept, to start from.
#[must_use]
pub fn examples(target: &str) -> Vec<Vec<u8>> {
    use cob_protocol::frame::{Done, DoneStatus, Position};
    use cob_protocol::json::Json;
    let with = |first: u8, rest: &[u8]| [&[first], rest].concat();
    match target {
        "frames" => {
            let done = Done {
                execution: 7,
                status: DoneStatus::Ok,
                user_expressions: Json::object(),
                payload: Json::array(),
                at: Position { stdout: 1, stderr: 2 },
            };
            let frame = encode(&done.into(), &[], 1, 0).map(BytesMut::from).unwrap_or_default();
            vec![with(0xff, &frame), with(1, &[&frame[..], &[0, 0, 0, 3, 99, 0, 0], &frame[..]].concat())]
        }
        "wire" => {
            vec![b"id\xff<\xff\xff{\"msg_id\":\"a\",\"msg_type\":\"t\"}\xff{}\xff{}\xff{\"code\":\"1\"}\xffbuffer".to_vec()]
        }
        "greeting" => vec![Greeting::encode(cob_clients::zmtp::greeting::Mechanism::Null).to_vec()],
        "command" => vec![
            b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x01x".to_vec(),
            b"\x04PING\0\x0acontext".to_vec(),
            b"\x09SUBSCRIBEtopic".to_vec(),
        ],
        "zmtp" => vec![b"\x20\x01\x01a\x00\x02bc\x04\x07\x04PING\0\x0a\x02\0\0\0\0\0\0\0\x03xyz".to_vec()],
        "curve" => vec![
            [b"\x00\x05HELLO\x01\x00".as_slice(), &[0; 72], &[7; 32], &[0, 0, 0, 0, 0, 0, 0, 1], &[9; 80]].concat(),
            [b"\x01\x08INITIATE".as_slice(), &[7; 96], &[0, 0, 0, 0, 0, 0, 0, 2], &[9; 200]].concat(),
        ],
        "connection" => vec![
            br#"{"ip":"127.0.0.1","shell_port":1,"iopub_port":2,"stdin_port":3,"control_port":4,"hb_port":5,"key":"k"}"#.to_vec(),
            br#"{"transport":"ipc","ip":"/run/k","shell_port":1,"iopub_port":2,"stdin_port":3,"control_port":4,"hb_port":5}"#.to_vec(),
        ],
        "request" => vec![
            b"\x00{\"code\":\"1\",\"silent\":false,\"user_expressions\":{\"a\":\"1\"}}".to_vec(),
            b"\x01{\"code\":\"x\",\"cursor_pos\":-1}".to_vec(),
            b"\x04{\"hist_access_type\":\"range\",\"session\":0,\"start\":0,\"stop\":null}".to_vec(),
            b"\x05{\"comm_id\":\"c\",\"target_name\":\"t\",\"data\":{}}".to_vec(),
        ],
        "limits" => vec![
            b"memory=2G,cpu=60s,time=30s,processes=64,open_files=256,file=100M,disk=1G,output=64M".to_vec(),
            b"memory = 512 MiB, time=1500ms".to_vec(),
            br#"{"memory": "1G", "time": 1500, "cpu": null, "processes": 64}"#.to_vec(),
        ],
        "zygote" => zygote_packets(),
        "bridge" => bridge_operations(),
        "bundle" => {
            let (file, manifest) = cob_bridge::example_archive().expect("an example");
            vec![with(0, &file), with(1, &manifest)]
        }
        _ => Vec::new(),
    }
}

/// Any bytes are operations. These open three sessions; then whatever comes.
fn bridge_operations() -> Vec<Vec<u8>> {
    let group = [0, 1, 0, 9, 2];
    let sessions: Vec<u8> = (0..3).flat_map(|session| [session, 0, 0, 0, 0, 0]).collect();
    (1..=2)
        .map(|number| {
            let mut seed = Seed::new(number);
            let rest = std::iter::repeat_with(|| seed.number().to_le_bytes()[0]).take(140);
            group.into_iter().chain(sessions.iter().copied()).chain([0]).chain(rest).collect()
        })
        .collect()
}

fn zygote_packets() -> Vec<Vec<u8>> {
    use cob_protocol::handshake::VERSIONS;
    use cob_protocol::zygote::{Missing, Prepare, Prepared};
    let text = |text: &str| text.to_owned();
    let orders = [
        Order::Prepare(Prepare { versions: VERSIONS, imports: vec![text("numpy"), text("pandas")] }),
        Order::Fork { number: 1 << 40 },
    ];
    let missing = Missing { module: text("pandas"), reason: text("no such module") };
    let reports = [
        Report::Importing { module: text("numpy") },
        Report::Unfit { module: None, reason: text("it has threads") },
        Report::Prepared(Prepared {
            versions: VERSIONS,
            executor: text("python"),
            imported: vec![text("numpy")],
            missing: vec![missing],
        }),
        Report::Forked { number: 7, pid: 4711 },
        Report::ForkFailed { number: 7, reason: text("no memory") },
    ];
    let records = [Status::Stopped(19), Status::Continued, Status::Exited(3), Status::Killed(9)];
    let mut packets: Vec<Vec<u8>> = orders.iter().filter_map(|order| order.encode().ok()).collect();
    packets.extend(reports.iter().filter_map(|report| report.encode().ok()));
    packets.push(records.iter().flat_map(|status| status.to_bytes()).collect());
    packets
}
