//! `comfystream serve`, as far as it goes without media.

mod support;

use std::io::{Read, Write};

use serde_json::json;
use support::service::{Answer, Service};

const SDP: &str = "application/sdp";
const JSON: &str = "application/json";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

#[test]
fn it_says_where_it_is_and_how_it_is() {
    let service = Service::start(&[]);
    assert_eq!(
        service.lines.len(),
        1,
        "the address is the last line, and here the only one"
    );
    let health = service.get("/health");
    assert_eq!(health.status, 200);
    let health = health.json();
    assert_eq!((&health["status"], &health["sessions"]), (&json!("ready"), &json!(0)));
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["max_sessions"].as_u64().unwrap() >= 4);
    for (path, name) in [("/api/sessions", "sessions"), ("/api/sources", "sources")] {
        assert_eq!(service.get(path).json()[name], json!([]), "{path}");
    }
    assert_eq!(service.get("/streams/stats").json(), json!({}));
    let config = service.get("/api/config").json();
    assert_eq!(config["ice_servers"], json!([]));
    assert_eq!(config["codecs"], json!(["VP8", "H264", "VP9", "AV1", "H265"]));
    assert_eq!(config["token_required"], false);
    assert_eq!(config["limits"]["sdp_bytes"], 131_072);
    let models = service.get("/api/models").json();
    assert_eq!(models["models"][0]["name"], "invert");
    assert_eq!(
        (&models["models"][0]["state"], &models["models"][0]["default"]),
        (&json!("idle"), &json!(false))
    );
    let metrics = service.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
    assert!(metrics.body.contains("comfystream_sessions 0"), "{}", metrics.body);
}

#[test]
fn models_are_loaded_before_they_are_asked_for() {
    let service = Service::start(&["--model", "builtin:invert"]);
    let health = service.until("/health", |health| {
        let state = health.json()["status"].clone();
        assert!(
            state == "ready" || state == "loading" && health.header("retry-after").is_some(),
            "{health:?}"
        );
        health.status == 200
    });
    let health = health.json();
    assert_eq!(
        (&health["models"][0]["name"], &health["models"][0]["state"]),
        (&json!("invert"), &json!("ready"))
    );
    assert_eq!(service.get("/api/models").json()["models"][0]["default"], true);
}

