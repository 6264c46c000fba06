//! From file to file: decodebin, the chain, an encoder, and the sound beside it.
//!
//! decodebin's pads appear when it knows what is in the file, so the rest is linked in `pad-added`: the picture to the
//! model's branch, the sound straight to the muxer. Both keep their timestamps, so they stay in sync.
//!
//! `04_file [IN.mp4 OUT.mp4 [MODEL]]`: without arguments it makes a clip of one second and removes both files.

use anyhow::{Context, Result, ensure};
use gst::prelude::*;

fn main() -> Result<()> {
    let arguments = comfy_examples::arguments("04_file [IN.mp4 OUT.mp4 [MODEL]]", 3)?;
    comfy_examples::init()?;
    let folder = std::env::temp_dir().join(format!("comfy-04-file-{}", std::process::id()));
    let (input, output) = match arguments.as_slice() {
        [input, output, ..] => (input.into(), output.into()),
        _ => (folder.join("in.mp4"), folder.join("out.mp4")),
    };
    let own = arguments.len() < 2;
    if own {
        std::fs::create_dir_all(&folder)?;
        comfy_examples::play(&clip(&input.display().to_string())?, |_| ())?;
    }

    // Models take packed or planar pictures of several kinds; videoconvert gives what comfyinfer asks for.
    let pipeline = comfy_examples::parse(
        "filesrc name=in ! decodebin name=decode \
         queue name=picture ! videoconvert ! comfyflightbuffer batch-size=4 ! comfybatch batch-size=4 \
           ! comfyinfer name=infer ! comfyunbatch ! videoconvert ! x264enc speed-preset=veryfast ! queue ! mux. \
         mp4mux name=mux ! filesink name=out",
    )?;
    let element = |name: &str| pipeline.by_name(name).with_context(|| format!("no element {name}"));
    element("in")?.set_property("location", input.display().to_string());
    element("out")?.set_property("location", output.display().to_string());
    let model = comfy_examples::model("cartoon.onnx").display().to_string();
    element("infer")?.set_property("model", arguments.get(2).unwrap_or(&model));

    let (picture, mux) = (element("picture")?, element("mux")?);
    let bin = pipeline.downgrade();
    element("decode")?.connect_pad_added(move |_, pad| {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let kind = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
        let Some(bin) = bin.upgrade() else { return };
        let linked = if kind.starts_with("video/") {
            pad.link(&picture.static_pad("sink").expect("a queue has one"))
                .map(|_| ())
                .map_err(Into::into)
        } else {
            sound(&bin, pad, &mux)
        };
        if let Err(error) = linked {
            gst::element_error!(bin, gst::CoreError::Negotiation, ["{kind} cannot be linked: {error}"]);
        }
    });
    let infer = element("infer")?;
    let mut stats = gst::Structure::new_empty("stats");
    comfy_examples::play(&pipeline, |message| match message.view() {
        gst::MessageView::Progress(progress) => println!("{}", progress.get().2),
        // Counters begin anew with each start, so they are read before the stop.
        gst::MessageView::Eos(_) => stats = infer.property("stats"),
        _ => (),
    })?;

    let (frames, batches): (u64, u64) = (stats.get("frames")?, stats.get("batches")?);
    let size = std::fs::metadata(&output)?.len();
    if own {
        std::fs::remove_dir_all(&folder)?;
    }
    ensure!(frames > 0 && size > 0, "nothing was written");
    println!("{frames} frames in {batches} batches, {size} bytes of mp4");
    Ok(())
}

/// The sound's branch, made when there is sound.
fn sound(bin: &gst::Pipeline, pad: &gst::Pad, mux: &gst::Element) -> Result<()> {
    let text = "queue max-size-time=0 max-size-buffers=0 ! audioconvert ! audioresample ! avenc_aac";
    let branch = gst::parse::bin_from_description(text, true)?;
    bin.add(&branch)?;
    branch.link(mux)?;
    branch.sync_state_with_parent()?;
    pad.link(&branch.static_pad("sink").context("its ghost pad")?)?;
    Ok(())
}

fn clip(path: &str) -> Result<gst::Pipeline> {
    comfy_examples::parse(&format!(
        "videotestsrc num-buffers=30 pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1 \
           ! x264enc speed-preset=ultrafast tune=zerolatency ! mux. \
         audiotestsrc num-buffers=44 samplesperbuffer=1000 ! audio/x-raw,rate=44100 ! avenc_aac ! mux. \
         mp4mux name=mux ! filesink location=\"{path}\""
    ))
}
