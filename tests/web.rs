//! `comfystream serve` as browsers and others' clients meet it: a Chromium on its pages (`tests/browser`), aiortc, and
//! what schemathesis makes of its OpenAPI document (`tests/peers/web`).
//!
//! The limits on times and rates here tell what works from what does not; what is good is for the benches to say.

use std::sync::{Mutex, MutexGuard, PoisonError};

use comfy_tests::turn::Turn;
use comfy_tests::{Peer, Service};
use serde_json::{Value, json};

const INVERT: &[&str] = &["--model", "builtin:invert"];

/// A browser alone keeps two cores busy. Two tests at once would measure each other.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a scenario or script that went well.
#[track_caller]
fn result(mut peer: Peer, service: &Service) -> Value {
    let line = peer.line();
    let result: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert!(
        result["ok"] == true,
        "{}\n{result:#}\nthe service: {}",
        result["error"].as_str().unwrap_or_default(),
        service.log()
    );
    result
}

#[track_caller]
fn browse(service: &Service, scenario: &str, options: &[&str]) -> Value {
    result(Peer::browser(scenario, &service.base(), options), service)
}

#[track_caller]
fn script(service: &Service, name: &str, options: &[&str]) -> Value {
    result(Peer::web(name, &service.base(), options), service)
}

#[track_caller]
fn number(result: &Value, path: &str) -> f64 {
    let value = result.pointer(path).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number {path}: {result:#}"))
}

/// That nothing was said about an error, neither to people nor in the console.
#[track_caller]
fn unharmed(result: &Value) {
    assert_eq!(result["complaints"], json!([]), "{result:#}");
    if let Some(errors) = result.get("errors") {
        assert_eq!(errors, &json!([]), "{result:#}");
    }
}

#[track_caller]
fn camera_comes_back_inverted(codec: &str) {
    let _turn = turn();
    let service = Service::start(INVERT);
    let result = browse(&service, "roundtrip", &[&format!("codec={codec}")]);
    unharmed(&result);
    assert_eq!(
        (&result["width"], &result["height"], &result["size_in"]),
        (&json!(640), &json!(480), &json!([640, 480]))
    );
    assert_eq!(
        (&result["codec_sent"], &result["codec_received"], &result["model"]),
        (&json!(codec), &json!(codec), &json!("invert"))
    );
    assert!(number(&result, "/far_from_sent") <= 24.0, "{result:#}");
    assert!(number(&result, "/fps") > 5.0, "{result:#}");
}

#[test]
fn demo_ends_at_a_page_that_shows_a_camera_through_its_model() {
    let _turn = turn();
    let folder = comfy_tests::temp::Temp::new();
    let clip = folder.path().join("clip.mkv");
    let film = format!(
        "videotestsrc num-buffers=30 ! video/x-raw,width=320,height=240,framerate=30/1 ! vp8enc deadline=1 \
         ! matroskamux ! filesink location={}",
        clip.display()
    );
    comfy_tests::pipeline::run(&comfy_tests::pipeline::parse(&film)).expect_eos();
    let service = Service::demo(&clip, "builtin:invert", &folder.path().join("out"));
    assert!(folder.path().join("out/demo.mp4").is_file());
    let result = browse(&service, "roundtrip", &["codec=VP8"]);
    unharmed(&result);
    assert!(number(&result, "/far_from_sent") <= 24.0, "{result:#}");
}

#[test]
fn camera_comes_back_inverted_at_its_size_in_vp8() {
    camera_comes_back_inverted("VP8");
}

#[test]
fn camera_comes_back_inverted_at_its_size_in_h264() {
    camera_comes_back_inverted("H264");
}

#[test]
fn test_picture_tells_its_own_delay() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let result = browse(&service, "test-pattern", &[]);
    unharmed(&result);
    assert_eq!(result["page"]["readable"], true);
    let (p50, p95) = (number(&result, "/p50"), number(&result, "/p95"));
    assert!(p50 > 1.0 && p50 <= p95 && p95 < 2000.0, "{result:#}");
    assert!(number(&result, "/count") > 10.0, "{result:#}");

    // The measurement that reports are made of, from the same service.
    let result = browse(&service, "glass", &["seconds=2", "codec=VP8", "model=passthrough"]);
    assert_eq!(
        (&result["codec_sent"], &result["codec_received"]),
        (&json!("VP8"), &json!("VP8"))
    );
    assert!(number(&result, "/latency_ms/p50") <= number(&result, "/latency_ms/p99"));
    assert!(number(&result, "/fps") > 5.0, "{result:#}");
}

