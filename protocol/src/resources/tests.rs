//! Limits in text and in JSON, and every way to get them wrong.

use proptest::prelude::*;

use super::*;

const FULL: &str = "memory=2G,cpu=60s,time=30s,processes=64,open_files=256,file=100M,disk=1G,output=64M";

#[track_caller]
fn refused(text: &str, sentence: &str) {
    assert_eq!(Limits::parse(text).unwrap_err().to_string(), sentence);
}

#[test]
fn every_limit_can_be_written_and_is_shown_as_it_was() {
    let limits = Limits::parse(FULL).unwrap();
    assert_eq!(limits.memory_bytes, Some(2 << 30));
    assert_eq!((limits.cpu_s, limits.time_ms), (Some(60), Some(30_000)));
    assert_eq!(Limits::parse(&limits.to_string()).unwrap(), limits);
    assert_eq!(
        limits.to_string(),
        "memory=2G,cpu=1m,time=30s,processes=64,open_files=256,file=100M,disk=1G,output=64M"
    );
    assert_eq!(Limits::parse("").unwrap(), Limits::default());
    for same in ["memory=16M", "memory = 16 MiB", "memory=16mb", "memory=16777216", "memory=16777216B"] {
        assert_eq!(Limits::parse(same).unwrap().memory_bytes, Some(16 << 20), "{same}");
    }
}

#[test]
fn what_is_wrong_is_named_with_what_to_write_instead() {
    refused("memroy=1G", "there is no limit \"memroy\": write memory");
    refused("timeout=1s", "there is no limit \"timeout\": write time");
    refused("nofile=5", "there is no limit \"nofile\": write file");
    refused(
        "gpu_count=1",
        "there is no limit \"gpu_count\": write one of memory, cpu, time, processes, open_files, file, disk, output",
    );
    refused("memory", "memory= is not a whole number: write for example memory=512M");
    refused("memory=-5", "memory=-5 is not a whole number: write for example memory=512M");
    refused(
        "memory=5s",
        "memory=5s has the wrong unit: K, M, G or T may follow the number, for example memory=512M",
    );
    refused(
        "time=30",
        "time=30 has the wrong unit: ms, s, m or h may follow the number, for example time=30s",
    );
    refused(
        "cpu=1500ms",
        "cpu=1500ms has the wrong unit: s, m or h may follow the number, for example cpu=60s",
    );
    refused(
        "processes=5K",
        "processes=5K has the wrong unit: nothing may follow the number, for example processes=64",
    );
    refused("memory=12", "memory=12 is too small: at least 16M, for example memory=512M");
    refused("output=65M", "output=65M is too large: at most 64M, for example output=16M");
    refused(
        "memory=99999999999999999999T",
        "memory=99999999999999999999T is too large: at most 1024T, for example memory=512M",
    );
    refused("time=1s,time=2s", "time is named twice: write it once, for example time=30s");
    assert_eq!(Limits::parse(&"x".repeat(5000)), Err(LimitError::TooLong));
    assert_eq!(LimitError::TooLong.code(), crate::error::ErrorCode::InvalidLimit);
}

#[test]
fn every_example_is_allowed() {
    for limit in Limit::ALL {
        assert!(Limits::parse(&format!("{}={}", limit.name(), limit.example())).is_ok(), "{limit:?}");
        assert!(limit.doc().ends_with('.'));
    }
}

#[test]
fn a_session_may_ask_for_less_than_the_ceiling_and_gets_the_rest_from_it() {
    let ceiling = Limits::parse("memory=2G,time=60s").unwrap();
    let asked = Limits::parse("memory=1G,processes=8").unwrap();
    assert_eq!(asked.within(&ceiling).unwrap().to_string(), "memory=1G,time=1m,processes=8");
    let greedy = Limits::parse("memory=3G").unwrap().within(&ceiling).unwrap_err();
    assert_eq!(greedy.to_string(), "memory=3G is more than this server allows: at most memory=2G");
}

#[test]
fn json_has_the_names_of_the_table_and_takes_numbers_and_texts() {
    let limits: Limits = serde_json::from_str(r#"{"memory": "1G", "time": 1500, "cpu": null}"#).unwrap();
    assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"memory":1073741824,"time":1500}"#);
    let wrong = |json: &str| serde_json::from_str::<Limits>(json).unwrap_err().to_string();
    assert!(wrong(r#"{"memori": 1}"#).contains("write memory"));
    assert!(wrong(r#"{"memory": 12}"#).contains("memory=12 is too small: at least 16M"));
    assert!(wrong(r#"{"memory": -12}"#).contains("memory=-12 is too small"));
    assert!(wrong(r#"{"cpu": 1.5}"#).contains("cpu=1.5 is not a whole number"));
    assert!(wrong(r#"{"cpu": 1, "cpu": 2}"#).contains("named twice"));
    assert!(wrong(r#"{"cpu": [1]}"#).contains("a whole number or a text for cpu"));
    assert!(wrong("7").contains("an object of limits"));
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let rows: Vec<_> = Limit::ALL
        .iter()
        .map(|limit| proptest::option::of(prop_oneof![limit.least()..=limit.most(), Just(limit.least())]))
        .collect();
    rows.prop_map(|values| {
        let mut limits = Limits::default();
        for (limit, value) in Limit::ALL.iter().zip(values) {
            *limits.slot(*limit) = value;
        }
        limits
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = Limits::parse(&text);
    }

    #[test]
    fn nothing_that_looks_like_limits_makes_the_parser_panic(
        text in "((memory|cpu|time|disk|é)?[= ,]{0,2}[0-9]{0,22}(ms|[KMGTsmhiBb ,é]){0,3}){0,4}"
    ) {
        if let Err(error) = Limits::parse(&text) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn what_is_shown_is_read_again(limits in any_limits()) {
        prop_assert_eq!(&Limits::parse(&limits.to_string()).unwrap(), &limits);
        let json = serde_json::to_string(&limits).unwrap();
        prop_assert_eq!(serde_json::from_str::<Limits>(&json).unwrap(), limits);
    }
}
