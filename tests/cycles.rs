//! Peers that come and go: nothing of them stays. `COMFY_CYCLES` says how many, 40 where it does not.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use comfy_pipelines::infergraph::{Backend, Precision};
use comfy_pipelines::pool::{Key, Pool};
use comfy_pipelines::rtc;
use comfy_pipelines::session::{Event, Role, Session};
use comfy_pipelines::stream::Settings;
use comfy_tests::DEADLINE;
use comfy_tests::browser::{Browser, Offered};

/// Threads, open files, and bytes in memory of this process.
fn used() -> (usize, usize, u64) {
    let count = |path: &str| std::fs::read_dir(path).expect("proc").count();
    let status = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: u64 = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("a number");
    (count("/proc/self/task"), count("/proc/self/fd"), pages * 4096)
}

fn cycle(pool: &Arc<Pool>, number: usize) {
    let key = Key {
        name: "invert".into(),
        model: "builtin:invert".into(),
        backend: Backend::Auto,
        device: 0,
        precision: Precision::Auto,
        threads: 1,
        batch: 1,
        timeout: None,
    };
    let settings = Settings {
        // Every third goes without.
        model: Some(key).filter(|_| !number.is_multiple_of(3)),
        ..Settings::default()
    };
    let offered = Offered {
        sound: number.is_multiple_of(2),
        ..Offered::default()
    };
    let (browser, offer) = Browser::new(&offered);
    let (tell, told) = mpsc::sync_channel(1000);
    let listener = Arc::new(move |event| {
        let _ = tell.try_send(event);
    });
    let config = rtc::Config {
        jitter: Duration::ZERO,
        silence: Duration::from_secs(1),
        ..rtc::Config::default()
    };
    let (session, answer) = Session::open(
        pool,
        &number.to_string(),
        &offer,
        Role::Echo(settings),
        &config,
        listener,
    )
    .expect("an answer");
    browser.accept(&answer);
    // Some leave before anything was seen.
    if !number.is_multiple_of(5) {
        browser.more_pictures(3);
    }
    match number % 4 {
        0 => drop(browser),
        _ => session.close(),
    }
    if number.is_multiple_of(5) {
        session.close();
    }
    loop {
        let event = told.recv_timeout(DEADLINE).expect("it ends");
        if event == Event::Ended {
            break;
        }
    }
}

/// Set in the process that counts.
const INSIDE: &str = "COMFY_CYCLES_INSIDE";

#[test]
fn nothing_stays_of_peers_that_have_gone() {
    if std::env::var_os(INSIDE).is_none() {
        // With one arena: otherwise each of the many threads keeps what it freed, and nothing is seen for that.
        let own = std::env::current_exe().expect("a test has a path");
        let output = std::process::Command::new(own)
            .arg("--nocapture")
            .env(INSIDE, "1")
            .env("MALLOC_ARENA_MAX", "1")
            .output()
            .expect("it runs again");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (said(&output.stdout), said(&output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        return;
    }
    let cycles = std::env::var("COMFY_CYCLES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(40);
    let pool = Pool::new();
    for number in 0..12 {
        cycle(&pool, number);
    }
    let before = used();
    for number in 12..12 + cycles {
        cycle(&pool, number);
    }
    // Threads of a pool of GLib's come and go by themselves, and so does what is on its way to be freed.
    let mut after = used();
    let from = gst::get_timestamp();
    while (after.0 > before.0 + 4 || after.1 > before.1 + 8) && (gst::get_timestamp() - from).seconds() < 20 {
        std::thread::yield_now();
        after = used();
    }
    println!("threads, files, bytes: {before:?} after 12 peers, {after:?} after {cycles} more");
    assert!(after.0 <= before.0 + 4, "threads: {} and then {}", before.0, after.0);
    assert!(after.1 <= before.1 + 8, "open files: {} and then {}", before.1, after.1);
    let each = after.2.saturating_sub(before.2) / cycles as u64;
    assert!(each < 300_000, "{each} bytes stay of each peer: {before:?}, {after:?}");
}
