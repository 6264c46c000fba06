//! The way of frames into a lane's tensors in a GPU's memory, and out of them.
//!
//! One stream, the lane's own, carries the way in and the way out; the model runs on another, and events tie them
//! together. So while one lane's batch is in the model, another's is uploaded, converted, or brought back.
//!
//! Frames on the device are read and written where they are. Those in main memory cross once, in their own format:
//! straight from where they lie if that is page-locked, else by way of page-locked memory of the lane's own.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::device::{Crossings, Source, Target};
use super::{Error, LaneRequest};
use crate::cuda::memory::HostPlane;
use crate::cuda::{self, Device, DeviceBuffer, DeviceTensor, Event, Pinned, Stream};
use crate::tensor::{DeviceImage, DevicePlane, Fit, Handle, Image, ImageMut, ImageSpec, ImageTensor, Written};

/// Rows in staging begin where the device likes to read.
const ROW_ALIGN: usize = 256;

/// Staging, kernels, stream and events of one lane.
pub(super) struct Frames {
    /// For messages.
    model: String,
    device: Arc<Device>,
    stream: Stream,
    /// The input tensor is there.
    loaded: Event,
    /// The output tensor is there.
    ran: Event,
    upload: Option<Staging>,
    download: Option<Staging>,
    capacity: usize,
    /// The frames of a batch, kept so that the next one allocates nothing.
    images: Vec<DeviceImage>,
    /// The slots of those that come back by way of the lane's own page-locked memory.
    staged: Vec<usize>,
    /// Counts values that are not finite.
    counter: DeviceBuffer,
    counted: Pinned,
    crossings: Crossings,
}

/// Room for a batch of frames of one kind, here and on the device.
struct Staging {
    spec: ImageSpec,
    /// As many as the format has; the others hold nothing.
    planes: [Place; 3],
    /// Bytes of one frame.
    frame: usize,
    device: DeviceBuffer,
    /// Made when a frame comes that is not page-locked.
    host: Option<Pinned>,
}

/// Where a plane is in the staging of a frame.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    offset: usize,
    stride: usize,
    rows: usize,
    /// Bytes of a row that carry pixels.
    row: usize,
}

