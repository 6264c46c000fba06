//! Messages in, answers out.

use super::super::wish::tests::wish;
use super::*;

fn done(text: &str, outcome: Outcome) -> Value {
    let request = read(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
    let mut answers = request.answer(Ok(outcome));
    assert_eq!(answers.len(), 1, "{text}");
    answers.remove(0)
}

fn refusals(text: &str) -> Vec<Value> {
    read(text).expect_err(text).answer()
}

#[test]
fn comfystreams_messages_are_answered_as_its_clients_expect() {
    for (text, outcome, answer) in [
        (
            r#"{"type":"get_nodes"}"#,
            Outcome::Nodes(json!({"0": {}})),
            json!({"type": "nodes_info", "nodes": {"0": {}}}),
        ),
        (
            r#"{"type":"update_prompts","prompts":[]}"#,
            Outcome::Done,
            json!({"type": "prompts_updated", "success": true}),
        ),
        (
            r#"{"type":"update_resolution","width":512,"height":512}"#,
            Outcome::Settings(wish()),
            json!({"type": "resolution_updated", "success": true}),
        ),
        (
            r#"{"type":"pause_prompts"}"#,
            Outcome::Done,
            json!({"type": "prompts_paused", "success": true}),
        ),
        (
            r#"{"type":"resume_prompts"}"#,
            Outcome::Done,
            json!({"type": "prompts_resumed", "success": true}),
        ),
        (
            r#"{"type":"stop_prompts","more":1}"#,
            Outcome::Done,
            json!({"type": "prompts_stopped", "success": true}),
        ),
    ] {
        assert_eq!(done(text, outcome), answer, "{text}");
    }
}

#[test]
fn comfystreams_refusals_are_word_for_word() {
    for (text, answer) in [
        (
            r#"{"type":"update_prompts"}"#,
            json!({"type": "prompts_updated", "success": false, "error": "Missing 'prompts' in control message"}),
        ),
        (
            r#"{"type":"update_resolution","width":512}"#,
            json!({"type": "resolution_updated", "success": false,
                   "error": "Missing 'width' or 'height' in control message"}),
        ),
        (
            r#"{"type":"update_resolution","width":512,"height":-1}"#,
            json!({"type": "resolution_updated", "success": false, "error": "width and height must be whole numbers"}),
        ),
    ] {
        assert_eq!(refusals(text), [answer], "{text}");
    }
}

#[test]
fn nodes_that_cannot_run_are_told_beside_the_answer() {
    let request = read(r#"{"type":"update_prompts","prompts":[]}"#).expect("fine");
    let mut failure = malformed("this build cannot run KSampler".into());
    failure.nodes = json!([{"id": "3"}]);
    let answers = request.answer(Err(failure));
    assert_eq!(answers[0]["success"], false);
    assert_eq!(answers[1]["type"], "error");
    assert_eq!(answers[1]["error"]["nodes"][0]["id"], "3");
    assert_eq!(answers[1]["request"], "update_prompts");
}

#[test]
fn our_messages_are_answered_by_their_own_type() {
    let settings = done(r#"{"type":"comfy:settings","paused":true}"#, Outcome::Settings(wish()));
    assert_eq!(settings["type"], "comfy:settings");
    assert_eq!(settings["settings"]["max_batches"], 2);
    assert_eq!(
        settings["settings"]["model"],
        Value::Null,
        "all of them, also those without a value"
    );
    assert_eq!(
        done(r#"{"type":"comfy:ping","sent":1.5}"#, Outcome::Time(2.0)),
        json!({"type": "comfy:pong", "sent": 1.5, "time": 2.0})
    );
    assert_eq!(
        done(r#"{"type":"comfy:stats","interval_ms":500}"#, Outcome::Done),
        json!({"type": "comfy:stats", "success": true, "interval_ms": 500})
    );
    assert_eq!(
        read(r#"{"type":"comfy:stats","interval_ms":0}"#),
        Ok(Request::Stats(None))
    );
}

#[test]
fn what_is_not_understood_is_answered_too() {
    for (text, code, request) in [
        ("", "message_malformed", Value::Null),
        ("[]", "message_malformed", Value::Null),
        ("{}", "message_malformed", Value::Null),
        (r#"{"type":7}"#, "message_malformed", Value::Null),
        (r#"{"type":"hello"}"#, "message_unknown", "hello".into()),
        (
            r#"{"type":"comfy:settings","batch":1}"#,
            "message_malformed",
            "comfy:settings".into(),
        ),
        (r#"{"type":"comfy:stats"}"#, "message_malformed", "comfy:stats".into()),
        (
            r#"{"type":"comfy:stats","interval_ms":99}"#,
            "message_malformed",
            "comfy:stats".into(),
        ),
        (
            r#"{"type":"comfy:stats","interval_ms":10001}"#,
            "message_malformed",
            "comfy:stats".into(),
        ),
        (
            r#"{"type":"comfy:ping","sent":"x"}"#,
            "message_malformed",
            "comfy:ping".into(),
        ),
    ] {
        let answers = refusals(text);
        assert_eq!(answers.len(), 1, "{text}");
        assert_eq!(answers[0]["type"], "error", "{text}");
        assert_eq!(answers[0]["error"]["code"], code, "{text}");
        assert_eq!(answers[0]["request"], request, "{text}");
    }
    let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(10_000));
    assert!(
        refusals(&long)[0].to_string().len() < 500,
        "no more is repeated than helps"
    );
}

#[test]
fn depth_of_a_message_is_bounded() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(refusals(&deep)[0]["error"]["code"], "message_malformed");
}

#[test]
fn streams_tell_their_state() {
    let event = stream::Event::State {
        state: stream::State::Loading,
        text: "warming up".into(),
        progress: Some(0.5),
    };
    assert_eq!(
        push(&event),
        Some(json!({"type": "comfy:state", "state": "loading", "text": "warming up", "progress": 0.5}))
    );
    let event = stream::Event::Buffer {
        state: "filling".into(),
        fill: 1,
        capacity: 4,
        threshold: 2,
        expected_ms: None,
    };
    assert_eq!(
        push(&event),
        Some(json!({"type": "comfy:buffer", "state": "filling", "fill": 1, "capacity": 4, "threshold": 2}))
    );
    assert_eq!(
        push(&stream::Event::Failed("no".into())).expect("told")["type"],
        "error"
    );
}
