//! `comfystream serve` with peers that send and watch.

mod support;

use comfy_tests::browser::{Browser, Offered};
use serde_json::{Value, json};
use support::service::Service;

const SDP: &str = "application/sdp";
const JSON: &str = "application/json";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// A peer that begins by `POST /offer`, and its session's id.
fn offer(service: &Service, more: Value) -> (Browser, String) {
    let (browser, sdp) = Browser::new(&Offered::default());
    let mut body = json!({"offer": {"sdp": sdp, "type": "offer"}, "prompts": null});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = service.post("/offer", JSON, &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["type"], "answer");
    browser.accept(answer["sdp"].as_str().unwrap());
    (browser, answer["id"].as_str().unwrap().to_owned())
}

/// Sends a message, and waits for the answer of that type.
fn ask(browser: &Browser, message: &Value, kind: &str) -> Value {
    browser.send("control", &message.to_string());
    heard(browser, kind, |_| true)
}

fn heard(browser: &Browser, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let text = browser.message("control", kind, |text| {
        let message = parse(text);
        message["type"] == kind && wanted(&message)
    });
    parse(&text)
}

fn empty(service: &Service) {
    service.until("/health", |health| health.json()["sessions"] == 0);
}

#[test]
fn pictures_go_through_a_model_and_back() {
    let service = Service::start(&["--stream-id-label"]);
    let (browser, id) = offer(&service, json!({"settings": {"model": "invert"}}));
    browser.connected();
    browser.picture("black, of white", |picture| {
        picture.middle.iter().all(|value| *value < 40)
    });
    heard(&browser, "comfy:state", |message| message["state"] == "running");

    let figures = service
        .until(&format!("/stream/{id}/stats"), |answer| answer.json()["fps"] != 0.0)
        .json();
    assert_eq!(figures["stats"]["model"], "invert");
    assert_eq!(figures["stats"]["connection"], "connected");
    assert_eq!(figures["stats"]["width_in"], 320);
    assert!(figures["minute_avg_fps"].is_number() && figures["timestamp"].is_number());
    let all = service.get("/live/streams/stats").json();
    assert!(all[&id]["fps"].is_number() && all[&id].get("stats").is_none(), "{all}");
    let session = service.get(&format!("/api/sessions/{id}")).json();
    assert_eq!(
        (&session["kind"], &session["state"]),
        (&json!("offer"), &json!("running"))
    );
    assert_eq!(service.get("/api/sources").json()["sources"][0]["name"], id.as_str());
    service.until("/metrics", |metrics| {
        metrics.body.contains(&format!("stream_fps{{stream_id=\"{id}\"}}"))
            && metrics
                .body
                .contains("comfystream_stage_seconds_bucket{stage=\"total\"")
            && metrics.body.contains("comfystream_sessions_total 1")
    });

    assert_eq!(
        service.send("DELETE", &format!("/api/sessions/{id}"), &[], "").status,
        204
    );
    empty(&service);
    service
        .get(&format!("/stream/{id}/stats"))
        .refused(404, "stream_missing");
}

