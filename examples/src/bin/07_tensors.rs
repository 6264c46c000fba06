//! Numbers from a model, frame by frame: outputs that are not pictures travel on the frame as ComfyTensorMeta.
//!
//! The sample model answers with the mean and spread of each colour and with the place of the brightest pixel. Frames
//! themselves go on untouched.
//!
//! `07_tensors [MODEL]`

use anyhow::{Context, Result, ensure};
use comfy_core::tensor::DType;
use gst::prelude::*;
use gstcomfy::tensormeta::{ComfyTensorMeta, Tensor};

fn main() -> Result<()> {
    let arguments = comfy_examples::arguments("07_tensors [MODEL]", 1)?;
    comfy_examples::init()?;
    let pipeline = comfy_examples::parse(
        "videotestsrc num-buffers=6 pattern=ball ! video/x-raw,format=RGB,width=160,height=120,framerate=30/1 \
         ! comfybatch batch-size=4 ! comfyinfer name=infer ! comfyunbatch ! appsink name=sink sync=false",
    )?;
    let model = comfy_examples::model("tensor-out.onnx").display().to_string();
    let infer = pipeline.by_name("infer").context("comfyinfer")?;
    infer.set_property("model", arguments.first().unwrap_or(&model));

    let sink = pipeline.by_name("sink").context("appsink")?;
    let sink = sink.downcast::<gst_app::AppSink>().ok().context("an appsink")?;
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(|sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                match sample.buffer().context("a sample with a frame").and_then(tell) {
                    Ok(()) => Ok(gst::FlowSuccess::Ok),
                    Err(error) => {
                        gst::element_error!(sink, gst::StreamError::Failed, ["{error}"]);
                        Err(gst::FlowError::Error)
                    }
                }
            })
            .build(),
    );
    comfy_examples::play(&pipeline, |_| ())
}

fn tell(frame: &gst::BufferRef) -> Result<()> {
    let meta = frame.meta::<ComfyTensorMeta>().context("a frame without tensors")?;
    print!("{}", frame.pts().context("a time")?);
    for tensor in meta.tensors() {
        print!(
            "  {} {}{:?} = {}",
            tensor.name,
            tensor.dtype,
            tensor.dims,
            values(tensor)?
        );
    }
    println!();
    Ok(())
}

/// Elements are in the machine's byte order.
fn values(tensor: &Tensor) -> Result<String> {
    let bytes = tensor.data.map_readable()?;
    ensure!(bytes.len() == tensor.dims.iter().product::<usize>() * tensor.dtype.size());
    let texts: Vec<String> = match tensor.dtype {
        DType::U8 => bytes.iter().map(u8::to_string).collect(),
        DType::F16 => vec!["half precision".into()],
        DType::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| format!("{:.3}", f32::from_ne_bytes(*b)))
            .collect(),
        DType::I32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| i32::from_ne_bytes(*b).to_string())
            .collect(),
        DType::I64 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| i64::from_ne_bytes(*b).to_string())
            .collect(),
    };
    Ok(texts.join(" "))
}
