//! Stores of older cobs are brought to the present; those of later ones are left alone.

use super::rows::{PROMISE_COLUMNS, promise, promise_checksum};
use super::*;

/// Makes a store of version 1 out of the present one in `folder`: what a cob without an audit trail would have left.
fn make_version_1(folder: &Path) {
    let path = folder.join("cob.db");
    let older = folder.join("older.db");
    let connection = Connection::open(&path).unwrap();
    let target = Connection::open(&older).unwrap();
    schema::migrate(&target, 0, 1).unwrap();
    target.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    drop(target);
    let mut copy = format!("ATTACH '{}' AS older;", older.display());
    for (kind, name, _) in schema::expected(1).unwrap() {
        if kind != "table" || name.starts_with("sqlite_") {
            continue;
        }
        let sql = format!(
            "SELECT group_concat(name, ', ') FROM pragma_table_info('{name}') WHERE name NOT LIKE 'audit%'"
        );
        let columns: String = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        copy += &format!("INSERT INTO older.{name} ({columns}) SELECT {columns} FROM main.{name};");
    }
    connection.execute_batch(&copy).unwrap();
    let mut promises = connection.prepare(&format!("SELECT {PROMISE_COLUMNS} FROM promises")).unwrap();
    let mut rows = promises.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (row, mut promise) = promise(row).unwrap();
        promise.audit = None;
        let checksum = promise_checksum(row, &promise);
        connection.execute("UPDATE older.promises SET checksum = ?1 WHERE id = ?2", [checksum, row]).unwrap();
    }
    for mut session in standing::Sessions::all(&connection).unwrap() {
        session.kept.audit = Head::default();
        let number = session.record.session.0.cast_signed();
        let set = "UPDATE older.standings SET checksum = ?1 \
                   WHERE id = (SELECT id FROM sessions WHERE session = ?2)";
        connection.execute(set, [session.checksum(), number]).unwrap();
    }
    drop(rows);
    drop(promises);
    connection.close().unwrap();
    fs::rename(older, path).unwrap();
}

fn version(folder: &Path) -> i32 {
    let connection = Connection::open(folder.join("cob.db")).unwrap();
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn version_1_is_brought_to_the_present_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let expected = furnished(folder.path());
    make_version_1(folder.path());
    assert_eq!(version(folder.path()), 1);
    let older = SqliteReader::open(folder.path()).unwrap_err();
    assert!(matches!(older, OpenError::Older { found: 1, .. }), "{older}");
    let mut store = open(folder.path());
    assert_eq!(Snapshot::of(&mut store).unwrap(), expected);
    let id = create(&mut store, "new");
    write(&mut store, settle(id));
    drop(store);
    assert_eq!(version(folder.path()), schema::VERSION);
    let mut reader = SqliteReader::open(folder.path()).unwrap();
    assert_eq!(reader.verify_audit().unwrap().unwrap().seq, 3, "accepted, started, settled");
    reader.verify().unwrap();
}

#[test]
fn a_step_that_fails_leaves_the_older_version() {
    let folder = tempfile::tempdir().unwrap();
    let expected = furnished(folder.path());
    make_version_1(folder.path());
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