#[test]
fn every_refusal_has_a_code_and_says_what_to_do() {
    let service = Service::start(&["--max-body", "3000", "--max-sdp", "2000"]);
    let long = "x".repeat(2001);
    let long_offer = json!({"sdp": long, "type": "offer"}).to_string();
    let offer = |more: serde_json::Value| {
        let mut body = json!({"offer": {"sdp": "v=0", "type": "offer"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let graph = json!({"1": {"class_type": "LoadTensor", "inputs": {}},
                       "2": {"class_type": "KSampler", "inputs": {"image": ["1", 0]}},
                       "3": {"class_type": "SaveTensor", "inputs": {"images": ["2", 0]}}});
    for (method, path, mime, body, status, code) in [
        ("GET", "/nothing", "", "", 404, "not_found"),
        ("GET", "/live/nothing", "", "", 404, "not_found"),
        ("GET", "/assets/none.js", "", "", 404, "not_found"),
        ("GET", "/../../etc/passwd", "", "", 404, "not_found"),
        ("GET", "/stream/none/stats", "", "", 404, "stream_missing"),
        ("GET", "/api/sessions/none", "", "", 404, "session_missing"),
        ("DELETE", "/api/sessions/none", "", "", 404, "session_missing"),
        ("GET", "/api/sessions/%ff", "", "", 400, "path_malformed"),
        ("POST", "/whep", SDP, "v=0", 404, "source_missing"),
        ("POST", "/whep/cam", SDP, "v=0", 404, "source_missing"),
        ("POST", "/whip/a%20b", SDP, "v=0", 422, "name_invalid"),
        ("POST", "/whip", SDP, "", 400, "offer_malformed"),
        ("POST", "/whip", SDP, "garbage", 400, "offer_malformed"),
        ("POST", "/live/whip", SDP, "garbage", 400, "offer_malformed"),
        ("POST", "/whip", "text/plain", "v=0", 415, "content_type"),
        ("POST", "/whip", "", "v=0", 415, "content_type"),
        ("POST", "/whip", SDP, &long, 413, "body_too_large"),
        (
            "PATCH",
            "/whip/session/none",
            FRAGMENT,
            "a=mid:0",
            404,
            "session_missing",
        ),
        ("DELETE", "/whep/session/none", "", "", 404, "session_missing"),
        ("POST", "/offer", JSON, "{", 400, "json_malformed"),
        ("POST", "/offer", JSON, "", 400, "json_malformed"),
        ("POST", "/offer", JSON, "[]", 422, "json_unexpected"),
        ("POST", "/offer", JSON, "{}", 422, "json_unexpected"),
        (
            "POST",
            "/offer",
            JSON,
            r#"{"sdp":"v=0","type":"answer"}"#,
            422,
            "json_unexpected",
        ),
        (
            "POST",
            "/offer",
            JSON,
            r#"{"sdp":"garbage","type":"offer"}"#,
            400,
            "offer_malformed",
        ),
        ("POST", "/offer", "text/plain", "{}", 415, "content_type"),
        ("POST", "/offer", JSON, &long_offer, 413, "sdp_too_large"),
        ("POST", "/offer", JSON, &"x".repeat(3001), 413, "body_too_large"),
        (
            "POST",
            "/offer",
            JSON,
            &offer(json!({"prompts": 7})),
            422,
            "workflow_invalid",
        ),
        (
            "POST",
            "/offer",
            JSON,
            &offer(json!({"prompts": graph})),
            422,
            "workflow_unsupported",
        ),
        (
            "POST",
            "/offer",
            JSON,
            &offer(json!({"resolution": {"width": 1, "height": 1}})),
            422,
            "setting_range",
        ),
        (
            "POST",
            "/offer",
            JSON,
            &offer(json!({"settings": {"model": "none such"}})),
            422,
            "model_missing",
        ),
        (
            "POST",
            "/offer",
            JSON,
            &offer(json!({"settings": {"batch_size": 65}})),
            422,
            "setting_range",
        ),
        ("POST", "/prompt", JSON, "{", 400, "json_malformed"),
        ("POST", "/prompt", JSON, &graph.to_string(), 422, "workflow_unsupported"),
        ("POST", "/prompt", "text/plain", "{}", 415, "content_type"),
    ] {
        let headers = if mime.is_empty() {
            vec![]
        } else {
            vec![("Content-Type", mime)]
        };
        eprintln!("{method} {path} {code}");
        service.send(method, path, &headers, body).refused(status, code);
    }
    let nodes = service.post("/prompt", JSON, &graph.to_string()).json();
    assert_eq!(nodes["error"]["nodes"][1]["class_type"], "KSampler");
    assert_eq!(
        service.get("/health").json()["sessions"],
        0,
        "nothing of it holds a place"
    );
}

#[test]
fn methods_that_an_address_does_not_know_are_named() {
    let service = Service::start(&[]);
    for (path, unknown, known) in [
        (
            "/health",
            &["POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"][..],
            "GET",
        ),
        ("/offer", &["GET", "HEAD", "PUT", "DELETE"], "POST"),
        ("/live/offer", &["GET"], "POST"),
        ("/whip", &["GET", "HEAD", "PUT", "DELETE", "PATCH"], "POST"),
        ("/whep/cam", &["GET", "HEAD", "PUT", "DELETE", "PATCH"], "OPTIONS"),
        ("/whip/session/x", &["GET", "HEAD", "POST", "PUT"], "PATCH"),
        ("/whep/session/x", &["GET", "HEAD", "POST", "PUT"], "DELETE"),
        ("/metrics", &["POST"], "GET"),
        ("/", &["POST", "DELETE"], "GET"),
    ] {
        for method in unknown {
            let answer = service.send(method, path, &[], "");
            assert_eq!(answer.status, 405, "{method} {path}");
            assert!(
                answer.header("allow").unwrap_or_default().contains(known),
                "{method} {path}: {answer:?}"
            );
            if *method != "HEAD" {
                answer.refused(405, "method_not_allowed");
            }
        }
    }
    assert_eq!(service.send("HEAD", "/health", &[], "").status, 200);
}

#[test]
fn only_who_bears_the_token_gets_in() {
    let service = Service::start(&[
        "--token",
        "hunter2",
        "--turn",
        "turn:turn.example",
        "--turn-secret",
        "north",
    ]);
    let with = |token: &str, method, path| {
        let value = format!("Bearer {token}");
        service.send(method, path, &[("Authorization", &value)], "")
    };
    for path in [
        "/api/models",
        "/api/sessions",
        "/api/sources",
        "/metrics",
        "/streams/stats",
        "/stream/x/stats",
        "/live/metrics",
    ] {
        let refused = service.get(path);
        refused.refused(401, "unauthorized");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{path}");
        with("hunter", "GET", path).refused(401, "unauthorized");
        service
            .get(&format!("{path}?token=hunter2"))
            .refused(401, "unauthorized");
        assert_ne!(with("hunter2", "GET", path).status, 401, "{path}");
    }
    for (method, path) in [
        ("POST", "/offer"),
        ("POST", "/prompt"),
        ("POST", "/whip"),
        ("POST", "/whep/cam"),
        ("PATCH", "/whip/session/x"),
        ("DELETE", "/whip/session/x"),
        ("DELETE", "/api/sessions/x"),
    ] {
        service.send(method, path, &[], "").refused(401, "unauthorized");
    }
    for path in ["/", "/health", "/openapi.json", "/live/health"] {
        assert_eq!(service.get(path).status, 200, "{path}");
    }
    let config = service.get("/api/config").json();
    assert_eq!(
        (&config["token_required"], &config["ice_servers"]),
        (&json!(true), &json!([]))
    );
    let config = with("hunter2", "GET", "/api/config").json();
    assert_eq!(config["ice_servers"][0]["urls"], json!(["turn:turn.example"]));
    assert!(config["ice_servers"][0]["credential"].is_string());
    let options = service.send("OPTIONS", "/whip", &[], "");
    assert_eq!((options.status, options.header("accept-post")), (204, Some(SDP)));
    assert_eq!(options.header("link"), None, "no credentials for strangers");
    let link = with("hunter2", "OPTIONS", "/whip");
    let link = link.header("link").unwrap();
    assert!(
        link.contains("rel=\"ice-server\"") && link.contains("credential-type=\"password\""),
        "{link}"
    );
}

#[test]
fn pages_of_other_origins_are_let_in_by_name() {
    let service = Service::start(&["--cors", "https://page.example"]);
    let ask = |origin, method, path, more: &[(&str, &str)]| {
        service.send(method, path, &[&[("Origin", origin)], more].concat(), "")
    };
    let preflight = [("Access-Control-Request-Method", "POST")];
    for path in ["/offer", "/whip", "/whep/cam", "/api/sessions/x"] {
        let answer = ask("https://page.example", "OPTIONS", path, &preflight);
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("https://page.example"),
            "{path}"
        );
        assert!(
            answer
                .header("access-control-allow-headers")
                .unwrap()
                .contains("If-Match"),
            "{path}"
        );
        let other = ask("https://other.example", "OPTIONS", path, &preflight);
        assert_eq!(other.header("access-control-allow-origin"), None, "{path}");
    }
    let answer = ask("https://page.example", "GET", "/nothing", &[]);
    answer.refused(404, "not_found");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://page.example"),
        "errors can be read, too"
    );
    assert!(
        answer
            .header("access-control-expose-headers")
            .unwrap()
            .contains("Location")
    );
    let closed = Service::start(&[]);
    let answer = closed.send("GET", "/health", &[("Origin", "https://page.example")], "");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, None)
    );
}