#[test]
fn the_control_channel_does_what_it_is_asked_for() {
    let service = Service::start(&[]);
    let (browser, _) = offer(&service, json!({}));
    browser.picture("white, unchanged", |picture| {
        picture.middle.iter().all(|value| *value > 200)
    });
    let graph = json!({"1": {"class_type": "LoadTensor", "inputs": {}},
                       "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
                       "3": {"class_type": "SaveTensor", "inputs": {"images": ["2", 0]}}});
    let updated = ask(
        &browser,
        &json!({"type": "update_prompts", "prompts": [graph]}),
        "prompts_updated",
    );
    assert_eq!(updated, json!({"type": "prompts_updated", "success": true}));
    browser.picture("black, of white", |picture| {
        picture.middle.iter().all(|value| *value < 40)
    });
    let nodes = ask(&browser, &json!({"type": "get_nodes"}), "nodes_info");
    assert_eq!(nodes["nodes"]["0"]["2"]["class_type"], "ImageInvert");

    let mut bad = graph.clone();
    bad["2"]["class_type"] = "KSampler".into();
    browser.send(
        "control",
        &json!({"type": "update_prompts", "prompts": [bad]}).to_string(),
    );
    heard(&browser, "prompts_updated", |message| message["success"] == false);
    let error = heard(&browser, "error", |message| message["request"] == "update_prompts");
    assert_eq!(error["error"]["nodes"][1]["class_type"], "KSampler");

    let size = json!({"type": "update_resolution", "width": 128, "height": 64});
    assert_eq!(ask(&browser, &size, "resolution_updated")["success"], true);
    browser.picture("another size", |picture| picture.size == (128, 64));

    assert_eq!(
        ask(&browser, &json!({"type": "pause_prompts"}), "prompts_paused")["success"],
        true
    );
    heard(&browser, "comfy:state", |message| message["state"] == "paused");
    assert_eq!(
        ask(&browser, &json!({"type": "resume_prompts"}), "prompts_resumed")["success"],
        true
    );
    let settings = ask(
        &browser,
        &json!({"type": "comfy:settings", "max_batches": 3}),
        "comfy:settings",
    );
    assert_eq!(settings["settings"]["max_batches"], 3);
    assert_eq!(
        (&settings["settings"]["model"], &settings["settings"]["width"]),
        (&json!("invert"), &json!(128))
    );
    let pong = ask(&browser, &json!({"type": "comfy:ping", "sent": 7}), "comfy:pong");
    assert_eq!(pong["sent"], 7);
    ask(
        &browser,
        &json!({"type": "comfy:stats", "interval_ms": 100}),
        "comfy:stats",
    );
    let stats = heard(&browser, "comfy:stats", |message| message["stats"].is_object());
    assert_eq!(stats["stats"]["codec_in"], "VP8");
    browser.send("control", "nonsense");
    heard(&browser, "error", |message| {
        message["error"]["code"] == "message_malformed"
    });
    assert_eq!(
        ask(&browser, &json!({"type": "stop_prompts"}), "prompts_stopped")["success"],
        true
    );
    browser.picture("white again", |picture| picture.middle.iter().all(|value| *value > 200));
    for _ in 0..400 {
        browser.send("control", r#"{"type":"comfy:ping","sent":1}"#);
    }
    heard(&browser, "error", |message| message["error"]["code"] == "rate_limited");
    browser.close();
    empty(&service);
}

#[test]
fn what_one_publishes_others_watch() {
    let service = Service::start(&["--stun", "stun:127.0.0.1:9", "--max-sessions", "8"]);
    let publish = || {
        Browser::new(&Offered {
            receives: false,
            channels: Vec::new(),
            ..Offered::default()
        })
    };
    let (camera, sdp) = publish();
    let published = service.post("/whip/cam", SDP, &sdp);
    assert_eq!(published.status, 201, "{published:?}");
    assert_eq!(published.header("content-type"), Some(SDP));
    let location = published.header("location").unwrap();
    assert!(location.starts_with("/whip/session/"));
    assert_eq!(published.header("link"), Some("<stun:127.0.0.1:9>; rel=\"ice-server\""));
    let tag = published.header("etag").unwrap();
    camera.accept(&published.body);
    camera.connected();

    let (other, sdp) = publish();
    service.post("/whip/cam", SDP, &sdp).refused(409, "name_taken");
    drop(other);

    let (viewer, sdp) = Browser::new(&Offered {
        encoder: None,
        channels: Vec::new(),
        ..Offered::default()
    });
    let watched = service.post("/live/whep/cam", SDP, &sdp);
    assert_eq!(watched.status, 201, "{watched:?}");
    assert!(watched.header("location").unwrap().starts_with("/live/whep/session/"));
    viewer.accept(&watched.body);
    viewer.picture("white, unchanged", |picture| {
        picture.middle.iter().all(|value| *value > 200)
    });
    let sources = service.get("/api/sources").json();
    assert_eq!(
        (&sources["sources"][0]["name"], &sources["sources"][0]["viewers"]),
        (&json!("cam"), &json!(1))
    );

    let patch = |headers: &[(&str, &str)], body: &str| {
        service.send(
            "PATCH",
            location,
            &[&[("Content-Type", FRAGMENT)], headers].concat(),
            body,
        )
    };
    let ufrag = tag.trim_matches('"');
    let candidate = format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:0123456789012345678901\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:video0\r\n\
         a=candidate:1 1 UDP 1 127.0.0.1 9 typ host\r\n"
    );
    patch(&[], &candidate).refused(428, "etag_missing");
    patch(&[("If-Match", "\"old\"")], &candidate).refused(412, "etag_mismatch");
    patch(&[("If-Match", tag)], "nonsense").refused(400, "fragment_malformed");
    patch(&[("If-Match", "*")], &candidate.replace(ufrag, "anew")).refused(422, "restart_refused");
    let added = patch(&[("If-Match", tag)], &candidate);
    assert_eq!((added.status, added.header("etag")), (204, Some(tag)), "{added:?}");
    service
        .send(
            "PATCH",
            location,
            &[("Content-Type", SDP), ("If-Match", tag)],
            &candidate,
        )
        .refused(415, "content_type");

    assert_eq!(service.send("DELETE", location, &[], "").status, 200);
    let (again, sdp) = publish();
    assert_eq!(
        service.post("/whip/cam", SDP, &sdp).status,
        201,
        "the name is free at once"
    );
    drop((camera, viewer, again));
}

#[test]
fn sources_of_the_service_are_watched() {
    let service = Service::start(&["--source", "pic=test:", "--max-sessions", "8"]);
    let (viewer, sdp) = Browser::new(&Offered {
        encoder: None,
        channels: Vec::new(),
        ..Offered::default()
    });
    let watched = service.post("/whep/pic", SDP, &sdp);
    assert_eq!(watched.status, 201, "{watched:?}");
    viewer.accept(&watched.body);
    viewer.picture("any", |_| true);
    let sources = service.get("/api/sources").json();
    assert_eq!(
        (&sources["sources"][0]["name"], &sources["sources"][0]["kind"]),
        (&json!("pic"), &json!("config"))
    );
    assert!(service.get("/stream/pic/stats").json()["stats"]["stages"].is_object());
    service.post("/whip/pic", SDP, "v=0").refused(409, "name_taken");
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
}

#[test]
fn places_are_counted_and_given_back() {
    let service = Service::start(&["--max-sessions", "1", "--connect-time", "1"]);
    let (browser, sdp) = Browser::new(&Offered::default());
    let body = json!({"sdp": sdp, "type": "offer"}).to_string();
    assert_eq!(service.post("/offer", JSON, &body).status, 200);
    let full = service.post("/offer", JSON, &body);
    full.refused(503, "sessions_full");
    assert!(full.header("retry-after").is_some());
    // It never takes the answer, so nobody connects.
    empty(&service);
    drop(browser);
    let (browser, _) = offer(&service, json!({}));
    browser.connected();
    drop(browser);
    empty(&service);
}

#[test]
fn sessions_are_ended_before_the_service() {
    let service = Service::start(&[]);
    let (browser, _) = offer(&service, json!({"resolution": {"width": 64, "height": 64}}));
    browser.picture("that size", |picture| picture.size == (64, 64));
    service.signal("TERM");
    assert_eq!(service.wait(), Some(0));
}
