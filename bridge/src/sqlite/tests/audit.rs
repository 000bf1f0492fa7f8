//! Whoever changes the trail is found out.

use super::*;

/// A store whose trail has these rows: a session, and three executions with a call each.
fn store(folder: &Path) -> i64 {
    let mut store = open(folder);
    write(&mut store, open_session());
    for key in ["a", "b", "c"] {
        let id = create(&mut store, key);
        let call = Write::CreateCall { id: id.with_call(1), request: Json::object(), deadline: None };
        write(&mut store, call);
        write(&mut store, settle(id.with_call(1)));
        let Written::Settled(promise) = write(&mut store, settle(id)) else { panic!("not settled") };
        let told = store.promise(id).unwrap().unwrap().audit;
        assert_eq!((promise.audit, promise.audit.is_some()), (told, true));
    }
    write(&mut store, Write::Recover { session: SESSION });
    write(&mut store, Write::CloseSession { session: SESSION });
    1 + 3 * 5 + 2
}

fn verify(folder: &Path) -> Result<Head, Broken> {
    SqliteReader::open(folder).unwrap().verify_audit().unwrap()
}

/// Changes the trail as somebody would who knows SQLite.
#[track_caller]
fn tamper(folder: &Path, sql: &str) {
    let connection = Connection::open(folder.join("cob.db")).unwrap();
    let triggers = schema::objects(&connection).unwrap();
    let triggers: Vec<_> = triggers.into_iter().filter(|(kind, ..)| kind == "trigger").collect();
    for (_, name, _) in &triggers {
        connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    connection.execute_batch(sql).unwrap();
    for (_, _, sql) in &triggers {
        connection.execute_batch(sql.as_ref().unwrap()).unwrap();
    }
}

#[test]
fn the_trail_says_what_happened_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let rows = store(folder.path());
    assert_eq!(verify(folder.path()).unwrap().seq, rows);
    let connection = Connection::open(folder.path().join("cob.db")).unwrap();
    let mut statement = connection.prepare("SELECT what || ' ' || subject FROM audit ORDER BY seq").unwrap();
    let told: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(told[..3], ["session_opened s1", "accepted s1.e1", "started s1.e1"]);
    assert_eq!(told[3..6], ["call_opened s1.e1.c1", "call_settled s1.e1.c1", "settled s1.e1"]);
    assert_eq!(told[16..], ["recovered s1", "session_closed s1"]);
    let body = "SELECT details FROM audit WHERE seq = 2";
    let details: String = connection.query_row(body, [], |row| row.get(0)).unwrap();
    assert!(details.contains(&"07".repeat(32)), "{details}");
}

#[test]
fn nothing_is_changed_or_removed_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    let connection = Connection::open(folder.path().join("cob.db")).unwrap();
    for sql in ["UPDATE audit SET at = 1 WHERE seq = 2", "DELETE FROM audit WHERE seq = 2"] {
        let error = connection.execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains("only added to"), "{error}");
    }
}

#[test]
fn every_changed_removed_inserted_or_exchanged_row_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let rows = store(folder.path());
    let original = folder.path().join("original");
    let database = folder.path().join("cob.db");
    fs::copy(&database, &original).unwrap();
    let broken = |sql: &str, seq: i64| {
        fs::copy(&original, &database).unwrap();
        tamper(folder.path(), sql);
        let found = verify(folder.path()).expect_err(sql);
        assert_eq!(found.seq, seq, "{sql}: {found}");
    };
    for seq in 1..=rows {
        for column in
            ["at = at + 1", "what = what || 'x'", "subject = 's2'", "details = '{}x'", "hash = zeroblob(32)"]
        {
            broken(&format!("UPDATE audit SET {column} WHERE seq = {seq}"), seq);
        }
        broken(&format!("DELETE FROM audit WHERE seq = {seq}"), seq);
        let shift = format!(
            "UPDATE audit SET seq = -seq WHERE seq > {seq}; UPDATE audit SET seq = 1 - seq WHERE seq < 0;"
        );
        let insert = format!(
            "INSERT INTO audit SELECT {seq} + 1, at, what, subject, details, hash FROM audit WHERE seq = {seq}"
        );
        broken(&format!("{shift}{insert}"), seq + 1);
        if seq < rows {
            let exchange = format!(
                "UPDATE audit SET seq = -1 WHERE seq = {seq}; UPDATE audit SET seq = {seq} WHERE seq = {seq} + 1; \
                 UPDATE audit SET seq = {seq} + 1 WHERE seq = -1;"
            );
            broken(&exchange, seq);
        }
    }
    broken("DELETE FROM audit", 1);
}

#[test]
fn a_settlement_that_the_trail_does_not_know_is_found() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path());
    tamper(folder.path(), "UPDATE promises SET audit = zeroblob(32) WHERE id = 2");
    let broken = verify(folder.path()).unwrap_err();
    assert!(broken.what.contains("was told another hash"), "{broken}");
}
