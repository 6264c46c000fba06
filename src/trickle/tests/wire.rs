//! Paths, numbers and addresses, and what is none.

use proptest::prelude::*;

use crate::trickle::wire::*;

#[test]
fn numbers_are_read_as_the_reference_reads_them() {
    let table = [
        ("0", Some(0)),
        ("007", Some(7)),
        ("+5", Some(5)),
        ("-1", Some(-1)),
        ("-0", Some(0)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("", None),
        ("-", None),
        ("+-1", None),
        (" 1", None),
        ("1_000", None),
        ("0x10", None),
        ("1.0", None),
        ("next", None),
        ("\u{663}", None),
        ("000000000000000000000000000001", None),
    ];
    for (text, expected) in table {
        assert_eq!(number(text), expected, "{text:?}");
    }
}

#[test]
fn only_numbers_that_segments_can_have_are_taken() {
    assert_eq!(Wanted::to_read(-1), Some(Wanted::Next));
    assert_eq!(Wanted::to_read(-2), Some(Wanted::Current));
    assert_eq!(Wanted::to_write(-1), Some(Wanted::Next));
    assert_eq!(Wanted::to_delete(3), Some(3));
    for refused in [
        Wanted::to_read(-3),
        Wanted::to_write(-2),
        Wanted::to_write(-5),
        Wanted::to_read(i64::MAX),
    ] {
        assert_eq!(refused, None);
    }
    assert_eq!(Wanted::to_delete(-1), None);
    assert_eq!(Wanted::to_delete(-2), None);
}

#[test]
fn paths_lead_where_they_should() {
    let channel = |name: &str| Route::Channel(name.into());
    let segment = |name: &str, seq: &str| Route::Segment(name.into(), seq.into());
    let table = [
        ("/", "/cam", channel("cam")),
        ("/", "/cam/0", segment("cam", "0")),
        ("/", "/cam/next", segment("cam", "next")),
        ("/", "/cam/-1", segment("cam", "-1")),
        ("/", "/a%2Fb/%30", segment("a/b", "0")),
        ("/", "/a%2fb", channel("a/b")),
        ("/", "/caf%C3%A9", channel("café")),
        ("/ai/trickle/", "/ai/trickle/c/next", segment("c", "next")),
        ("/ai/trickle/", "/c/next", Route::Unknown),
        ("/ai/trickle/", "/ai/trickle/", Route::Unknown),
        ("/ai/trickle/", "/ai/trickle", Route::Unknown),
        ("/", "/", Route::Unknown),
        ("/", "/cam/", Route::Unknown),
        ("/", "//0", Route::Unknown),
        ("/", "/a/b/c", Route::Unknown),
        ("/", "/a/0/", Route::Unknown),
        ("/", "/%", Route::BadName),
        ("/", "/%zz", Route::BadName),
        ("/", "/%+1", Route::BadName),
        ("/", "/%ff", Route::BadName),
        ("/", "/a%00b", Route::BadName),
        ("/", "/a%0d%0ab/0", Route::BadName),
    ];
    for (base, path, expected) in table {
        assert_eq!(route(base, path), expected, "{base} {path}");
    }
    assert_eq!(
        route("/", &format!("/{}", "x".repeat(MAX_NAME))),
        channel(&"x".repeat(MAX_NAME))
    );
    assert_eq!(route("/", &format!("/{}", "x".repeat(MAX_NAME + 1))), Route::BadName);
    assert_eq!(route("/", &format!("/{}", "x".repeat(MAX_URL))), Route::Unknown);
}

#[test]
fn base_paths_get_their_slashes() {
    for (text, expected) in [
        ("/", Some("/")),
        ("", Some("/")),
        ("ai/trickle", Some("/ai/trickle/")),
        ("/ai/trickle/", Some("/ai/trickle/")),
        ("/a//b/", None),
        ("/a b/", None),
        ("/a?b/", None),
    ] {
        assert_eq!(base(text).as_deref(), expected, "{text:?}");
    }
}

#[test]
fn addresses_are_read_and_shown() {
    let table = [
        ("trickle://host/cam", "http://host:3389/cam", "cam"),
        ("trickles://host/cam", "https://host/cam", "cam"),
        ("http://host/ai/trickle/cam/", "http://host/ai/trickle/cam", "cam"),
        ("https://10.0.0.1:8443/x", "https://10.0.0.1:8443/x", "x"),
        ("HTTP://[::1]:3389/a%2Fb", "http://[::1]:3389/a%2Fb", "a/b"),
    ];
    for (text, shown, name) in table {
        let url = ChannelUrl::parse(text).expect(text);
        assert_eq!((url.to_string().as_str(), url.name()), (shown, name));
    }
    let url = ChannelUrl::parse("trickle://[::1]/a/cam").expect("an address");
    assert_eq!(
        (url.host(), url.server_name(), url.authority().as_str()),
        ("[::1]", "::1", "[::1]:3389")
    );
    assert_eq!(url.segment(Wanted::Number(7)), "/a/cam/7");
    assert_eq!(url.segment(Wanted::Current), "/a/cam/-2");
    assert_eq!(url.next(), "/a/cam/next");
    assert_eq!(url.sibling("a/b").expect("a name").path(), "/a/a%2Fb");
    let long: ChannelUrl = format!("http://host/{}/cam", "a".repeat(4000))
        .parse()
        .expect("an address");
    assert!(long.sibling("b").is_some());
    assert_eq!(long.sibling(&"/".repeat(100)), None, "longer than an address may be");
}

#[test]
fn addresses_that_are_none_are_refused_and_keep_passwords_to_themselves() {
    for text in [
        "cam",
        "ftp://host/cam",
        "http://host",
        "http://host/",
        "http:///cam",
        "http://host:0/cam",
        "http://host:99999/cam",
        "http://host:+80/cam",
        "http://host:/cam",
        "http://[::1/cam",
        "http://[::g]/cam",
        "http://ho st/cam",
        "http://host/a b",
        "http://host/a//b",
        "http://host/a\r\nX: y",
        "http://host/%ff",
        "http://host/cam?x=1",
        "http://host/cam#x",
    ] {
        assert!(ChannelUrl::parse(text).is_err(), "{text}");
    }
    let error = ChannelUrl::parse("http://me:secret@host/cam?key=secret")
        .expect_err("a user")
        .to_string();
    assert!(!error.contains("secret"), "{error}");
    for text in [
        "htps://me:secret@host/cam",
        "me:secret@host/cam",
        "http//me:secret@host/cam",
        "secret://@host/cam#x@host",
        "htps://host/cam?key=secret",
    ] {
        let error = ChannelUrl::parse(text).expect_err("no scheme of ours").to_string();
        assert!(!error.contains("secret") || text.starts_with("secret"), "{error}");
        assert!(!error.contains('@'), "{error}");
    }
    assert_eq!(ChannelUrl::parse(&"x".repeat(5000)), Err(UrlError::Long(5000)));
}

#[test]
fn headers_of_an_answer_that_make_no_sense_count_as_missing() {
    let mut answer = Answer::bare(200);
    answer.header("lp-trickle-seq", "12");
    answer.header("lp-trickle-latest", "-3");
    answer.header("content-type", &"x".repeat(MAX_MIME + 1));
    answer.header("content-type", "");
    answer.header("x-other", "1");
    assert_eq!(
        (answer.seq, answer.latest, answer.closed, answer.mime.clone()),
        (Some(12), None, false, None)
    );
    answer.header("lp-trickle-closed", "");
    assert!(answer.closed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_read_without_harm(text in "\\PC{0,80}", path in "[/a%0-9.-]{0,20}") {
        let _ = number(&text);
        let _ = route("/", &text);
        let _ = base(&text);
        if let Route::Channel(name) | Route::Segment(name, _) = route("/", &path) {
            prop_assert!(is_name(&name));
        }
        if let Ok(url) = ChannelUrl::parse(&format!("http://host{path}")) {
            let shown = url.to_string();
            prop_assert_eq!(ChannelUrl::parse(&shown), Ok(url));
        }
        let _ = ChannelUrl::parse(&text);
    }

    #[test]
    fn any_name_survives_its_address(name in "\\PC{1,60}") {
        prop_assume!(is_name(&name));
        let url = ChannelUrl::parse("http://host/x").expect("an address").sibling(&name).expect("a name");
        prop_assert_eq!(route("/", url.path()), Route::Channel(name));
    }
}
