//! curl, as whoever tries things out by hand uses it.

use comfy_tests::{Peer, Relay};

use crate::http;

/// Without the settings of who runs the test, and silent but for errors.
fn curl(arguments: &[&str]) -> Peer {
    Peer::start("curl", ["-q", "-sS"].iter().chain(arguments))
}

/// Status and body.
fn ask(arguments: &[&str]) -> (u16, String) {
    let mut all = vec!["-w", "\n%{http_code}"];
    all.extend(arguments);
    let text = String::from_utf8(curl(&all).expect_success()).unwrap();
    let (body, status) = text.rsplit_once('\n').expect("asked for");
    (status.parse().unwrap(), body.to_owned())
}

/// What it uploads with, from its input, as it comes.
const UPLOAD: [&str; 6] = ["-N", "-X", "POST", "-H", "Transfer-Encoding: chunked", "-T-"];

fn upload(url: &str, more: &[&str]) -> Peer {
    let mut all = more.to_vec();
    all.extend(UPLOAD);
    all.push(url);
    curl(&all)
}

#[test]
fn curl_reads_while_curl_writes() {
    let relay = Relay::new();
    let url = http(&relay, "cam/0");
    assert_eq!(
        ask(&["-X", "POST", "-H", "Expect-Content: text/plain", &http(&relay, "cam")]),
        (200, String::new())
    );
    let mut reader = curl(&["-N", &url]);
    relay.until(|| relay.server.channels()[0].stats.readers == 1);
    // With the header that curl sends by itself when it has much to send: it waits for the server to agree.
    let mut writer = upload(
        &url,
        &["-D-", "-H", "Expect: 100-continue", "--expect100-timeout", "60"],
    );
    for piece in ["first\n", "second\n"] {
        writer.write(piece.as_bytes());
        assert_eq!(reader.line(), piece.trim_end());
    }
    assert_eq!(relay.server.channels()[0].stats.next_write, 1);
    let head = String::from_utf8(writer.expect_success()).unwrap();
    assert!(head.starts_with("HTTP/1.1 100 Continue\r\n"), "{head}");
    assert!(head.contains("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Lp-Trickle-Seq: 0\r\n"), "{head}");
    assert_eq!(reader.expect_success(), b"");
}

#[test]
fn curl_asks_where_the_channel_is_and_ends_what_is_in_it() {
    let relay = Relay::new();
    let url = |what: &str| http(&relay, what);
    for seq in 0..2 {
        let mut writer = upload(&url("cam/-1"), &["-H", "Content-Type: text/plain"]);
        writer.write(format!("segment {seq}").as_bytes());
        writer.expect_success();
    }
    assert_eq!(ask(&[&url("cam/next")]), (200, "2".into()));
    assert_eq!(ask(&[&url("cam/1")]), (200, "segment 1".into()));
    assert_eq!(ask(&[&url("cam/-2")]), (200, "segment 1".into()));

    // HEAD has what GET has, but for the body.
    let head = String::from_utf8(curl(&["-I", &url("cam/0")]).expect_success()).unwrap();
    for line in [
        "HTTP/1.1 200",
        "Lp-Trickle-Seq: 0",
        "Lp-Trickle-Latest: 2",
        "Content-Type: text/plain",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }

    // The channel is there, the segment is not.
    let (status, text) = ask(&["-i", &url("cam/7")]);
    assert_eq!(status, 470);
    for line in [
        "Lp-Trickle-Seq: 7\r\n",
        "Lp-Trickle-Latest: 2\r\n",
        "\r\n\r\nEntry not found",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert_eq!(ask(&[&url("cam/seven")]).0, 400);
    assert_eq!(ask(&["-X", "PUT", &url("cam/0")]).0, 405);

    // A segment that somebody waits for.
    let reader = curl(&["-i", &url("cam/2")]);
    relay.until(|| relay.server.channels()[0].stats.readers == 1);
    assert_eq!(ask(&["-X", "DELETE", &url("cam/2")]).0, 200);
    let answer = String::from_utf8(reader.expect_success()).unwrap();
    assert!(
        answer.contains("Content-Length: 0\r\n") && !answer.contains("Closed"),
        "{answer}"
    );
    assert_eq!(
        ask(&["-X", "DELETE", &url("cam/9")]),
        (400, "Nonexistent segment\n".into())
    );

    // The channel.
    let reader = curl(&["-i", &url("cam/3")]);
    relay.until(|| relay.server.channels()[0].stats.readers == 1);
    assert_eq!(ask(&["-X", "DELETE", &url("cam")]).0, 200);
    let answer = String::from_utf8(reader.expect_success()).unwrap();
    assert!(answer.contains("Lp-Trickle-Closed: terminated\r\n"), "{answer}");
    assert_eq!(ask(&[&url("cam/0")]), (404, "Stream not found\n".into()));
    assert_eq!(ask(&["-X", "DELETE", &url("cam")]), (400, "Invalid stream\n".into()));
}

#[test]
fn curl_sends_a_file_with_a_length_and_reads_a_segment_larger_than_any_buffer() {
    let relay = Relay::new();
    let folder = comfy_tests::temp::Temp::new();
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let file = folder.file("segment", &bytes);
    let url = http(&relay, "cam/0");
    // From a megabyte on, it asks for consent by itself.
    let (status, _) = ask(&["--data-binary", &format!("@{file}"), &url]);
    assert_eq!(status, 200);
    assert!(curl(&[&url]).expect_success() == bytes);
}