#[test]
fn the_page_comes_out_of_the_program() {
    let service = Service::start(&[]);
    let page = service.get("/");
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("script-src 'self';")
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let tag = page.header("etag").unwrap();
    assert_eq!(service.send("GET", "/", &[("If-None-Match", tag)], "").status, 304);
    assert_eq!(service.get("/live").body, page.body);
    assert_eq!(service.get("/live/").body, page.body);
    for path in ["/whep-player", "/stats", "/live/stats"] {
        assert_eq!(service.get(path).status, 200, "{path}");
    }
    let script = page
        .body
        .split('"')
        .find(|text| text.starts_with("./assets/") && text.ends_with(".js"));
    let script = service.get(script.unwrap().trim_start_matches('.'));
    assert!(script.header("cache-control").unwrap().contains("immutable"));
    let head = service.send("HEAD", "/", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn the_document_describes_what_is_served() {
    let service = Service::start(&[]);
    let document = service.get("/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let text = document.to_string();
    for (at, _) in text.match_indices("\"$ref\":\"") {
        let target = text[at + 8..].split('"').next().unwrap();
        assert!(
            document.pointer(target.trim_start_matches('#')).is_some(),
            "{target} is nowhere"
        );
    }
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            let named = path.replace("{name}", "x");
            let answer = service.send(&method.to_uppercase(), &named, &[], "");
            let status = answer.status.to_string();
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.contains_key(&status),
                "{method} {path} answers {status}: {answer:?}"
            );
            assert!(
                responses.contains_key("500") && operation["security"].is_array(),
                "{method} {path}"
            );
        }
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((all, ids.len()), (all, all), "operation ids are unique");
    assert!(all >= 22, "{ids:?}");
}

#[test]
fn what_is_no_http_harms_nobody() {
    let service = Service::start(&["--request-time", "0.2", "--max-connections", "4"]);
    for bytes in [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n"] {
        let mut stream = service.connect();
        let _ = stream.write_all(bytes);
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(text.is_empty() || Answer::parse(&text).status >= 400, "{text}");
    }
    // As many as are allowed say nothing; they are ended, and others get in.
    let silent: Vec<_> = (0..4).map(|_| service.connect()).collect();
    assert_eq!(service.get("/health").status, 200);
    drop(silent);
    let late = b"POST /offer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{";
    service.raw(late).refused(408, "body_late");
    assert_eq!(service.get("/health").status, 200);
}

#[test]
fn workflows_of_later_sessions_are_set() {
    let service = Service::start(&[]);
    let graph = json!({"1": {"class_type": "LoadTensor", "inputs": {}},
                       "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
                       "3": {"class_type": "SaveTensor", "inputs": {"images": ["2", 0]}}});
    for body in [graph.clone(), json!([graph]), json!(null)] {
        let answer = service.post("/prompt", JSON, &body.to_string());
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK"), "{body}");
    }
}

#[test]
fn it_ends_when_it_is_told_to() {
    for signal in ["TERM", "INT"] {
        let service = Service::start(&[]);
        // A connection that is open and says nothing holds nobody up.
        let idle = service.connect();
        service.signal(signal);
        assert_eq!(service.wait(), Some(0), "{signal}");
        drop(idle);
    }
}

#[test]
fn what_it_cannot_do_it_says_at_the_start() {
    for (arguments, named) in [
        (&["--listen", "0.0.0.0:0"][..], "--no-token"),
        (&["--model", "nowhere.onnx"], "nowhere.onnx"),
        (&["--default-model", "nothing"], "nothing"),
        (&["--log", "=="], "log"),
    ] {
        let output = support::comfystream().arg("serve").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(named), "{text}");
    }
    let service = Service::start(&[]);
    let address = service.address.to_string();
    let output = support::comfystream()
        .args(["serve", "--listen", &address])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("something else running"));
}
