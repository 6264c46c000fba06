//! Browser sessions, with a webrtcbin at the other end.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use comfy_pipelines::infergraph::{Backend, Precision};
use comfy_pipelines::pool::{Key, Pool};
use comfy_pipelines::rtc::{self, ConnectionState};
use comfy_pipelines::session::{Event, Role, Session};
use comfy_pipelines::source::Source;
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
        jitter: Duration::from_millis(20),
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
    let (tell, events) = mpsc::sync_channel(10_000);
    let (session, answer) = Session::open(
        pool,
        "test",
        &offer,
        role,
        &config(),
        Arc::new(move |event| {
            let _ = tell.try_send(event);
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

#[test]
fn a_model_that_is_slower_than_its_pictures_gets_fresh_ones() {
    const RUN: f64 = 66.0;
    let settings = Settings {
        model: Some(model(&format!("builtin:null?base={RUN}ms"))),
        ..Settings::default()
    };
    let (browser, session, _heard) = open(&Pool::new(), &Offered::default(), Role::Echo(settings));
    browser.more_pictures(60);
    let stats = session.stream().stats();
    assert!((10.0..17.0).contains(&stats.fps_out), "half the rate: {stats:?}");
    // One runs, one stands at the door, and one waits; and a little for a machine that does other things, too.
    assert!(stats.stages.model.p50 < 1.5 * RUN, "{stats:?}");
    assert!(stats.stages.total.p50 < 4.0 * RUN, "{stats:?}");
}

#[test]
fn the_latency_that_is_answered_after_the_joins_is_what_frames_take() {
    let latency_with = |model: Option<Key>| {
        let settings = Settings {
            model,
            ..Settings::default()
        };
        let (browser, session, _heard) = open(&Pool::new(), &Offered::default(), Role::Echo(settings));
        browser.more_pictures(90);
        let (answered, took) = (session.stats().latency_ms, session.stream().stats().stages.total);
        assert!(answered > took.p50, "{answered} ms are answered: {took:?}");
        // The jitter buffer's 20 ms, a frame's time in the flight buffer and the batch, and room for what varies.
        assert!(answered < took.p50 + 150.0, "{answered} ms are answered: {took:?}");
        answered
    };
    let without = latency_with(None);
    let with = latency_with(Some(model("builtin:null?base=25ms")));
    assert!(with > without + 25.0, "{without} ms without a model, {with} ms with it");
}

#[test]
fn who_watches_is_asked_to_show_pictures_at_once_unless_motion_is_to_be_even() {
    let offered = Offered {
        extension: Some((7, "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay")),
        transport_cc: true,
        ..Offered::default()
    };
    for smooth in [false, true] {
        let (browser, offer) = Browser::new(&offered);
        let config = rtc::Config { smooth, ..config() };
        let role = Role::Echo(Settings::default());
        let (_session, answer) = Session::open(&Pool::new(), "shown", &offer, role, &config, Arc::new(|_| ())).unwrap();
        assert_eq!(answer.contains("playout-delay"), !smooth, "{answer}");
        assert!(answer.contains("transport-wide-cc"), "{answer}");
        browser.accept(&answer);
        browser.more_pictures(3);
        assert_eq!(browser.extension(), (!smooth).then(|| vec![0; 3]));
    }
}

#[test]
fn two_peers_share_a_model_and_one_that_leaves_does_not_disturb_the_other() {
    let pool = Pool::new();
    let key = Key {
        batch: 2,
        ..model("builtin:invert")
    };
    let settings = Settings {
        model: Some(key),
        ..Settings::default()
    };
    let (first, one, heard) = open(&pool, &Offered::default(), Role::Echo(settings.clone()));
    let dark = Offered {
        source: "videotestsrc is-live=true pattern=black ! video/x-raw,width=320,height=240,framerate=30/1".into(),
        ..Offered::default()
    };
    let (second, two, _) = open(&pool, &dark, Role::Echo(settings));
    first.picture("a black picture", |picture| is(picture.middle, BLACK));
    second.picture("a white picture", |picture| is(picture.middle, WHITE));
    // The figures of batches are those of the graph, which both use.
    let batches = || (one.stream().stats().batch.batches, two.stream().stats().batch.batches);
    let (a, b) = batches();
    assert!(a > 0 && b >= a, "{a} {b}");
    one.close();
    heard.wait("the end of the first", |event| *event == Event::Ended);
    second.more_pictures(30);
    assert!(
        second
            .pictures()
            .iter()
            .rev()
            .take(20)
            .all(|picture| is(picture.middle, WHITE))
    );
    // Its place is taken by a third, on the same pads.
    let settings = two.stream().settings();
    let (third, _three, _) = open(&pool, &Offered::default(), Role::Echo(settings));
    third.picture("a black picture", |picture| is(picture.middle, BLACK));
    second.more_pictures(10);
}

#[test]
fn a_model_that_is_left_may_be_taken_again_at_once() {
    let pool = Pool::new();
    let with = Settings {
        model: Some(model("builtin:invert")),
        ..Settings::default()
    };
    let (browser, session, _heard) = open(&pool, &Offered::default(), Role::Echo(with.clone()));
    browser.picture("a black picture", |picture| is(picture.middle, BLACK));
    for round in 0..20 {
        let without = Settings {
            model: None,
            ..with.clone()
        };
        session.stream().set(without).unwrap();
        session.stream().set(with.clone()).unwrap();
        assert!(session.stream().stats().state != stream::State::Failed, "round {round}");
    }
    browser.more_pictures(5);
    browser.picture("a black picture", |picture| is(picture.middle, BLACK));
    assert_eq!(session.stream().stats().state, stream::State::Running);
}

#[test]
fn batches_come_back_frame_by_frame_and_none_is_lost() {
    comfy_tests::undisturbed(|| {
        let pool = Pool::new();
        let settings = Settings {
            model: Some(Key {
                batch: 4,
                ..model("builtin:invert")
            }),
            max_batches: 4,
            ..Settings::default()
        };
        let (browser, session, _heard) = open(&pool, &Offered::default(), Role::Echo(settings));
        browser.picture("a black picture", |picture| is(picture.middle, BLACK));
        // Until it is known what a batch takes, and told.
        browser.more_pictures(60);
        let dropped = session.stats().dropped;
        let (from, count) = (gst::get_timestamp(), browser.pictures().len());
        browser.more_pictures(60);
        let took = gst::get_timestamp() - from;
        let count = browser.pictures().len() - count;
        let rate = count as f64 * 1e9 / took.nseconds() as f64;
        let stats = (session.stats(), session.stream().stats());
        if rate > 24.0 && stats.0.dropped <= dropped + 6 {
            return Ok(());
        }
        Err(format!(
            "{rate} pictures a second of 30, {dropped} dropped before: {stats:?}"
        ))
    });
}

#[test]
fn what_one_publishes_others_watch() {
    let pool = Pool::new();
    let settings = Settings {
        model: Some(model("builtin:invert")),
        ..Settings::default()
    };
    let sends = Offered {
        receives: false,
        ..Offered::default()
    };
    let (_publisher, source, heard) = open(&pool, &sends, Role::Publish(settings));
    heard.wait("the connection", |event| {
        *event == Event::Connection(ConnectionState::Connected)
    });
    let watches = Offered {
        encoder: None,
        ..Offered::default()
    };
    let watching: Vec<_> = (0..2)
        .map(|_| open(&pool, &watches, Role::Watch(source.stream().clone())))
        .collect();
    for (browser, ..) in &watching {
        browser.picture("a black picture", |picture| is(picture.middle, BLACK));
    }
    assert_eq!(source.stream().viewers(), 2);
    let (_, gone, heard) = &watching[0];
    gone.close();
    heard.wait("the end", |event| *event == Event::Ended);
    watching[1].0.more_pictures(20);
    source.close();
    // Who watches is let go, to come again.
    watching[1].2.wait("the end", |event| *event == Event::Ended);
}

#[test]
fn sound_comes_back_in_time_with_the_pictures() {
    let pool = Pool::new();
    // A model that takes its time, so that there is something to wait for; more of it than what a sender's clock, which
    // is guessed from its first packets, may seem to be ahead.
    let key = Key {
        backend: Backend::Null,
        ..model("builtin:null?base=80ms")
    };
    let settings = Settings {
        model: Some(key),
        ..Settings::default()
    };
    let offered = Offered {
        sound: true,
        source: "videotestsrc is-live=true pattern=white ! video/x-raw,width=320,height=240,framerate=10/1".into(),
        ..Offered::default()
    };
    let (browser, session, _heard) = open(&pool, &offered, Role::Echo(settings));
    browser.picture("a picture", |_| true);
    browser.more_sounds(100);
    // The delay follows what was measured, a little at a time.
    let mut skew = None;
    for _ in 0..10 {
        browser.more_pictures(10);
        skew = session.stats().audio_skew_ms;
        if skew.is_some_and(|skew| skew.abs() < 40.0) {
            break;
        }
    }
    // Sound that waited for nothing would be as much too early as the model takes.
    assert!(skew.is_some_and(|skew| skew.abs() < 40.0), "{:?}", session.stats());
}

#[test]
fn a_model_that_is_not_there_is_told_and_nothing_is_shown() {
    let pool = Pool::new();
    let settings = Settings {
        model: Some(model("/no/such/model.onnx")),
        ..Settings::default()
    };
    let (browser, session, heard) = open(&pool, &Offered::default(), Role::Echo(settings.clone()));
    let failed = heard.wait("the failure", |event| {
        matches!(event, Event::Stream(stream::Event::Failed(_)))
    });
    let Event::Stream(stream::Event::Failed(text)) = failed else {
        unreachable!()
    };
    assert!(text.contains("/no/such/model.onnx"), "{text}");
    browser.connected();
    assert_eq!(session.stream().stats().state, stream::State::Failed);
    assert!(browser.pictures().is_empty());
    // The session lives on, and another model works.
    let settings = Settings {
        model: Some(model("builtin:invert")),
        ..settings
    };
    session.stream().set(settings).unwrap();
    browser.picture("a black picture", |picture| is(picture.middle, BLACK));
}

#[test]
fn a_paused_stream_stands_and_goes_on() {
    let pool = Pool::new();
    let settings = Settings {
        model: Some(model("builtin:invert")),
        ..Settings::default()
    };
    let (browser, session, heard) = open(&pool, &Offered::default(), Role::Echo(settings.clone()));
    browser.picture("a black picture", |picture| is(picture.middle, BLACK));
    session
        .stream()
        .set(Settings {
            paused: true,
            ..settings.clone()
        })
        .unwrap();
    heard.wait("the pause", |event| {
        matches!(
            event,
            Event::Stream(stream::Event::State {
                state: stream::State::Paused,
                ..
            })
        )
    });
    let stood = session.stats().frames_out;
    session.stream().set(settings).unwrap();
    browser.more_pictures(10);
    assert!(session.stats().frames_out > stood);
}

#[test]
fn h264_and_vp9_come_back_in_their_own_format() {
    let pool = Pool::new();
    for (encoding_name, encoder, codec) in [
        (
            "H264",
            "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=300 ! video/x-h264,profile=constrained-baseline",
            "H.264",
        ),
        ("VP9", "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=300", "VP9"),
    ] {
        let offered = Offered {
            encoding_name,
            encoder: Some(encoder.into()),
            ..Offered::default()
        };
        let settings = Settings {
            model: Some(model("builtin:invert")),
            ..Settings::default()
        };
        let (browser, session, _heard) = open(&pool, &offered, Role::Echo(settings));
        browser.picture("a black picture", |picture| is(picture.middle, BLACK));
        assert_eq!(session.stats().codec_out.as_deref(), Some(codec));
        assert_eq!(session.stream().stats().codec_in.as_deref(), Some(codec));
    }
}

/// A source of white, which its model makes black.
fn lamp(pool: &Arc<Pool>) -> Source {
    let settings = Settings {
        model: Some(model("builtin:invert")),
        ..Settings::default()
    };
    Source::open(pool, "lamp", "test:white", settings, Arc::new(|_| ())).unwrap()
}

#[test]
fn a_test_picture_is_a_source_that_peers_watch() {
    comfy_tests::init();
    let pool = Pool::new();
    let source = lamp(&pool);
    let watches = Offered {
        encoder: None,
        ..Offered::default()
    };
    let (browser, session, _heard) = open(&pool, &watches, Role::Watch(source.stream().clone()));
    let picture = browser.picture("a black picture", |picture| is(picture.middle, BLACK));
    assert_eq!(picture.size, (640, 480));
    assert!(session.stats().latency_ms < 1000.0);
}

#[test]
fn a_model_does_not_run_for_nobody() {
    comfy_tests::init();
    let pool = Pool::new();
    let source = lamp(&pool);
    let stats = || source.stream().stats();
    // Whose pictures tell how time passes.
    let (other, _other, _) = open(&pool, &Offered::default(), Role::Echo(Settings::default()));
    let watches = Offered {
        encoder: None,
        ..Offered::default()
    };
    for _ in 0..2 {
        let (browser, session, heard) = open(&pool, &watches, Role::Watch(source.stream().clone()));
        browser.picture("a black picture", |picture| is(picture.middle, BLACK));
        browser.more_pictures(10);
        session.close();
        heard.wait("the end", |event| *event == Event::Ended);
        other.more_pictures(5);
        let before = stats();
        other.more_pictures(30);
        let after = stats();
        assert_eq!(after.batch.batches, before.batch.batches, "{after:?}");
        assert!(after.frames_in > before.frames_in, "{after:?}");
        assert_eq!(after.state, stream::State::Running);
    }
}

#[test]
fn a_film_is_a_source_that_begins_again_at_its_end() {
    let temp = comfy_tests::temp::Temp::new();
    let path = temp.path().join("film.mkv").display().to_string();
    let film = comfy_tests::pipeline::parse(&format!(
        "videotestsrc num-buffers=20 pattern=white ! video/x-raw,width=160,height=120,framerate=20/1 \
         ! vp8enc deadline=1 cpu-used=8 ! matroskamux name=mux ! filesink location={path} \
         audiotestsrc num-buffers=40 ! opusenc ! mux."
    ));
    comfy_tests::pipeline::run(&film).expect_eos();
    let pool = Pool::new();
    let settings = Settings {
        model: Some(model("builtin:invert")),
        ..Settings::default()
    };
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = heard.clone();
    let states = Arc::new(Mutex::new(Vec::new()));
    let tell = states.clone();
    let listener = Arc::new(move |event| match event {
        stream::Event::Failed(text) | stream::Event::Warning(text) => hear.lock().unwrap().push(text),
        stream::Event::State { state, .. } => tell.lock().unwrap().push(state),
        _ => (),
    });
    let source = Source::open(&pool, "film", &path, settings, listener).unwrap();
    let watches = Offered {
        encoder: None,
        ..Offered::default()
    };
    let (browser, _session, _heard) = open(&pool, &watches, Role::Watch(source.stream().clone()));
    browser.picture("a black picture", |picture| is(picture.middle, BLACK));
    // More than it has, and no faster than it is.
    let from = gst::get_timestamp();
    browser.more_pictures(30);
    let took = gst::get_timestamp() - from;
    assert!(
        took > gst::ClockTime::from_mseconds(900),
        "30 pictures at 20 a second in {took}"
    );
    assert!(heard.lock().unwrap().is_empty(), "{heard:?}");
    // Who watches has nothing to know of it.
    let states = states.lock().unwrap();
    let running = states.iter().filter(|state| **state == stream::State::Running);
    assert_eq!(running.count(), 1, "{states:?}");
}

#[test]
fn offers_that_are_none_are_refused_with_the_reason() {
    comfy_tests::init();
    let pool = Pool::new();
    let open = |offer: &str| {
        let role = Role::Echo(Settings::default());
        Session::open(&pool, "test", offer, role, &config(), Arc::new(|_| ()))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let head = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
    let keys =
        "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 00:00\r\na=setup:actpass\r\n";
    let video = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n";
    for (offer, why) in [
        (String::new(), "v=0"),
        ("{\"sdp\":\"\"}".into(), "v=0"),
        (head.into(), "no m-line"),
        (format!("{head}{video}a=rtpmap:96 VP8/90000\r\n"), "ice-ufrag"),
        (
            format!("{head}{video}{keys}a=rtpmap:96 THEORA/90000\r\n"),
            "none of the video formats offered (THEORA)",
        ),
        (
            format!("{head}{video}{keys}a=rtpmap:96 VP8/90000\r\na=recvonly\r\n"),
            "that the peer sends",
        ),
        (format!("{head}{keys}{}", video.repeat(17)), "17 m-lines"),
        (format!("{head}\0"), "zero byte"),
    ] {
        let error = open(&offer);
        assert!(error.contains(why), "{offer:?}: {error}");
    }
}
