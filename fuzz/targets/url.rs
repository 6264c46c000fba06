//! Addresses of channels, paths of requests and the numbers in them.

#![no_main]

use comfy_core::trickle::wire::{self, ChannelUrl, MAX_NAME, MAX_SEQ, MAX_URL, Route, Wanted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    url(text);
    path(text);
    number(text);
    if let Some(base) = wire::base(text) {
        assert!(base.starts_with('/') && base.ends_with('/'), "{base:?}");
        assert_eq!(wire::base(&base).as_deref(), Some(&*base));
    }
});

fn url(text: &str) {
    let url = match ChannelUrl::parse(text) {
        Ok(url) => url,
        Err(error) => {
            // A user and a password do not belong into a message. None of ours has this sign.
            assert!(!error.to_string().contains('@'), "{error}");
            return;
        }
    };
    let shown = url.to_string();
    // A default that is written out may make it longer than it was.
    if shown.len() <= MAX_URL {
        assert_eq!(ChannelUrl::parse(&shown).as_ref(), Ok(&url), "{text:?}");
    }
    assert!(url.path().parse::<hyper::Uri>().is_ok(), "{text:?}");
    assert!(
        hyper::header::HeaderValue::from_str(&url.authority()).is_ok(),
        "{text:?}"
    );
    // The server finds the channel that the client means.
    let (base, _) = url.path().rsplit_once('/').expect("it begins with one");
    let base = format!("{base}/");
    let name = url.name().to_owned();
    assert_eq!(wire::route(&base, url.path()), Route::Channel(name.clone()));
    let segment = wire::route(&base, &url.segment(Wanted::Number(7)));
    if url.segment(Wanted::Number(7)).len() <= MAX_URL {
        assert_eq!(segment, Route::Segment(name.clone(), "7".into()));
    }
    if let Some(sibling) = url.sibling(&name) {
        assert_eq!(sibling.name(), name);
        let again = ChannelUrl::parse(&sibling.to_string());
        assert_eq!(again.map(|url| url.name().to_owned()), Ok(name));
    }
}

fn path(text: &str) {
    for base in ["/", "/ai/trickle/"] {
        match wire::route(base, text) {
            Route::Channel(name) => assert!(wire::is_name(&name) && name.len() <= MAX_NAME),
            Route::Segment(name, seq) => {
                assert!(wire::is_name(&name) && name.len() <= MAX_NAME);
                number(&seq);
            }
            Route::BadName | Route::Unknown => (),
        }
    }
}

fn number(text: &str) {
    let Some(number) = wire::number(text) else { return };
    assert_eq!(text.parse(), Ok(number));
    for wanted in [Wanted::to_read(number), Wanted::to_write(number)]
        .into_iter()
        .flatten()
    {
        let shown = wire::number(&wanted.to_string()).and_then(Wanted::to_read);
        assert_eq!(shown, Some(wanted));
    }
    assert!(Wanted::to_delete(number).is_none_or(|seq| seq <= MAX_SEQ));
}
