//! A model without GStreamer: open it, ask for a lane, fill the lane's input, run, read its output.
//!
//! A lane owns the tensors of one batch in flight. Whoever asks for two can fill one while the other runs, which is
//! what comfyinfer does. Here two pictures of 4x2 pixels are inverted in one run.
//!
//! `02_engine [MODEL]`: an .onnx file that takes and gives bytes, or `builtin:invert`, which needs no ONNX Runtime.

use anyhow::{Context, Result, bail};
use comfy_core::engine::{self, LaneRequest, OpenRequest};
use comfy_core::tensor::{TensorMut, TensorRef};

fn main() -> Result<()> {
    let arguments = comfy_examples::arguments("02_engine [MODEL]", 1)?;
    let request = OpenRequest {
        model: match arguments.into_iter().next() {
            Some(model) => model,
            None => comfy_examples::model("invert-u8.onnx").display().to_string(),
        },
        ..OpenRequest::default()
    };
    let engine = engine::open(&request, &|progress| {
        println!("{:>3} % {}", progress.percent, progress.what)
    })?;
    let spec = engine.spec();
    println!("{} on {}", spec.name, spec.runtime);

    // Blocks until every batch size up to 2 has been run once, so that no later run is slower than the others.
    let mut lane = engine.lane(&LaneRequest {
        width: 4,
        height: 2,
        batch: 2,
    })?;
    for slot in 0..2 {
        let TensorMut::U8(pixels) = lane.input(slot) else {
            bail!(
                "{} does not take bytes; a real program converts with tensor::IntoTensor",
                spec.name
            );
        };
        for (value, pixel) in (0..).step_by(10).zip(pixels) {
            *pixel = value + slot as u8;
        }
    }
    lane.run(2)?;

    let (port, geometry) = lane.geometry().output.context("a model whose output is a picture")?;
    println!("output {}: {geometry:?}", spec.outputs[port].name);
    for slot in 0..2 {
        let TensorRef::U8(pixels) = lane.output(port, slot) else {
            bail!("{} does not give bytes", spec.name);
        };
        println!("picture {slot}: {pixels:?}");
        if pixels
            .iter()
            .zip((0..).step_by(10))
            .any(|(pixel, value)| *pixel != 255 - (value + slot as u8))
        {
            bail!("picture {slot} is not the negative of what went in");
        }
    }
    println!("both are the negative of what went in");
    Ok(())
}
