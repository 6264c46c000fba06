//! Options in, settings out.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn with(arguments: &[&str]) -> anyhow::Result<Settings> {
    let all = ["comfystream"].iter().chain(arguments);
    Cli::try_parse_from(all)?.options.settings()
}

fn file(text: &str, arguments: &[&str]) -> anyhow::Result<Settings> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    let path = file.path().display().to_string();
    with(&[&["--config", path.as_str()], arguments].concat())
}

#[test]
fn by_default_only_this_machine_is_served_and_frames_pass_unchanged() {
    let settings = with(&[]).expect("nothing is needed");
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8889");
    assert_eq!((settings.wish.model, settings.models.loaded.len()), (None, 0));
    assert!(settings.token.is_none() && settings.cors.is_empty() && settings.warnings.is_empty());
    assert!(
        settings.ice.servers(0).is_empty(),
        "nobody outside is asked unless told to"
    );
    assert!(settings.limits.load_counts);
    assert_eq!(settings.rtc.codecs.len(), 5);
}

#[test]
fn flags_come_before_the_file() {
    let settings = file(
        "listen = '127.0.0.1:1'\nbatch-size = 4\nmax-sessions = 7\nleaky = 'thin'\nbackend = 'tensorrt'\nmodel = ['builtin:invert']\n\
         codecs = ['h.264', 'VP8']\n[[source]]\nname = 'cam'\nuri = 'test:'\nmodel = 'none'\n",
        &["--listen", "127.0.0.1:2", "--batch-size=2", "--source", "b=a.mp4"],
    )
    .expect("both are fine");
    assert_eq!((settings.listen.port(), settings.limits.sessions), (2, 7));
    assert!(!settings.limits.load_counts, "a number that is given counts alone");
    assert_eq!((settings.wish.batch_size, settings.wish.leaky), (2, Leaky::Thin));
    assert_eq!(settings.wish.model.as_deref(), Some("invert"));
    assert_eq!(settings.models.backend, infergraph::Backend::TensorRt);
    assert_eq!(settings.rtc.codecs, [Codec::H264, Codec::Vp8]);
    let names: Vec<_> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["b", "cam"]);
}

#[test]
fn comfystreams_flags_are_understood() {
    for (arguments, listen) in [
        (vec!["--host", "127.0.0.1", "--port", "9000"], "127.0.0.1:9000"),
        (vec!["--port", "0"], "127.0.0.1:0"),
        (vec!["--host", "localhost"], "127.0.0.1:8889"),
        (vec!["--host", "::1"], "[::1]:8889"),
    ] {
        let settings = with(&arguments).expect("understood");
        assert_eq!(settings.listen.to_string(), listen, "{arguments:?}");
    }
    for (text, range) in [
        ("5000-5010", (5000, 5010)),
        ("5002,5000,5001", (5000, 5002)),
        ("5000", (5000, 5000)),
    ] {
        assert_eq!(with(&["--media-ports", text]).expect(text).rtc.ports, Some(range));
    }
    let settings = file("listen = '127.0.0.2:7'", &["--port", "8"]).expect("the flag changes the port");
    assert_eq!(settings.listen.to_string(), "127.0.0.2:8");
    assert_eq!(with(&["--log-level", "DEBUG"]).expect("an old name").log, "DEBUG");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (text, named) in [
        ("lisen = '127.0.0.1:1'", "lisen"),
        ("listen = 'here'", "listen"),
        ("listen = '127.0.0.1:1'\nport = 1", "listen"),
        ("host = 'here'", "host"),
        ("media-ports = '1-x'", "media-ports"),
        ("media-ports = '9-8'", "media-ports"),
        ("media-ports = ''", "media-ports"),
        ("model = ['nowhere.onnx']", "nowhere.onnx"),
        ("model = ['builtin:invert', 'builtin:invert']", "invert"),
        ("batch-size = 0", "batch-size"),
        ("threshold = 3", "threshold"),
        ("max-batches = 65", "max-batches"),
        ("threads = 257", "threads"),
        ("device = 64", "device"),
        ("leaky = 'sometimes'", "leaky"),
        ("backend = 'abacus'", "backend"),
        ("codecs = ['MPEG2']", "MPEG2"),
        ("jitter = 2001", "jitter"),
        ("bitrate-min = 0", "bitrate-min"),
        ("bitrate-min = 9000000", "bitrate-min"),
        ("bitrate-start = 1", "bitrate-start"),
        ("stun = ['stun.example']", "stun"),
        ("turn = ['turn://x']", "turn"),
        ("turn = ['turn:x']", "turn-secret"),
        ("turn-user = 'x'", "turn-user"),
        ("turn-credential = 'x'", "turn-credential"),
        ("turn-secret = 'x'", "turn"),
        (
            "turn = ['turn:x']\nturn-secret = 'x'\nturn-credential = 'y'",
            "turn-secret",
        ),
        ("turn-ttl = 0", "turn-ttl"),
        ("token = ''", "token"),
        ("token = \"a\\nb\"", "token"),
        ("cors = ['page.example']", "cors"),
        ("cors = ['https://page.example/']", "cors"),
        ("max-sessions = 0", "max-sessions"),
        ("max-sdp = 0", "max-sdp"),
        ("message-rate = 0", "message-rate"),
        ("drain = -1", "drain"),
        ("connect-time = nan", "connect-time"),
        ("[[source]]\nname = 'a b'\nuri = 'x'", "a b"),
        ("[[source]]\nname = 'a'\nuri = ''", "URI"),
        ("[[source]]\nname = 'a'\nurl = 'x'", "url"),
        (
            "[[source]]\nname = 'a'\nuri = 'x'\n[[source]]\nname = 'a'\nuri = 'y'",
            "two called a",
        ),
    ] {
        let error = format!("{:#}", file(text, &[]).expect_err(text));
        assert!(error.contains(named), "{text}: {error}");
    }
    let error = format!("{:#}", with(&["--config", "/nowhere/x.toml"]).expect_err("no file"));
    assert!(error.contains("/nowhere/x.toml"), "{error}");
    assert!(with(&["--source", "x"]).is_err());
}

#[test]
fn others_are_let_in_with_a_token_or_by_name_only() {
    let error = with(&["--listen", "0.0.0.0:8889"]).expect_err("open to all");
    assert!(error.to_string().contains("--no-token"), "{error}");
    let open = with(&["--host", "0.0.0.0", "--no-token"]).expect("said by name");
    assert!(open.token.is_none() && open.warnings.len() == 1);
    assert!(with(&["--listen", "[::]:1", "--no-token=false"]).is_err());
    let closed = with(&["--listen", "[::]:1", "--token", "hunter2"]).expect("a token");
    assert!(closed.warnings[0].contains("in the clear"));
}

#[test]
fn secrets_are_not_shown() {
    let settings = with(&["--token", "hunter2", "--turn", "turn:x", "--turn-secret", "hunter2"]);
    assert!(!format!("{:?}", settings.expect("fine")).contains("hunter2"));
}