impl Place {
    /// Refuses a plane of main memory that ends too early.
    fn check(&self, len: usize, stride: usize) -> Result<(), cuda::Error> {
        let needed = stride.saturating_mul(self.rows - 1).saturating_add(self.row);
        if stride >= self.row && len >= needed {
            return Ok(());
        }
        Err(cuda::Error::Argument {
            what: "a frame in main memory",
            reason: format!(
                "a plane of {len} bytes with a stride of {stride} does not hold {} rows of {} bytes",
                self.rows, self.row
            ),
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    In,
    Out,
}

impl Staging {
    fn new(device: &Arc<Device>, spec: &ImageSpec, frames: usize) -> Result<Self, cuda::Error> {
        let mut planes = [Place::default(); 3];
        let mut frame = 0;
        for (plane, place) in planes.iter_mut().enumerate().take(spec.format.planes()) {
            let (rows, row) = spec.format.plane_size(plane, spec.width, spec.height);
            let stride = row.next_multiple_of(ROW_ALIGN);
            *place = Place {
                offset: frame,
                stride,
                rows,
                row,
            };
            frame += stride * rows;
        }
        Ok(Self {
            spec: *spec,
            planes,
            frame,
            device: DeviceBuffer::new(device, frame * frames)?,
            host: None,
        })
    }

    /// The planes that the format has.
    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        self.planes.into_iter().take(self.spec.format.planes())
    }

    /// Frame number `slot` on the device.
    fn image(&self, slot: usize) -> DeviceImage {
        let mut image = DeviceImage::default();
        for (plane, place) in image.planes.iter_mut().zip(self.places()) {
            *plane = DevicePlane {
                address: self.device.address() + (slot * self.frame + place.offset) as u64,
                stride: place.stride,
            };
        }
        image
    }
}

impl Frames {
    pub(super) fn new(model: &str, device: &Arc<Device>, request: &LaneRequest) -> Result<Self, Error> {
        let make = || -> Result<Self, cuda::Error> {
            // Loaded here, not at the first frame.
            device.kernels()?;
            Ok(Self {
                model: model.into(),
                device: device.clone(),
                stream: Stream::new(device)?,
                loaded: Event::new(device)?,
                ran: Event::new(device)?,
                upload: None,
                download: None,
                capacity: request.batch,
                images: Vec::with_capacity(request.batch),
                staged: Vec::with_capacity(request.batch),
                counter: DeviceBuffer::new(device, COUNTER)?,
                counted: Pinned::for_download(device, COUNTER)?,
                crossings: Crossings::default(),
            })
        };
        make().map_err(|error| failed(model, &error))
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn crossings(&self) -> Crossings {
        self.crossings
    }

    /// Queues the conversion of `frames` into the tensor at `address`, and of the last one into the slots up to `fill`.
    pub(super) fn load(
        &mut self,
        spec: &ImageSpec,
        frames: &[Source<'_>],
        tensor: &ImageTensor,
        address: u64,
        fill: usize,
    ) -> Result<(), Error> {
        self.guarded(|this| {
            this.images.clear();
            for (slot, frame) in frames.iter().enumerate() {
                let image = match frame {
                    Source::Host(image) => this.bring(spec, slot, image)?,
                    Source::Device(image) => this.borrow(spec, slot, image)?,
                };
                this.images.push(image);
            }
            let tensor = DeviceTensor {
                image: *tensor,
                address,
                slots: fill,
            };
            let images = &this.images;
            let frames = cuda::Frames { spec, images };
            let kernels = this.device.kernels()?;
            kernels.into_tensor(&this.stream, frames, &tensor, Fit::Stretch)?;
            this.stream.record(&this.loaded)
        })
    }

    /// Has `compute`, on which the model runs, wait for what was loaded.
    pub(super) fn before(&mut self, compute: &Stream) -> Result<(), Error> {
        self.guarded(|this| compute.wait(&this.loaded))
    }

    /// Notes that the model's run has been queued.
    pub(super) fn after(&mut self, compute: &Stream) -> Result<(), Error> {
        self.guarded(|this| compute.record(&this.ran))
    }

    /// Waits for everything that was queued.
    pub(super) fn wait(&mut self) -> Result<(), Error> {
        self.guarded(|this| {
            let loaded = this.stream.synchronize();
            this.ran.synchronize().and(loaded)
        })
    }

    /// Converts the tensor at `address` into `frames`, and returns when they are complete.
    pub(super) fn store(
        &mut self,
        spec: &ImageSpec,
        frames: &mut [Target<'_>],
        tensor: &ImageTensor,
        address: u64,
    ) -> Result<Written, Error> {
        self.guarded(|this| {
            let staged = frames.iter().any(|frame| matches!(frame, Target::Host(_)));
            if staged {
                this.staging(spec, Way::Out)?;
            }
            this.images.clear();
            for (slot, frame) in frames.iter().enumerate() {
                let image = match frame {
                    Target::Host(_) => this.download.as_ref().expect("made above").image(slot),
                    Target::Device(image) => {
                        this.wait_for(image)?;
                        *image
                    }
                };
                this.images.push(image);
            }
            let tensor = DeviceTensor {
                image: *tensor,
                address,
                slots: this.images.len(),
            };
            let counter = this.counter.address();
            this.stream.fill(counter, 0, COUNTER)?;
            let images = &this.images;
            let written = cuda::Frames { spec, images };
            let kernels = this.device.kernels()?;
            kernels.from_tensor(&this.stream, &tensor, written, None, counter)?;
            this.stream.download(counter, &mut this.counted, 0..COUNTER)?;
            this.staged.clear();
            for (slot, frame) in frames.iter_mut().enumerate() {
                let Target::Host(image) = frame else { continue };
                match this.take_back(slot, image) {
                    Ok(false) => {}
                    Ok(true) => this.staged.push(slot),
                    Err(error) => {
                        // What was queued before still writes into frames.
                        let _ = this.stream.synchronize();
                        return Err(error);
                    }
                }
            }
            this.stream.synchronize()?;
            for slot in &this.staged {
                if let Target::Host(image) = &mut frames[*slot] {
                    this.copy_out(*slot, image);
                }
            }
            let mut counted = [0; COUNTER];
            counted.copy_from_slice(this.counted.as_slice());
            Ok(Written {
                non_finite: u32::from_ne_bytes(counted) as usize,
            })
        })
    }

    fn guarded<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T, cuda::Error>) -> Result<T, Error> {
        call(self).map_err(|error| failed(&self.model, &error))
    }

    /// Room for frames of this kind; the first of a kind allocates.
    fn staging(&mut self, spec: &ImageSpec, way: Way) -> Result<&mut Staging, cuda::Error> {
        let place = match way {
            Way::In => &mut self.upload,
            Way::Out => &mut self.download,
        };
        if place.as_ref().is_none_or(|staging| staging.spec != *spec) {
            // What is there may be in use by what was queued.
            self.stream.synchronize()?;
            *place = Some(Staging::new(&self.device, spec, self.capacity)?);
        }
        Ok(place.as_mut().expect("made above"))
    }

    /// A frame of main memory, queued to its place on the device.
    fn bring(&mut self, spec: &ImageSpec, slot: usize, image: &Image<'_>) -> Result<DeviceImage, cuda::Error> {
        let starts = image.planes.iter().map(|plane| plane.data.as_ptr());
        let locked = is_locked(&self.device, starts.take(spec.format.planes()));
        let (device, capacity) = (self.device.clone(), self.capacity);
        self.crossings.uploads += 1;
        self.crossings.host_copies += u64::from(!locked);
        let staging = self.staging(spec, Way::In)?;
        let to = staging.image(slot);
        if locked {
            for ((place, plane), to) in staging.places().zip(&image.planes).zip(&to.planes) {
                place.check(plane.data.len(), plane.stride)?;
                let from = HostPlane {
                    data: plane.data.as_ptr().cast_mut(),
                    stride: plane.stride,
                };
                // SAFETY: the rows lie in the slice, as was just checked, and are only read. The caller of `load`
                // keeps the frame until `wait` has returned.
                unsafe { self.stream.upload_plane_from(from, *to, place.row, place.rows)? };
            }
            return Ok(to);
        }
        let (frame, planes) = (staging.frame, staging.places());
        if staging.host.is_none() {
            staging.host = Some(Pinned::for_upload(&device, frame * capacity)?);
        }
        let host = staging.host.as_mut().expect("made above");
        let bytes = &mut host.as_mut_slice()[slot * frame..(slot + 1) * frame];
        for (place, plane) in planes.zip(&image.planes) {
            place.check(plane.data.len(), plane.stride)?;
            for row in 0..place.rows {
                let from = &plane.data[row * plane.stride..][..place.row];
                bytes[place.offset + row * place.stride..][..place.row].copy_from_slice(from);
            }
        }
        let staging = self.upload.as_ref().expect("made above");
        let host = staging.host.as_ref().expect("made above");
        self.stream
            .upload(host, slot * frame..(slot + 1) * frame, to.planes[0].address)?;
        Ok(to)
    }

    /// A frame on the device, where it is; one of another context is copied.
    fn borrow(&mut self, spec: &ImageSpec, slot: usize, image: &DeviceImage) -> Result<DeviceImage, cuda::Error> {
        self.wait_for(image)?;
        if image.context == Handle::NONE {
            return Ok(*image);
        }
        self.crossings.device_copies += 1;
        let staging = self.staging(spec, Way::In)?;
        let to = staging.image(slot);
        let planes = staging.places();
        for ((place, from), to) in planes.zip(&image.planes).zip(&to.planes) {
            // SAFETY: a handle vouches for what it names.
            unsafe {
                self.stream
                    .copy_foreign_plane(image.context.raw(), *from, *to, place.row, place.rows)?;
            }
        }
        Ok(to)
    }

    fn wait_for(&self, image: &DeviceImage) -> Result<(), cuda::Error> {
        match image.stream {
            Handle::NONE => Ok(()),
            // SAFETY: a handle vouches for what it names.
            stream => unsafe { self.stream.wait_stream(stream.raw()) },
        }
    }

    /// Queues the way of a frame back to main memory. True: to page-locked memory of the lane's own, from which it has to
    /// be copied.
    fn take_back(&mut self, slot: usize, image: &mut ImageMut<'_>) -> Result<bool, cuda::Error> {
        let (device, capacity) = (self.device.clone(), self.capacity);
        let staging = self.download.as_mut().expect("made by the caller");
        let from = staging.image(slot);
        let starts = image.planes.iter().map(|plane| plane.data.as_ptr());
        let locked = is_locked(&device, starts.take(staging.spec.format.planes()));
        self.crossings.downloads += 1;
        self.crossings.host_copies += u64::from(!locked);
        if locked {
            for ((place, from), plane) in staging.places().zip(&from.planes).zip(&mut image.planes) {
                place.check(plane.data.len(), plane.stride)?;
                let to = HostPlane {
                    data: plane.data.as_mut_ptr(),
                    stride: plane.stride,
                };
                // SAFETY: the rows lie in the slice, as was just checked, which is borrowed by `store` until the
                // stream is synchronised, also when that fails.
                unsafe { self.stream.download_plane_to(*from, to, place.row, place.rows)? };
            }
            return Ok(false);
        }
        let frame = staging.frame;
        if staging.host.is_none() {
            staging.host = Some(Pinned::for_download(&device, frame * capacity)?);
        }
        let host = staging.host.as_mut().expect("made above");
        self.stream
            .download(from.planes[0].address, host, slot * frame..(slot + 1) * frame)?;
        Ok(true)
    }

    /// From page-locked memory to where the frame lies, once it is there.
    fn copy_out(&self, slot: usize, image: &mut ImageMut<'_>) {
        let staging = self.download.as_ref().expect("made by the caller");
        let Some(host) = &staging.host else { return };
        let bytes = &host.as_slice()[slot * staging.frame..(slot + 1) * staging.frame];
        for (place, plane) in staging.places().zip(&mut image.planes) {
            for row in 0..place.rows {
                let from = &bytes[place.offset + row * place.stride..][..place.row];
                plane.data[row * plane.stride..][..place.row].copy_from_slice(from);
            }
        }
    }
}

/// Bytes of the counter.
const COUNTER: usize = 4;

/// Whether planes that begin there are page-locked.
fn is_locked(device: &Device, mut starts: impl Iterator<Item = *const u8>) -> bool {
    starts.all(|start| device.is_pinned(start))
}

/// What the device said, as a failure of the model's run.
pub(super) fn failed(model: &str, error: &cuda::Error) -> Error {
    Error::Run {
        model: model.into(),
        reason: error.to_string(),
    }
}
