//! Browser sessions, with a webrtcbin at the other end.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use comfy_pipelines::infergraph::{Backend, Precision};
use comfy_pipelines::pool::{Key, Pool};
use comfy_pipelines::rtc::{self, ConnectionState};
use comfy_pipelines::session::{Event, Role, Session};
use comfy_pipelines::stream::{self, Settings};
use comfy_tests::browser::{Browser, Offered};

/// Near enough after two encoders.
fn is(colour: [u8; 3], wanted: [u8; 3]) -> bool {
    colour.iter().zip(wanted).all(|(is, wanted)| is.abs_diff(wanted) < 24)
}

const WHITE: [u8; 3] = [255; 3];
const BLACK: [u8; 3] = [0; 3];

fn model(model: &str) -> Key {
    Key {
        name: model.rsplit(['/', ':']).next().unwrap_or(model).into(),
        model: model.into(),
        backend: Backend::Auto,
        device: 0,
        precision: Precision::Auto,
        threads: 1,
        batch: 1,
        timeout: None,
    }
}

fn config() -> rtc::Config {
    rtc::Config {
        jitter: Duration::ZERO,
        silence: Duration::from_secs(3),
        ..rtc::Config::default()
    }
}

struct Heard {
    events: Mutex<mpsc::Receiver<Event>>,
}

impl Heard {
    fn wait(&self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let events = self.events.lock().unwrap();
        let mut others = Vec::new();
        loop {
            match events.recv_timeout(Duration::from_secs(30)) {
                Ok(event) if wanted(&event) => return event,
                Ok(event) => others.push(event),
                Err(_) => panic!("waited for {what}, heard {others:?}"),
            }
        }
    }
}

fn open(pool: &Arc<Pool>, offered: &Offered, role: Role) -> (Browser, Arc<Session>, Heard) {
    let (browser, offer) = Browser::new(offered);
    let (tell, events) = mpsc::channel();
    let (session, answer) = Session::open(
        pool,
        "test",
        &offer,
        role,
        &config(),
        Arc::new(move |event| {
            let _ = tell.send(event);
        }),
    )
    .unwrap();
    browser.accept(&answer);
    (
        browser,
        session,
        Heard {
            events: Mutex::new(events),
        },
    )
}

#[test]
fn pictures_come_back_as_they_are_without_a_model() {
    let pool = Pool::new();
    let (browser, session, heard) = open(&pool, &Offered::default(), Role::Echo(Settings::default()));
    browser.connected();
    let picture = browser.picture("a white picture", |picture| is(picture.middle, WHITE));
    assert_eq!(picture.size, (320, 240));
    browser.more_pictures(30);
    let stats = session.stream().stats();
    assert_eq!(stats.state, stream::State::PassThrough);
    assert_eq!((stats.width_in, stats.width, stats.height), (320, 320, 240));
    assert!(stats.fps_in > 20.0 && stats.fps_out > 20.0, "{stats:?}");
    assert!(stats.stages.total.p50 > 0.0, "{stats:?}");
    assert_eq!(session.stats().codec_out.as_deref(), Some("VP8"));
    browser.close();
    heard.wait("the end", |event| *event == Event::Ended);
}

#[test]
fn a_model_changes_the_pictures_and_may_be_changed_while_they_flow() {
    let pool = Pool::new();
    let settings = Settings {
        model: Some(model("builtin:invert")),
        ..Settings::default()
    };
    let (browser, session, heard) = open(&pool, &Offered::default(), Role::Echo(settings.clone()));
    browser.picture("a black picture", |picture| is(picture.middle, BLACK));
    heard.wait("the connection", |event| {
        *event == Event::Connection(ConnectionState::Connected)
    });
    session
        .stream()
        .set(Settings {
            model: None,
            ..settings.clone()
        })
        .unwrap();
    browser.picture("a white picture", |picture| is(picture.middle, WHITE));
    session.stream().set(settings.clone()).unwrap();
    browser.picture("a black picture again", |picture| is(picture.middle, BLACK));
    session
        .stream()
        .set(Settings {
            size: Some((160, 160)),
            ..settings
        })
        .unwrap();
    browser.picture("another size", |picture| {
        picture.size == (160, 160) && is(picture.middle, BLACK)
    });
    session.close();
    heard.wait("the end", |event| *event == Event::Ended);
}
