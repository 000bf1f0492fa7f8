//! Stores of older cobs are brought to the present; those of later ones are left alone.

use super::rows::{PROMISE_COLUMNS, promise, promise_checksum};
use super::*;

/// Makes a store of an older version out of the present one in `folder`: what a cob of that time would have left. Version
/// 1 has no audit trail; before version 3 the history does not know of executions, and before 4 nothing of checkpoints.
fn make_older(folder: &Path, version: i32) {
    let path = folder.join("cob.db");
    let older = folder.join("older.db");
    let connection = Connection::open(&path).unwrap();
    let target = Connection::open(&older).unwrap();
    schema::migrate(&target, 0, version).unwrap();
    target.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    drop(target);
    connection.execute_batch(&format!("ATTACH '{}' AS older;", older.display())).unwrap();
    let mut copy = String::new();
    for (kind, name, _) in schema::expected(version).unwrap() {
        if kind != "table" || name.starts_with("sqlite_") {
            continue;
        }
        let sql = format!("SELECT group_concat(name, ', ') FROM pragma_table_info('{name}', 'older')");
        let columns: String = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        copy += &format!("INSERT INTO older.{name} ({columns}) SELECT {columns} FROM main.{name};");
    }
    connection.execute_batch(&copy).unwrap();
    if version < 3 {
        forget_executions(&connection);
    }
    forget_checkpoints(&connection);
    if version < 2 {
        forget_audit(&connection);
    }
    connection.close().unwrap();
    fs::rename(older, path).unwrap();
}

fn forget_checkpoints(connection: &Connection) {
    for mut session in standing::Sessions::all(connection).unwrap() {
        assert!(session.record.checkpoints > 0);
        session.record.checkpoints = 0;
        set_standing(connection, &session);
    }
}

fn set_standing(connection: &Connection, session: &standing::Session) {
    let number = session.record.session.0.cast_signed();
    let set =
        "UPDATE older.standings SET checksum = ?1 WHERE id = (SELECT id FROM sessions WHERE session = ?2)";
    connection.execute(set, [session.checksum(), number]).unwrap();
}

fn forget_executions(connection: &Connection) {
    let mut cells = connection.prepare("SELECT id, session, line, source, output FROM history").unwrap();
    let mut rows = cells.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (id, session): (i64, i64) = (row.get(0).unwrap(), row.get(1).unwrap());
        let (source, output): (String, Option<String>) = (row.get(3).unwrap(), row.get(4).unwrap());
        let of = (SessionId(session.cast_unsigned()), 0);
        let checksum = history::checksum(id, of, row.get(2).unwrap(), &source, output.as_deref());
        connection.execute("UPDATE older.history SET checksum = ?1 WHERE id = ?2", [checksum, id]).unwrap();
    }
}

fn forget_audit(connection: &Connection) {
    let mut promises = connection.prepare(&format!("SELECT {PROMISE_COLUMNS} FROM promises")).unwrap();
    let mut rows = promises.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (row, mut promise) = promise(row).unwrap();
        promise.audit = None;
        let checksum = promise_checksum(row, &promise);
        connection.execute("UPDATE older.promises SET checksum = ?1 WHERE id = ?2", [checksum, row]).unwrap();
    }
    for mut session in standing::Sessions::all(connection).unwrap() {
        session.kept.audit = Head::default();
        session.record.checkpoints = 0;
        set_standing(connection, &session);
    }
}

/// What stays of a story when it went through an older version.
fn what_is_left(mut snapshot: Snapshot, version: i32) -> Snapshot {
    assert!(snapshot.sources.iter().any(Option::is_some));
    if version < 3 {
        snapshot.sources.iter_mut().for_each(|source| *source = None);
    }
    for session in &mut snapshot.sessions {
        session.checkpoints = 0;
    }
    snapshot
}

