//! A session over a bad network: the test runs itself again in a network of its own, which carries little and then drops
//! packets, and the peer loses and delays more of what it sends.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use comfy_pipelines::pool::Pool;
use comfy_pipelines::rtc;
use comfy_pipelines::session::{Role, Session};
use comfy_pipelines::stream::Settings;
use comfy_tests::browser::{Browser, Offered};

/// Set in the process that is in there.
const INSIDE: &str = "COMFY_BAD_NETWORK";

fn shell(text: &str) {
    let status = Command::new("sh").args(["-ec", text]).status().expect("a shell");
    assert!(status.success(), "{text}: {status}");
}

/// How this user gets a network of its own: root just so, others as root of a namespace of users, which kernels do not
/// give to who lives in a changed root.
fn own_network() -> &'static [&'static str] {
    let ways: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).arg("true").output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    ways.iter().find(works).expect(
        "a network of its own, for which `unshare --net true` must work; in a container that takes `--cap-add SYS_ADMIN`",
    )
}

/// Runs the test of this name again where `lo` is the only way, and a bad one.
fn outside(test: &str, network: &str) {
    let own = std::env::current_exe().expect("a test has a path");
    // ICE does not offer loopback addresses; what goes to another address of the same machine takes `lo` all the same.
    let script = format!(
        "ip link set lo up; ip link add far type veth peer name near; ip addr add 192.0.2.1/24 dev far; \
         ip link set near up; ip link set far up; tc qdisc add dev lo root {network}; exec \"$0\" --exact {test} --nocapture"
    );
    let output = Command::new("unshare")
        .args(own_network())
        .args(["sh", "-ec", &script])
        .arg(own)
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of Debian's util-linux");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "in a network of its own (ip and tc are in Debian's iproute2): {}\n{}",
        said(&output.stdout),
        said(&output.stderr)
    );
}

#[test]
fn bit_rate_follows_the_network_down_and_up_again() {
    if std::env::var_os(INSIDE).is_none() {
        return outside(
            "bit_rate_follows_the_network_down_and_up_again",
            "tbf rate 700kbit burst 8kb latency 300ms",
        );
    }
    let offered = Offered {
        // What the peer sends is its own affair, and leaves room for what comes back.
        encoder: Some("vp8enc deadline=1 cpu-used=8 keyframe-max-dist=300 end-usage=cbr target-bitrate=150000".into()),
        source: "videotestsrc is-live=true pattern=smpte horizontal-speed=3 \
                 ! video/x-raw,width=320,height=240,framerate=30/1"
            .into(),
        transport_cc: true,
        // 2 % lost, 0 to 30 ms late.
        network: Some(
            "netsim drop-probability=0.02 delay-probability=1.0 min-delay=0 max-delay=30 allow-reordering=false",
        ),
        ..Offered::default()
    };
    let (browser, offer) = Browser::new(&offered);
    let config = rtc::Config {
        jitter: Duration::from_millis(40),
        bitrate: rtc::Bitrate {
            min: 50_000,
            start: 2_000_000,
            max: 4_000_000,
        },
        ..rtc::Config::default()
    };
    let pool = Pool::new();
    let role = Role::Echo(Settings::default());
    let (session, answer) = Session::open(&pool, "bad", &offer, role, &config, Arc::new(|_| ())).expect("an answer");
    browser.accept(&answer);
    browser.connected();
    browser.more_pictures(1);
    let target = || session.stats().bitrate_target;
    let seconds = |from: gst::ClockTime| (gst::get_timestamp() - from).seconds();

    let from = gst::get_timestamp();
    while target() > 650_000 {
        browser.more_pictures(2);
        assert!(
            seconds(from) < 30,
            "still {} bit/s where 700 kbit/s is all there is",
            target()
        );
    }
    // It recovers: pictures go on, at what there is.
    let count = browser.pictures().len();
    let from = gst::get_timestamp();
    while seconds(from) < 8 {
        browser.more_pictures(2);
    }
    let rate = (browser.pictures().len() - count) as f64 / 8.0;
    assert!(rate > 5.0, "{rate} pictures a second at {} bit/s", target());

    let low = target();
    shell("tc qdisc del dev lo root");
    let from = gst::get_timestamp();
    while target() < low.max(300_000) * 3 / 2 {
        browser.more_pictures(5);
        assert!(
            seconds(from) < 60,
            "{} bit/s, from {low}, although the network is well",
            target()
        );
    }
    println!("{low} bit/s, then {} after {} s", target(), seconds(from));
}