#[test]
fn model_and_size_change_while_pictures_flow() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let result = browse(&service, "settings", &[]);
    unharmed(&result);
    assert_eq!(
        (&result["same_session"], &result["sessions"]),
        (&json!(true), &json!(1))
    );
}

#[test]
fn messages_of_comfystreams_page_are_answered_as_it_expects() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let result = browse(&service, "control", &[]);
    unharmed(&result);
    assert_eq!(result["size"], json!([256, 256]));
    let answers = &result["answers"];
    for (name, answer) in [
        ("update_prompts", json!({"type": "prompts_updated", "success": true})),
        (
            "update_resolution",
            json!({"type": "resolution_updated", "success": true}),
        ),
        ("pause_prompts", json!({"type": "prompts_paused", "success": true})),
        ("resume_prompts", json!({"type": "prompts_resumed", "success": true})),
        ("stop_prompts", json!({"type": "prompts_stopped", "success": true})),
        (
            "no_prompts",
            json!({"type": "prompts_updated", "success": false, "error": "Missing 'prompts' in control message"}),
        ),
        (
            "no_size",
            json!({"type": "resolution_updated", "success": false,
                   "error": "Missing 'width' or 'height' in control message"}),
        ),
    ] {
        assert_eq!(answers[name], answer, "{name}");
    }
    assert_eq!(answers["get_nodes"]["nodes"]["0"]["2"]["class_type"], "SaveTensor");
    assert_eq!(answers["still_there"]["nodes"]["0"]["2"]["class_type"], "ImageInvert");
    // ComfyStream says nothing to these; ours says what is wrong with them.
    for (name, code) in [
        ("unknown", "message_unknown"),
        ("no_type", "message_malformed"),
        ("no_json", "message_malformed"),
    ] {
        assert_eq!(answers[name]["error"]["code"], code, "{name}");
    }
}

#[test]
fn reloads_crashes_and_other_people_leave_a_session_alone() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let result = browse(&service, "two-browsers", &[]);
    unharmed(&result);
    assert_eq!((&result["sessions"], &result["ids"]), (&json!(2), &json!(2)));
    assert!(number(&result, "/left_fps") > 3.0, "{result:#}");

    let result = browse(&service, "reload-storm", &[]);
    assert_eq!(result["own"], true, "{result:#}");

    let result = browse(&service, "peer-killed", &["limit=30"]);
    assert!(number(&result, "/witness_fps") > 3.0, "{result:#}");
}

#[test]
fn page_finds_its_way_back_to_a_service_that_was_killed() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let mut browser = Peer::browser("restart", &service.base(), &[]);
    let asked = |browser: &mut Peer, event: &str| {
        let line = browser.line();
        assert_eq!(line, json!({"event": event}).to_string());
    };
    asked(&mut browser, "kill");
    let port = service.kill();
    browser.write(b"done\n");
    asked(&mut browser, "start");
    let service = Service::start_at(port, INVERT);
    browser.write(b"done\n");
    let result = result(browser, &service);
    assert_eq!((&result["sessions"], &result["errors"]), (&json!(1), &json!([])));
}

#[test]
fn what_went_wrong_is_said_in_plain_words_with_a_way_on() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let refused = browse(&service, "permission", &[]);
    assert_eq!(refused["code"], "permission_denied");
    assert_eq!(refused["text"], "The browser was not allowed to use the camera");
    assert!(!refused["detail"].as_str().unwrap().is_empty(), "{refused:#}");
    assert_eq!(
        (&refused["ways"][0], &refused["went_on"]),
        (&json!("Use the test pattern"), &json!("running"))
    );

    let missing = browse(&service, "model-missing", &[]);
    assert_eq!(
        (&missing["code"], &missing["sessions"]),
        (&json!("model_missing"), &json!(0))
    );
    assert!(
        missing["text"].as_str().unwrap().contains("no-such-model"),
        "{missing:#}"
    );
    assert_eq!(missing["detail"], missing["hint"]);
}

