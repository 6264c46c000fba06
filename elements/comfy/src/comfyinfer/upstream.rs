//! What comfyinfer answers to the elements around it: caps, allocation, and the GPU's context.

use std::sync::Arc;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::WarmupPolicy;
use super::imp::{CAT, ComfyInfer};
use super::state::{About, Role};
use crate::devicememory::{FEATURE, Gpu, Memory};
use crate::{batchcaps, pinned};

impl ComfyInfer {
    /// NULL to READY: if the model may run on a GPU, its context is there before elements upstream look for one. State
    /// changes go from sink to source.
    pub(super) fn open_gpu(&self) {
        let wanted = self.settings.lock().gpu();
        let Some(ordinal) = wanted else { return };
        match Gpu::open(ordinal) {
            Ok(gpu) => {
                let context = gpu.context();
                *self.gpu.lock() = Some(gpu);
                let obj = self.obj();
                let message = gst::message::HaveContext::builder(context).src(&*obj).build();
                let _ = obj.post_message(message);
            }
            // The model may run all the same, on the processor or with frames in main memory.
            Err(reason) => gst::info!(CAT, imp = self, "frames are kept in main memory: {reason}"),
        }
    }

    pub(super) fn gpu(&self) -> Option<Arc<Gpu>> {
        self.gpu.lock().clone()
    }

    /// Answers a query for a context, if it is about this GPU's.
    pub(super) fn answer_context(&self, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Context(query) => self.gpu().is_some_and(|gpu| gpu.answer(query)),
            _ => false,
        }
    }

    /// A context that somebody else made of the same GPU, or of another.
    pub(super) fn look_at_context(&self, context: &gst::Context) {
        let own = self.gpu().and_then(|gpu| gpu.is_own(context));
        if own == Some(false) {
            gst::warning!(
                CAT,
                imp = self,
                "another CUDA context than the device's primary one is in use here: each frame in it will be copied"
            );
        }
    }

    /// Batches that may come in.
    pub(super) fn acceptable(&self, filter: Option<&gst::CapsRef>) -> gst::Caps {
        // Frames that pass until the model is there have to be fit for it.
        let passes = self.settings.lock().warmup_policy == WarmupPolicy::PassThrough;
        let loaded = {
            let state = self.state.lock();
            let model = state.model.as_ref().filter(|model| model.role != Role::StandIn);
            model.map(|model| model.engine.clone())
        };
        let identity = match &loaded {
            Some(engine) => engine.is_identity(),
            None => self.settings.lock().is_identity(),
        };
        let pictures = loaded.as_ref().map_or(!passes, |engine| About::of(&**engine).pictures);
        // Whether there is one is known from READY on, and links are made before.
        let is_null = self.obj().current_state() == gst::State::Null;
        let gpu = self.gpu().is_some() || (is_null && self.settings.lock().gpu().is_some());
        let template = match &loaded {
            Some(engine) if engine.device().is_none() => batchcaps::infer_template(),
            Some(_) if gpu => batchcaps::device_template(),
            Some(_) => batchcaps::device_main_template(),
            // It will run there, as far as one can tell.
            None if gpu => {
                let mut caps = batchcaps::device_template();
                caps.merge(batchcaps::infer_template());
                caps
            }
            None => batchcaps::infer_template(),
        };
        let peer = self.srcpad.peer_query_caps(None);
        let mut caps = if identity {
            batchcaps::batch_template().intersect_with_mode(&peer, gst::CapsIntersectMode::First)
        } else if !pictures {
            // Frames go on as they came.
            template.intersect_with_mode(&peer, gst::CapsIntersectMode::First)
        } else {
            // Anything that can be converted; formats that downstream takes come first, since output follows input.
            // The output's size is the model's, and its memory is chosen by itself, so downstream's say nothing about
            // the input's.
            let formats = formats(&peer);
            let mut caps = gst::Caps::new_empty();
            for (structure, features) in template.iter_with_features() {
                let one: gst::Caps = [(structure.to_owned(), features.to_owned())].into_iter().collect();
                let wanted: gst::Caps = formats
                    .iter()
                    .map(|structure| (structure.clone(), features.to_owned()))
                    .collect();
                caps.merge(one.intersect_with_mode(&wanted, gst::CapsIntersectMode::First));
                caps.merge(one);
            }
            caps
        };
        if let Some(filter) = filter {
            caps = filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First);
        }
        caps
    }

    /// Frames are read with their own strides, and held while in flight.
    pub(super) fn propose_allocation(&self, query: &mut gst::query::Allocation) -> bool {
        let Some(caps) = query.get_owned().0 else { return false };
        let in_flight = self.settings.lock().in_flight;
        let capacity = batchcaps::capacity(&caps).unwrap_or(1) as u32;
        let frames = batchcaps::of_batches(&caps);
        let size = gst_video::VideoInfo::from_caps(&frames).map_or(0, |info| info.size() as u32);
        let min = capacity * in_flight + 1;
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        let pool = match self.pool_for(&frames, size, min) {
            Ok(pool) => pool,
            Err(error) => {
                gst::debug!(CAT, imp = self, "no pool to offer for {frames}: {error}");
                None
            }
        };
        let size = pool.as_ref().map_or(size, |pool| {
            let config = pool.config();
            if let Some((allocator, params)) = config.allocator() {
                // Who takes the pool sets it up anew, with the allocator that is named beside it.
                query.add_allocation_param(allocator.as_ref(), params);
            }
            config.params().map_or(size, |(_, size, _, _)| size)
        });
        query.add_allocation_pool(pool.as_ref(), size, min, 0);
        true
    }

    /// A pool of frames that a GPU reads by itself; None: any memory is as good.
    fn pool_for(&self, frames: &gst::Caps, size: u32, min: u32) -> Result<Option<gst::BufferPool>, glib::BoolError> {
        let engine = self.state.lock().model.as_ref().map(|model| model.engine.clone());
        let gpu = self.gpu();
        if let (Memory::Cuda, Some(gpu)) = (Memory::of(frames), &gpu) {
            return gpu.new_pool(frames, size, min).map(Some);
        }
        let device = match engine {
            Some(engine) => engine.device(),
            // It will run there, as far as one can tell, and who asks now does not ask again.
            None => gpu.map(|gpu| gpu.device.clone()),
        };
        let Some(device) = device else { return Ok(None) };
        let allocator = pinned::PinnedAllocator::new(&device);
        pinned::pool(&allocator, frames, size, min).map(Some)
    }
}

/// Caps as far as they are about formats, each once.
fn formats(caps: &gst::Caps) -> Vec<gst::Structure> {
    let mut formats: Vec<gst::Structure> = Vec::new();
    for structure in caps.iter() {
        let mut structure = structure.to_owned();
        let others: Vec<String> = structure
            .fields()
            .map(|field| field.to_string())
            .filter(|field| field != "format")
            .collect();
        structure.remove_fields(others.iter().map(String::as_str));
        if !formats.contains(&structure) {
            formats.push(structure);
        }
    }
    formats
}

/// The same frames in a GPU's memory.
pub(super) fn in_cuda_memory(mut frames: gst::Caps) -> gst::Caps {
    let caps = frames.make_mut();
    for index in 0..caps.size() {
        caps.set_features(index, Some(gst::CapsFeatures::new([FEATURE])));
    }
    frames
}
