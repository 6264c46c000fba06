//! `trickle-relay`, run as a user runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use comfy_core::trickle::client::{Client, Config};
use comfy_core::trickle::wire::ChannelUrl;

/// Longer than anything takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(20);

struct Relay {
    child: Child,
    /// What it says first, line by line.
    lines: Vec<String>,
}

impl Relay {
    fn start(arguments: &[&str], lines: usize) -> Self {
        Self::with(arguments, &[], lines)
    }

    fn with(arguments: &[&str], environment: &[(&str, &str)], lines: usize) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_trickle-relay"))
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped")).lines();
        let lines = (0..lines).map(|_| out.next().expect("a line").expect("text")).collect();
        Self { child, lines }
    }

    /// Host and port of a line that names an address.
    fn address(&self, line: usize) -> String {
        let (_, rest) = self.lines[line].split_once("://").expect("an address");
        rest.split('/').next().unwrap_or_default().to_owned()
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address(0))
    }

    /// Tells it to stop; its status and what it said meanwhile.
    fn stop(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill is there");
        assert!(told.success());
        let mut said = String::new();
        let mut errors = self.child.stderr.take().expect("piped");
        errors.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("it ends").code(), said)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own: the whole answer.
fn ask(address: &str, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn what_is_published_can_be_read_and_stopping_ends_it_in_order() {
    let relay = Relay::start(
        &[
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--autocreate",
            "--changefeed",
        ],
        2,
    );
    let (address, admin) = (relay.address(0), relay.address(1));
    assert!(ask(&address, "POST /cam/0", "hello").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(ask(&address, "GET /cam/0", "").contains("hello"));
    assert!(ask(&address, "GET /_changes/1", "").contains(r#"{"added":["cam"]}"#));

    assert!(ask(&admin, "GET /healthz", "").ends_with("\r\n\r\nok\n"));
    let metrics = ask(&admin, "GET /metrics", "");
    for line in [
        "trickle_channels 2\n",
        "trickle_answers_total{method=\"POST\",status=\"200\"} 1\n",
        "# TYPE trickle_received_bytes_total counter\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let status = ask(&admin, "GET /status.json", "");
    let (_, json) = status.split_once("\r\n\r\n").expect("a body");
    let status: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(status["channels"][1]["name"], "cam");
    assert_eq!(status["channels"][1]["next_write"], 1);
    assert!(ask(&admin, "GET /", "").contains("<title>trickle-relay</title>"));
    assert!(ask(&admin, "GET /x", "").starts_with("HTTP/1.1 404"));
    assert!(ask(&admin, "POST /healthz", "").starts_with("HTTP/1.1 405"));

    let mut waiting = TcpStream::connect(&address).expect("a connection");
    waiting.set_read_timeout(Some(LONG)).expect("a socket");
    write!(waiting, "GET /cam/1 HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is taken");
    while !ask(&admin, "GET /metrics", "").contains("trickle_readers 1\n") {}
    let (status, said) = relay.stop();
    assert_eq!(status, Some(0), "{said}");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("Lp-Trickle-Closed: terminated\r\n"), "{answer}");
    assert!(said.contains("stopping") && said.contains("stopped"), "{said}");
}

#[test]
fn ten_thousand_idle_channels_cost_little_and_are_listed_at_once() {
    let relay = Relay::start(
        &[
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--autocreate",
            "--max-channels",
            "10000",
        ],
        2,
    );
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", relay.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("its size") * 1024
    };
    let before = resident();
    let mut stream = TcpStream::connect(relay.address(0)).expect("a connection");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let mut answers = BufReader::new(stream.try_clone().expect("a socket")).lines();
    // In bundles, so that it is not the round trips that take the time.
    for bundle in 0..100 {
        let requests: String = (0..100)
            .map(|i| {
                format!(
                    "POST /c{} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                    bundle * 100 + i
                )
            })
            .collect();
        stream.write_all(requests.as_bytes()).expect("it is taken");
        for _ in 0..100 {
            assert_eq!(answers.next().expect("an answer").expect("text"), "HTTP/1.1 200 OK");
            while !answers.next().expect("a header").expect("text").is_empty() {}
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for 10,000 channels");
    let more = ask(&relay.address(0), "POST /more", "");
    assert!(
        more.starts_with("HTTP/1.1 503") && more.contains("10000 channels"),
        "{more}"
    );
    #[allow(clippy::disallowed_methods, reason = "how long it takes is what is asked")]
    let began = std::time::Instant::now();
    assert!(ask(&relay.address(1), "GET /metrics", "").contains("trickle_channels 10000\n"));
    let status = ask(&relay.address(1), "GET /status.json", "");
    assert!(status.contains("\"left_out\":9000"), "a page that a person can read");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(ask(&relay.address(0), "POST /c7/0", "x").starts_with("HTTP/1.1 200"));
}

#[test]
fn options_come_from_the_file_and_the_environment_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("relay.toml");
    std::fs::write(
        &file,
        "listen = '127.0.0.1:0'\nautocreate = true\nbase = '/ai/trickle/'\n",
    )
    .expect("written");
    let path = file.display().to_string();
    let relay = Relay::with(
        &["--config", &path],
        &[
            ("TRICKLE_RELAY_PUBLISH_TOKEN", "hunter2"),
            ("TRICKLE_RELAY_BASE", "/env/"),
        ],
        1,
    );
    assert!(relay.lines[0].ends_with("/env/"), "{:?}", relay.lines);
    assert!(ask(&relay.address(0), "POST /env/c", "").starts_with("HTTP/1.1 401"));
    assert!(ask(&relay.address(0), "GET /env/c/next", "").starts_with("HTTP/1.1 404"));
    let (_, said) = relay.stop();
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (arguments, said) in [
        (vec!["--listen", &address], "is something else running there?"),
        (
            vec!["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.pem"],
            "/nowhere.pem",
        ),
        (vec!["--mirror", "http://host/x"], "expected URL[,URL...]=CHANNEL"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_trickle-relay"))
            .args(arguments)
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().count() == 1 && text.contains(said), "{text}");
    }
}

#[test]
fn tls_is_spoken_with_a_certificate() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let relay = Relay::start(
        &[
            "--listen",
            "127.0.0.1:0",
            "--autocreate",
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
        ],
        1,
    );
    assert!(relay.lines[0].starts_with("https://"), "{:?}", relay.lines);
    let port = relay.address(0).rsplit(':').next().unwrap_or_default().to_owned();
    let url: ChannelUrl = format!("trickles://localhost:{port}/cam").parse().expect("an address");
    let client = |ca: Option<&str>| {
        let config = Config {
            ca: ca.map(Into::into),
            ..Config::default()
        };
        Client::new(config).expect("a client")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        assert!(client(None).create(&url, "").await.is_err(), "nobody vouches for it");
        client(Some(&cert)).create(&url, "").await.expect("it is vouched for");
        assert_eq!(client(Some(&cert)).next(&url).await.expect("a number"), 0);
    });
}

#[test]
fn a_mirror_brings_segments_under_the_same_numbers_and_changes_over() {
    let first = Relay::start(&["--listen", "127.0.0.1:0", "--autocreate"], 1);
    let second = Relay::start(&["--listen", "127.0.0.1:0", "--autocreate"], 1);
    for seq in 5..8 {
        ask(
            &first.address(0),
            &format!("POST /cam/{seq}"),
            &format!("segment {seq}"),
        );
        ask(
            &second.address(0),
            &format!("POST /cam/{seq}"),
            &format!("segment {seq}"),
        );
    }
    let mirror = format!("{},{}=copy", first.url("cam"), second.url("cam"));
    let third = Relay::start(&["--listen", "127.0.0.1:0", "--mirror", &mirror], 1);
    let address = third.address(0);
    let wait_for = |seq: u64| {
        let mut answer = String::new();
        // As many as no machine makes before the time is over in which a mirror changes over.
        for _ in 0..1_000_000 {
            answer = ask(&address, &format!("GET /copy/{seq}"), "");
            if answer.contains(&format!("segment {seq}")) {
                return;
            }
        }
        panic!("segment {seq} did not come: {answer}");
    };
    wait_for(7);
    ask(&first.address(0), "POST /cam/8", "segment 8");
    ask(&second.address(0), "POST /cam/8", "segment 8");
    wait_for(8);
    drop(first);
    ask(&second.address(0), "POST /cam/9", "segment 9");
    wait_for(9);
    drop(second);
    let (status, said) = third.stop();
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn the_lines_of_the_readme_work() {
    let readme = include_str!("../../../README.md");
    let lines = readme.lines().map(str::trim);
    let script: Vec<&str> = lines
        .filter(|line| line.starts_with("curl ") && line.contains(":3389/"))
        .collect();
    assert_eq!(script.len(), 2, "{script:?}");
    let relay = Relay::start(&["--listen", "127.0.0.1:0", "--autocreate"], 1);
    let script = script.join("\n").replace("127.0.0.1:3389", &relay.address(0));
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{output:?}");
}
