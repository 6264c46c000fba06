//! `comfystream serve` with the WHIP and WHEP clients of gst-plugins-rs.

mod support;

use std::sync::mpsc;

use comfy_tests::DEADLINE;
use gst::prelude::*;
use support::service::Service;

/// A pipeline that is taken down, whatever becomes of the test.
struct Running(gst::Pipeline);

impl Running {
    fn new(text: &str) -> Self {
        comfy_tests::init();
        comfy_pipelines::register().unwrap();
        if gst::ElementFactory::find("whipclientsink").is_none() {
            gstrswebrtc::plugin_register_static().unwrap();
        }
        let pipeline = comfy_tests::pipeline::parse(text);
        pipeline.set_state(gst::State::Playing).unwrap();
        Self(pipeline)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

#[test]
fn what_whipclientsink_publishes_whepclientsrc_plays() {
    let service = Service::start(&["--model", "builtin:invert"]);
    let base = format!("http://{}", service.address);
    let _publisher = Running::new(&format!(
        "videotestsrc is-live=true pattern=white ! video/x-raw,width=320,height=240,framerate=30/1 \
         ! whipclientsink stun-server=\"\" video-caps=video/x-vp8 signaller::whip-endpoint={base}/whip/lamp"
    ));
    service.until("/api/sources", |answer| {
        answer.json()["sources"][0]["fps"].as_f64().is_some_and(|fps| fps > 0.0)
    });

    let player = Running::new(&format!(
        "whepclientsrc name=player stun-server=\"\" video-codecs=<VP8> signaller::whep-endpoint={base}/whep/lamp \
         player. ! queue ! decodebin ! videoconvert ! video/x-raw,format=RGB ! appsink name=pictures"
    ));
    let sink = player
        .0
        .by_name("pictures")
        .unwrap()
        .downcast::<gst_app::AppSink>()
        .unwrap();
    let (tell, told) = mpsc::sync_channel(1);
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let map = sample.buffer().unwrap().map_readable().unwrap();
                // White, inverted.
                if map[map.len() / 2] < 40 {
                    let _ = tell.try_send(());
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    told.recv_timeout(DEADLINE).expect("a black picture");
    let viewers = service.until("/api/sources", |answer| answer.json()["sources"][0]["viewers"] == 1);
    assert_eq!(viewers.json()["sources"][0]["kind"], "whip");

    // Both say good-bye.
    drop(player);
    service.until("/api/sources", |answer| answer.json()["sources"][0]["viewers"] == 0);
}