#[test]
fn player_shows_what_is_published_and_waits_for_it_before() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let result = browse(&service, "whep-player", &["name=cam"]);
    assert_eq!((&result["width"], &result["height"]), (&json!(320), &json!(240)));
    assert_eq!((&result["viewers"], &result["deleted"]), (&json!(2), &json!(200)));
    assert!(result["waiting"].as_str().unwrap().contains("cam"), "{result:#}");
    assert!(result["location"].as_str().unwrap().starts_with("/whip/"), "{result:#}");
}

#[test]
fn player_shows_again_what_is_published_again() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let result = browse(&service, "whep-player", &["name=cam", "again=1"]);
    assert_eq!(result["after"], "playing");
}

#[test]
fn a_turn_server_is_a_way_for_both_sides() {
    let _turn = turn();
    let server = Turn::start("a-secret");
    let service = Service::start_behind_turn(&["--turn", &server.url, "--turn-secret", "a-secret"]);
    let result = browse(&service, "relayed", &[]);
    assert_eq!(
        (&result["taken"], &result["offered_back"]),
        (&json!("relay"), &json!(true)),
        "{result:#}"
    );
    // A user that is the end of its time, and no secret.
    assert!(!result.to_string().contains("a-secret"), "{result:#}");
    assert!(number(&result, "/fps") > 5.0, "{result:#}");
}

#[test]
fn no_page_is_wider_than_its_window() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let folder = comfy_tests::temp::Temp::new();
    let option = format!("folder={}", folder.path().display());
    let result = browse(&service, "screenshots", &[&option]);
    assert_eq!(result["sideways"], json!([]));
    let files = result["files"].as_array().unwrap();
    assert_eq!(files.len(), 36);
    for file in files {
        assert!(folder.path().join(file.as_str().unwrap()).is_file(), "{file}");
    }
}

#[test]
fn aiortc_offers_publishes_and_watches() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let offered = script(&service, "offer.py", &["--shape", "comfystream"]);
    assert_eq!(offered["answer"], json!(["id", "sdp", "type"]));
    assert_eq!(offered["updated"], json!({"type": "prompts_updated", "success": true}));
    assert_eq!(offered["nodes"]["2"], "ImageInvert");
    let bare = script(&service, "offer.py", &["--shape", "bare"]);
    for offered in [&offered, &bare] {
        assert_eq!((&offered["size"], &offered["pong"]), (&json!([320, 240]), &json!(7)));
        assert!(number(offered, "/fps") > 5.0, "{offered:#}");
    }

    let published = script(&service, "whip.py", &[]);
    assert_eq!(
        (&published["options"], &published["accept_post"]),
        (&json!(204), &json!("application/sdp"))
    );
    assert_eq!(published["trickled"], 204);
    assert_eq!(
        published["refused"],
        json!({"no_tag": [428, "etag_missing"], "other_tag": [412, "etag_mismatch"],
               "other_type": [415, "content_type"]})
    );
    assert_eq!(
        (&published["taken"], &published["left"]),
        (&json!([409, "name_taken"]), &json!([]))
    );
    assert_eq!(
        (&published["source"]["kind"], &published["deleted"]),
        (&json!("whip"), &json!(200))
    );

    let watched = script(&service, "whep.py", &[]);
    assert_eq!((&watched["viewers"], &watched["after"]), (&json!(2), &json!(404)));
    assert_eq!(
        (&watched["size"], &watched["deleted"]),
        (&json!([320, 240]), &json!(200))
    );
    assert!(number(&watched, "/left_fps") > 3.0, "{watched:#}");
}

#[test]
fn every_answer_is_one_that_the_openapi_document_names() {
    let _turn = turn();
    let service = Service::start(INVERT);
    let result = script(&service, "openapi.py", &[]);
    let report = &result["report"];
    assert_eq!(report["operations"]["tested"], report["operations"]["total"]);
    assert!(number(report, "/test_cases/generated") > 300.0, "{report:#}");
}