fn version(folder: &Path) -> i32 {
    let connection = Connection::open(folder.join("cob.db")).unwrap();
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn every_older_version_is_brought_to_the_present_with_everything_in_it() {
    for older in 1..schema::VERSION {
        let folder = tempfile::tempdir().unwrap();
        let expected = what_is_left(furnished(folder.path()), older);
        let trail = SqliteReader::open(folder.path()).unwrap().verify_audit().unwrap().unwrap().seq;
        make_older(folder.path(), older);
        assert_eq!(version(folder.path()), older);
        let error = SqliteReader::open(folder.path()).unwrap_err();
        assert!(matches!(error, OpenError::Older { found, .. } if found == older), "{error}");
        let mut store = open(folder.path());
        assert_eq!(Snapshot::of(&mut store).unwrap(), expected);
        write(&mut store, Write::NumberCheckpoints { session: SESSION, up_to: 3 });
        let id = create(&mut store, "new");
        let (session, execution) = (SESSION, id.execution);
        write(&mut store, Write::HistoryInput { session, execution, line: 99, source: "new".into() });
        write(&mut store, Write::HistoryOutput { session, line: 99, text: "2".into() });
        // One that is older than the version is given its result as before.
        write(&mut store, Write::HistoryOutput { session, line: 7, text: "8".into() });
        write(&mut store, settle(id));
        let entry = Entry { line: 99, source: "new".into(), output: Some("2".into()) };
        assert_eq!(store.source_of(id), Ok(Some(entry)));
        drop(store);
        assert_eq!(version(folder.path()), schema::VERSION);
        let mut reader = SqliteReader::open(folder.path()).unwrap();
        let before = if older == 1 { 0 } else { trail };
        let seq = reader.verify_audit().unwrap().unwrap().seq;
        assert_eq!(seq, before + 3, "accepted, started, settled");
        assert_eq!(reader.session(SESSION).unwrap().unwrap().checkpoints, 3);
        reader.verify().unwrap();
    }
}

#[test]
fn a_step_that_fails_leaves_the_older_version() {
    let folder = tempfile::tempdir().unwrap();
    let expected = what_is_left(furnished(folder.path()), 1);
    make_older(folder.path(), 1);
    // No room for the trail.
    let database = folder.path().join("cob.db");
    let before = fs::read(&database).unwrap();
    let connection = Connection::open(&database).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = SqliteStore::open(&options(folder.path())).unwrap_err();
    assert!(matches!(error, OpenError::Store(StoreError::Busy { .. })), "{error}");
    drop(connection);
    assert!(fs::read(&database).unwrap() == before, "it was changed");
    assert_eq!(Snapshot::of(&mut open(folder.path())).unwrap(), expected);
}

#[test]
fn every_version_has_a_way_to_the_present() {
    for from in 1..=schema::VERSION {
        let connection = Connection::open_in_memory().unwrap();
        schema::migrate(&connection, 0, from).unwrap();
        schema::migrate(&connection, from, schema::VERSION).unwrap();
        assert_eq!(schema::objects(&connection).unwrap(), schema::expected(schema::VERSION).unwrap());
    }
}

#[test]
fn a_later_version_is_refused_and_both_are_named() {
    let folder = tempfile::tempdir().unwrap();
    furnished(folder.path());
    let database = folder.path().join("cob.db");
    let connection = Connection::open(&database).unwrap();
    connection.pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    connection.close().unwrap();
    let before = fs::read(&database).unwrap();
    let refused = SqliteStore::open(&options(folder.path())).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { .. }));
    let text = refused.to_string();
    let expected = format!(
        "has version {} of the schema, this cob knows versions up to {}",
        schema::VERSION + 1,
        schema::VERSION
    );
    assert!(text.contains(&expected) && text.contains("use the cob that wrote it"), "{text}");
    assert!(matches!(SqliteReader::open(folder.path()), Err(OpenError::Newer { .. })));
    assert!(fs::read(&database).unwrap() == before, "it was changed");
}
