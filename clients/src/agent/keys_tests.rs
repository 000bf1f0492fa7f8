//! What the folder of keys promises.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn folder() -> (tempfile::TempDir, KeyFolder) {
    let parent = tempfile::tempdir().expect("a folder");
    let keys = KeyFolder::new(parent.path().join("a/keys"));
    (parent, keys)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").mode() & 0o777
}

#[test]
fn the_servers_pair_is_made_once_and_read_by_its_owner_only() {
    let (_parent, keys) = folder();
    assert_eq!(keys.server_public().expect("no pair is no error"), None);
    let made = keys.server().expect("made");
    let read = keys.server().expect("read");
    assert!(made.is_new && !read.is_new);
    assert_eq!(made.secret.public(), read.secret.public());
    assert_eq!(keys.server_public().expect("readable"), Some(made.secret.public()));
    assert_eq!((mode(&made.file), mode(&keys.0), mode(&keys.authorized())), (0o600, 0o700, 0o700));
    fs::set_permissions(&made.file, fs::Permissions::from_mode(0o640)).expect("changed");
    let error = keys.server().expect_err("others could read it");
    assert!(matches!(&error, KeyError::Open(path) if *path == made.file), "{error}");
    assert!(error.to_string().contains("chmod"), "{error}");
}

#[test]
fn a_folder_in_which_others_could_let_somebody_in_is_not_used() {
    let (_parent, keys) = folder();
    keys.server().expect("made");
    fs::set_permissions(keys.authorized(), fs::Permissions::from_mode(0o770)).expect("changed");
    assert!(matches!(keys.server(), Err(KeyError::Open(path)) if path == keys.authorized()));
}

#[test]
fn clients_come_and_go_by_name() {
    let (_parent, keys) = folder();
    assert_eq!(keys.list().expect("no folder is an empty one"), []);
    let bob = SecretKey::generate().expect("random numbers").public();
    let ann = keys.add("ann", None).expect("added");
    let given = keys.add("bob", Some(bob)).expect("added");
    let secret = ann.secret_file.clone().expect("a pair was made");
    assert_eq!((mode(&secret), &given.secret_file), (0o600, &None));
    assert_eq!(read_secret(&secret).expect("a secret").public(), ann.public);
    assert_eq!(keys.list().expect("readable"), [ann.clone(), given.clone()]);
    for public in [None, Some(bob)] {
        assert!(matches!(keys.add("ann", public), Err(KeyError::Taken(name)) if name == "ann"));
        assert!(matches!(keys.add("bob", public), Err(KeyError::Taken(name)) if name == "bob"));
    }
    assert!(matches!(keys.add("zoe", Some(bob)), Err(KeyError::Known(name)) if name == "bob"));
    assert!(!keys.secret_file("bob").exists(), "a refused pair leaves no secret behind");
    assert_eq!(keys.list().expect("readable"), [ann, given.clone()]);
    keys.remove("ann").expect("removed");
    assert!(!secret.exists());
    assert_eq!(keys.list().expect("readable"), [given]);
    assert!(matches!(keys.remove("ann"), Err(KeyError::Unknown(_))));
}

#[test]
fn names_that_mean_something_else_are_refused() {
    let (_parent, keys) = folder();
    keys.server().expect("made");
    for name in ["", "../x", ".x", "a/b", "local"] {
        assert!(matches!(keys.add(name, None), Err(KeyError::Name(_))), "{name}");
        assert!(matches!(keys.remove(name), Err(KeyError::Name(_))), "{name}");
    }
    assert!(matches!(keys.add("server", None), Err(KeyError::Reserved)));
    assert!(matches!(keys.remove("server"), Err(KeyError::Reserved)));
    assert!(keys.server().is_ok_and(|server| !server.is_new));
}

#[test]
fn what_is_no_key_is_said_to_be_none_and_stays() {
    let (_parent, keys) = folder();
    keys.make_folders().expect("made");
    let file = keys.secret_file(SERVER);
    assert!(create(&file, "not a key").expect("written"));
    assert!(matches!(keys.server(), Err(KeyError::Content(path)) if path == file));
    assert_eq!(fs::read_to_string(&file).expect("readable"), "not a key\n");
}
