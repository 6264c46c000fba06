//! How many sessions at once does a service carry? Its peers: each sends 320x240 at 30 frames/s as VP8, encoded once for
//! all of them, and counts what comes back without decoding it, so that the service has the machine nearly to itself.
//!
//! Speaks in lines of JSON. `{"open":2}` gives two offers, `{"peer":0,"sdp":"..."}` each; `{"peer":0,"answer":"..."}` takes
//! an answer; `{"measure":true}` gives what came back since the last time, `{"peers":[...]}`. Ends with its input.
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement reads the system's clock, not a pipeline's"
)]

use std::io::{BufRead, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use comfy_pipelines::link::{self, Outlet};
use comfy_tests::browser::{Browser, Offered, Picture};
use gst::prelude::*;
use serde_json::{Value, json};

const SOURCE: &str = "videotestsrc is-live=true pattern=smpte horizontal-speed=2 \
    ! video/x-raw,width=320,height=240,framerate=30/1 \
    ! vp8enc deadline=1 cpu-used=8 end-usage=cbr target-bitrate=500000 keyframe-max-dist=30 name=last";

/// One picture's time.
const PERIOD_MS: f64 = 1000.0 / 30.0;

fn main() -> Result<()> {
    comfy_pipelines::register().map_err(|error| anyhow::anyhow!("{error}"))?;
    let (source, outlet) = source()?;
    let mut peers: Vec<Browser> = Vec::new();
    let mut last = Last::default();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let order: Value = serde_json::from_str(&line).with_context(|| format!("not an order: {line}"))?;
        if let Some(count) = order["open"].as_u64() {
            for _ in 0..count {
                let offered = Offered {
                    encoder: Some("identity".into()),
                    shared: Some(outlet.clone()),
                    decodes: false,
                    transport_cc: true,
                    ..Offered::default()
                };
                let (peer, sdp) = Browser::new(&offered);
                tell(&json!({ "peer": peers.len(), "sdp": sdp }))?;
                peers.push(peer);
            }
        } else if let Some(answer) = order["answer"].as_str() {
            let peer = order["peer"].as_u64().and_then(|number| peers.get(number as usize));
            let peer = peer.with_context(|| format!("no such peer: {line}"))?;
            peer.accept(answer);
            peer.connected();
            peer.more_pictures(1);
        } else if order["measure"] == true {
            tell(&json!({ "peers": last.measure(&peers) }))?;
        } else {
            anyhow::bail!("not an order: {line}");
        }
    }
    drop(peers);
    source.set_state(gst::State::Null)?;
    Ok(())
}

fn source() -> Result<(gst::Pipeline, Outlet)> {
    let pipeline = gst::parse::launch(SOURCE)?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().ok().context("a pipeline")?;
    link::align(&pipeline);
    let outlet = Outlet::new("encoded");
    pipeline.add(outlet.element())?;
    pipeline.by_name("last").context("named so")?.link(outlet.element())?;
    pipeline.set_state(gst::State::Playing)?;
    Ok((pipeline, outlet))
}

/// Where each peer was at the last look.
#[derive(Default)]
struct Last {
    at: Option<Instant>,
    pictures: Vec<usize>,
}

impl Last {
    /// Pictures per second that came back to each peer since, and how many of them more than a picture's time later than
    /// usual.
    fn measure(&mut self, peers: &[Browser]) -> Vec<Value> {
        let now = Instant::now();
        let seconds = self.at.map_or(0.0, |last| (now - last).as_secs_f64());
        let all: Vec<Vec<Picture>> = peers.iter().map(Browser::pictures).collect();
        self.pictures.resize(peers.len(), 0);
        let of_one = all.iter().zip(&self.pictures).map(|(pictures, before)| {
            let came = &pictures[*before..];
            let ms = |time: gst::ClockTime| time.nseconds() as f64 / 1e6;
            let mut delays: Vec<f64> = came
                .iter()
                .filter_map(|picture| Some(ms(picture.at) - ms(picture.pts?)))
                .collect();
            delays.sort_by(f64::total_cmp);
            let usual = delays.get(delays.len() / 2).copied().unwrap_or_default();
            let late = delays.iter().filter(|delay| **delay - usual > PERIOD_MS).count();
            json!({ "fps": came.len() as f64 / seconds.max(1e-3), "late": late as f64 / delays.len().max(1) as f64 })
        });
        let rows = of_one.collect();
        self.at = Some(now);
        self.pictures = all.iter().map(Vec::len).collect();
        rows
    }
}

fn tell(what: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    out.flush()?;
    Ok(())
}
