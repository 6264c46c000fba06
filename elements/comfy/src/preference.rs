//! How comfybatch with `batch-size=0` learns which batch the engine downstream prefers.

use gst::prelude::*;

const NAME: &str = "comfy-batch-size";
const FIELD: &str = "batch-size";

/// Asks; the answer may wait until the model is loaded, and ends at a flush or stop.
pub(crate) fn ask(srcpad: &gst::Pad) -> Option<usize> {
    let mut query = gst::query::Custom::new(gst::Structure::new_empty(NAME));
    if !srcpad.peer_query(&mut query) {
        return None;
    }
    query.structure()?.get::<u32>(FIELD).ok().map(|n| n as usize)
}

/// Whether a query asks this.
pub(crate) fn is_asked(query: &gst::QueryRef) -> bool {
    query.type_() == gst::QueryType::Custom && query.structure().is_some_and(|s| s.name() == NAME)
}

/// Answers.
pub(crate) fn answer(query: &mut gst::QueryRef, size: usize) {
    query.structure_mut().set(FIELD, size as u32);
}
